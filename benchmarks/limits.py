"""An end for a measurement that has none: what waits for a platform that does not do what it should waits for ever."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

AGAIN = 120.0  # seconds after which one that was ended, and has not cleaned up since, is ended there as well


class Endless(BaseException):
    """Not an Exception: what looks for a server takes one of those for the server's answer, and goes on."""


@contextmanager
def ended_after(seconds: float, again: float = AGAIN) -> Iterator[None]:
    """Raise Endless in the main thread, where measurements run, once they have taken so long, and show where it was."""

    def end(*_: object) -> None:
        traceback.print_stack()
        raise Endless(f"the measurement was ended after {seconds:g} s; where it was is said above")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds, again)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
