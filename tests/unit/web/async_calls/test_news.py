"""Callers who wait for the ends of calls, over a real database that other workers change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.store.calls import CallTable
from controller.web.async_calls.news import CallNews
from tests.unit.store.test_calls import LIMITS, SLOTS, new


@pytest.fixture
def other(tmp_path: Path) -> Iterator[CallTable]:
    """Another worker's."""
    with closing(CallTable(tmp_path / "calls.db", replace(LIMITS, queued=1000), lambda: 1e9)) as made:
        yield made


def run(other: CallTable, scenario: Callable[[CallNews], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        with closing(CallTable(other.path, LIMITS, lambda: 1e9)) as table:
            news = CallNews(table)
            news.start()
            try:
                await asyncio.wait_for(scenario(news), 20)
            finally:
                news.stop()

    asyncio.run(bounded())


def begun(news: CallNews, id: str) -> asyncio.Task[None]:
    return asyncio.create_task(news.wait_for_end(id, 60))


@pytest.mark.parametrize("gone", [False, True])
def test_who_waits_is_told_the_end_of_their_call_alone(other: CallTable, gone: bool) -> None:
    ids = [other.submit(new())[0].id for _ in range(2)]

    async def scenario(news: CallNews) -> None:
        first, second = (begun(news, id) for id in ids)
        other.submit(new())  # a change that is none for them
        await news.wait(20)
        if gone:
            with other._write() as db:
                db.execute("DELETE FROM calls WHERE id = ?", (ids[0],))
        else:
            other.cancel(ids[0])
        await first
        assert not second.done()
        news.stop()
        await second

    run(other, scenario)


def test_followers_are_told_each_change(other: CallTable) -> None:
    id = other.submit(new())[0].id

    async def scenario(news: CallNews) -> None:
        seen = other.marks([id])[id]
        assert not await news.wait_for_change(id, seen, 0.01)
        follower = asyncio.create_task(news.wait_for_change(id, seen, 60))
        waiting = begun(news, id)
        await asyncio.sleep(0)
        assert other.claim("w1", SLOTS) is not None
        assert await follower
        assert not waiting.done()
        last = asyncio.create_task(news.wait_for_change(id, other.marks([id])[id], 60))
        await asyncio.sleep(0)
        with other._write() as db:
            db.execute("DELETE FROM calls")
        assert await last
        await waiting

    run(other, scenario)


def test_a_change_costs_one_query_however_many_wait(other: CallTable) -> None:
    """They share the event loop with the callers of all apps."""
    ids = [other.submit(new())[0].id for _ in range(200)]
    asked: list[str] = []

    async def scenario(news: CallNews) -> None:
        waiting = [begun(news, id) for id in ids]
        await asyncio.sleep(0)
        with news._table._read() as db:
            db.set_trace_callback(asked.append)
        other.submit(new())
        await news.wait(20)
        with news._table._read() as db:
            db.set_trace_callback(None)
        news.stop()
        await asyncio.wait(waiting)

    run(other, scenario)
    assert len([text for text in asked if "FROM calls" in text]) == 1


def test_nobody_waits_longer_than_they_like(other: CallTable) -> None:
    id = other.submit(new())[0].id

    async def scenario(news: CallNews) -> None:
        await news.wait_for_end(id, 0.01)
        assert not news._waiting

    run(other, scenario)
