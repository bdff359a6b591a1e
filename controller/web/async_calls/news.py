"""Tells everything in a worker that waits for async calls when something about them has changed: one wake-up after a
commit, and one query of the database's change counter, serve all waiting callers and the dispatcher. After a change,
one more query finds the calls that have changed, however many callers wait: they share the event loop with all others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from controller.guards import GuardedStep
from controller.store.calls import CallMark, CallTable
from controller.web.commit_listener import CommitListener


@dataclass(frozen=True)
class WaitingCaller:
    """Waits until `enough` is true of what there is to see of the call; None is said of one that is gone."""

    id: str
    enough: Callable[[CallMark | None], bool]


class CallNews:
    def __init__(self, table: CallTable) -> None:
        self._table = table
        self.loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._listener: CommitListener | None = None
        self._look = GuardedStep("changes of async calls are not noticed", self._check)
        self._waiting: dict[asyncio.Future[None], WaitingCaller] = {}
        self._ends = GuardedStep("ends of async calls are not noticed", self._wake_some)
        self.stopping = False

    def start(self) -> None:
        self._listener = CommitListener(self._table.commit_watch(), self._listen)
        self._listener.start()

    def stop(self) -> None:
        """End all waits."""
        self.stopping = True
        if self._listener is not None:
            self._listener.close()
        self.tell()
        self._wake_all()

    def tell(self) -> None:
        """Wake all that wait for a change, and those whose call is over or has changed."""
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
        await self._wait(WaitingCaller(id, lambda mark: mark is None or mark[0].terminal), timeout)

    async def wait_for_change(self, id: str, seen: CallMark, timeout: float) -> bool:
        """Wait until there is something else to see of the call, or it is gone, at the longest as `wait_for_end`. The
        caller has just seen it. Return False if only the time has passed."""
        return await self._wait(WaitingCaller(id, lambda mark: mark != seen), timeout)

    async def _wait(self, caller: WaitingCaller, timeout: float) -> bool:
        if self.stopping:
            return False
        woken = self.loop.create_future()
        self._waiting[woken] = caller
        try:
            await asyncio.wait_for(woken, timeout)
        except TimeoutError:
            return False
        finally:
            del self._waiting[woken]
        return True

    def _wake_some(self) -> None:
        if self._waiting:
            self._wake(self._table.marks({caller.id for caller in self._waiting.values()}))

    def _wake(self, marks: Mapping[str, CallMark]) -> None:
        for woken, caller in self._waiting.items():
            if not woken.done() and caller.enough(marks.get(caller.id)):
                woken.set_result(None)

    def _wake_all(self) -> None:
        for woken in self._waiting:
            if not woken.done():
                woken.set_result(None)

    def _listen(self) -> float:
        self._look()
        return 0.0

    def _check(self) -> None:
        if self._table.changed():
            self.tell()
