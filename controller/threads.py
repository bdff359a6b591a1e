"""A thread that runs while a block does, and ends with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def running_beside(work: Callable[[threading.Event], object], name: str) -> Iterator[None]:
    """Run `work` in a thread called `name` while the block runs. It gets an event that is set when the block ends; the
    block then waits until `work` has returned."""
    ended = threading.Event()
    thread = threading.Thread(target=work, args=(ended,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
