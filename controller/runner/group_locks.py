"""Turns to write a group of a bucket, or to read it as a whole.

Publications into one group take turns, whatever runs and stages they belong to, and so do those into groups
of which one contains the other: otherwise the result would be no run's output. A group that is read as a
whole is not written meanwhile. Turns are taken in the order of arrival. This holds within the daemon, which
alone publishes; a mark in the group shows what a dead daemon has left incomplete.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_SLICE = 0.25  # seconds of waiting between two checks of what may end it


@dataclass(frozen=True, eq=False)
class _LockRequest:
    bucket: str
    prefix: str  # ends in `/`
    shared: bool

    def excludes(self, other: _LockRequest) -> bool:
        overlaps = self.prefix.startswith(other.prefix) or other.prefix.startswith(self.prefix)
        return self.bucket == other.bucket and overlaps and not (self.shared and other.shared)


class GroupLocks:
    """The locks of all runs, one for each group."""

    def __init__(self) -> None:
        self._line: list[_LockRequest] = []  # those whose turn it is, and those that wait
        self._moved = threading.Condition()

    @contextmanager
    def acquire(
        self,
        bucket: str,
        prefix: str,
        check: Callable[[], None],
        waiting: Callable[[], None] = lambda: None,
        shared: bool = False,
    ) -> Iterator[None]:
        """Take a turn. `shared` is for reading, together with other readers. `waiting` is called if another
        turn comes first. Raises what `check` raises, which is called while it waits.
        """
        mine = _LockRequest(bucket, prefix, shared)
        with self._moved:
            self._line.append(mine)
        try:
            self._wait(mine, check, waiting)
            yield
        finally:
            with self._moved:
                self._line.remove(mine)
                self._moved.notify_all()

    def _wait(self, mine: _LockRequest, check: Callable[[], None], waiting: Callable[[], None]) -> None:
        if not self._has_to_wait(mine):
            return
        waiting()
        while self._has_to_wait(mine):
            check()
            with self._moved:
                if self._is_behind(mine):
                    self._moved.wait(_SLICE)

    def _has_to_wait(self, mine: _LockRequest) -> bool:
        with self._moved:
            return self._is_behind(mine)

    def _is_behind(self, mine: _LockRequest) -> bool:
        before = self._line[: self._line.index(mine)]
        return any(mine.excludes(other) for other in before)
