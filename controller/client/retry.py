"""Retries what may succeed later, and stops all that is under way."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from controller.client.errors import Stopped
from controller.domain.backoff import Backoff, jittered
from controller.domain.errors import Transient

T = TypeVar("T")

BACKOFF: Final = Backoff(0.5, 8.0)
RETRIES: Final = 5
QUIET: Final = 2  # failed attempts before an outage is reported
LONGEST: Final = 60.0  # seconds; a server cannot ask for a longer pause


class RetryPolicy:
    """Shared by the threads of one command."""

    def __init__(
        self,
        backoff: Backoff = BACKOFF,
        retries: int = RETRIES,
        told: Callable[[Transient], None] = lambda error: None,
    ) -> None:
        """`told` is called once for each outage that lasts."""
        self._backoff = backoff
        self._retries = retries
        self._told = told
        self._is_told = False
        self._stopped = threading.Event()

    def retry(self, work: Callable[[], T], progress: Callable[[], int] = lambda: 0) -> T:
        """Call `work` until it succeeds; raise errors that are not Transient, or the last one after all
        attempts. An attempt that got further than any before, according to `progress`, counts as the first.
        """
        best, tried = progress(), 0
        while True:
            self._check()
            try:
                done = work()
            except Transient as error:
                if progress() > best:
                    best, tried = progress(), 0
                if tried == self._retries:
                    raise
                tried += 1
                self.tell(error, tried)
                self._pause(self._backoff.after(tried), error)
            else:
                self.recovered()
                return done

    def recovered(self) -> None:
        """Let the next outage be told, too."""
        self._is_told = False

    def tell(self, error: Transient, tried: int) -> None:
        """Report an outage, in which so many attempts have failed, unless it is short or known."""
        if tried > QUIET and not self._is_told:
            self._is_told = True
            self._told(error)

    def stop(self) -> None:
        """Make everything that is under way raise Stopped with its next piece."""
        self._stopped.set()

    def pause(self, seconds: float) -> None:
        self._stopped.wait(seconds)
        self._check()

    def watched(self, moved: Callable[[int], None]) -> Callable[[int], None]:
        """Return `moved` with a check whether to stop."""

        def told(count: int) -> None:
            self._check()
            moved(count)

        return told

    def _pause(self, seconds: float, error: Transient) -> None:
        pause = jittered(seconds, random.random())  # noqa: S311 - nobody gains by guessing it
        self._stopped.wait(max(pause, min(error.retry_after, LONGEST)) if seconds else 0.0)

    def _check(self) -> None:
        if self._stopped.is_set():
            raise Stopped
