"""Signals that ask for the end, handled differently in different parts of a run's life. Main thread only."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def handled(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt at each of the signals, so that the process cleans up."""
    with handled(signal.default_int_handler):
        yield


@contextmanager
def ignore_signals() -> Iterator[None]:
    """Ignore the signals, so that cleaning up finishes."""
    with handled(signal.SIG_IGN):
        yield


class InterruptCounter:
    """A handler that counts the signals."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
