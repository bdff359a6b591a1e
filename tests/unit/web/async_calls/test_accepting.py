from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from controller.domain.routing.async_calls import LOST, SMALL, CallState
from controller.store import SqliteStore
from controller.store.calls import CallTable
from controller.web.async_calls import calls as async_calls
from controller.web.async_calls.calls import AsyncCalls
from controller.web.async_calls.presence import WorkerPresence
from controller.web.gateway.body import IncomingBody, RequestBody, Send
from controller.web.gateway.forward import ForwardedCall, ResponseState
from controller.web.gateway.pool import ConnectionPool
from controller.web.gateway.router import Router
from controller.web.gateway.watch import RouteWatch
from controller.web.problems import ProblemKind, RequestRefused
from tests.support.gateway import Caller, make_route
from tests.unit.store.test_calls import LIMITS

BODY = b"x" * 80


async def _forward(
    call: ForwardedCall, user: str, body: RequestBody, send: Send, state: ResponseState
) -> None:
    raise AssertionError("no worker makes calls here")


async def _unless_busy(ask: Callable[[], Awaitable[Caller]]) -> Caller:
    while True:
        try:
            return await ask()
        except RequestRefused as refused:
            assert refused.problem.kind is ProblemKind.OVERLOADED
            await asyncio.sleep(0.001)


async def _begun(caller: Caller) -> RequestBody:
    length = {b"content-length": b"%d" % len(BODY)}
    body = RequestBody(IncomingBody(caller.receive, length), length, len(BODY))
    await body.begin()
    return body


def test_bodies_of_callers_who_wait_take_no_memory(
    tmp_path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is room for one body: the first caller waits for the end of their call, the second one is not refused."""
    monkeypatch.setattr(async_calls, "HELD", len(BODY) + 10)
    (target,) = Router.build(1, [make_route()]).targets.values()
    call = ForwardedCall(target, "POST", b"/predict", b"", b"r1")

    async def scenario() -> None:
        watch = RouteWatch(store, ConnectionPool(1.0))
        table = CallTable(tmp_path / "calls.db", LIMITS, lambda: 1e9)
        presence = WorkerPresence(tmp_path / "calls", watch.worker)
        calls = AsyncCalls(table, presence, watch, _forward, lambda _: None, lambda _: None, lambda *_: None)

        async def ask(prefer: bytes) -> Caller:
            caller = Caller(BODY)
            await calls.accept(call, "ann", await _begun(caller), [(b"prefer", prefer)], caller.send)
            return caller

        patient = asyncio.create_task(ask(b"respond-async, wait=60"))
        while not table.counts():
            await asyncio.sleep(0.001)
        assert (
            await _unless_busy(partial(ask, b"respond-async"))
        ).status == 202  # it is let go after it was stored
        assert not patient.done()
        calls.begin_stop()
        assert (await patient).status == 202
        await calls.stop(0)

    asyncio.run(asyncio.wait_for(scenario(), 20))


@dataclass
class Disk:
    """A disk whose free space the test sets, in percent: now, and from when the function runs."""

    free: float = 50.0
    later: float = 50.0


def _with_disk(
    tmp_path: Path,
    store: SqliteStore,
    size: int,
    scenario: Callable[[AsyncCalls, CallTable, Disk], Awaitable[None]],
) -> None:
    """Run the scenario with calls that are answered with so many bytes."""
    disk = Disk()
    store.routes.switch(make_route(concurrency=4))

    async def answer(
        call: ForwardedCall, user: str, body: RequestBody, send: Send, state: ResponseState
    ) -> None:
        disk.free = disk.later
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * size, "more_body": False})

    async def run() -> None:
        watch = RouteWatch(store, ConnectionPool(1.0))
        await watch.start()
        limits = replace(LIMITS, reserve=10.0, size=2**24, size_per_app=2**24, result=2**20)
        table = CallTable(tmp_path / "calls.db", limits, lambda: 1e9, lambda _: disk.free)
        presence = WorkerPresence(tmp_path / "calls", watch.worker)
        calls = AsyncCalls(table, presence, watch, answer, lambda _: None, lambda _: None, lambda *_: None)
        await calls.start()
        await scenario(calls, table, disk)
        await calls.stop(1)
        await watch.stop()

    asyncio.run(asyncio.wait_for(run(), 20))


async def _submit(calls: AsyncCalls, prefer: bytes) -> Caller:
    (target,) = Router.build(1, [make_route()]).targets.values()
    caller, call = Caller(BODY), ForwardedCall(target, "POST", b"/predict", b"", b"r1")
    await calls.accept(call, "ann", await _begun(caller), [(b"prefer", prefer)], caller.send)
    return caller


def test_no_call_is_accepted_or_begins_while_the_disk_has_too_little_space(
    tmp_path: Path, store: SqliteStore
) -> None:
    async def scenario(calls: AsyncCalls, table: CallTable, disk: Disk) -> None:
        calls._dispatcher.begin_stop()  # it stays in the queue
        assert (await _submit(calls, b"respond-async")).status == 202
        disk.free = 9.0
        assert calls._dispatcher._claim() is None
        with pytest.raises(RequestRefused) as refused:
            await _submit(calls, b"respond-async")
        assert refused.value.problem.kind is ProblemKind.DISK_LOW
        disk.free = 10.0
        claimed = calls._dispatcher._claim()
        assert claimed is not None
        table.end(claimed.call.id, calls._dispatcher._worker, LOST, None)

    _with_disk(tmp_path, store, 10, scenario)


@pytest.mark.parametrize(("size", "kept"), [(SMALL, True), (SMALL + 1, False)])
def test_a_large_result_is_not_kept_on_the_last_of_the_disk(
    tmp_path: Path, store: SqliteStore, size: int, kept: bool
) -> None:
    async def scenario(calls: AsyncCalls, table: CallTable, disk: Disk) -> None:
        disk.later = 4.0
        found = await _submit(calls, b"respond-async, wait=20")
        assert found.status == (200 if kept else 503)
        ((_, state, number),) = table.counts()
        assert (state, number) == (CallState.SUCCEEDED if kept else CallState.ERROR, 1)

    _with_disk(tmp_path, store, size, scenario)
