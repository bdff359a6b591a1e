"""The route watcher over a real store: what it serves, what the daemon hears of it."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Coroutine
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
import uvloop

from controller.config import Settings
from controller.domain.errors import Transient
from controller.domain.reasons import Reason
from controller.domain.routing.routes import Route
from controller.store import SqliteStore
from controller.web.gateway.pool import ConnectionPool
from controller.web.gateway.watch import PASSING, RouteWatch
from tests.support.failing import BUGS, Faults, failing_store
from tests.support.gateway import make_api, make_route

OLD, NEW = "10.0.0.2:80", "10.0.0.3:80"


def run(
    scenario: Callable[[RouteWatch, ConnectionPool], Coroutine[Any, Any, None]], store: SqliteStore
) -> None:
    async def bounded() -> None:
        pool = ConnectionPool(1.0)
        watch = RouteWatch(store, pool)
        async with asyncio.timeout(20):
            await watch.start()
            try:
                await scenario(watch, pool)
            finally:
                await watch.stop()

    uvloop.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def commit(store: SqliteStore, *upstreams: str) -> int:
    """As the daemon does it: from another connection."""
    return await asyncio.to_thread(store.routes.switch, make_route(upstreams=upstreams))


def drained(store: SqliteStore, endpoint: str, version: int) -> bool:
    return store.gateways.drained(endpoint, version, time.time())


def test_the_first_report_is_made_before_anything_is_served(store: SqliteStore) -> None:
    store.routes.switch(make_route(upstreams=(OLD,)))

    async def scenario(watch: RouteWatch, _: ConnectionPool) -> None:
        assert watch.table.endpoints == {OLD}
        assert not drained(store, OLD, watch.table.version + 1), "the daemon knows of this worker"

    run(scenario, store)
    assert drained(store, OLD, 10**9), "a worker that has left is not waited for"


@pytest.mark.parametrize("reason", PASSING)
def test_what_is_over_in_a_moment_does_not_keep_a_worker_from_starting(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    report, tries = store.gateways.report, []

    def fails_first(*told: Any) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise Transient(Reason(reason), "the daemon sets it aside")
        report(*told)

    monkeypatch.setattr(store.gateways, "report", fails_first)

    async def scenario(watch: RouteWatch, _: ConnectionPool) -> None:
        assert not drained(store, OLD, watch.table.version + 1)

    run(scenario, store)


def test_what_stays_ends_the_start(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise Transient(Reason.STATE_DISK_FULL, "no room")

    monkeypatch.setattr(store.gateways, "report", fails)

    async def scenario(watch: RouteWatch, _: ConnectionPool) -> None:
        raise AssertionError("it has started")

    with pytest.raises(Transient, match="no room"):
        run(scenario, store)


def test_a_switch_is_loaded_and_told(store: SqliteStore) -> None:
    async def scenario(watch: RouteWatch, _: ConnectionPool) -> None:
        version = await commit(store, OLD)
        await until(lambda: watch.table.version == version)
        await until(lambda: drained(store, NEW, version))

    run(scenario, store)


def test_a_retired_endpoint_is_busy_until_its_last_call_ends(store: SqliteStore) -> None:
    async def scenario(watch: RouteWatch, pool: ConnectionPool) -> None:
        await commit(store, OLD)
        await until(lambda: watch.table.endpoints == {OLD})
        pool.enter(OLD)
        pool.enter(OLD)
        version = await commit(store, NEW)
        await until(lambda: drained(store, NEW, version))
        assert not drained(store, OLD, version)
        assert not pool.leave(OLD)
        assert not drained(store, OLD, version)
        assert pool.leave(OLD)
        watch.went_idle(OLD)
        await until(lambda: drained(store, OLD, version))

    run(scenario, store)


def test_what_changes_nothing_for_routes_keeps_the_table(store: SqliteStore) -> None:
    async def scenario(watch: RouteWatch, _: ConnectionPool) -> None:
        table = watch.table
        await asyncio.to_thread(store.heartbeat, 1.0)
        await watch.wait(10)
        assert watch.table is table

    run(scenario, store)


def test_targets_are_resolved_anew(store: SqliteStore) -> None:
    async def scenario(watch: RouteWatch, _: ConnectionPool) -> None:
        await commit(store, OLD)
        await until(lambda: bool(watch.table.targets))
        target = next(iter(watch.table.targets.values()))
        await commit(store, NEW)
        await until(lambda: watch.table.endpoints == {NEW})
        moved = watch.resolve(target)
        assert moved is not None
        assert moved.route.upstreams == (NEW,)
        hidden = make_route(make_api(published=False))
        await asyncio.to_thread(store.routes.switch, hidden)
        await until(lambda: not watch.table.targets)
        assert watch.resolve(target) is None

    run(scenario, store)


def test_who_waits_is_woken_by_a_commit_a_stop_or_time(store: SqliteStore) -> None:
    async def scenario(watch: RouteWatch, _: ConnectionPool) -> None:
        waiting = asyncio.create_task(watch.wait(1000))
        await asyncio.sleep(0)
        await commit(store, OLD)
        await waiting
        await watch.wait(0.001)
        waiting = asyncio.create_task(watch.wait(1000))
        await asyncio.sleep(0)
        watch.end_waits()
        await waiting
        assert watch.stopping

    run(scenario, store)


def test_a_damaged_store_leaves_the_table_in_force(
    store: SqliteStore, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(watch: RouteWatch, _: ConnectionPool) -> None:
        await commit(store, OLD)
        await until(lambda: watch.table.endpoints == {OLD})
        with closing(
            sqlite3.connect(settings.database)
        ) as connection:  # no page is read from the log instead
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        settings.database.write_bytes(b"no database " * 1000)
        await until(lambda: "is damaged" in caplog.text)
        assert watch.table.endpoints == {OLD}

    run(scenario, store)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: type(bug()).__name__)
@pytest.mark.parametrize(
    "step", ["changed", "routes.version", "routes.all", "routes.services", "gateways.report"]
)
def test_a_bug_in_any_step_does_not_end_the_watch(
    store: SqliteStore, step: str, bug: Callable[[], Exception]
) -> None:
    faults = Faults()

    async def scenario(watch: RouteWatch, _: ConnectionPool) -> None:
        faults.arm(step, [bug(), bug()])
        await commit(store, OLD)
        await until(lambda: not faults.left)
        version = await commit(store, NEW)
        await until(lambda: watch.table.version == version and watch.table.endpoints == {NEW})
        await until(lambda: drained(store, OLD, version))

    run(scenario, failing_store(store, faults))


def test_what_one_app_publishes_keeps_no_other_from_being_served(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    """A table that cannot be made of all routes is made of those of which it can: at the start, too."""
    store.routes.switch(make_route(make_api("broken"), app="bad"))
    store.routes.switch(make_route(upstreams=(OLD,)))
    all_routes = store.routes.all

    def with_a_broken_one() -> tuple[Route, ...]:
        return tuple(
            replace(r, apis=tuple(replace(api, path="caf\udce9") for api in r.apis)) if r.app == "bad" else r
            for r in all_routes()
        )

    store.routes.all = with_a_broken_one  # type: ignore[method-assign]

    async def scenario(watch: RouteWatch, _: ConnectionPool) -> None:
        assert {target.route.app for target in watch.table.targets.values()} == {"demo"}
        version = await commit(store, NEW)
        await until(lambda: watch.table.version == version and watch.table.endpoints == {NEW})

    run(scenario, store)
    assert "app bad is not served completely" in caplog.text
