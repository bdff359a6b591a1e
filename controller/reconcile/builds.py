"""Each image is built once in a pass, however many components and stages need it, even at the same time.
Builds run one after the other.

Two concurrent builds would not find each other's layers. Builds that begin with the same instructions would
execute them twice; a later build finds only one of the two in the cache, and makes new images, hence
versions, of unchanged content.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future


class Builds:
    """The builds of one pass. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._begun: dict[str, Future[None]] = {}

    def once(self, tag: str, build: Callable[[], None]) -> None:
        """Call `build`, or wait for the end of the first call for the same tag; all callers get its error."""
        with self._lock:
            first = tag not in self._begun
            result = self._begun.setdefault(tag, Future())
        if first:
            try:
                with self._turn:
                    build()
                result.set_result(None)
            except Exception as error:  # noqa: BLE001 - raised in all callers that wait, and in this one
                result.set_exception(error)
        result.result()
