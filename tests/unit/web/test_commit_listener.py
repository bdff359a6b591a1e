"""When a worker looks at a database: after a commit, after a time without one, and not more often than it may."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from typing import Any

import pytest
import uvloop

from controller.config import Settings
from controller.domain.pace import LONGEST_PAUSE
from controller.ports import CommitWatch
from controller.store import SqliteStore
from controller.store.commit_watch import PollingCommitWatch
from controller.web.commit_listener import CommitListener

FOR_EVER = 3600.0  # seconds
HEARTBEAT = "INSERT INTO facts (name, value) VALUES ('heartbeat', 1.0)"


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    uvloop.run(asyncio.wait_for(scenario(), 60))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def beat(store: SqliteStore, at: float = 1.0) -> None:
    await asyncio.to_thread(store.heartbeat, at)


def beat_often(store: SqliteStore, number: int) -> None:
    for at in range(number):
        store.heartbeat(float(at))


class Looks:
    """Counts the looks, and those that found a change; `errors` are raised, one in each look."""

    def __init__(self, store: SqliteStore, *errors: Exception, pause: float = 0.0) -> None:
        self._store, self._errors, self._pause = store, list(errors), pause
        self.made = self.changes = 0

    def __call__(self) -> float:
        self.made += 1
        if self._errors:
            raise self._errors.pop()
        self.changes += self._store.changed()
        return self._pause


@pytest.mark.parametrize("polls", [False, True])
def test_each_commit_is_seen(store: SqliteStore, polls: bool) -> None:
    async def scenario() -> None:
        looks = Looks(store)
        watch: CommitWatch = PollingCommitWatch() if polls else store.commit_watch()
        with closing(listener := CommitListener(watch, looks, FOR_EVER)):
            listener.start()
            for number in range(1, 100):
                assert looks.changes == number
                await beat(store, float(number))
                while looks.changes == number:
                    await asyncio.sleep(0.001)

    run(scenario)


def test_a_commit_that_wakes_nobody_is_seen_later(store: SqliteStore, settings: Settings) -> None:
    async def scenario() -> None:
        looks = Looks(store)
        with closing(listener := CommitListener(store.commit_watch(), looks)):
            listener.start()
            with closing(sqlite3.connect(settings.database)) as other, other:
                other.execute("DELETE FROM facts")
                other.execute(HEARTBEAT)
            await until(lambda: looks.changes == 2)

    run(scenario)


def test_a_flood_of_commits_is_looked_at_in_turns(store: SqliteStore) -> None:
    """As many looks as pauses fit into the time, whatever the number of commits: five in a pause that grows again."""

    async def scenario() -> None:
        looks = Looks(store)
        loop = asyncio.get_running_loop()
        with closing(listener := CommitListener(store.commit_watch(), looks, FOR_EVER)):
            begun = loop.time()
            listener.start()
            for _ in range(20):
                await asyncio.to_thread(beat_often, store, 100)
            took = loop.time() - begun
            assert looks.made <= 3 * took / LONGEST_PAUSE + 10

    run(scenario)


def test_a_look_that_fails_is_made_again(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        looks = Looks(store, RuntimeError("a bug"))
        with closing(listener := CommitListener(store.commit_watch(), looks)):
            listener.start()
            assert looks.made == 1
            await until(lambda: looks.changes == 1)
            await beat(store)
            await until(lambda: looks.changes == 2)

    run(scenario)
    assert "changes of a database are not followed: bug: RuntimeError" in caplog.text


def test_a_look_may_ask_for_a_longer_pause(store: SqliteStore) -> None:
    async def scenario() -> None:
        looks, seen = Looks(store, pause=FOR_EVER), Looks(store)
        with (
            closing(listener := CommitListener(store.commit_watch(), looks)),
            closing(other := CommitListener(store.commit_watch(), seen)),
        ):
            listener.start()
            other.start()
            await beat(store)
            await until(lambda: seen.made > 1)
            assert looks.made == 1

    run(scenario)


def test_nothing_is_looked_at_after_the_end(store: SqliteStore) -> None:
    async def scenario() -> None:
        looks, seen = Looks(store), Looks(store)
        listener = CommitListener(store.commit_watch(), looks)
        other = CommitListener(store.commit_watch(), seen)
        for each in (listener, other):
            each.start()
        listener.close()
        listener.close()
        before = looks.made
        await beat(store)
        await until(lambda: seen.made > 1)
        assert looks.made == before
        other.close()

    run(scenario)
