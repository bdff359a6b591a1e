"""Retries what may succeed later, and stops all that is under way."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from controller.client.errors import Stopped, Unavailable
from controller.domain.errors import Transient

T = TypeVar("T")

PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before the second attempt, the third …
LONGEST: Final = 60.0  # seconds; a server cannot ask for a longer pause


class RetryPolicy:
    """Shared by the threads of one command."""

    def __init__(self, pauses: tuple[float, ...] = PAUSES) -> None:
        self._pauses = pauses
        self._stopped = threading.Event()

    def retry(self, work: Callable[[], T], progress: Callable[[], int] = lambda: 0) -> T:
        """Call `work` until it succeeds; raise errors that are not Transient, or the last one after all
        attempts. An attempt that got further than any before, according to `progress`, counts as the first.
        """
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
        """Make everything that is under way raise Stopped with its next piece."""
        self._stopped.set()

    def watched(self, moved: Callable[[int], None]) -> Callable[[int], None]:
        """Return `moved` with a check whether to stop."""

        def told(count: int) -> None:
            self._check()
            moved(count)

        return told

    def _pause(self, seconds: float, error: Transient) -> None:
        """Pause for a random time, so that clients that failed together do not return together."""
        asked = error.retry_after if isinstance(error, Unavailable) else 0.0
        seconds *= random.uniform(0.75, 1.25)  # noqa: S311 - jitter
        self._stopped.wait(max(seconds, min(asked, LONGEST)) if seconds else 0.0)

    def _check(self) -> None:
        if self._stopped.is_set():
            raise Stopped
