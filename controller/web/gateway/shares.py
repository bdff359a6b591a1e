"""Limits each app's share of a worker's resources, so that the calls of one app never block those of others. Used
only on the event loop."""

from __future__ import annotations

from collections.abc import Hashable

from controller.domain.localizable import Localizable
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused


class WorkerShares:
    """Allows `most` at once, and at most `each` of them for one key. `what` names them in the plural: "calls"."""

    def __init__(self, what: str, most: int, each: int) -> None:
        self._what = what
        self._most = most
        self._each = min(each, most)
        self._taken = 0
        self._by_key: dict[Hashable, int] = {}
        self._peaks: dict[Hashable, int] = {}  # since the last rotation
        self._earlier: dict[Hashable, int] = {}  # in the period before

    def take(self, key: Hashable, whose: str) -> TakenSlot:
        """Take a slot for a `with` block. `whose`: "app demo". Raises RequestRefused when the block is entered."""
        return TakenSlot(self, key, whose)

    def occupy(self, key: Hashable, whose: str) -> None:
        own = self._by_key.get(key, 0)
        if own >= self._each:
            raise _full(
                Localizable(
                    "This gateway worker has {own} {what} of {whose} under way, its share.",
                    own=own,
                    what=self._what,
                    whose=whose,
                )
            )
        if self._taken >= self._most:
            raise _full(
                Localizable(
                    "This gateway worker has {taken} {what} under way.", taken=self._taken, what=self._what
                )
            )
        self._taken += 1
        self._by_key[key] = own + 1
        if own >= self._peaks.get(key, 0):
            self._peaks[key] = own + 1

    def vacate(self, key: Hashable) -> None:
        self._taken -= 1
        self._by_key[key] -= 1
        if not self._by_key[key]:
            del self._by_key[key]

    def peaks(self) -> dict[Hashable, int]:
        """Return the most that each key had at once in this period and the one before."""
        return {
            key: max(self._peaks.get(key, 0), self._earlier.get(key, 0))
            for key in self._peaks.keys() | self._earlier.keys()
        }

    def rotate(self) -> None:
        """Begin another period."""
        self._earlier, self._peaks = self._peaks, dict(self._by_key)


class TakenSlot:
    """A slot for a `with` block. No generator makes it, since each call has one."""

    __slots__ = ("_key", "_shares", "_whose")

    def __init__(self, shares: WorkerShares, key: Hashable, whose: str) -> None:
        self._shares = shares
        self._key = key
        self._whose = whose

    def __enter__(self) -> None:
        self._shares.occupy(self._key, self._whose)

    def __exit__(self, *_: object) -> None:
        self._shares.vacate(self._key)


def _full(detail: str) -> RequestRefused:
    return RequestRefused(HttpProblem(ProblemKind.OVERLOADED, detail, retry_after=1))
