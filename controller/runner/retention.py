"""What is thrown away: files that nobody needs after a run, runs whose time is over, containers that no run waits for.

All of it may be broken off at any point and is made up for the next time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from controller.domain.errors import ControllerError
from controller.domain.runs import Run, RunState
from controller.ports import JobState, ObservedJob
from controller.runner.deps import Deps
from controller.runner.folders import Folders, remove_tree

log = logging.getLogger(__name__)

SWEEP_GRACE = 60.0  # seconds for which a container must have been without a run


def trim(folders: Folders, run: Run) -> None:
    """Of a run that is over its logs stay, and what its stages have made as long as a repetition could need it."""
    if not folders.root.is_dir():  # canceled before it began
        return
    kept: set[Path] = set()
    if run.state is not RunState.SUCCEEDED:
        done = [stage for stage in run.stages if stage.state is RunState.SUCCEEDED]
        kept = {folders.attempt(stage.name, len(stage.attempts)) for stage in done}
    try:
        for path in folders.root.iterdir():
            if path.is_dir() and path not in kept:
                remove_tree(path)
    except OSError as error:
        log.warning("files of a run stay: %s", error, extra={"run": run.id})


def forget_expired(deps: Deps, stopping: Callable[[], bool]) -> None:
    """First the files, then the row: what was begun is found again."""
    while expired := deps.store.runs.expired(deps.clock.now()):
        gone = []
        for run in expired:
            if stopping():
                return
            if remove_tree(Folders(deps.settings.run_files, run.id).root):
                gone.append(run)
        if not gone:
            log.error("files of runs cannot be removed", extra={"folder": str(deps.settings.run_files)})
            return
        deps.store.runs.forget(gone)
        log.info("runs forgotten", extra={"runs": len(gone)})


class Sweep:
    """Containers of attempts that are over, or of runs that nobody knows, are removed once they have been so for a
    while: a daemon may have died between writing and removing, and a database may have been put back."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._since: dict[str, float] = {}  # by id of the container

    def turn(self) -> None:
        now = self._deps.clock.monotonic()
        jobs = self._deps.jobs.all()  # before the runs: what begins meanwhile is in neither
        stale = stale_jobs(jobs, self._deps.store.runs.active())
        self._since = {job.id: self._since.get(job.id, now) for job in stale}
        for job in stale:
            if now - self._since[job.id] >= SWEEP_GRACE:
                self._remove(job)

    def _remove(self, job: ObservedJob) -> None:
        try:
            if job.state is JobState.RUNNING:
                self._deps.jobs.stop(job.id, grace=10.0)
            self._deps.jobs.remove(job.id)
        except ControllerError as error:
            log.warning("container stays: %s", error.message, extra={"container": job.name})
        else:
            log.info("container without a run removed", extra={"container": job.name})


def stale_jobs(jobs: Iterable[ObservedJob], active: Iterable[Run]) -> list[ObservedJob]:
    """Those that no attempt under way waits for."""
    awaited = {
        (run.app, run.id, stage.name, len(stage.attempts))
        for run in active
        for stage in run.stages
        if stage.active
    }
    return [job for job in jobs if (job.app, job.run, job.stage, job.attempt) not in awaited]
