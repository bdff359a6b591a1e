"""Limits concurrent calls of the function: slots, a first-in-first-out queue for them, and the deadline of every
call.

A call runs on the thread of its own connection, so that it costs no hand-over. A thread cannot be killed:
when a call is overdue, the worker's clock thread takes it over with ``expire``, answers in its place, and the
call's own thread finds at ``leave`` that its result is no longer wanted. The side that marks the call first, under
the one lock, owns its answer. An overdue call goes on holding its slot until the function returns; when such
calls hold every slot (``exhausted_since``), only a new worker can help.

A caller who has closed the connection needs no answer: their call neither gets a slot nor counts in the queue. One
that runs already is cancelled if it can be; a thread goes on, and is counted (``abandoned``).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Optional, Protocol

from .texts import Text

SWEEP = 0.05  # seconds between two looks for callers who have gone, at most
SHARE = 0.1  # of the time that searching a full queue for them may take


class QueueFull(Exception):
    """No slot is free and no more calls may wait."""


class CallExpired(Exception):
    """The call's deadline passed while it waited for a slot."""


class LimiterClosed(Exception):
    """The worker is being replaced; no call gets a slot any more."""


class ClientGone(Exception):
    """The caller closed the connection while the call waited for a slot."""


class Cancellable(Protocol):
    """What an async function's task is cancelled with: a call, or a batch of them."""

    cancel: Optional[Callable[[], object]]

    @property
    def expired(self) -> bool:
        """Is nobody left to wait for the task?"""


class LimitedCall:
    """One call of the function. ``deadline`` is of time.monotonic(); ``overdue`` answers in its place, from
    another thread; ``gone`` says whether the caller has closed the connection; ``waits`` is called before the
    call waits for a slot or batch, on its own thread, and ``begins`` before the function is called for it in a batch,
    on any."""

    __slots__ = (
        "_turn", "answered", "begins", "cancel", "deadline", "expired", "gone", "id", "left", "overdue", "queued",
        "waits",
    )  # fmt: skip

    def __init__(
        self, call_id: str, deadline: float, overdue: Callable[[], None], gone: Callable[[], bool]
    ) -> None:
        self.id = call_id
        self.deadline = deadline
        self.overdue = overdue
        self.gone = gone
        self.waits: Optional[Callable[[], object]] = None
        self.begins: Callable[[], object] = _nothing
        self.expired = False
        #: Of an expired call: set when it has been answered. Its connection must not end before.
        self.answered: Optional[threading.Event] = None
        self.left = False  # the caller has gone, and the call was dropped or cancelled for it
        self.queued = False  # it waits for a batch, and the function has not been called for it
        self.cancel: Optional[Callable[[], object]] = (
            None  # set by calls that can be cancelled, the async ones
        )
        self._turn: Optional[threading.Lock] = None  # held while the call waits


def _nothing() -> None:
    pass


class ConcurrencyLimiter:
    """Admits at most ``capacity`` calls at once, and at most ``queue`` waiting ones."""

    def __init__(self, capacity: int, queue: int, queued: Callable[[], object] = lambda: None) -> None:
        """``queued`` is called whenever a call begins to wait."""
        self.capacity = capacity
        self.queue = queue
        self._queued = queued
        self._lock = threading.Lock()
        self._running: set[LimitedCall] = set()
        self._waiting: deque[LimitedCall] = deque()
        self._closed = False
        self._next_sweep = 0.0  # when the queue may be searched again for callers who have gone
        self._lost = 0  # running calls that are expired
        self._abandoned = 0
        self._exhausted_since: Optional[float] = None

    def acquire(self, call: LimitedCall) -> bool:
        """Return when the call has a slot, and whether it had to wait. Raises QueueFull at once, Expired at its
        deadline, Closed, Left."""
        with self._lock:
            if self._closed:
                raise LimiterClosed
            if len(self._running) < self.capacity:
                self._running.add(call)
                return False
            if self._is_full():
                raise QueueFull
            call._turn = turn = threading.Lock()
            turn.acquire()
            self._waiting.append(call)
        self._queued()
        if call.waits is not None:
            call.waits()
        turn.acquire(timeout=max(0.0, call.deadline - time.monotonic()))
        with self._lock:
            if call in self._running:  # perhaps granted at the very last moment
                return True
            if self._closed:
                raise LimiterClosed
            if call.left:
                raise ClientGone
            self._waiting.remove(call)
        raise CallExpired

    def limits(self) -> str:
        """Say what a call is turned away by."""
        return Text("{capacity} calls run and {queue} wait", capacity=self.capacity, queue=self.queue)

    def slots(self) -> str:
        """Say what calls run in."""
        return f"{self.capacity} calls"

    def is_full(self) -> bool:
        """Would a call be turned away now?"""
        with self._lock:
            return len(self._running) >= self.capacity and self._is_full()

    def _is_full(self) -> bool:
        """Under the lock: is the queue full, even without those whose callers have gone?"""
        if len(self._waiting) < self.queue:
            return False
        began = time.monotonic()
        if began >= self._next_sweep:  # of calls that come in a storm, not each one is to search the queue
            self._drop_gone()
            now = time.monotonic()
            self._next_sweep = now + min(SWEEP, (now - began) / SHARE)
        return len(self._waiting) >= self.queue

    def _drop_gone(self) -> None:
        """Under the lock: let the waiting calls go whose callers have gone."""
        for call in [call for call in self._waiting if call.gone()]:
            self._waiting.remove(call)
            call.left = True
            self._wake(call)

    def drop_gone(self) -> list[LimitedCall]:
        """Drop the waiting calls whose callers have gone; the running ones that can be cancelled are given back."""
        with self._lock:
            self._drop_gone()
            gone = [call for call in self._running if not call.left and call.gone()]
            cancellable = [call for call in gone if call.cancel]
            self._abandoned = len(gone) - len(cancellable)
            for call in cancellable:
                call.left = True
            return cancellable

    def abandoned(self) -> int:
        """Return how many running calls had no caller any more at the last look, and cannot be cancelled."""
        return self._abandoned

    def release(self, call: LimitedCall) -> bool:
        """Give the slot on. True if the answer is still the caller's to send, False if the call had been
        expired.
        """
        with self._lock:
            self._running.remove(call)
            if call.expired:
                self._lost -= 1
                self._exhausted_since = None
            while self._waiting and not self._closed:
                successor = self._waiting.popleft()
                successor.left = successor.gone()
                if not successor.left:
                    self._running.add(successor)
                self._wake(successor)
                if not successor.left:
                    break
            return not call.expired

    def renew(self, call: LimitedCall, deadline: float) -> bool:
        """Give a running call another deadline, since it has yielded something; False if it has none any more."""
        with self._lock:
            if call.expired or call.left:
                return False
            call.deadline = deadline
            return True

    def expire(self, now: float) -> list[LimitedCall]:
        """Mark every overdue call; the marked ones are the caller's to answer, who sets ``answered`` then."""
        with self._lock:
            overdue = [call for call in self._running if call.deadline <= now and not call.expired]
            for call in overdue:
                call.expired, call.answered = True, threading.Event()
            self._lost += len(overdue)
            if self._lost >= self.capacity and self._exhausted_since is None:
                self._exhausted_since = now
            return overdue

    def next_deadline(self) -> Optional[float]:
        """The earliest deadline among the running calls that are not expired."""
        with self._lock:
            return min((call.deadline for call in self._running if not call.expired), default=None)

    def exhausted_since(self) -> Optional[float]:
        """Return the time since which overdue calls hold every slot; None if a slot is free or not overdue."""
        return self._exhausted_since

    def counts(self) -> tuple[int, int, int]:
        """Return how many calls run (the overdue included), wait, and are overdue."""
        return len(self._running), len(self._waiting), self._lost

    def close(self) -> None:
        """Give out no more slots; those who wait get Closed."""
        with self._lock:
            self._closed = True
            while self._waiting:
                self._wake(self._waiting.popleft())

    @staticmethod
    def _wake(call: LimitedCall) -> None:
        if call._turn is not None:
            call._turn.release()
