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


@dataclass
class Loop:
    """`work` runs one pass and never raises; `beat` is called once a second while the loop turns."""

    store: Store
    clock: Clock
    work: Callable[[Request], Outcome]
    workers: int
    beat: Callable[[], None]
    _busy: set[Future[None]] = field(default_factory=set)

    def run(self, stop: threading.Event) -> None:
        """Until `stop`; then waits for the passes under way, which see that they should end."""
        next_beat = 0.0
        due: float | None = 0.0
        with ThreadPoolExecutor(self.workers, thread_name_prefix="reconcile") as pool:
            while not stop.is_set():
                now = self.clock.now()
                if now >= next_beat:
                    self.beat()
                    next_beat = now + _BEAT
                finished = self._collect()
                if self.store.changed() or finished or (due is not None and now >= due):
                    self._claim_all(pool, now)
                    due = self.store.requests.next_due()
                stop.wait(_POLL)

    def _collect(self) -> bool:
        done = {future for future in self._busy if future.done()}
        self._busy -= done
        for future in done:
            future.result()  # a bug in the loop itself ends the daemon instead of hiding
        return bool(done)

    def _claim_all(self, pool: ThreadPoolExecutor, now: float) -> None:
        while len(self._busy) < self.workers and (request := self.store.requests.claim(now)):
            self._busy.add(pool.submit(self._serve, request))

    def _serve(self, request: Request) -> None:
        outcome = self.work(request)
        log.info(
            "pass ended",
            extra={"app": request.app, "reasons": ",".join(request.reasons), "outcome": outcome.name},
        )
        try:
            with self.store.transaction():
                self.store.requests.finish(request.id, outcome.name, outcome.message, outcome.revision)
                if outcome.retry_after is not None:
                    self.store.requests.enqueue(request.app, "retry", self.clock.now() + outcome.retry_after)
        except ControllerError as error:
            # The request stays "running" and is requeued at the next start; the periodic pass heals meanwhile.
            log.error("outcome not saved: %s", error.message, extra={"app": request.app})
