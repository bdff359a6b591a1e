"""Waiting for a condition: tests never wait for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(look: Callable[[], T], enough: Callable[[T], bool] = bool, limit: float = 30.0) -> T:
    """The first value of `look()` that is `enough`. `limit` (seconds) only ends a test that has failed anyway."""
    deadline = time.monotonic() + limit
    while not enough(value := look()):
        assert time.monotonic() < deadline, f"still {value!r} after {limit:.0f} s"
        time.sleep(0.02)
    return value
