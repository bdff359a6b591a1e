"""Time: the clocks, and the ticks of cron expressions."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Return Unix seconds, which people and time servers may set forward and back."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary time; they never go back."""

    def sleep(self, seconds: float) -> None: ...


class Ticks(Protocol):
    def after(self, cron: str, timezone: str, moment: float) -> float:
        """Return the first tick after a time, both in Unix seconds; infinity if there is none. `cron` and
        `timezone` are valid values of manifests. When daylight saving time begins or ends, ticks are those of
        Debian's cron."""
