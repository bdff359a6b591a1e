"""`Runner` hands out runs, as many as the limits and the disk allow, and drives those that are under way.

One dispatcher thread, like that of the control loop, wakes when something is committed and acts on what is
stored, whatever has written it. A run that was just claimed, one that a dead daemon has left, and one
whose drive ended by a bug are the same to it: active, but not driven.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from controller.domain.pace import pause_after
from controller.domain.runs.run import Run, RunState
from controller.domain.runs.steps import FinishRun, finish
from controller.guards import GuardedStep, report, run_steps
from controller.ports import RunLimits
from controller.runner.deps import RunnerDeps
from controller.runner.disk import Disk
from controller.runner.failures import BUG
from controller.runner.group_locks import GroupLocks
from controller.runner.retention import ContainerSweep, forget_expired
from controller.runner.run_worker import RunWorker

log = logging.getLogger(__name__)

_SHORTEST, _ROUND = 0.01, 0.1  # seconds between two rounds of the loop if nothing is committed
_LOOK = 0.1  # the shortest time between checks of all active runs, while some change
_BACKSTOP = 1.0  # the longest time between checks: free space on the disk, say, is not reported
_REDRIVE = 5.0  # before a run whose drive ended by a bug is driven again
_BUGS = 4  # such drives of one run before it is given up
_TIDY = 60.0  # between two rounds of sweeping and deleting
_MEASURE = 2.0  # the shortest time between two measurements of the disk
_THREADS = 10_000  # never reached: three for each stage under way, and `runs.concurrent` limits those


@dataclass
class _RunThread:
    drive: RunWorker
    future: Future[bool]


class Runner:
    """Runs in a thread. The daemon's lock ensures that only one works on a state."""

    def __init__(self, deps: RunnerDeps) -> None:
        self._deps = deps
        limits = deps.settings.runs
        self._limits = RunLimits(limits.concurrent, limits.per_app)
        self._group_locks = GroupLocks()
        self._driven: dict[str, _RunThread] = {}  # by run
        self._not_before: dict[str, float] = {}  # by run
        self._bugs: dict[str, int] = {}  # by run
        self._sweep = ContainerSweep(deps)
        self._tidying: Future[None] | None = None
        self._next_tidy = 0.0
        self.disk = Disk(
            deps.store.runs,
            deps.jobs,
            deps.settings.run_files,
            limits.disk_per_app,
            limits.scratch,
            lambda: deps.free_percent(deps.settings.run_files) < limits.min_free / 2,
        )
        self._measuring: Future[float] | None = None
        self._next_measure = time.monotonic() + _MEASURE
        self._last_look = self._last_claim = -_BACKSTOP
        self._changed = True  # active runs may have changed
        self._has_ended = True  # or was added, so that a run may find its turn
        self._ending = False
        self._disk_is_low = False
        self._wake: Callable[[], None] = lambda: None  # ends the wait of the loop

    def run(self, stop: threading.Event) -> None:
        """Run until `stop`; containers continue. While the state cannot be read or written, it waits, and
        bugs in its steps do not end it: see guards.py.
        """
        with (
            closing(self._deps.store.commit_watch()) as watch,
            ThreadPoolExecutor(_THREADS, thread_name_prefix="run") as pool,
        ):
            self._ending = False
            self._wake = watch.wake
            steps = (
                GuardedStep("could not finish ended runs", self._collect),
                GuardedStep("could not begin runs", partial(self._claim_if_due, pool, stop)),
                GuardedStep("could not drive the runs under way", partial(self._check_if_due, pool, stop)),
                GuardedStep("could not tidy up", partial(self._tidy, pool, stop)),
                GuardedStep("could not measure what runs take on the disk", partial(self._measure, pool)),
            )
            try:
                run_steps(steps, stop, lambda: watch.wait(self._until_check()))
            finally:
                self._ending = True  # otherwise it would wait for the ends of all runs
                # A pool that shuts down takes no new tasks, and runs that are stopping may still need a
                # thread.
                wait([driven.future for driven in self._driven.values()])
                self._driven.clear()

    def _collect(self) -> None:
        """Remove finished drives. Raises their unexpected exceptions."""
        for id in [id for id, driven in self._driven.items() if driven.future.done()]:
            self._not_before[id] = self._now() + _REDRIVE  # in case it is still active
            self._has_ended = True
            if not self._driven.pop(id).future.result():
                self._bugs[id] = self._bugs.get(id, 0) + 1

    def _claim_if_due(self, pool: Executor, stop: threading.Event) -> None:
        if self._deps.store.changed():
            self._changed = self._has_ended = True
        if self._has_ended or time.monotonic() - self._last_claim >= _BACKSTOP:
            self._claim_all(pool, stop)
            self._has_ended, self._last_claim = False, time.monotonic()

    def _until_check(self) -> float:
        """Return the seconds after which the loop goes on although nothing wakes it."""
        if not self._changed:
            return _ROUND
        return min(_ROUND, max(_SHORTEST, self._last_look + _LOOK - time.monotonic()))

    def _check_if_due(self, pool: Executor, stop: threading.Event) -> None:
        if time.monotonic() - self._last_look >= (_LOOK if self._changed else _BACKSTOP):
            self._check_runs(pool, stop)

    def _now(self) -> float:
        return self._deps.clock.monotonic()

    # --- who is driven -----------------------------------------------------------------------------------------

    def _claim_all(self, pool: Executor, stop: threading.Event) -> None:
        while not stop.is_set() and self._has_slot():
            run = self._deps.store.runs.claim(self._limits, self._deps.clock.now())
            if run is None:
                return
            self._drive(pool, stop, run)

    def _has_slot(self) -> bool:
        free, least = (
            self._deps.free_percent(self._deps.settings.run_files),
            self._deps.settings.runs.min_free,
        )
        if (free < least) != self._disk_is_low:
            self._disk_is_low = not self._disk_is_low
            if self._disk_is_low:
                log.warning(
                    "no new runs begin: %.1f %% of the disk are free, but runs.minFree is %d", free, least
                )
            else:
                log.info("new runs begin again")
        return not self._disk_is_low

    def _check_runs(self, pool: Executor, stop: threading.Event) -> None:
        """Check all active runs: drive those that are not driven, and cancel those that are to be canceled."""
        self._changed, self._last_look = False, time.monotonic()
        active = self._deps.store.runs.active()
        ids, now = {run.id for run in active}, self._now()
        self._not_before = {id: at for id, at in self._not_before.items() if id in ids and at > now}
        self._bugs = {id: bugs for id, bugs in self._bugs.items() if id in ids}
        for run in active:
            if run.id not in self._driven and run.id not in self._not_before:
                if self._bugs.get(run.id, 0) < _BUGS:
                    self._drive(pool, stop, run)
                else:
                    self._give_up(run)
            if run.state is RunState.CANCELING and run.id in self._driven:
                self._driven[run.id].drive.cancel()

    def _drive(self, pool: Executor, stop: threading.Event, run: Run) -> None:
        drive = RunWorker(
            self._deps,
            pool,
            lambda: stop.is_set() or self._ending,
            self._group_locks,
            run.app,
            run.id,
            self.disk.refusal,
        )
        future = pool.submit(drive.run)
        self._driven[run.id] = _RunThread(drive, future)
        future.add_done_callback(lambda _: self._wake())

    def _give_up(self, run: Run) -> None:
        """Give up a run, which would otherwise hold its place forever. The sweep removes its containers."""
        now = self._deps.clock.now()
        self._deps.store.runs.save(finish(run, FinishRun(RunState.ERROR, BUG.reason, BUG.message), now))
        log.error("run given up", extra={"app": run.app, "run": run.id})

    # --- what is left over -------------------------------------------------------------------------------------

    def _tidy(self, pool: Executor, stop: threading.Event) -> None:
        """Tidy up in the background: a folder of 100,000 files takes time."""
        if self._now() < self._next_tidy or (self._tidying and not self._tidying.done()):
            return
        self._next_tidy = self._now() + _TIDY
        self._tidying = pool.submit(self._tidy_up, stop)

    def _measure(self, pool: Executor) -> None:
        if self._measuring is not None and self._measuring.done():
            measuring, self._measuring = self._measuring, None
            self._next_measure = time.monotonic() + pause_after(measuring.result(), _MEASURE)
        if self._measuring is None and time.monotonic() >= self._next_measure:
            self._measuring = pool.submit(self._measure_disk)

    def _measure_disk(self) -> float:
        """Measure, and return the seconds it took."""
        begun = time.monotonic()
        self.disk.check_all()
        return time.monotonic() - begun

    def _tidy_up(self, stop: threading.Event) -> None:
        for work in (self._sweep.run_once, lambda: forget_expired(self._deps, stop.is_set)):
            try:
                work()
            except Exception as error:  # noqa: BLE001 - reported, and tried again
                report("could not tidy up", error)
