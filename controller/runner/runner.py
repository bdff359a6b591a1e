"""`Runner`: hands out runs, as many as the limits and the disk allow, and looks after those that are under way.

One dispatcher thread, like the control loop's: it watches the database's change counter and looks at what is written,
never at who wrote it. A run that has been claimed just now, one that a dead daemon has left and one whose drive ended
by a bug are all the same to it: active, and nobody at the wheel.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from controller.domain.errors import ControllerError
from controller.domain.runs import Run, RunState
from controller.ports import RunLimits
from controller.runner.deps import Deps
from controller.runner.driving import Drive
from controller.runner.releasing import Turns
from controller.runner.retention import Sweep, forget_expired

log = logging.getLogger(__name__)

_POLL = 0.01  # seconds between looks at the database's change counter, some 5 µs each
_LOOK = 0.1  # at the least between looks at all active runs, while others change
_BACKSTOP = 1.0  # at the most between looks: the disk, say, tells nobody that it has room again
_RETRY = 1.0  # before a state that did not answer is asked again
_REDRIVE = 5.0  # before a run whose drive ended by a bug is driven anew
_TIDY = 60.0  # between two rounds of sweeping and forgetting
_THREADS = 10_000  # never reached: three for each stage under way, and `runs.concurrent` bounds those


@dataclass
class _Driven:
    drive: Drive
    future: Future[None]


class Runner:
    """`run` is a thread's whole life. Not to be run twice at once on one state: the daemon's lock sees to that."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        limits = deps.settings.runs
        self._limits = RunLimits(limits.concurrent, limits.per_app)
        self._turns = Turns()
        self._driven: dict[str, _Driven] = {}  # by run
        self._not_before: dict[str, float] = {}  # by run
        self._sweep = Sweep(deps)
        self._tidying: Future[None] | None = None
        self._next_tidy = 0.0
        self._last_look = -_BACKSTOP
        self._changed = True
        self._disk_is_low = False

    def run(self, stop: threading.Event) -> None:
        """Until `stop`; containers run on. A state that cannot be read or written for now is waited for."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="run") as pool:
            try:
                self._hand_out(pool, stop)
            finally:
                stop.set()  # or they would be waited for to the end of all runs
                # A pool that is being shut down takes nothing in, and who is on the way out may still ask for a thread.
                wait([driven.future for driven in self._driven.values()])

    def _hand_out(self, pool: Executor, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self._turn(pool, stop)
            except (ControllerError, OSError) as error:
                log.error("runs are not handed out: %s", error)
                stop.wait(_RETRY)

    def _turn(self, pool: Executor, stop: threading.Event) -> None:
        finished = self._collect()
        changed = self._deps.store.changed()
        self._changed = self._changed or changed
        since = time.monotonic() - self._last_look
        if finished or changed or since >= _BACKSTOP:
            self._claim_all(pool, stop)
        if since >= (_LOOK if self._changed else _BACKSTOP):
            self._look(pool, stop)
            self._tidy(pool, stop)
        stop.wait(_POLL)

    def _collect(self) -> bool:
        """Raises what no drive is expected to."""
        done = [id for id, driven in self._driven.items() if driven.future.done()]
        for id in done:
            self._driven.pop(id).future.result()
            self._not_before[id] = self._now() + _REDRIVE  # should it still be active
        return bool(done)

    def _now(self) -> float:
        return self._deps.clock.monotonic()

    # --- who is driven -----------------------------------------------------------------------------------------

    def _claim_all(self, pool: Executor, stop: threading.Event) -> None:
        while not stop.is_set() and self._has_room():
            run = self._deps.store.runs.claim(self._limits, self._deps.clock.now())
            if run is None:
                return
            self._drive(pool, stop, run)

    def _has_room(self) -> bool:
        free, least = (
            self._deps.free_percent(self._deps.settings.run_files),
            self._deps.settings.runs.min_free,
        )
        if (free < least) != self._disk_is_low:
            self._disk_is_low = not self._disk_is_low
            if self._disk_is_low:
                log.warning(
                    "no new run begins: %.1f %% of the disk are free, runs.minFree is %d", free, least
                )
            else:
                log.info("new runs begin again")
        return not self._disk_is_low

    def _look(self, pool: Executor, stop: threading.Event) -> None:
        """At all that is under way: is somebody at the wheel, and is it to be canceled?"""
        self._changed, self._last_look = False, time.monotonic()
        active = self._deps.store.runs.active()
        ids, now = {run.id for run in active}, self._now()
        self._not_before = {id: at for id, at in self._not_before.items() if id in ids and at > now}
        for run in active:
            if run.id not in self._driven and run.id not in self._not_before:
                self._drive(pool, stop, run)
            if run.state is RunState.CANCELING and run.id in self._driven:
                self._driven[run.id].drive.cancel()

    def _drive(self, pool: Executor, stop: threading.Event, run: Run) -> None:
        drive = Drive(self._deps, pool, stop.is_set, self._turns, run.app, run.id)
        self._driven[run.id] = _Driven(drive, pool.submit(drive.run))

    # --- what is left over -------------------------------------------------------------------------------------

    def _tidy(self, pool: Executor, stop: threading.Event) -> None:
        """Beside all else: a folder of 100,000 files takes its time."""
        if self._now() < self._next_tidy or (self._tidying and not self._tidying.done()):
            return
        if self._tidying:
            self._tidying.result()
        self._next_tidy = self._now() + _TIDY
        self._tidying = pool.submit(self._tidy_up, stop)

    def _tidy_up(self, stop: threading.Event) -> None:
        for work in (self._sweep.turn, lambda: forget_expired(self._deps, stop.is_set)):
            try:
                work()
            except (ControllerError, OSError) as error:
                log.warning("not tidied up: %s", error)
            except Exception:
                log.exception("bug in the tidying up")
