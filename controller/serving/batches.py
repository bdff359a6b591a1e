"""Puts calls that are under way together into batches: who goes together, when, and on whose thread.

A batch runs on the thread of its first call, so that a call without company costs no hand-over: that call waits for
others, takes them, runs the function for all of them (``batch_calls``), and wakes them. Meanwhile further calls
collect, and the oldest of them leads the next batch.

How long the first call waits for company depends on what was seen: it expects as many calls as were under way when the
last batch ended, itself included, and waits for them at most ``delay`` seconds from its arrival. So a caller who is
alone waits once, not every time, and callers who take turns with the function meet in one batch.

Only calls with the same key go together, and those who wait for company let those go first who do not; of these, the
oldest goes first. A call that leaves while it waits gives up its place; one that leaves while its batch runs is waited
for, since the function works on its files.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, Optional

from .limiter import (
    SWEEP,
    CallExpired,
    ClientGone,
    ConcurrencyLimiter,
    LimitedCall,
    LimiterClosed,
    QueueFull,
)

MOST_KEYS = 256  # of which it is known how many calls were under way


class BatchMember:
    """A call that is to be part of a batch. ``result`` or ``error`` is set by the thread that runs the batch."""

    __slots__ = ("arguments", "arrived", "batch", "call", "done", "error", "key", "result", "turn")

    def __init__(self, call: LimitedCall, arguments: dict[str, Any], key: Hashable = None) -> None:
        self.call = call
        self.arguments = arguments
        self.key = key
        self.arrived = time.monotonic()
        self.batch: Optional[Batch] = None  # set when it is taken into one
        self.done = False  # it has its outcome
        self.result: Any = None
        self.error: Optional[BaseException] = None
        self.turn = threading.Lock()  # held while the call waits
        self.turn.acquire()

    @property
    def gone(self) -> bool:
        """Has it been answered, or has its caller left? Then it needs no result."""
        return self.call.expired or self.call.left

    def outcome(self) -> Any:
        """Its own result. Raises its own error."""
        if self.error is not None:
            raise self.error
        return self.result


class Batch:
    """Calls that go to the function together, on the thread of the first one. An async one is cancelled when the last
    of its calls has gone."""

    def __init__(self, members: list[BatchMember]) -> None:
        self.members = members
        self.cancel: Optional[Callable[[], object]] = None

    @property
    def expired(self) -> bool:
        """Does nobody wait for it any more?"""
        return all(member.done or member.gone for member in self.members)

    @property
    def overdue(self) -> bool:
        """Has it run past the deadlines of all its calls?"""
        waiting = [member for member in self.members if not member.done]
        return bool(waiting) and all(member.call.expired for member in waiting)


class BatchLimiter(ConcurrencyLimiter):
    """Runs at most ``concurrency`` batches of at most ``size`` calls at once, while at most ``queue`` other calls wait.
    As a limiter of calls it bounds those that are read, wait, run and are answered."""

    def __init__(
        self,
        size: int,
        delay: float,
        queue: int,
        concurrency: int,
        queued: Callable[[], object] = lambda: None,
    ) -> None:
        """``queued`` is called whenever a call begins to wait."""
        super().__init__(2 * size * concurrency + queue, 0, queued)
        self.size = size
        self._delay = delay
        self._most_waiting = queue
        self._concurrency = concurrency
        self._turns = threading.Lock()  # never held while the other lock is asked for
        self._groups: dict[Hashable, deque[BatchMember]] = {}  # the waiting calls, none empty
        self._in_batches: set[Batch] = set()
        self._gatherer: Optional[BatchMember] = None  # the call that waits for company
        self._expected: dict[Hashable, int] = {}
        self._searched = 0.0  # when the waiting calls were last searched for callers who have gone
        self._shut = False
        self._stuck_since: Optional[float] = None

    # --- what a limiter is asked ----------------------------------------------------------------------------------

    def acquire(self, call: LimitedCall) -> bool:
        """Refuse a call before it is read if it could not wait. Raises as the limiter of calls does."""
        if self.is_full():
            raise QueueFull
        return super().acquire(call)

    def is_full(self) -> bool:
        with self._turns:
            return self._is_crowded()

    def counts(self) -> tuple[int, int, int]:
        running, _, overdue = super().counts()
        waiting = self._waiting_calls()
        return max(0, running - waiting), waiting, overdue

    def exhausted_since(self) -> Optional[float]:
        """Return the time since which all that can run are batches past the deadlines of all their calls."""
        with self._turns:
            stuck = len(self._in_batches) == self._concurrency and all(
                batch.overdue for batch in self._in_batches
            )
            if not stuck:
                self._stuck_since = None
            elif self._stuck_since is None:
                self._stuck_since = time.monotonic()
            return self._stuck_since

    def close(self) -> None:
        super().close()
        with self._turns:
            self._shut = True
            for member in [member for group in self._groups.values() for member in group]:
                self._remove(member, LimiterClosed())

    def limits(self) -> str:
        return f"{self._most_waiting} calls wait for the next batch"

    def slots(self) -> str:
        return "calls of a batch" if self._concurrency == 1 else f"calls of {self._concurrency} batches"

    # --- batches --------------------------------------------------------------------------------------------------

    def join(self, member: BatchMember) -> Optional[Batch]:
        """Wait until the call's batch has run on another thread: None. Or give the batch that this thread is to run,
        which must say ``finish`` then. A call that gave up its place has an error. Raises QueueFull, LimiterClosed."""
        waits = member.call.waits
        if waits is not None and len(self._in_batches) >= self._concurrency:
            waits()  # before it has a place: after that, the thread of another call may begin it
        with self._turns:
            if self._shut:
                raise LimiterClosed
            if self._is_crowded():
                raise QueueFull
            member.call.queued = True
            self._groups.setdefault(member.key, deque()).append(member)
            member.call.cancel = functools.partial(self._drop, member)  # waits for the lock if it is called
            if member.gone:  # before its clock knew how to cancel it
                self._remove(member, _why_gone(member))
                return None
            if self._gatherer is None:
                self._promote()
            elif self._wait(self._gatherer) <= 0:
                _wake(self._gatherer)
            elif self._is_complete(member.key):  # another kind than the one that waits for company
                self._lead(self._groups[member.key][0])
        if self._gatherer is not member:
            self._queued()
        return self._await_turn(member)

    def finish(self, batch: Batch) -> None:
        """The batch has run: let the next one begin, and the calls of this one go."""
        key = batch.members[0].key
        with self._turns:
            self._in_batches.discard(batch)
            together = sum(len(other.members) for other in self._in_batches if other.members[0].key == key)
            self._expected.pop(key, None)  # so that the keys stand in the order of their use
            self._expected[key] = together + len(batch.members) + len(self._groups.get(key, ()))
            if len(self._expected) > MOST_KEYS:
                del self._expected[next(iter(self._expected))]
            self._promote()
            for member in batch.members:
                if not member.done:  # it had gone before the function was called for it
                    member.error, member.done = _why_gone(member), True
                _wake(member)

    def deliver(self, member: BatchMember, result: Any, error: Optional[BaseException] = None) -> None:
        """Give a call of a running batch its outcome, and let it go: the batch may have to run again for others."""
        with self._turns:
            member.result, member.error, member.done = result, error, True
            _wake(member)

    def _await_turn(self, member: BatchMember) -> Optional[Batch]:
        """Wait for the call's outcome: None. Or, if it leads, for company, and then take it."""
        wait = -1.0  # without end
        while True:
            member.turn.acquire(timeout=wait)
            with self._turns:
                if self._gatherer is member and member.call.gone():
                    member.call.left = True
                    self._remove(member, ClientGone())
                if member.done:
                    return None
                wait = self._wait(member) if self._gatherer is member else -1.0
                if self._gatherer is member and wait <= 0:
                    return self._take(member)

    def _wait(self, first: BatchMember) -> float:
        """How many seconds the first call of its kind is to wait yet."""
        if self._is_complete(first.key):
            return 0.0
        return max(0.0, first.arrived + self._delay - time.monotonic())

    def _is_complete(self, key: Hashable) -> bool:
        """Do as many wait as are expected?"""
        unknown = 1 if self._expected else self.size
        expected = -(-self._expected.get(key, unknown) // self._concurrency)
        return len(self._groups[key]) >= min(expected, self.size)

    def _take(self, first: BatchMember) -> Batch:
        """The oldest calls of a kind, which the thread of the first one is to run."""
        group = self._groups[first.key]
        members = [group.popleft()]
        while group and len(members) < self.size:
            member = group.popleft()
            if member.call.gone():
                member.call.left = True
                member.error, member.done = ClientGone(), True
                _wake(member)
            else:
                members.append(member)
        if not group:
            del self._groups[first.key]
        batch = Batch(members)
        for member in members:
            member.batch, member.call.queued = batch, False
        self._in_batches.add(batch)
        self._gatherer = None
        self._promote()
        return batch

    def _promote(self) -> None:
        """Let the first call of a kind lead a batch, if another one may run: the oldest that need not wait for company,
        else the oldest."""
        if self._gatherer is not None or len(self._in_batches) >= self._concurrency or not self._groups:
            return
        heads = (group[0] for group in self._groups.values())
        self._lead(min(heads, key=lambda member: (self._wait(member) > 0, member.arrived)))

    def _lead(self, first: BatchMember) -> None:
        self._gatherer = first
        _wake(first)

    def _drop(self, member: BatchMember) -> None:
        """The call has been answered, or its caller has left."""
        with self._turns:
            batch = member.batch
            if batch is None:
                if not member.done:
                    self._remove(member, _why_gone(member))
            elif batch.cancel is not None and batch.expired:
                batch.cancel()

    def _remove(self, member: BatchMember, why: BaseException) -> None:
        """Give up the place of a waiting call."""
        group = self._groups[member.key]
        group.remove(member)
        if not group:
            del self._groups[member.key]
        member.error, member.done = why, True
        if self._gatherer is member:
            self._gatherer = None
            self._promote()
        _wake(member)

    def _waiting_calls(self) -> int:
        return sum(map(len, list(self._groups.values())))

    def _is_crowded(self) -> bool:
        """May no more calls wait, even if those whose callers have gone give up their places?"""
        free = self._concurrency - len(self._in_batches)
        most = self._most_waiting + free * self.size
        if self._waiting_calls() < most:
            return False
        now = time.monotonic()
        if now - self._searched >= SWEEP:
            self._searched = now
            for member in [member for group in self._groups.values() for member in group]:
                if member.call.gone():
                    member.call.left = True
                    self._remove(member, ClientGone())
        return self._waiting_calls() >= most


def _why_gone(member: BatchMember) -> BaseException:
    return CallExpired() if member.call.expired else ClientGone()


def _wake(member: BatchMember) -> None:
    """Under the lock of the turns, as every waking is."""
    if member.turn.locked():
        member.turn.release()
