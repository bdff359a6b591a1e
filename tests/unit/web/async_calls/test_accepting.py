from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

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
from tests.support.gateway import Caller, make_route
from tests.unit.store.test_calls import LIMITS

BODY = b"x" * 80


async def _forward(
    call: ForwardedCall, user: str, body: RequestBody, send: Send, state: ResponseState
) -> None:
    raise AssertionError("no worker makes calls here")


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
        calls = AsyncCalls(table, presence, watch, _forward, lambda _: None, lambda _: None)

        async def ask(prefer: bytes) -> Caller:
            caller = Caller(BODY)
            await calls.accept(call, "ann", await _begun(caller), [(b"prefer", prefer)], caller.send)
            return caller

        patient = asyncio.create_task(ask(b"respond-async, wait=60"))
        while not table.counts():
            await asyncio.sleep(0.001)
        assert (await ask(b"respond-async")).status == 202
        assert not patient.done()
        calls.begin_stop()
        assert (await patient).status == 202
        await calls.stop(0)

    asyncio.run(asyncio.wait_for(scenario(), 20))
