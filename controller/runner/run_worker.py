"""Drives one run: reads it, does the next step, waits, and finishes it. Called by `runner`, in a separate
thread.

The run is read again before each decision, whatever has changed it meanwhile; so a run that was just claimed
and one that a dead daemon has left are driven in the same way.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures import wait as wait_for
from contextlib import suppress
from dataclasses import replace
from functools import partial

from controller.domain.apps.spec import Limits
from controller.domain.backoff import Backoff
from controller.domain.errors import ControllerError
from controller.domain.host_paths import without_host_paths
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.runs.gpus import GpuPool
from controller.domain.runs.run import Run, RunState, StageRun, continuation, new_run_id, with_messages
from controller.domain.runs.stage_slots import Share, begin_admitted
from controller.domain.runs.steps import (
    BeginStage,
    FinishRun,
    ReleaseOutputs,
    WaitForStage,
    finish,
    next_step,
)
from controller.domain.traces import text_of
from controller.guards import Pauses
from controller.runner.attempt import AttemptWork
from controller.runner.attempt_context import StageWork
from controller.runner.deps import RunnerDeps
from controller.runner.folders import RunFolders
from controller.runner.group_locks import GroupLocks
from controller.runner.inputs import RunInputs
from controller.runner.record import RunEnded, RunRecord
from controller.runner.release import OutputReleaser
from controller.runner.retention import trim
from controller.runner.signals import RunSignals, ShuttingDown
from controller.runner.traces import record_run, run_context

log = logging.getLogger(__name__)

_POLL = 0.1  # seconds between checks of the clock while stages run
_NETWORK_BACKOFF = Backoff(2.0, 30.0)  # between tries for a network
_PROGRESS = 1.0  # between checks of the progress that stages report


class RunWorker:
    """`cancel` may be called by any thread, after it was recorded that the run is to be canceled."""

    def __init__(
        self,
        deps: RunnerDeps,
        background: Executor,
        stopping: Callable[[], bool],
        group_locks: GroupLocks,
        app: AppName,
        id: str,
        overfull: Callable[[str], str] = lambda id: "",
    ) -> None:
        self._deps = deps
        self._signals = RunSignals(deps.clock, stopping)
        self._clean = partial(without_host_paths, state=deps.settings.state.absolute())
        self._record = RunRecord(deps.store.runs, self._signals, app, id, self._clean)
        self._folders = RunFolders(deps.settings.run_files, id)
        inputs = RunInputs(deps, self._folders, self._signals, group_locks)
        self._releasing = OutputReleaser(
            deps, self._record, inputs, RunSignals(deps.clock, stopping), group_locks
        )
        self._wake = threading.Event()
        self._work = StageWork(
            deps,
            self._record,
            self._folders,
            inputs,
            group_locks,
            self._signals,
            background,
            self._wake.set,
            partial(overfull, id),
        )
        self._working: dict[str, Future[None]] = {}  # by stage
        self._next_progress = 0.0
        self._network_pauses = Pauses(_NETWORK_BACKOFF)

    def cancel(self) -> None:
        self._signals.cancel()
        self._wake.set()

    def run(self) -> bool:
        """Drive the run until it ends or the daemon ends. Returns False after a bug, which leaves the run as
        it is, so that it may be driven again.
        """
        sound = True
        try:
            with suppress(ShuttingDown, RunEnded):
                while True:
                    self._signals.check_halted()
                    self._step_or_pause()
        except BaseException:  # a thread of a pool cannot hand on SystemExit and the like
            log.exception("bug in a run", extra={"run": self._record.id})
            sound = False
        wait_for(self._working.values())
        return sound

    def _step_or_pause(self) -> None:
        """Do one step, or pause if the state does not answer."""
        try:
            self._step()
        except (ControllerError, OSError) as error:
            log.error("a run cannot continue, trying again: %s", error, extra={"run": self._record.id})
            self._signals.rest()

    def _step(self) -> None:
        """Do the next step. Raises RunEnded at the end."""
        self._collect()
        run = self._record.load()
        if run.state is RunState.CANCELING:
            self._signals.cancel()
        self._go_on(run)
        match next_step(run, self._deps.clock.now()):
            case BeginStage():
                if not self._begin(run):
                    self._wait(run)
            case ReleaseOutputs(outputs):
                if end := self._releasing.carry_out(outputs[0]):
                    self._finish(end)
            case FinishRun():
                self._finish()
            case WaitForStage():
                self._wait(run)

    def _collect(self) -> None:
        """Remove finished attempts. Raises their unexpected exceptions."""
        for name in [name for name, future in self._working.items() if future.done()]:
            self._working.pop(name).result()

    def _go_on(self, run: Run) -> None:
        """Resume attempts that are under way, also those of an earlier daemon."""
        for stage in run.stages:
            if stage.active and stage.name not in self._working:
                attempt = AttemptWork(self._work, run.pipeline.stage(stage.name), len(stage.attempts))
                future = self._work.background.submit(attempt.carry_out)
                self._working[stage.name] = future
                future.add_done_callback(lambda _: self._wake.set())

    def _begin(self, run: Run) -> bool:
        """Begin stages, and return whether that changed anything: they may have to wait for other stages or
        for GPUs. One transaction prevents that others take what is free; a check comes first, since it needs
        no lock.
        """
        begun = self._begun(run)
        if begun == run:
            return False
        if self._has_no_network(begun):
            return True
        with self._deps.store.transaction():
            return self._record.update(self._begun) != run

    def _has_no_network(self, begun: Run) -> bool:
        """Return whether the engine has no network left for the app. If so, the stages stay queued, and
        people see why. Other errors of the engine are found by the attempts.
        """
        waiting = [stage.name for stage in begun.stages if stage.active and not stage.reused_from]
        waiting = [name for name in waiting if self._record.load().stage(name).state is RunState.QUEUED]
        if not waiting:
            return False
        try:
            self._deps.jobs.prepare(begun.app)
        except ControllerError as error:
            if error.reason != Reason.ADDRESSES_EXHAUSTED:
                return False
            at = self._deps.clock.now() + self._network_pauses.next()
            for name in waiting:
                self._record.update_stage(name, _waits(error.reason, error.message, at))
            return True
        self._network_pauses.reset()
        return False

    def _begun(self, run: Run) -> Run:
        now = self._deps.clock.now()
        step = next_step(run, now)
        if not isinstance(step, BeginStage):
            return run
        store, settings = self._deps.store, self._deps.settings.runs
        asks_for_gpus = any(stage.resources.gpus for stage in step.stages)
        share = Share(
            self._limits(run),
            settings.stages,
            self._gpus(now) if asks_for_gpus else GpuPool(settings.gpus),
            None if self._deps.keeps_files else settings.stages_per_app,
        )
        active = self._record.insist(store.runs.active)
        return begin_admitted(run, step.stages, share, active, now)

    def _gpus(self, now: float) -> GpuPool:
        gpus = self._deps.store.gpus
        return GpuPool(
            self._deps.settings.runs.gpus, gpus.leases(), gpus.requests(now), self._deps.lost_gpus()
        )

    def _limits(self, run: Run) -> Limits:
        """Return the limits as they are now; those of the run's own commit if the app has no pipelines any
        more.
        """
        found = self._record.insist(lambda: self._deps.store.runs.pipelines(run.app))
        known = {pipeline.name: pipeline for pipeline in found}
        now = known.get(run.name) or next(iter(known.values()), run.pipeline)
        return now.stage_limits

    def _wait(self, run: Run) -> None:
        """Wait until something has happened, or the next step is due."""
        while not self._wake.wait(_POLL):
            self._signals.check_halted()
            if self._is_due(run):
                return
            self._note_progress(run)
        self._wake.clear()

    def _is_due(self, run: Run) -> bool:
        """Return whether there is a step to do. Waiting stages are checked again when the state has changed."""
        step = next_step(run, self._deps.clock.now())
        if isinstance(step, BeginStage) and all(run.stage(stage.name).ticket for stage in step.stages):
            return self._deps.store.changed()
        return not isinstance(step, WaitForStage)

    def _note_progress(self, run: Run) -> None:
        now = time.monotonic()
        if now < self._next_progress:
            return
        self._next_progress = now + _PROGRESS
        for stage in run.stages:
            progress = self._folders.read_progress(stage.name, len(stage.attempts))
            if stage.name in self._working and progress not in ("", stage.progress):
                self._record.update_stage(stage.name, _with_progress(progress))
                self._wake.set()  # to look at what it has changed

    # --- the end -----------------------------------------------------------------------------------------------

    def _finish(self, end: FinishRun | None = None) -> None:
        """Finish the run as `end` says, or as recorded."""
        with self._deps.store.transaction():
            run, now = self._record.load(), self._deps.clock.now()
            step = end or next_step(run, now)
            if not isinstance(step, FinishRun):
                return
            over = with_messages(finish(run, step, now), self._clean)
            self._deps.store.runs.save(over)
            if over.state is RunState.SUCCEEDED:
                self._continue(over)
        fields = {"app": run.app, "run": run.id, "state": over.state, "reason": over.reason}
        log.info("run ended", extra=fields)
        record_run(self._deps.tracer, over)
        if not self._deps.keeps_files:
            trim(self._folders, over)

    def _continue(self, run: Run) -> None:
        """Submit the next run, in the transaction that ends this one: it exists exactly if this run has
        succeeded.
        """
        name = run.pipeline.continue_with
        if name is None:
            return
        pipeline = self._deps.store.runs.pipeline(run.app, name)
        if pipeline is None:
            log.warning(
                "the pipeline to continue with does not exist",
                extra={"app": run.app, "run": run.id, "pipeline": name},
            )
            return
        now = self._deps.clock.now()
        follower = continuation(run, pipeline, new_run_id(now, secrets.randbits(32)), now)
        follower = replace(follower, trace=text_of(run_context(self._deps.tracer, run)))
        self._deps.store.runs.submit(follower, key=f"continue:{run.id}")


def _waits(reason: Reason, message: str, until: float) -> Callable[[StageRun], StageRun]:
    def change(stage: StageRun) -> StageRun:
        if stage.state is not RunState.QUEUED:
            return stage
        return replace(stage, reason=reason, message=message, not_before=until)

    return change


def _with_progress(progress: str) -> Callable[[StageRun], StageRun]:
    def change(stage: StageRun) -> StageRun:
        return replace(stage, progress=progress) if stage.active else stage

    return change
