"""Trying again what may get better by itself, and stopping all that is under way."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from controller.adapters.server_client.errors import Stopped, Unavailable
from controller.domain.errors import Transient

T = TypeVar("T")

PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before the second attempt, the third …
LONGEST: Final = 60.0  # seconds; a server that asks for a longer pause is not obeyed


class Patience:
    """Shared by the threads of one command."""

    def __init__(self, pauses: tuple[float, ...] = PAUSES) -> None:
        self._pauses = pauses
        self._stopped = threading.Event()

    def persist(self, work: Callable[[], T], progress: Callable[[], int] = lambda: 0) -> T:
        """What `work` returns in the end; what it raises if that is not Transient, or still so after all attempts. One
        that got further than any before, as `progress` tells, counts as the first."""
        best, tried = progress(), 0
        while True:
            self._check()
            try:
                return work()
            except Transient as error:
                if progress() > best:
                    best, tried = progress(), 0
                if tried == len(self._pauses):
                    raise
                self._pause(self._pauses[tried], error)
                tried += 1

    def stop(self) -> None:
        """Everything that is under way raises Stopped with its next piece."""
        self._stopped.set()

    def watched(self, moved: Callable[[int], None]) -> Callable[[int], None]:
        """`moved` that also looks whether to stop."""

        def told(count: int) -> None:
            self._check()
            moved(count)

        return told

    def _pause(self, seconds: float, error: Transient) -> None:
        """Of a random length, so that those who failed together do not come back together."""
        asked = error.retry_after if isinstance(error, Unavailable) else 0.0
        seconds *= random.uniform(0.75, 1.25)
        self._stopped.wait(max(seconds, min(asked, LONGEST)) if seconds else 0.0)

    def _check(self) -> None:
        if self._stopped.is_set():
            raise Stopped
