"""`CronScheduler` starts runs by schedule. It is one thread of the daemon, which checks about once a second.

What is due follows from what is stored, and nothing is remembered: a daemon that was away finds it when it is
back. Each tick is one transaction: the schedule's mark moves and the run is submitted, or neither.
"""

from __future__ import annotations

import logging
import secrets
import threading
from dataclasses import replace
from functools import partial

from controller.domain.apps.status import Event, EventType, is_suspended
from controller.domain.localizable import Localizable
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Pipeline
from controller.domain.runs.run import Run, RunCause, cancel, new_run, new_run_id
from controller.domain.runs.schedules import Checkpoint, ScheduleState, Skip, Start, check_ticks, decide
from controller.guards import GuardedStep
from controller.ports import Clock, Store, Ticks

log = logging.getLogger(__name__)


_LOOK = 1.0  # seconds


class CronScheduler:
    """Runs in a thread. Several at once, in any processes, start one run per tick."""

    def __init__(self, store: Store, clock: Clock, ticks: Ticks) -> None:
        self._store = store
        self._clock = clock
        self._ticks = ticks
        self._steps: dict[tuple[AppName, ComponentName], GuardedStep] = {}

    def run(self, stop: threading.Event) -> None:
        check_ticks = GuardedStep("could not start runs by schedule", self.run_once)
        while not stop.is_set():
            check_ticks()
            stop.wait(_LOOK)

    def run_once(self) -> None:
        """Check all schedules, and start what is due. An error of one, a time zone that this host lacks, say,
        does not affect others.
        """
        found = {(each.app, each.pipeline): each for each in self._store.schedules.all()}
        self._steps = {key: self._steps.get(key) or self._step(*key) for key in found}
        for key, scheduled in found.items():
            self._steps[key](scheduled)

    def _step(self, app: AppName, pipeline: ComponentName) -> GuardedStep:
        return GuardedStep(
            f"could not start pipeline {app}/{pipeline} by schedule",
            self._follow_schedule,
        )

    def _follow_schedule(self, scheduled: ScheduleState) -> None:
        schedule = scheduled.schedule
        after = partial(self._ticks.after, schedule.cron, schedule.timezone)
        mark, tick = check_ticks(scheduled, self._clock.now(), after)
        if mark != scheduled.mark:
            self._follow(scheduled, mark, tick)

    def _follow(self, scheduled: ScheduleState, mark: Checkpoint, tick: float | None) -> None:
        """Move the mark, and start a run. Does nothing if another process came first or the schedule has
        changed: the next check finds out.
        """
        app, name, schedules = scheduled.app, scheduled.pipeline, self._store.schedules
        with self._store.transaction():
            if tick is None or is_suspended(self._store.apps.status(app)):
                schedules.advance(scheduled, mark)
                return
            verdict = decide(
                scheduled.schedule.overlap, self._store.runs.unfinished_of(app, name, RunCause.SCHEDULE)
            )
            moved = schedules.advance(scheduled, replace(mark, skipping=isinstance(verdict, Skip)))
            pipeline = self._store.runs.pipeline(app, name)
            if not moved or pipeline is None:
                return
            match verdict:
                case Skip(behind):
                    self._skip(pipeline, behind, told=mark.skipping)
                case Start(replaced) if schedules.take(app, name, tick):
                    self._start(pipeline, tick, replaced)

    def _start(self, pipeline: Pipeline, tick: float, replaced: tuple[Run, ...]) -> None:
        now = self._clock.now()
        run = new_run(
            new_run_id(now, secrets.randbits(32)), pipeline, now, cause=RunCause.SCHEDULE, public=True
        )
        for earlier in replaced:
            canceled = cancel(
                earlier, now, why=Localizable("replaced by run {run_id} of the same schedule", run_id=run.id)
            )
            if canceled is not earlier:
                self._store.runs.save(canceled)
                message = Localizable(
                    "run {earlier_id} had not ended when the next one was due, and is canceled",
                    earlier_id=earlier.id,
                )
                self._record_event(pipeline, EventType.NORMAL, Reason.RUN_REPLACED, message)
        self._store.runs.submit(run)
        fields = {"app": run.app, "pipeline": run.name, "run": run.id, "late": round(now - tick, 1)}
        log.info("run started by schedule", extra=fields)

    def _skip(self, pipeline: Pipeline, behind: Run, told: bool) -> None:
        """Record a skipped run, with one event for a series: a schedule that is too frequent must not fill
        the history.
        """
        fields = {"app": pipeline.app, "pipeline": pipeline.name, "behind": behind.id}
        log.info("run skipped by schedule", extra=fields)
        if not told:
            message = Localizable(
                "the schedule starts no run until run {behind_id} has ended (concurrencyPolicy: Forbid)",
                behind_id=behind.id,
            )
            self._record_event(pipeline, EventType.WARNING, Reason.RUN_SKIPPED, message)

    def _record_event(self, pipeline: Pipeline, type: EventType, reason: Reason, message: str) -> None:
        event = Event(pipeline.app, type, reason, message, pipeline.name, pipeline.revision)
        self._store.events.add([event])
