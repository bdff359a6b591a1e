"""The control loop: claim a request, run its pass, write the outcome, ask again if something is to be waited for.

One dispatcher hands requests to a few workers; the database keeps two workers off one app. The dispatcher is also
what the watchdog listens to: a loop that stands still is seen.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from controller.domain.errors import ControllerError
from controller.domain.status import Request
from controller.ports import Clock, Store
from controller.reconcile.house import Outcome

log = logging.getLogger(__name__)

_POLL = 0.01  # seconds between looks at the database's change counter, some 5 µs each
_BEAT = 1.0
_RETRY = 1.0  # seconds before a state that did not answer is tried again


@dataclass
class Loop:
    """`work` runs one pass and never raises; `beat` is called once a second while the loop turns."""

    store: Store
    clock: Clock
    work: Callable[[Request], Outcome]
    workers: int
    beat: Callable[[], None]
    _busy: set[Future[None]] = field(default_factory=set, init=False)
    _next_beat: float = field(default=0.0, init=False)
    _due: float | None = field(default=0.0, init=False)  # when the next request may be claimed

    def run(self, stop: threading.Event) -> None:
        """Until `stop`; then waits for the passes under way, which see that they should end. A state that cannot be
        written right now (a full disk, say) stops neither: the loop turns on, its heartbeat missing meanwhile."""
        with ThreadPoolExecutor(self.workers, thread_name_prefix="reconcile") as pool:
            while not stop.is_set():
                try:
                    self._turn(pool, stop)
                except ControllerError as error:
                    log.error("the state does not answer: %s", error.message)
                    stop.wait(_RETRY)
                except BaseException:
                    stop.set()  # or the passes under way would be waited for to the end
                    raise

    def _turn(self, pool: ThreadPoolExecutor, stop: threading.Event) -> None:
        now = self.clock.now()
        if now >= self._next_beat:
            self.beat()
            self._next_beat = now + _BEAT
        finished = self._collect()
        if self.store.changed() or finished or (self._due is not None and now >= self._due):
            self._due = now  # should claiming fail, it is tried again
            self._claim_all(pool, now, stop)
            self._due = self.store.requests.next_due()
        stop.wait(_POLL)

    def _collect(self) -> bool:
        done = {future for future in self._busy if future.done()}
        self._busy -= done
        for future in done:
            future.result()  # a bug in the loop itself ends the daemon instead of hiding
        return bool(done)

    def _claim_all(self, pool: ThreadPoolExecutor, now: float, stop: threading.Event) -> None:
        while len(self._busy) < self.workers and (request := self.store.requests.claim(now)):
            self._busy.add(pool.submit(self._serve, request, stop))

    def _serve(self, request: Request, stop: threading.Event) -> None:
        begun = self.clock.now()
        outcome = self.work(request)
        fields = {"app": request.app, "reasons": ",".join(request.reasons), "outcome": outcome.name}
        log.info("pass ended", extra={**fields, "seconds": round(self.clock.now() - begun, 4)})
        while not self._saved(request, outcome) and not stop.wait(_RETRY):
            pass  # a request left "running" would keep all others of its app waiting until the next start

    def _saved(self, request: Request, outcome: Outcome) -> bool:
        try:
            with self.store.transaction():
                self.store.requests.finish(request.id, outcome.name, outcome.message, outcome.revision)
                if outcome.retry_after is not None:
                    self.store.requests.enqueue(request.app, "retry", self.clock.now() + outcome.retry_after)
        except ControllerError as error:
            log.error("outcome not saved: %s", error.message, extra={"app": request.app})
            return False
        return True
