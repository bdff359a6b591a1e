"""Deletes files that are not needed after a run, expired runs, and containers that no run waits for.

Each deletion may be interrupted at any point, and is completed the next time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from controller.domain.errors import ControllerError
from controller.domain.runs.run import Run, RunState
from controller.file_trees import remove_tree
from controller.ports import JobState, ObservedJob
from controller.runner.deps import RunnerDeps
from controller.runner.folders import RunFolders

log = logging.getLogger(__name__)

SWEEP_GRACE = 60.0  # seconds for which a container must have been without a run


def trim(folders: RunFolders, run: Run) -> None:
    """Delete files of an ended run, except its logs and outputs of its stages that a repetition could need."""
    if not folders.root.is_dir():  # canceled before it began
        return
    kept: set[Path] = set()
    if run.state is not RunState.SUCCEEDED:
        kept = {folders.attempt(stage.name, len(stage.attempts)) for stage in run.stages if stage.is_kept}
    try:
        for path in folders.root.iterdir():
            if path.is_dir() and path not in kept:
                remove_tree(path)
    except OSError as error:
        log.warning("could not remove files of a run: %s", error, extra={"run": run.id})


def forget_expired(deps: RunnerDeps, stopping: Callable[[], bool]) -> None:
    """Delete expired runs: first the files, then the row, so that an interrupted deletion is found again."""
    while expired := deps.store.runs.expired(deps.clock.now()):
        gone = []
        for run in expired:
            if stopping():
                return
            if remove_tree(RunFolders(deps.settings.run_files, run.id).root):
                gone.append(run)
        if not gone:
            log.error("could not remove files of runs", extra={"folder": str(deps.settings.run_files)})
            return
        deps.store.runs.forget(gone)
        log.info("expired runs deleted", extra={"runs": len(gone)})


class ContainerSweep:
    """Removes containers of ended attempts or unknown runs after a while: a daemon may have died between
    saving and removing, and a database may have been restored.
    """

    def __init__(self, deps: RunnerDeps) -> None:
        self._deps = deps
        self._since: dict[str, float] = {}  # by id of the container

    def run_once(self) -> None:
        now = self._deps.clock.monotonic()
        jobs = self._deps.jobs.all()  # listed before the runs, so that what begins meanwhile is in neither
        stale = stale_jobs(jobs, self._deps.store.runs.active())
        self._since = {job.id: self._since.get(job.id, now) for job in stale}
        for job in stale:
            if now - self._since[job.id] >= SWEEP_GRACE:
                self._remove(job)

    def _remove(self, job: ObservedJob) -> None:
        try:
            if job.state in (JobState.RUNNING, JobState.PENDING):
                self._deps.jobs.stop(job.id, grace=10.0)
            self._deps.jobs.remove(job.id)
        except ControllerError as error:
            log.warning("could not remove a container: %s", error.message, extra={"container": job.name})
        else:
            log.info("container without a run removed", extra={"container": job.name})


def stale_jobs(jobs: Iterable[ObservedJob], active: Iterable[Run]) -> list[ObservedJob]:
    """Return the jobs that no attempt under way waits for."""
    awaited = {
        (run.app, run.id, stage.name, len(stage.attempts))
        for run in active
        for stage in run.stages
        if stage.active
    }
    return [job for job in jobs if (job.app, job.run, job.stage, job.attempt) not in awaited]
