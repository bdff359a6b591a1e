"""A clock that the test sets: sleeping takes no time and moves the clock."""

from __future__ import annotations

import threading


class FakeClock:
    """The port `Clock`; thread-safe. `slept` are the sleeps asked for, in order, in seconds."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.slept: list[float] = []
        self._now = now
        self._passed = 0.0
        self._lock = threading.Lock()

    def now(self) -> float:
        with self._lock:
            return self._now

    def monotonic(self) -> float:
        with self._lock:
            return self._passed

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.slept.append(seconds)
            self._now += seconds
            self._passed += seconds

    def advance(self, seconds: float) -> None:
        """Time passes while nobody sleeps."""
        with self._lock:
            self._now += seconds
            self._passed += seconds

    def jump(self, seconds: float) -> None:
        """Somebody sets the clock, forward or back."""
        with self._lock:
            self._now += seconds


class TickingClock(FakeClock):
    """Each look at its monotonic time takes a microsecond, so that the shortest timeout passes without a sleep."""

    def monotonic(self) -> float:
        with self._lock:
            self._passed += 1e-6
            return self._passed
