"""Passive outlier ejection: upstreams that accept no connections get no calls for a while.

Used by `pool`. An upstream that was ejected is tried by one call once its pause is over; each failure doubles the
pause, and the first connection that comes about ends it. Where no other upstream is left, ejected ones are used
nevertheless.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

log = logging.getLogger(__name__)

PAUSE = 1.0  # seconds after the first failure
LONGEST_PAUSE = 30.0


@dataclass(frozen=True)
class Ejection:
    """`since` and `until` are times of the clock: the last failure, and when one call may try it."""

    pause: float
    since: float
    until: float


class Outliers:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ejected: dict[str, Ejection] = {}

    def __bool__(self) -> bool:
        return bool(self._ejected)

    def failed(self, endpoint: str) -> None:
        """Eject an upstream that took no connection, or prolong its pause. Calls that had begun before it was
        ejected, and fail during its pause, say nothing new."""
        now, before = self._clock(), self._ejected.get(endpoint)
        if before and now < before.since + before.pause:
            return
        pause = min(2 * before.pause, LONGEST_PAUSE) if before else PAUSE
        self._ejected[endpoint] = Ejection(pause, now, now + pause)
        if before is None:
            log.warning("an upstream takes no connections and is left out", extra={"upstream": endpoint})

    def succeeded(self, endpoint: str) -> None:
        if self._ejected.pop(endpoint, None):
            log.info("an upstream takes connections again", extra={"upstream": endpoint})

    def admitted(self, endpoints: tuple[str, ...]) -> tuple[str, ...]:
        """Return the upstreams that may get a call; all of them if that were none."""
        now = self._clock()
        fit = tuple(e for e in endpoints if e not in self._ejected or self._ejected[e].until <= now)
        return fit or endpoints

    def chosen(self, endpoint: str) -> None:
        """One call tries an upstream whose pause is over; the others leave it out until its outcome is known."""
        if ejection := self._ejected.get(endpoint):
            now = self._clock()
            if ejection.until <= now:
                self._ejected[endpoint] = replace(ejection, until=now + ejection.pause)

    def keep(self, endpoints: frozenset[str]) -> None:
        """Forget upstreams that left the table."""
        self._ejected = {e: ejection for e, ejection in self._ejected.items() if e in endpoints}
