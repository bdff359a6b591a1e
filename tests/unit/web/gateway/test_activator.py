"""Calls to a component that is asleep, over a real store: who is told what, how long they wait, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any

import pytest

from controller.domain.apps.requests import Outcome
from controller.domain.errors import Transient
from controller.domain.reasons import Reason
from controller.domain.routing.routes import Route
from controller.store import SqliteStore
from controller.web.gateway import activator
from controller.web.gateway.activator import Activator
from controller.web.problems import ProblemKind, RequestRefused
from tests.support.gateway import APP, GatewayWorker, make_api, make_route, run_worker, until

AWAKE = make_route(upstreams=("10.0.0.2:80",), wake_within=30.0)
ASLEEP = make_route(upstreams=(), asleep=True, wake_within=30.0)
CLASSIFY = AWAKE.component


class Worker(GatewayWorker):
    """One whose component is asleep."""

    def call(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.activator.wake(self.target))

    async def calls(self, count: int) -> list[asyncio.Task[None]]:
        """Under way: the daemon has been asked."""
        waiting = [self.call() for _ in range(count)]
        await until(lambda: self.store.requests.queued(APP) is not None)
        return waiting

    async def switch(self, route: Route) -> None:
        """As the daemon does it: from another connection."""
        await asyncio.to_thread(self.store.routes.switch, route)

    def last_used(self) -> float | None:
        return self.store.activity.of(APP).get(CLASSIFY)


def run(scenario: Callable[[Worker], Coroutine[Any, Any, None]], store: SqliteStore, *routes: Route) -> None:
    for route in routes:
        store.routes.switch(route)
    run_worker(scenario, Worker, store)


def test_all_who_call_wait_for_one_pass(store: SqliteStore) -> None:
    async def scenario(worker: Worker) -> None:
        waiting = await worker.calls(50)
        queued = store.requests.queued(APP)
        assert queued is not None
        assert queued.reasons == ("wake",)
        assert worker.last_used() is not None, "the pass must know of the call"
        store.requests.claim(queued.created)
        late = worker.call()
        await worker.switch(make_route(make_api("another"), app="other"))
        await until(lambda: len(worker.watch.table.targets) == 2)
        assert not any(call.done() for call in [*waiting, late]), "nothing that happens elsewhere wakes it up"
        await worker.switch(AWAKE)
        await asyncio.gather(*waiting, late)
        assert store.requests.queued(APP) is None, "asked once"

    run(scenario, store, ASLEEP)


@pytest.mark.parametrize("leaves", [True, False])
def test_calls_that_wait_are_counted(store: SqliteStore, leaves: bool) -> None:
    async def scenario(worker: Worker) -> None:
        label = worker.target.label
        waiting = await worker.calls(3)
        assert worker.meter.waiting == {(label, "asleep"): 3}
        if leaves:
            for call in waiting:
                call.cancel()
        else:
            await worker.switch(AWAKE)
        await asyncio.wait(waiting)
        assert not +worker.meter.waiting
        assert worker.meter.waits == {(label, "asleep"): 3}

    run(scenario, store, ASLEEP)


def test_who_calls_later_asks_again(store: SqliteStore) -> None:
    async def scenario(worker: Worker) -> None:
        for _ in range(2):
            await worker.switch(ASLEEP)
            await until(lambda: worker.target.route.asleep)
            waiting = await worker.calls(2)
            request = store.requests.claim(2e9)
            assert request is not None
            store.requests.finish(request.id, Outcome.READY, "", "")
            await worker.switch(AWAKE)
            await asyncio.gather(*waiting)

    run(scenario, store, ASLEEP)


@pytest.mark.parametrize(
    "end",
    [make_route(upstreams=(), wake_within=30.0), make_route(make_api("elsewhere"), upstreams=())],
    ids=["did not come up", "not published any more"],
)
def test_waiting_ends_when_there_is_nothing_to_wait_for(store: SqliteStore, end: Route) -> None:
    async def scenario(worker: Worker) -> None:
        waiting = await worker.calls(2)
        await worker.switch(end)
        await asyncio.gather(*waiting)

    run(scenario, store, ASLEEP)


def test_nobody_waits_for_ever(store: SqliteStore) -> None:
    async def scenario(worker: Worker) -> None:
        with pytest.raises(RequestRefused) as caught:
            await worker.call()
        problem = caught.value.problem
        assert (problem.kind, problem.retry_after) == (ProblemKind.NOT_READY, 5)
        assert "classify of app demo was asleep and did not wake up within 0.05 s" in problem.detail

    run(scenario, store, make_route(upstreams=(), asleep=True, wake_within=0.05))


def test_only_so_many_wait(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activator, "WAITING", 3)

    async def scenario(worker: Worker) -> None:
        waiting = await worker.calls(3)
        with pytest.raises(RequestRefused) as caught:
            await worker.call()
        assert (caught.value.problem.kind, caught.value.problem.retry_after) == (ProblemKind.OVERLOADED, 5)
        waiting.pop().cancel()
        await asyncio.sleep(0)
        waiting.append(worker.call())
        await worker.switch(AWAKE)
        await asyncio.gather(*waiting)

    run(scenario, store, ASLEEP)


def test_one_app_has_not_all_places(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activator, "WAITING_EACH", 2)

    async def scenario(worker: Worker) -> None:
        waiting = await worker.calls(2)
        with pytest.raises(RequestRefused, match="2 calls of app demo wait for components that are asleep"):
            await worker.call()
        await worker.switch(AWAKE)
        await asyncio.gather(*waiting)

    run(scenario, store, ASLEEP)


def test_who_asked_may_leave_without_harm_to_the_others(store: SqliteStore) -> None:
    async def scenario(worker: Worker) -> None:
        first, second = worker.call(), worker.call()
        await asyncio.sleep(0)
        first.cancel()
        await until(lambda: store.requests.queued(APP) is not None)
        await until(first.cancelled)
        await worker.switch(AWAKE)
        await second

    run(scenario, store, ASLEEP)


class FullDisk:
    """The port `Store`, of which nothing can be written."""

    def transaction(self) -> AbstractContextManager[None]:
        raise Transient(Reason.STATE_DISK_FULL, "no space left")


def test_all_who_wait_are_told_when_the_daemon_cannot_be_asked(store: SqliteStore) -> None:
    async def scenario(worker: Worker) -> None:
        full: Any = FullDisk()
        unheard = Activator(full, worker.watch, worker.pool, worker.meter)
        waiting = [asyncio.create_task(unheard.wake(worker.target)) for _ in range(2)]
        for refused in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(refused, RequestRefused)
            assert (refused.problem.kind, refused.problem.retry_after) == (ProblemKind.STORE_BUSY, 2)

    run(scenario, store, ASLEEP)


def test_the_daemon_hears_who_is_called(store: SqliteStore) -> None:
    async def scenario(worker: Worker) -> None:
        worker.activator.report()
        worker.activator.called(worker.target)
        assert worker.last_used() is None, "off the hot path"
        worker.activator.report()
        await until(lambda: worker.last_used() is not None)

    run(scenario, store, AWAKE)


def test_a_long_call_counts_until_its_end(store: SqliteStore) -> None:
    async def scenario(worker: Worker) -> None:
        worker.pool.enter("10.0.0.2:80")
        worker.activator.report()
        await until(lambda: worker.last_used() is not None)
        first = worker.last_used()
        assert first is not None
        await until(lambda: told_again(worker, first))
        worker.pool.leave("10.0.0.2:80")

    def told_again(worker: Worker, first: float) -> bool:
        worker.activator.report()
        return (worker.last_used() or 0.0) > first

    run(scenario, store, AWAKE)


def test_waiting_counts_as_a_call(store: SqliteStore) -> None:
    async def scenario(worker: Worker) -> None:
        waiting = await worker.calls(1)
        first = worker.last_used()
        assert first is not None

        def told_again() -> bool:
            worker.activator.report()
            return (worker.last_used() or 0.0) > first

        await until(told_again)
        await worker.switch(AWAKE)
        await asyncio.gather(*waiting)

    run(scenario, store, ASLEEP)


def test_what_does_not_hibernate_costs_no_write(store: SqliteStore) -> None:
    async def scenario(worker: Worker) -> None:
        worker.activator.called(worker.target)
        worker.pool.enter("127.0.0.1:1")
        worker.activator.report()

    run(scenario, store, make_route())
    assert store.activity.of(APP) == {}


def test_what_was_called_last_is_told_at_the_end(store: SqliteStore) -> None:
    async def scenario(worker: Worker) -> None:
        worker.activator.called(worker.target)

    run(scenario, store, AWAKE)
    assert CLASSIFY in store.activity.of(APP)
