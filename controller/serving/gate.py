"""Who may call the function now: slots, a first-in-first-out queue for them, and the deadline of every call.

A call runs on the thread of its own connection, so that it costs no hand-over. A thread cannot be killed:
when a call is overdue, the worker's clock thread takes it over with ``expire``, answers in its stead, and the
call's own thread finds at ``leave`` that its result is no longer wanted. Whoever marks the call first, under
the one lock, owns its answer. An overdue call goes on holding its slot until the function returns; when such
calls hold every slot (``exhausted_since``), only a new worker can help.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Optional


class QueueFull(Exception):
    """No slot is free and no more calls may wait."""


class Expired(Exception):
    """The call's deadline passed while it waited for a slot."""


class Closed(Exception):
    """The worker is being replaced; no call gets a slot any more."""


class Call:
    """One call of the function. ``deadline`` is of time.monotonic(); ``overdue`` answers in its stead, from
    another thread.
    """

    __slots__ = ("_turn", "cancel", "deadline", "expired", "id", "overdue")

    def __init__(self, call_id: str, deadline: float, overdue: Callable[[], None]) -> None:
        self.id = call_id
        self.deadline = deadline
        self.overdue = overdue
        self.expired = False
        self.cancel: Optional[Callable[[], object]] = (
            None  # set by calls that can be cancelled, the async ones
        )
        self._turn: Optional[threading.Lock] = None  # held while the call waits


class Gate:
    """At most ``capacity`` calls at once, at most ``queue`` waiting."""

    def __init__(self, capacity: int, queue: int) -> None:
        self.capacity = capacity
        self.queue = queue
        self._lock = threading.Lock()
        self._running: set[Call] = set()
        self._waiting: deque[Call] = deque()
        self._closed = False
        self._lost = 0  # running calls that are expired
        self._exhausted_since: Optional[float] = None

    def enter(self, call: Call) -> None:
        """Return when the call has a slot. Raises QueueFull at once, Expired at its deadline, Closed."""
        with self._lock:
            if self._closed:
                raise Closed
            if len(self._running) < self.capacity:
                self._running.add(call)
                return
            if len(self._waiting) >= self.queue:
                raise QueueFull
            call._turn = turn = threading.Lock()
            turn.acquire()
            self._waiting.append(call)
        turn.acquire(timeout=max(0.0, call.deadline - time.monotonic()))
        with self._lock:
            if call in self._running:  # perhaps granted at the very last moment
                return
            if self._closed:
                raise Closed
            self._waiting.remove(call)
        raise Expired

    def is_full(self) -> bool:
        """Would a call be turned away now?"""
        with self._lock:
            return len(self._running) >= self.capacity and len(self._waiting) >= self.queue

    def leave(self, call: Call) -> bool:
        """Give the slot on. True if the answer is still the caller's to send, False if the call had been
        expired.
        """
        with self._lock:
            self._running.remove(call)
            if call.expired:
                self._lost -= 1
                self._exhausted_since = None
            if self._waiting and not self._closed:
                successor = self._waiting.popleft()
                self._running.add(successor)
                self._wake(successor)
            return not call.expired

    def expire(self, now: float) -> list[Call]:
        """Mark every overdue call; the marked ones are the caller's to answer."""
        with self._lock:
            overdue = [call for call in self._running if call.deadline <= now and not call.expired]
            for call in overdue:
                call.expired = True
            self._lost += len(overdue)
            if self._lost >= self.capacity and self._exhausted_since is None:
                self._exhausted_since = now
            return overdue

    def next_deadline(self) -> Optional[float]:
        """The earliest deadline among the running calls that are not expired."""
        with self._lock:
            return min((call.deadline for call in self._running if not call.expired), default=None)

    def exhausted_since(self) -> Optional[float]:
        """Since when overdue calls hold every slot; None if one is free or moving."""
        return self._exhausted_since

    def counts(self) -> tuple[int, int, int]:
        """How many calls run (the overdue included), wait, and are overdue."""
        return len(self._running), len(self._waiting), self._lost

    def close(self) -> None:
        """Give out no more slots; those who wait get Closed."""
        with self._lock:
            self._closed = True
            while self._waiting:
                self._wake(self._waiting.popleft())

    @staticmethod
    def _wake(call: Call) -> None:
        if call._turn is not None:
            call._turn.release()
