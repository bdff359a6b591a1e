"""Waiting for a condition: tests never wait for a time.

A look often is a request to the platform or to the engine, whose work is done on the processors that the awaited work
needs as well. So the pauses between looks grow with the wait: something quick is seen soon, and something slow is not
made slower by those who wait for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

SHORTEST, LONGEST = 0.02, 0.1  # seconds between two looks
SHARE = 0.1  # of the time waited so far: a wait becomes longer by no more than that


def wait_for(look: Callable[[], T], enough: Callable[[T], bool] = bool, limit: float = 30.0) -> T:
    """The first value of `look()` that is `enough`. `limit` (seconds) only ends a test that has failed anyway."""
    begun = time.monotonic()
    while not enough(value := look()):
        waited = time.monotonic() - begun
        assert waited < limit, f"still {value!r} after {limit:.0f} s"
        time.sleep(pause(waited))
    return value


def pause(waited: float) -> float:
    """Return the seconds until the next look at what has been awaited for `waited` seconds."""
    return min(max(SHORTEST, waited * SHARE), LONGEST)
