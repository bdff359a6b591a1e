"""`Failing` wraps a port and makes chosen calls raise an unexpected exception, as a bug would."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

BUGS: tuple[Callable[[], Exception], ...] = (
    lambda: RuntimeError("a bug"),
    lambda: UnicodeEncodeError("utf-8", "caf\udce9.yaml", 3, 4, "surrogates not allowed"),
    lambda: sqlite3.ProgrammingError("a wrong statement"),
    lambda: OverflowError("Python int too large to convert to SQLite INTEGER"),
)


class Faults:
    """`arm(name, …)`: the next calls of `requests.claim`, say, raise. `names` are all calls that were made."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.raised = 0
        self._armed: dict[str, list[Exception]] = {}
        self._lock = threading.Lock()

    def arm(self, name: str, errors: Iterable[Exception]) -> None:
        self._armed[name] = list(errors)

    def meet(self, name: str) -> None:
        with self._lock:
            self.names.append(name)
            waiting = self._armed.get(name)
            if not waiting:
                return
            self.raised += 1
            error = waiting.pop(0)
        raise error

    @property
    def left(self) -> int:
        return sum(map(len, self._armed.values()))


class Failing:
    """`inner` with faults; its parts (`store.requests`) fail by their whole names (`requests.claim`)."""

    def __init__(self, inner: Any, faults: Faults, parts: Iterable[str] = (), prefix: str = "") -> None:
        self._inner, self._faults, self._parts, self._prefix = inner, faults, frozenset(parts), prefix

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name in self._parts:
            return Failing(found, self._faults, prefix=f"{name}.")
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._faults.meet(self._prefix + name)
            return found(*args, **kwargs)

        return call

    def transaction(self) -> AbstractContextManager[None]:
        self._faults.meet("transaction")
        found: AbstractContextManager[None] = self._inner.transaction()
        return found


NOUNS = (
    *("requests", "apps", "events", "routes", "gateways", "repositories"),
    *("activity", "boxes", "runs", "webhooks", "schedules"),
)


def failing_store(store: Any, faults: Faults) -> Any:
    return Failing(store, faults, NOUNS)
