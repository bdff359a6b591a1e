"""The daemon dies at any call to the world outside; the next one brings the run to its one right end.

Death is a `BaseException` out of the n-th call that changes anything, before or after it took effect; from then on
every call of any thread fails alike, since a dead process makes none. Calls that only look are not counted: to die
there is to die before the next call that does something.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.domain.runs.run import RunState
from controller.ports import CommitWatch
from controller.runner.deps import RunnerDeps
from tests.support.waiting import wait_for
from tests.unit.runner.harness import Harness
from tests.unit.runner.scenarios import SCENARIOS, check

pytestmark = pytest.mark.slow

ENOUGH = 100  # more calls than any of the runs here makes
LOOKS = frozenset(
    {
        "active",
        "get",
        "pipeline",
        "pipelines",
        "has_image",
        "prepare",  # what it makes, `create` makes as well
        "expired",
        "stat",
        "open",
        "page",
        "find",
        "all",
        "wait",
        "logs",
        "pending",
        "usage",
    }
)


class Died(BaseException):
    pass


class Lives:
    """Of one daemon. Counted are calls that changed something: a claim that found nothing did not."""

    def __init__(self, left: int, after: bool) -> None:
        self._left = left
        self._after = after
        self._lock = threading.Lock()
        self.over = False

    def call(self, name: str, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if name not in LOOKS and name != "claim" and not self._after:
            self._spend()
        self._check()
        result = inner(*args, **kwargs)
        if name not in LOOKS and self._after and (name != "claim" or result):
            self._spend()
        self._check()
        return result

    def _spend(self) -> None:
        with self._lock:
            self._left -= 1
            self.over = self.over or self._left <= 0

    def _check(self) -> None:
        if self.over:
            raise Died


class Mortal:
    def __init__(self, inner: Any, lives: Lives) -> None:
        self._inner, self._lives = inner, lives

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found
        return lambda *args, **kwargs: self._lives.call(name, found, *args, **kwargs)


class MortalStore:
    def __init__(self, store: Any, lives: Lives) -> None:
        self._store = store
        self.runs, self.boxes = Mortal(store.runs, lives), Mortal(store.boxes, lives)
        self.requests = Mortal(store.requests, lives)

    def changed(self) -> bool:
        return bool(self._store.changed())

    def commit_watch(self) -> CommitWatch:
        found: CommitWatch = self._store.commit_watch()
        return found

    def transaction(self) -> AbstractContextManager[None]:
        found: AbstractContextManager[None] = self._store.transaction()
        return found


class MortalStorage:
    def __init__(self, storage: Any, lives: Lives) -> None:
        self._storage, self._lives = storage, lives

    def objects(self) -> Any:
        return Mortal(self._storage.objects(), self._lives)


def mortal(deps: RunnerDeps, lives: Lives) -> RunnerDeps:
    world: Any = {
        "store": MortalStore(deps.store, lives),
        "jobs": Mortal(deps.jobs, lives),
        "storage": MortalStorage(deps.storage, lives),
    }
    return replace(deps, **world)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_whatever_the_call_the_next_daemon_goes_on(tmp_path: Path, name: str, after: bool) -> None:
    play = SCENARIOS[name]
    for number in itertools.count(1):
        assert number < ENOUGH, "the run makes more calls than ENOUGH"
        harness = Harness(tmp_path / str(number))
        try:
            id = play.submit(harness)
            died = _live_and_die(harness, id, Lives(number, after), play.cancel)
            harness.start()
            check(harness, harness.until(id), play, f"after death at call {number}")
        finally:
            harness.close()
        if not died:
            return


def _live_and_die(harness: Harness, id: str, lives: Lives, cancel: bool) -> bool:
    """Whether it died, and was not at the end of its work before."""
    harness.start(mortal(harness.deps, lives))
    wait_for(lambda: harness.died or lives.over or _is_running(harness, id) or harness.run(id).state.terminal)
    if cancel:
        harness.cancel(id)
    wait_for(lambda: harness.died or (harness.run(id).state.terminal and not harness.jobs.names()))
    died = bool(harness.died)
    harness.stop()
    harness.died.clear()
    return died


def _is_running(harness: Harness, id: str) -> bool:
    return harness.run(id).state is RunState.RUNNING
