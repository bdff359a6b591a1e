"""What may interrupt the work on a run from outside: the daemon ends, or a person cancels."""

from __future__ import annotations

import threading
from collections.abc import Callable

from controller.ports import Clock

_SLICE = 0.25  # seconds of a pause between two looks at what may end it


class Halted(Exception):
    """The daemon ends. All is written down, the next one goes on from there; what runs in containers runs on."""


class Canceled(Exception):
    """A person canceled the run."""


class Signals:
    """Of one run. Shared by all its threads."""

    def __init__(self, clock: Clock, stopping: Callable[[], bool]) -> None:
        self._clock = clock
        self.stopping = stopping
        self._canceled = threading.Event()

    def cancel(self) -> None:
        self._canceled.set()

    def canceled(self) -> bool:
        return self._canceled.is_set()

    def check_halted(self) -> None:
        """Raises Halted."""
        if self.stopping():
            raise Halted

    def check(self) -> None:
        """Raises Halted or Canceled."""
        self.check_halted()
        if self.canceled():
            raise Canceled

    def pause(self, seconds: float) -> None:
        """Raises Halted or Canceled, soon after either is the case."""
        self.check()
        while seconds > 0:
            self._clock.sleep(min(seconds, _SLICE))
            seconds -= _SLICE
            self.check()

    def rest(self, seconds: float = 1.0) -> None:
        """A pause where being canceled changes nothing. Raises Halted."""
        self.check_halted()
        self._clock.sleep(seconds)
        self.check_halted()
