"""Death at any call to the world outside: a `BaseException` out of the n-th call to the engine or the store, before or
after the call took effect. Like SIGKILL, nothing of the reconciler's own handles it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.unit.reconcile.harness import Harness

ENOUGH = 90  # more calls than any of the passes here makes


class Died(BaseException):
    pass


class Mortal:
    """Passes calls on to `inner`; the one with which `lives` runs out is the last."""

    def __init__(self, inner: Any, lives: list[int], after: bool) -> None:
        self._inner, self._lives, self._after = inner, lives, after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._lives[0] -= 1
            if self._lives[0] == 0 and not self._after:
                raise Died
            result = found(*args, **kwargs)
            if self._lives[0] == 0:
                raise Died
            return result

        return call


class MortalStore:
    """A store whose tables are mortal, but for those that the tests' harness itself uses."""

    LASTING = frozenset({"requests", "repositories", "gateways", "transaction"})

    def __init__(self, store: Any, lives: list[int], after: bool) -> None:
        self._store, self._lives, self._after = store, lives, after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return found if name in self.LASTING else Mortal(found, self._lives, self._after)


def die_at(harness: Harness, number: int, after: bool) -> bool:
    """Make a pass that dies at its call `number`; return whether it has made so many."""
    whole, lives = harness.deps, [number]
    engine, store = Mortal(harness.engine, lives, after), MortalStore(harness.store, lives, after)
    harness.deps = replace(whole, engine=engine, store=store)
    try:
        harness.run_unchecked()
    except Died:
        return True
    finally:
        harness.deps = replace(whole, quiet={})  # the next daemon knows nothing of it
    return False
