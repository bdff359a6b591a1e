"""The control loop: claim a request, run its pass, record the outcome, and request another pass if something
is to be waited for.

One dispatcher gives requests to a few workers; the database prevents that two workers take one app. The
watchdog watches the dispatcher, so that a loop that stands still is noticed. No exception of a pass, the
state or the heartbeat ends the loop: see guards.py.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial

from controller.domain.apps.requests import Outcome, ReconcileRequest
from controller.domain.errors import ControllerError
from controller.guards import GuardedStep, Pauses, report, run_steps
from controller.ports import Clock, Store
from controller.reconcile.deps import PassOutcome

log = logging.getLogger(__name__)

_SHORTEST, _LONGEST = 0.01, 0.1  # seconds between two rounds of the loop if nothing is committed
_BEAT = 1.0
_AFTER_FAILURE = 60.0  # seconds before a pass that could not even save its status is tried again
_UNWRITABLE = "its outcome could not be saved; see the traceback in the daemon's log"


@dataclass
class ControlLoop:
    """`work` runs one pass; `beat` is called once a second while the loop runs."""

    store: Store
    clock: Clock
    work: Callable[[ReconcileRequest], PassOutcome]
    workers: int
    beat: Callable[[], None]
    _busy: set[Future[None]] = field(default_factory=set, init=False)
    _next_beat: float = field(default=0.0, init=False)
    _due: float | None = field(default=0.0, init=False)  # when the next request may be claimed
    _wake: Callable[[], None] = field(default=lambda: None, init=False)  # ends the wait of the loop

    def run(self, stop: threading.Event) -> None:
        """Run until `stop`, then wait for the passes under way, which notice that they should end. If the
        state cannot be written right now (a full disk, say), the loop continues without a heartbeat.
        """
        with (
            closing(self.store.commit_watch()) as watch,
            ThreadPoolExecutor(self.workers, thread_name_prefix="reconcile") as pool,
        ):
            self._wake = watch.wake
            steps = (
                GuardedStep("could not write the heartbeat", self._beat_if_due, longest=_BEAT),
                GuardedStep("could not claim requests", partial(self._claim_if_due, pool, stop)),
            )
            try:
                run_steps(steps, stop, lambda: watch.wait(self._until_due()))
            finally:
                stop.set()  # otherwise the passes under way would run to their ends

    def _beat_if_due(self) -> None:
        now = self.clock.now()
        if now >= self._next_beat:
            self.beat()
            self._next_beat = now + _BEAT

    def _claim_if_due(self, pool: ThreadPoolExecutor, stop: threading.Event) -> None:
        now = self.clock.now()
        finished = self._collect()
        if self.store.changed() or finished or (self._due is not None and now >= self._due):
            self._due = now  # if claiming fails, it is tried again
            self._claim_all(pool, now, stop)
            self._due = self.store.requests.next_due()

    def _until_due(self) -> float:
        """Return the seconds after which the loop goes on although nothing wakes it: to notice `stop`, a request that
        is due, and a commit that woke nobody."""
        if self._due is None or len(self._busy) >= self.workers:
            return _LONGEST
        return min(_LONGEST, max(_SHORTEST, self._due - self.clock.now()))

    def _collect(self) -> bool:
        done = {future for future in self._busy if future.done()}
        self._busy -= done
        return bool(done)

    def _claim_all(self, pool: ThreadPoolExecutor, now: float, stop: threading.Event) -> None:
        while len(self._busy) < self.workers and (request := self.store.requests.claim(now)):
            future = pool.submit(self._serve, request, stop)
            self._busy.add(future)
            future.add_done_callback(lambda _: self._wake())

    def _serve(self, request: ReconcileRequest, stop: threading.Event) -> None:
        begun = self.clock.now()
        outcome = self._reconcile(request)
        fields = {"app": request.app, "reasons": ",".join(request.reasons), "outcome": outcome.name}
        log.info("pass ended", extra={**fields, "seconds": round(self.clock.now() - begun, 4)})
        self._write_down(request, outcome, stop)

    def _reconcile(self, request: ReconcileRequest) -> PassOutcome:
        try:
            return self.work(request)
        except BaseException as error:  # noqa: BLE001 - SystemExit, too, or the request stays "running" forever
            report(f"a pass over {request.app} failed unexpectedly", error)
            expected = isinstance(error, ControllerError)
            why = (
                str(error)
                if expected
                else f"internal error ({type(error).__name__}); see the traceback in the daemon's log"
            )
            return PassOutcome(Outcome.FAILED, why, retry_after=_AFTER_FAILURE)

    def _write_down(self, request: ReconcileRequest, outcome: PassOutcome, stop: threading.Event) -> None:
        """Save the outcome, and retry until it is saved: a request left "running" would block all others of
        its app until the daemon restarts. If the text cannot be saved, the outcome is saved without it.
        """
        pauses = Pauses()
        while True:
            try:
                self._finish(request, outcome)
            except Exception as error:  # noqa: BLE001 - reported, and tried again
                report(f"could not save the outcome of a pass over {request.app}", error)
                if not isinstance(error, ControllerError):
                    outcome = replace(outcome, message=_UNWRITABLE, revision="")
            else:
                return
            if stop.wait(pauses.next()):
                return

    def _finish(self, request: ReconcileRequest, outcome: PassOutcome) -> None:
        with self.store.transaction():
            self.store.requests.finish(request.id, outcome.name, outcome.message, outcome.revision)
            if outcome.retry_after is not None:
                self.store.requests.enqueue(
                    request.app, outcome.retry_as, self.clock.now() + outcome.retry_after
                )
