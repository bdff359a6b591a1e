"""Tells everything in a worker that waits for async calls when something about them has changed: one query of the
database's change counter, which takes some microseconds, serves all waiting callers and the dispatcher. After a change,
one more query finds the calls that are over, however many callers wait: they share the event loop with all others."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from controller.guards import GuardedStep
from controller.store.calls import CallTable

POLL: Final = 0.02  # seconds


class CallNews:
    def __init__(self, table: CallTable) -> None:
        self._table = table
        self.loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._look = GuardedStep("changes of async calls are not noticed", self._check)
        self._waiting: dict[asyncio.Future[None], str] = {}  # callers, and the calls whose ends they wait for
        self._ends = GuardedStep("ends of async calls are not noticed", self._wake_ended)
        self.stopping = False

    def start(self) -> None:
        self._look()
        self._timer = self.loop.call_later(POLL, self.start)

    def stop(self) -> None:
        """End all waits."""
        self.stopping = True
        if self._timer is not None:
            self._timer.cancel()
        self.tell()
        self._wake(frozenset())

    def tell(self) -> None:
        """Wake all that wait for a change, and those who wait for calls that are over."""
        self._changed.set()
        self._changed = asyncio.Event()
        self._ends()

    async def wait(self, timeout: float) -> None:
        """Wait until something has changed, the worker stops, or `timeout` seconds have passed."""
        if not self.stopping:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), timeout)

    async def wait_for_end(self, id: str, timeout: float) -> None:
        """Wait until the call is over or gone, the worker stops, or `timeout` seconds have passed. The caller has just
        seen that it is not over."""
        if self.stopping:
            return
        ended = self.loop.create_future()
        self._waiting[ended] = id
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(ended, timeout)
        finally:
            del self._waiting[ended]

    def _wake_ended(self) -> None:
        if self._waiting:
            self._wake(self._table.unfinished(set(self._waiting.values())))

    def _wake(self, unfinished: frozenset[str]) -> None:
        for ended, id in self._waiting.items():
            if id not in unfinished and not ended.done():
                ended.set_result(None)

    def _check(self) -> None:
        if self._table.changed():
            self.tell()
