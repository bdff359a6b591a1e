"""One run: looked at, given what comes next, waited for, finished. Called by `runner`, in a thread of its own.

Whoever changes the run meanwhile, it is looked at anew before anything is decided; so a run that has just been claimed
and one that a dead daemon has left are driven alike.
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

from controller.domain.errors import ControllerError
from controller.domain.gpus import begin_lent
from controller.domain.names import AppName
from controller.domain.runs import Run, RunState, StageRun, continuation, new_run_id
from controller.domain.steps import Begin, Finish, Release, Wait, begin, finish, next_step
from controller.runner.attempt import AttemptWork, Work
from controller.runner.deps import Deps
from controller.runner.folders import Folders
from controller.runner.inputs import Inputs
from controller.runner.record import Over, Record
from controller.runner.releasing import Releasing, Turns
from controller.runner.retention import trim
from controller.runner.signals import Halted, Signals

log = logging.getLogger(__name__)

_POLL = 0.1  # seconds between looks at the clock while stages run
_PROGRESS = 1.0  # between looks at what stages say of their progress


class Drive:
    """`cancel` may be called by any thread, once somebody has written that the run is to be canceled."""

    def __init__(
        self,
        deps: Deps,
        background: Executor,
        stopping: Callable[[], bool],
        turns: Turns,
        app: AppName,
        id: str,
    ) -> None:
        self._deps = deps
        self._signals = Signals(deps.clock, stopping)
        self._record = Record(deps.store.runs, self._signals, app, id)
        self._folders = Folders(deps.settings.run_files, id)
        inputs = Inputs(deps, self._folders, self._signals)
        self._releasing = Releasing(deps, self._record, inputs, Signals(deps.clock, stopping), turns)
        self._wake = threading.Event()
        self._work = Work(
            deps, self._record, self._folders, inputs, self._signals, background, self._wake.set
        )
        self._working: dict[str, Future[None]] = {}  # by stage
        self._next_progress = 0.0

    def cancel(self) -> None:
        self._signals.cancel()
        self._wake.set()

    def run(self) -> None:
        """Until the run is over or the daemon ends. A bug leaves it as it is, to be driven anew."""
        try:
            with suppress(Halted, Over):
                while True:
                    self._signals.check_halted()
                    self._turn_or_rest()
        except Exception:
            log.exception("bug in a run", extra={"run": self._record.id})
        wait_for(self._working.values())

    def _turn_or_rest(self) -> None:
        """A state that does not answer is asked again."""
        try:
            self._turn()
        except (ControllerError, OSError) as error:
            log.error("a run cannot go on: %s", error, extra={"run": self._record.id})
            self._signals.rest()

    def _turn(self) -> None:
        """Raises Over at the end."""
        self._collect()
        run = self._record.load()
        if run.state is RunState.CANCELING:
            self._signals.cancel()
        self._go_on(run)
        match next_step(run, self._deps.clock.now()):
            case Begin():
                if not self._begin(run):
                    self._wait(run)
            case Release(outputs):
                if end := self._releasing.carry_out(outputs[0]):
                    self._finish(end)
            case Finish():
                self._finish()
            case Wait():
                self._wait(run)

    def _collect(self) -> None:
        """Raises what was not expected of an attempt."""
        for name in [name for name, future in self._working.items() if future.done()]:
            self._working.pop(name).result()

    def _go_on(self, run: Run) -> None:
        """With what is under way, whoever began it."""
        for stage in run.stages:
            if stage.active and stage.name not in self._working:
                attempt = AttemptWork(self._work, run.pipeline.stage(stage.name), len(stage.attempts))
                future = self._work.background.submit(attempt.carry_out)
                self._working[stage.name] = future
                future.add_done_callback(lambda _: self._wake.set())

    def _begin(self, run: Run) -> bool:
        """Whether anything came of it: it may not be the turn of those that wait for GPUs. In one transaction, so that
        nobody else takes what is free; looking comes first, since that needs no lock."""
        if self._begun(run) == run:
            return False
        with self._deps.store.transaction():
            return self._record.update(self._begun) != run

    def _begun(self, run: Run) -> Run:
        now = self._deps.clock.now()
        step = next_step(run, now)
        if not isinstance(step, Begin):
            return run
        if not any(stage.resources.gpus for stage in step.stages):
            return begin(run, step.stages, now)
        store, gpus = self._deps.store, self._deps.settings.runs.gpus
        return begin_lent(run, step.stages, gpus, store.runs.active(), now)

    def _wait(self, run: Run) -> None:
        """Until something has happened, or the next step is due."""
        while not self._wake.wait(_POLL):
            self._signals.check_halted()
            if self._is_due(run):
                return
            self._note_progress(run)
        self._wake.clear()

    def _is_due(self, run: Run) -> bool:
        """What waits for GPUs is worth another look when somebody has changed something."""
        step = next_step(run, self._deps.clock.now())
        if isinstance(step, Begin) and all(run.stage(stage.name).ticket for stage in step.stages):
            return self._deps.store.changed()
        return not isinstance(step, Wait)

    def _note_progress(self, run: Run) -> None:
        now = time.monotonic()
        if now < self._next_progress:
            return
        self._next_progress = now + _PROGRESS
        for stage in run.stages:
            progress = self._folders.read_progress(stage.name, len(stage.attempts))
            if stage.name in self._working and progress not in ("", stage.progress):
                self._record.update_stage(stage.name, _with_progress(progress))
                self._wake.set()  # to see what it has changed

    # --- the end -----------------------------------------------------------------------------------------------

    def _finish(self, end: Finish | None = None) -> None:
        """As `end` says, else by what is written down."""
        with self._deps.store.transaction():
            run, now = self._record.load(), self._deps.clock.now()
            step = end or next_step(run, now)
            if not isinstance(step, Finish):
                return
            over = finish(run, step, now)
            self._deps.store.runs.save(over)
            if over.state is RunState.SUCCEEDED:
                self._continue(over)
        fields = {"app": run.app, "run": run.id, "state": over.state, "reason": over.reason}
        log.info("run ended", extra=fields)
        if not self._deps.keeps_files:
            trim(self._folders, over)

    def _continue(self, run: Run) -> None:
        """In the transaction that ends the run: the next one is there exactly if this one has succeeded."""
        name = run.pipeline.continue_with
        if name is None:
            return
        pipeline = self._deps.store.runs.pipeline(run.app, name)
        if pipeline is None:
            log.warning(
                "no pipeline to continue with", extra={"app": run.app, "run": run.id, "pipeline": name}
            )
            return
        now = self._deps.clock.now()
        follower = continuation(run, pipeline, new_run_id(now, secrets.randbits(32)), now)
        self._deps.store.runs.submit(follower, key=f"continue:{run.id}")


def _with_progress(progress: str) -> Callable[[StageRun], StageRun]:
    def change(stage: StageRun) -> StageRun:
        return replace(stage, progress=progress) if stage.active else stage

    return change
