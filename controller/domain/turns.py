"""Acquires a lock of the caller while checking whether the wait should end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOOK = 0.25  # seconds between two calls of `check`


@contextmanager
def taken(lock: threading.Lock, check: Callable[[], None]) -> Iterator[None]:
    """Hold the lock. Until it is free, `check` is called repeatedly; an exception from it ends the wait."""
    while not lock.acquire(timeout=_LOOK):
        check()
    try:
        yield
    finally:
        lock.release()
