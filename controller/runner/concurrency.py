"""Runs a few tasks at a time: files are small and storages far away, so most of the time would be spent
waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

THREADS = 4
_AHEAD = 4 * THREADS  # limits what is in memory, however much there is to do


def in_order(work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """Map in several threads, keeping the order. After the first error no more tasks start, and it is raised."""
    ahead: deque[Future[B]] = deque()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="files") as pool:
        try:
            for item in items:
                ahead.append(pool.submit(work, item))
                if len(ahead) >= _AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
