"""Calls to a component whose only container died, over a real store and real sockets: they wait until it has
healed, and what it certainly did not run is sent again."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from controller.domain.routing.routes import Route
from controller.store import SqliteStore
from controller.web.gateway import activator, upstream
from controller.web.gateway.body import IncomingBody, RequestBody
from controller.web.gateway.forward import ForwardedCall, Forwarder, ResponseState
from controller.web.gateway.upstream import UpstreamConnection, UpstreamSilent
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from tests.support.gateway import (
    Caller,
    GatewayWorker,
    component,
    make_route,
    read_request,
    response,
    run_worker,
    until,
)

REFUSED = response(b"{}", "X-Prichal-Call: refused", status="503 Service Unavailable")


class Worker(GatewayWorker):
    """One that forwards calls."""

    def __init__(self, store: SqliteStore) -> None:
        super().__init__(store)
        self.forwarder = Forwarder(self.pool, self.watch.resolve, self.watch.went_idle, self.activator)

    async def call(self, caller: Caller | None = None, method: str = "POST") -> Caller:
        """As the gateway does it."""
        caller = caller or Caller(b"{}")
        special, target = {b"transfer-encoding": b"chunked"}, self.target
        body = RequestBody(IncomingBody(caller.receive, special), special, 10**6)
        await self.forwarder.ready(target)
        await body.begin()
        call = ForwardedCall(target, method, b"/predict", b"x-request-id: r1\r\n", b"r1")
        await self.forwarder.forward(call, body, caller.send, ResponseState())
        return caller

    def begin(self, caller: Caller | None = None, method: str = "POST") -> asyncio.Task[Caller]:
        return asyncio.create_task(self.call(caller, method))

    async def begin_waiting(self, count: int = 1) -> list[asyncio.Task[Caller]]:
        calls = [self.begin() for _ in range(count)]
        await until(lambda: self.waiting == count)
        return calls

    @property
    def waiting(self) -> int:
        return self.activator._waiting.total()

    async def refused(self, method: str = "POST") -> HttpProblem:
        with pytest.raises(RequestRefused) as caught:
            await self.call(method=method)
        return caught.value.problem

    async def switch(self, **changes: Any) -> None:
        """As the daemon does it: from another connection."""
        await asyncio.to_thread(self.store.routes.switch, a_route(**changes))


def a_route(*upstreams: str, patience: float = 10.0, **changes: Any) -> Route:
    upstreams = upstreams or changes.pop("upstreams", ())
    return make_route(upstreams=upstreams, patience=patience, ready_path="/health/ready", **changes)


def run(scenario: Callable[[Worker], Coroutine[Any, Any, None]], store: SqliteStore, route: Route) -> None:
    store.routes.switch(route)
    run_worker(scenario, Worker, store)


def free_endpoint() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


class Library:
    """What the serving library answers: `states` are those of its first answers to calls, then it runs them."""

    def __init__(self, *states: bytes) -> None:
        self.states = list(states)
        self.ran = 0
        self.ready = True

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            line, _, _ = await read_request(reader)
            if "/health/ready" in line:
                writer.write(response() if self.ready else REFUSED)
            elif self.states:
                writer.write(self.states.pop(0))
            else:
                self.ran += 1
                writer.write(response(b"healed", "X-Request-ID: r1"))


@pytest.mark.parametrize(
    "left_out", [True, False], ids=["the table has none", "the table still has the dead one"]
)
def test_calls_wait_for_another_container(store: SqliteStore, left_out: bool) -> None:
    library = Library()

    async def scenario(worker: Worker) -> None:
        calls = await worker.begin_waiting(5)
        async with component(library) as endpoint:
            await worker.switch(upstreams=(endpoint,))
            assert {(await call).body for call in calls} == {b"healed"}
            assert (worker.waiting, worker.activator._healing) == (0, {})
            assert (await worker.call()).body == b"healed"

    run(scenario, store, a_route(*(() if left_out else (free_endpoint(),))))
    assert library.ran == 6


def test_calls_wait_for_a_container_that_comes_back_at_its_address(store: SqliteStore) -> None:
    dead = free_endpoint()
    library = Library()
    library.ready = False

    async def scenario(worker: Worker) -> None:
        calls = await worker.begin_waiting(3)
        async with component(library, port=int(dead.rpartition(":")[2])):
            late = worker.begin()
            await until(lambda: worker.waiting == 4)
            library.ready = True
            assert {(await call).body for call in [*calls, late]} == {b"healed"}

    run(scenario, store, a_route(dead))


def test_what_the_library_has_refused_is_sent_again(store: SqliteStore) -> None:
    library = Library(REFUSED)

    async def scenario(worker: Worker) -> None:
        async with component(library) as endpoint:
            await worker.switch(upstreams=(endpoint,))
            await until(lambda: bool(worker.target.route.upstreams))
            assert (await worker.call()).body == b"healed"

    run(scenario, store, a_route())
    assert library.ran == 1


def dying_server(then: Callable[[socket.socket], None], answers: bytes) -> tuple[socket.socket, list[int]]:
    """A listening socket, and a thread that takes one connection, does `then` with it, and answers the others."""
    server, seen = socket.create_server(("127.0.0.1", 0)), list[int]()

    def serve() -> None:
        first, _ = server.accept()
        seen.append(1)
        then(first)
        first.close()
        while True:
            try:
                other, _ = server.accept()
            except OSError:
                return
            seen.append(1)
            threading.Thread(target=answer, args=(other,), daemon=True).start()

    def answer(other: socket.socket) -> None:
        with other:
            while other.recv(65536):
                other.sendall(answers)

    threading.Thread(target=serve, daemon=True).start()
    return server, seen


def leave_unread(sock: socket.socket) -> None:
    """The kernel resets the connection of a program that dies with something left to read."""
    while not sock.recv(1, socket.MSG_PEEK):
        pass


def read_all(sock: socket.socket) -> None:
    data = b""
    while b"0\r\n\r\n" not in data and b"{}" not in data:
        data += sock.recv(65536)


def let_wait(sock: socket.socket) -> None:
    read_all(sock)
    sock.sendall(b"HTTP/1.1 102 Processing\r\nX-Prichal-Call: waiting\r\n\r\n")


def let_wait_and_begin(sock: socket.socket) -> None:
    let_wait(sock)
    sock.sendall(b"HTTP/1.1 102 Processing\r\nX-Prichal-Call: running\r\n\r\n")


@pytest.mark.parametrize(
    ("then", "method", "own", "again"),
    [
        (let_wait, "POST", False, True),
        (let_wait, "POST", True, False),
        (let_wait_and_begin, "POST", False, False),
        (leave_unread, "POST", False, True),
        (leave_unread, "POST", True, False),
        (read_all, "POST", False, False),
        (read_all, "GET", False, True),
        (read_all, "GET", True, True),
    ],
)
def test_what_a_dying_container_had_not_read_is_sent_again(
    store: SqliteStore, then: Callable[[socket.socket], None], method: str, own: bool, again: bool
) -> None:
    server, seen = dying_server(then, response(b"healed"))
    endpoint = f"127.0.0.1:{server.getsockname()[1]}"

    async def scenario(worker: Worker) -> None:
        if again:
            assert (await worker.call(method=method)).body == b"healed"
        else:
            assert (await worker.refused(method)).kind is ProblemKind.UPSTREAM_DIED

    with server:
        run(scenario, store, a_route(endpoint, any_path=own))
    assert len(seen) == 1 + again


@pytest.mark.parametrize("own", [False, True])
def test_what_may_run_twice_is_sent_again(store: SqliteStore, own: bool) -> None:
    server, seen = dying_server(read_all, response(b"healed"))
    endpoint = f"127.0.0.1:{server.getsockname()[1]}"

    async def scenario(worker: Worker) -> None:
        assert (await worker.call()).body == b"healed"

    with server:
        run(scenario, store, a_route(endpoint, any_path=own, idempotent=True))
    assert len(seen) == 2


@pytest.mark.parametrize(("method", "idempotent"), [("GET", False), ("POST", True)])
def test_a_call_that_ends_its_container_ends_two_at_most(
    store: SqliteStore, method: str, idempotent: bool
) -> None:
    deaths: list[str] = []

    async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, _, _ = await read_request(reader)
        if "/health/ready" in line:
            writer.write(response())
        else:
            deaths.append(line)

    async def scenario(worker: Worker) -> None:
        async with component(dies) as endpoint:
            await worker.switch(upstreams=(endpoint,), idempotent=idempotent)
            await until(lambda: bool(worker.target.route.upstreams))
            assert (await worker.refused(method)).kind is ProblemKind.UPSTREAM_DIED

    run(scenario, store, a_route())
    assert len(deaths) == 2


def test_a_component_that_does_not_come_back(store: SqliteStore) -> None:
    dead = free_endpoint()

    async def scenario(worker: Worker) -> None:
        problem = await worker.refused()
        assert (problem.kind, problem.retry_after) == (ProblemKind.NOT_READY, 5)
        assert "classify of app demo did not take calls again within 0.2 s: " in problem.detail
        assert "refused" in problem.detail.lower()
        assert dead not in problem.detail
        assert worker.waiting == 0

    run(scenario, store, a_route(dead, patience=0.2))


@pytest.mark.parametrize("kind", [ProblemKind.NOT_READY, ProblemKind.UPSTREAM_UNREACHABLE])
def test_without_patience_there_is_an_answer_at_once(store: SqliteStore, kind: ProblemKind) -> None:
    upstreams = (free_endpoint(),) if kind is ProblemKind.UPSTREAM_UNREACHABLE else ()

    async def scenario(worker: Worker) -> None:
        assert (await worker.refused()).kind is kind

    run(scenario, store, a_route(*upstreams, patience=0.0))


@pytest.mark.parametrize("already", [True, False], ids=["at once", "while calls wait"])
@pytest.mark.parametrize("asleep", [True, False], ids=["asleep", "dead"])
def test_nobody_waits_for_what_is_not_repaired(store: SqliteStore, already: bool, asleep: bool) -> None:
    why = "it was restarted 5 times within 600 s and is not started again for now"

    async def scenario(worker: Worker) -> None:
        if already:
            problem = await worker.refused()
        else:
            (call,) = await worker.begin_waiting()
            await worker.switch(patience=1000.0, wake_within=1000.0, asleep=asleep, stalled=why)
            with pytest.raises(RequestRefused) as caught:
                await call
            problem = caught.value.problem
        assert (problem.kind, problem.retry_after) == (ProblemKind.NOT_READY, 5)
        assert why in problem.detail

    route = a_route(patience=1000.0, wake_within=1000.0, asleep=asleep, stalled=why if already else "")
    run(scenario, store, route)


def test_only_so_many_wait_and_who_leaves_gives_the_place_up(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activator, "WAITING_EACH", 12)
    library = Library()

    async def scenario(worker: Worker) -> None:
        calls = await worker.begin_waiting(12)
        problem = await worker.refused()
        assert (problem.kind, problem.retry_after) == (ProblemKind.OVERLOADED, 5)
        assert "12 calls of app demo wait" in problem.detail
        assert set(worker.meter.waiting.items()) == {(("demo/image", "healing"), 12)}
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        assert (worker.waiting, worker.activator._healing, +worker.meter.waiting) == (0, {}, {})
        calls = await worker.begin_waiting(12)
        async with component(library) as endpoint:
            await worker.switch(upstreams=(endpoint,))
            assert {(await call).body for call in calls} == {b"healed"}

    run(scenario, store, a_route())
    assert library.ran == 12, "the calls of those who left are not made"


def test_a_component_that_leaves_git_meanwhile_is_not_found(store: SqliteStore) -> None:
    async def scenario(worker: Worker) -> None:
        (call,) = await worker.begin_waiting()
        await asyncio.to_thread(store.routes.withdraw, worker.target.route.app, worker.target.route.component)
        with pytest.raises(RequestRefused) as caught:
            await call
        assert caught.value.problem.kind is ProblemKind.NOT_FOUND

    run(scenario, store, a_route())


def test_a_component_that_falls_asleep_meanwhile_is_woken_up(store: SqliteStore) -> None:
    async def scenario(worker: Worker) -> None:
        (call,) = await worker.begin_waiting()
        await worker.switch(asleep=True, wake_within=30.0)
        await until(lambda: store.requests.queued(worker.target.route.app) is not None)
        async with component(Library()) as endpoint:
            await worker.switch(upstreams=(endpoint,), wake_within=30.0)
            assert (await call).body == b"healed"

    run(scenario, store, a_route())


def test_nothing_of_a_body_is_read_while_its_call_waits(store: SqliteStore) -> None:
    caller = Caller(*[b"x" * 1000] * 50)

    async def scenario(worker: Worker) -> None:
        call = worker.begin(caller)
        await until(lambda: worker.waiting == 1)
        assert len(caller._parts) == 50
        async with component(Library()) as endpoint:
            await worker.switch(upstreams=(endpoint,))
            assert (await call).body == b"healed"
        assert caller._parts == []

    run(scenario, store, a_route())


def test_waiting_calls_count_as_calls_of_what_hibernates(store: SqliteStore) -> None:
    async def scenario(worker: Worker) -> None:
        (call,) = await worker.begin_waiting()
        worker.activator.report()
        await until(lambda: bool(store.activity.of(worker.target.route.app)))
        call.cancel()

    run(scenario, store, a_route(wake_within=30.0))


class DeafConnection(UpstreamConnection):
    """What is sent over it arrives nowhere."""

    def _undelivered(self) -> bool:
        return True


def test_a_network_that_has_gone_is_noticed_before_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "DELIVERY", 0.05)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as server:
            host, port = server.getsockname()
            _, connection = await loop.create_connection(lambda: DeafConnection("x", loop), host, port)
            connection.begin(b"POST / HTTP/1.1\r\n\r\n", False, 600.0)
            with pytest.raises(UpstreamSilent) as caught:
                await connection.head()
            assert not caught.value.undelivered, "kernels like to acknowledge a request with its response"
            connection.end()

    uvloop.run(scenario())
