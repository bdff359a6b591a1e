"""Records that a part of the daemon ended unexpectedly: counted for the metrics, and reported as an event of
the platform. Called by what starts the part again, see guards.py."""

from __future__ import annotations

import time

from controller.domain.apps.status import Event, EventType
from controller.domain.names import PLATFORM
from controller.domain.reasons import Reason
from controller.ports import Store

_QUIET = 600.0  # seconds between two events about one part: the history has a bound, and other events need room in it


class RestartLog:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._recorded: dict[str, float] = {}

    def record(self, part: str, how: str) -> None:
        """Record a restart. May be called in any thread."""
        self._store.count_restart(part)
        now = time.monotonic()
        if now - self._recorded.get(part, -_QUIET) < _QUIET:
            return
        self._recorded[part] = now
        message = f"{part} has ended unexpectedly and is restarted: {how}"
        self._store.events.add([Event(PLATFORM, EventType.WARNING, Reason.RESTARTED, message)])
