"""A few at a time: files are small and storages far, so that one after the other would wait most of the time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

THREADS = 4
_AHEAD = 4 * THREADS  # bounds what is in memory, whatever there is to do


def in_order(work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """`map`, by several threads. After the first error nothing more is begun, and it is raised."""
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
