"""Reports to the daemon how much of the worker's limits apps have taken in the last seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from controller.domain.apps.usage import Resource, TakenShare
from controller.domain.names import AppName, is_dns_label
from controller.web.gateway.shares import WorkerShares

PERIOD = 5.0  # seconds, as often as the daemon looks at what apps take of their shares


class ShareReport:
    """`waiting_calls` returns the share of async calls, which are not counted by WorkerShares."""

    def __init__(
        self,
        shares: tuple[tuple[Resource, WorkerShares], ...],
        waiting_calls: Callable[[], tuple[TakenShare, ...]],
    ) -> None:
        self._shares = shares
        self._waiting_calls = waiting_calls
        self._loop = asyncio.get_running_loop()
        self._next_period = 0.0

    def peaks(self) -> tuple[TakenShare, ...]:
        """Return the peaks of some seconds, for the report to the daemon."""
        taken = tuple(
            TakenShare(AppName(name), resource, most)
            for resource, shares in self._shares
            for key, most in shares.peaks().items()
            if is_dns_label(name := key.decode() if isinstance(key, bytes) else str(key))
        )
        taken += self._waiting_calls()
        if self._loop.time() >= self._next_period:
            self._next_period = self._loop.time() + PERIOD
            for _, shares in self._shares:
                shares.rotate()
        return taken
