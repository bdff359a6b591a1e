"""Signals that interrupt the work on a run: the daemon ends, or a person cancels."""

from __future__ import annotations

import threading
from collections.abc import Callable

from controller.ports import Clock

_SLICE = 0.25  # seconds of a pause between two checks of what may end it


class ShuttingDown(Exception):
    """The daemon ends. Everything is recorded, so the next one continues from there; containers keep running."""


class Canceled(Exception):
    """A person canceled the run."""


class RunSignals:
    """The signals of one run, shared by all its threads."""

    def __init__(self, clock: Clock, stopping: Callable[[], bool]) -> None:
        self._clock = clock
        self.stopping = stopping
        self._canceled = threading.Event()

    def cancel(self) -> None:
        self._canceled.set()

    def canceled(self) -> bool:
        return self._canceled.is_set()

    def check_halted(self) -> None:
        """Raise ShuttingDown if the daemon ends."""
        if self.stopping():
            raise ShuttingDown

    def check(self) -> None:
        """Raise ShuttingDown or Canceled."""
        self.check_halted()
        if self.canceled():
            raise Canceled

    def pause(self, seconds: float) -> None:
        """Pause. Raises ShuttingDown or Canceled soon after either happens."""
        self.check()
        while seconds > 0:
            self._clock.sleep(min(seconds, _SLICE))
            seconds -= _SLICE
            self.check()

    def rest(self, seconds: float = 1.0, until: Callable[[], bool] = lambda: False) -> None:
        """Pause, also if the run is canceled; ends early once `until()` is true. Raises ShuttingDown."""
        self.check_halted()
        while seconds > 0 and not until():
            self._clock.sleep(min(seconds, _SLICE))
            seconds -= _SLICE
            self.check_halted()
