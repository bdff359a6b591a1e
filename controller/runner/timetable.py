"""`Timetable`: starts runs by the clock. One thread of the daemon, which looks about once a second.

What is due is found from what is written, never remembered: whoever was away finds it when it comes back. All that
becomes of a tick is one transaction: the schedule's mark moves on and the run is there, or neither.
"""

from __future__ import annotations

import logging
import secrets
import threading
from dataclasses import replace
from functools import partial

from controller.domain.conditions import ConditionType
from controller.domain.errors import ControllerError
from controller.domain.names import AppName
from controller.domain.pipelines import Pipeline
from controller.domain.runs import Run, cancel, new_run, new_run_id
from controller.domain.schedules import Mark, Scheduled, Skip, Start, decide, look
from controller.domain.status import Event, EventType
from controller.ports import Clock, Store, Ticks

log = logging.getLogger(__name__)

CAUSE = "schedule"  # of the runs started here

_LOOK = 1.0  # seconds


class Timetable:
    """`run` is a thread's whole life. Several at once, in any processes, start one run a tick."""

    def __init__(self, store: Store, clock: Clock, ticks: Ticks) -> None:
        self._store = store
        self._clock = clock
        self._ticks = ticks

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self.look()
            except ControllerError as error:
                log.error("runs are not started by the clock: %s", error.message)
            stop.wait(_LOOK)

    def look(self) -> None:
        """At all schedules; starts what is due. A fault of one, say a time zone that this host has no more, stops no
        other."""
        for scheduled in self._store.schedules.all():
            try:
                self._look_at(scheduled)
            except ControllerError:
                raise
            except Exception:
                log.exception(
                    "bug in a schedule", extra={"app": scheduled.app, "pipeline": scheduled.pipeline}
                )

    def _look_at(self, scheduled: Scheduled) -> None:
        schedule = scheduled.schedule
        after = partial(self._ticks.after, schedule.cron, schedule.timezone)
        mark, tick = look(scheduled, self._clock.now(), after)
        if mark != scheduled.mark:
            self._follow(scheduled, mark, tick)

    def _follow(self, scheduled: Scheduled, mark: Mark, tick: float | None) -> None:
        """Nothing happens if somebody was quicker, or it is another schedule by now: the next look tells."""
        app, name, schedules = scheduled.app, scheduled.pipeline, self._store.schedules
        with self._store.transaction():
            if tick is None or self._is_suspended(app):
                schedules.advance(scheduled, mark)
                return
            verdict = decide(scheduled.schedule.overlap, self._store.runs.unfinished_of(app, name, CAUSE))
            moved = schedules.advance(scheduled, replace(mark, skipping=isinstance(verdict, Skip)))
            pipeline = self._store.runs.pipeline(app, name)
            if not moved or pipeline is None:
                return
            match verdict:
                case Skip(behind):
                    self._skip(pipeline, behind, told=mark.skipping)
                case Start(replaced) if schedules.take(app, name, tick):
                    self._start(pipeline, tick, replaced)

    def _is_suspended(self, app: AppName) -> bool:
        """By a person, or by the platform's manifest."""
        status = self._store.apps.status(app)
        return status.suspended or any(c.type is ConditionType.SUSPENDED for c in status.conditions)

    def _start(self, pipeline: Pipeline, tick: float, replaced: tuple[Run, ...]) -> None:
        now = self._clock.now()
        run = new_run(new_run_id(now, secrets.randbits(32)), pipeline, now, cause=CAUSE, public=True)
        for earlier in replaced:
            canceled = cancel(earlier, now, why=f"replaced by run {run.id} of the same schedule")
            if canceled is not earlier:
                self._store.runs.save(canceled)
                message = f"run {earlier.id} was not over when the next one was due: it is canceled"
                self._tell(pipeline, EventType.NORMAL, "RunReplaced", message)
        self._store.runs.submit(run)
        fields = {"app": run.app, "pipeline": run.name, "run": run.id, "late": round(now - tick, 1)}
        log.info("run started by the clock", extra=fields)

    def _skip(self, pipeline: Pipeline, behind: Run, told: bool) -> None:
        """Told once, however often: a schedule that is too quick for its runs must not fill the history."""
        fields = {"app": pipeline.app, "pipeline": pipeline.name, "behind": behind.id}
        log.info("no run started by the clock", extra=fields)
        if not told:
            message = f"no run by the schedule while run {behind.id} is not over (concurrencyPolicy: Forbid)"
            self._tell(pipeline, EventType.WARNING, "RunSkipped", message)

    def _tell(self, pipeline: Pipeline, type: EventType, reason: str, message: str) -> None:
        event = Event(pipeline.app, type, reason, message, pipeline.name, pipeline.revision)
        self._store.events.add([event])
