"""The forwarder between a real socket and ASGI messages; components that fail in every way they can."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from typing import Any

import pytest

from controller.web.gateway import upstream
from controller.web.gateway.body import CallerGone, IncomingBody, RequestBody
from controller.web.gateway.forward import ForwardedCall, Forwarder, ResponseState
from controller.web.gateway.pool import ConnectionPool
from controller.web.gateway.router import Router, UpstreamTarget
from controller.web.gateway.upstream import ConnectionDropped, UpstreamError, UpstreamTimeout
from controller.web.problems import ProblemKind, RequestRefused
from tests.support.gateway import Caller, Handler, NobodyWaits, component, make_route, read_request, response
from tests.support.loops import run


def target_of(*endpoints: str, timeout: float = 5.0, any_path: bool = True) -> UpstreamTarget:
    table = Router.build(1, [make_route(upstreams=endpoints, timeout=timeout, any_path=any_path)])
    return next(iter(table.targets.values()))


class Bench(NobodyWaits):
    """A forwarder and what became of the calls through it."""

    def __init__(self, target: UpstreamTarget) -> None:
        self.target: UpstreamTarget | None = target
        self.pool = ConnectionPool(connect_timeout=1.0)
        self.idle: list[str] = []
        self.forwarder = Forwarder(self.pool, lambda _: self.target, self.idle.append, self)

    async def call(
        self,
        caller: Caller | None = None,
        method: str = "POST",
        path: bytes = b"/predict",
        headers: dict[bytes, bytes] | None = None,
        limit: int = 10**6,
    ) -> Caller:
        caller = caller or Caller(b'{"inputs": []}')
        if headers is None:
            parts = caller._parts
            chunked = len(parts) > 1 or caller._leaves
            size = b"%d" % sum(map(len, parts))
            headers = {b"transfer-encoding": b"chunked"} if chunked else {b"content-length": size}
        body = RequestBody(IncomingBody(caller.receive, headers), headers, limit)
        await body.begin()
        assert self.target is not None
        call = ForwardedCall(self.target, method, path, b"x-request-id: r1\r\naccept: */*\r\n", b"r1")
        try:
            await self.forwarder.forward(call, body, caller.send, ResponseState())
        finally:
            assert not self.pool.busy
        return caller

    async def refused(self, *args: Any, **kwargs: Any) -> ProblemKind:
        with pytest.raises(RequestRefused) as caught:
            await self.call(*args, **kwargs)
        problem = caught.value.problem
        assert "classify of app demo" in problem.detail, "a problem says who failed"
        return problem.kind


def answering(data: bytes) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(data)

    return handler


def test_request_and_response_pass() -> None:
    seen: list[tuple[str, dict[str, str], bytes]] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append(await read_request(reader))
            writer.write(response(b'{"outputs": []}', "content-type: application/json", "x-model: m"))

    async def scenario() -> None:
        async with component(handler) as endpoint:
            bench = Bench(target_of(endpoint))
            caller = await bench.call(path=b"/predict?a=%20b")
            assert (caller.status, caller.body, caller.complete) == (200, b'{"outputs": []}', True)
            assert caller.headers["x-model"] == "m"
            assert caller.headers["x-request-id"] == "r1"
            line, headers, body = seen[0]
            assert line == "POST /predict?a=%20b HTTP/1.1"
            assert headers == {
                "host": endpoint,
                "x-request-id": "r1",
                "accept": "*/*",
                "content-length": str(len(body)),
            }
            assert body == b'{"inputs": []}'
            assert bench.idle == [endpoint]

    run(scenario())


def test_the_header_of_a_stream_does_not_wait_for_its_first_part() -> None:
    async def scenario() -> None:
        caller = Caller(b"{}")

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            await caller.got_part.wait()  # a server passes the header on with the first part of the body
            writer.write(b"7\r\ndata: 1\r\n0\r\n\r\n")

        async with component(handler) as endpoint:
            await Bench(target_of(endpoint)).call(caller)
            assert caller.messages[1] == {"type": "http.response.body", "body": b"", "more_body": True}
            assert caller.body == b"data: 1"

    run(scenario())


@pytest.mark.parametrize(
    ("status", "answered", "own_server", "passes"),
    [
        ("200 OK", "X-Request-ID: r1", False, True),
        ("200 OK", "X-Request-ID: r2", False, False),
        ("200 OK", "x-request-id: secret", False, False),
        ("200 OK", "x-other: r2", False, True),
        ("503 No room", "X-Request-ID: -", False, True),
        ("200 OK", "X-Request-ID: r2", True, True),
    ],
)
def test_an_answer_to_another_call_reaches_nobody(
    status: str, answered: str, own_server: bool, passes: bool
) -> None:
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await answering(response(b"SECRET", answered, status=status))(reader, writer)

    async def scenario() -> None:
        async with component(handler) as endpoint:
            bench = Bench(target_of(endpoint, any_path=own_server))
            for _ in range(2):
                if passes:
                    assert (await bench.call()).body == b"SECRET"
                else:
                    assert await bench.refused() is ProblemKind.UPSTREAM_GARBAGE

    run(scenario())
    assert connections == (1 if passes else 2), "a connection that is out of step is not used again"


def test_connections_are_kept_and_used_again() -> None:
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await answering(response())(reader, writer)

    async def scenario() -> None:
        async with component(handler) as endpoint:
            bench = Bench(target_of(endpoint))
            for _ in range(5):
                assert (await bench.call()).body == b"ok"

    run(scenario())
    assert connections == 1


@pytest.mark.parametrize(
    "close",
    [
        response(b"ok", "connection: close"),
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        response() + response(b"unasked"),
        response() + b"garbage",
    ],
)
def test_connections_that_cannot_be_trusted_are_not_used_again(close: bytes) -> None:
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await answering(close)(reader, writer)

    async def scenario() -> None:
        async with component(handler) as endpoint:
            bench = Bench(target_of(endpoint))
            for _ in range(2):
                assert (await bench.call()).body == b"ok"

    run(scenario())
    assert connections == 2


@pytest.mark.parametrize(
    ("method", "data", "body"),
    [
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", b""),
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n", b""),
        ("GET", b"HTTP/1.1 100 Continue\r\n\r\n" + response(), b"ok"),
        ("GET", b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + response(), b"ok"),
        (
            "GET",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
            b"abc",
        ),
        (
            "GET",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-evil: 1\r\n\r\n",
            b"a",
        ),
        ("GET", response(b"gone", status="410 Gone"), b"gone"),
    ],
)
def test_framing_of_responses(method: str, data: bytes, body: bytes) -> None:
    async def scenario() -> None:
        async with component(answering(data)) as endpoint:
            caller = await Bench(target_of(endpoint)).call(Caller(), method)
            assert (caller.body, caller.complete) == (body, True)
            assert not {"link", "x-evil", "transfer-encoding"} & set(caller.headers)

    run(scenario())


def test_a_body_that_ends_with_the_connection() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall ")
        await writer.drain()
        writer.write(b"of it")

    async def scenario() -> None:
        async with component(handler) as endpoint:
            assert (await Bench(target_of(endpoint)).call()).body == b"all of it"

    run(scenario())


# --- streaming ----------------------------------------------------------------------------------------------------


def test_parts_of_a_response_pass_at_once() -> None:
    async def scenario() -> None:
        first_seen = asyncio.Event()

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n")
            await first_seen.wait()
            writer.write(b"data: 2\n\n")

        async with component(handler) as endpoint:
            caller = Caller()
            task = asyncio.create_task(Bench(target_of(endpoint)).call(caller, "GET"))
            await caller.got_part.wait()
            assert caller.body == b"data: 1\n\n"
            first_seen.set()
            await task
            assert caller.body == b"data: 1\n\ndata: 2\n\n"

    run(scenario())


@pytest.mark.parametrize("announced", [True, False])
def test_a_large_body_streams_up(announced: bool) -> None:
    parts = [bytes([n]) * 50_000 for n in range(20)]
    received: list[tuple[dict[str, str], bytes]] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, headers, body = await read_request(reader)
        received.append((headers, body))
        writer.write(response(str(len(body)).encode()))

    async def scenario() -> None:
        async with component(handler) as endpoint:
            headers = {b"content-length": b"1000000"} if announced else {b"transfer-encoding": b"chunked"}
            caller = await Bench(target_of(endpoint)).call(Caller(*parts), headers=headers)
            assert caller.body == b"1000000"

    run(scenario())
    headers, body = received[0]
    assert body == b"".join(parts)
    assert ("content-length" in headers) is announced


def test_backpressure_towards_the_caller() -> None:
    size = 8 * 2**20
    sent = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(bytes(65536))
            sent += 65536
            await writer.drain()

    async def scenario() -> None:
        async with component(handler) as endpoint:
            caller = Caller()
            bench = Bench(target_of(endpoint))
            task = asyncio.create_task(bench.call(caller, "GET"))
            await caller.got_part.wait()
            caller.reads.clear()
            stuck = -1
            while stuck != sent:  # the component stands still once all buffers between are full
                stuck = sent
                for _ in range(200):
                    await asyncio.sleep(0)
            assert sent < size
            caller.reads.set()
            await task
            assert len(caller.body) == size

    run(scenario())


def test_a_caller_who_never_reads_does_not_hold_the_component() -> None:
    async def scenario() -> None:
        gone = asyncio.Event()

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
            await reader.read()
            gone.set()

        async with component(handler) as endpoint:
            caller = Caller()
            caller.reads.clear()
            task = asyncio.create_task(Bench(target_of(endpoint, timeout=0.5)).call(caller, "GET"))
            await gone.wait()
            caller.reads.set()
            await asyncio.wait([task])
            assert task.cancelled() or isinstance(task.exception(), UpstreamTimeout)

    run(scenario())


class Stalling(Caller):
    """Sends all parts of its body but the last."""

    async def receive(self) -> dict[str, Any]:
        if len(self._parts) == 1:
            await asyncio.Event().wait()
        return await super().receive()


def test_the_component_may_answer_before_the_body_is_up() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response(b"no", status="413 Content Too Large"))
        await reader.read()

    async def scenario() -> None:
        async with component(handler) as endpoint:
            caller = Stalling(b"x" * 10, b"y", b"never sent")
            headers = {b"content-length": b"1000"}
            await Bench(target_of(endpoint)).call(caller, headers=headers)
            assert (caller.status, caller.body) == (413, b"no")

    run(scenario())


# --- faults -------------------------------------------------------------------------------------------------------


async def dies_after_the_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)


async def dies_in_the_header(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-le")


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (dies_after_the_request, ProblemKind.UPSTREAM_DIED),
        (dies_in_the_header, ProblemKind.UPSTREAM_DIED),
        (answering(b"SSH-2.0-OpenSSH_9.2\r\n"), ProblemKind.UPSTREAM_GARBAGE),
        (answering(b"HTTP/1.1 two hundred\r\n\r\n"), ProblemKind.UPSTREAM_GARBAGE),
        (
            answering(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
            ProblemKind.UPSTREAM_GARBAGE,
        ),
        (
            answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc"),
            ProblemKind.UPSTREAM_GARBAGE,
        ),
        (
            answering(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
            ProblemKind.UPSTREAM_GARBAGE,
        ),
        (
            answering(
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\n\x1f\x8b\r\n0\r\n\r\n"
            ),
            ProblemKind.UPSTREAM_GARBAGE,
        ),
        (
            answering(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\ntransfer-encoding: gzip\r\n\r\n\x1f\x8b"
            ),
            ProblemKind.UPSTREAM_GARBAGE,
        ),
        (answering(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000), ProblemKind.UPSTREAM_GARBAGE),
    ],
)
def test_a_component_that_fails_before_its_response(handler: Handler, kind: ProblemKind) -> None:
    async def scenario() -> None:
        async with component(handler) as endpoint:
            caller = Caller(b"{}")
            assert await Bench(target_of(endpoint)).refused(caller) is kind
            assert caller.messages == []

    run(scenario())


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nonly this\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nonly this\r\nZZ\r\nbad chunk",
    ],
)
def test_a_response_that_breaks_off_is_never_completed(data: bytes) -> None:
    async def scenario() -> None:
        started = asyncio.Event()

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            head, mark, tail = data.partition(b"only this")
            writer.write(head + mark)
            await started.wait()
            writer.write(tail)

        async with component(handler) as endpoint:
            caller = Caller()
            task = asyncio.create_task(Bench(target_of(endpoint)).call(caller, "GET"))
            await caller.got_part.wait()
            started.set()
            with pytest.raises(UpstreamError):
                await task
            assert not caller.complete
            assert caller.body == b"only this"

    run(scenario())


def test_a_silent_component_times_out() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await reader.read()  # the gateway closes the connection, so that the component can stop working

    async def scenario() -> None:
        async with component(handler) as endpoint:
            bench = Bench(target_of(endpoint, timeout=0.05))
            assert await bench.refused() is ProblemKind.UPSTREAM_TIMEOUT

    run(scenario())


def test_a_caller_who_leaves_ends_the_component_s_connection() -> None:
    async def scenario() -> None:
        working, gone = asyncio.Event(), asyncio.Event()

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            working.set()
            await reader.read()
            gone.set()

        async with component(handler) as endpoint:
            bench = Bench(target_of(endpoint))
            task = asyncio.create_task(bench.call())
            await working.wait()
            task.cancel()
            await asyncio.wait([task])
            await gone.wait()
            assert bench.idle == [endpoint]

    run(scenario())


def test_a_caller_who_leaves_in_the_middle_of_his_body() -> None:
    async def scenario() -> None:
        gone = asyncio.Event()

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            gone.set()

        async with component(handler) as endpoint:
            with pytest.raises(CallerGone):
                await Bench(target_of(endpoint)).call(Caller(b"half of", leaves=True))
            await gone.wait()

    run(scenario())


@pytest.mark.parametrize("announced", [True, False])
def test_the_limit_on_bodies(announced: bool) -> None:
    async def scenario() -> None:
        async with component(answering(response())) as endpoint:
            headers = {b"content-length": b"60"} if announced else {b"transfer-encoding": b"chunked"}
            with pytest.raises(RequestRefused) as caught:
                await Bench(target_of(endpoint)).call(
                    Caller(b"x" * 20, b"x" * 20, b"x" * 20), headers=headers, limit=50
                )
            assert caught.value.problem.kind is ProblemKind.TOO_LARGE
            assert caught.value.problem.extra["limit"] == 50

    run(scenario())


# --- which component, and whether again -----------------------------------------------------------------------------


def test_no_version_is_ready() -> None:
    async def scenario() -> None:
        assert await Bench(target_of()).refused() is ProblemKind.NOT_READY

    run(scenario())


def test_an_api_that_is_gone_by_now() -> None:
    async def scenario() -> None:
        bench = Bench(target_of("127.0.0.1:1"))
        goal = bench.target
        assert goal is not None
        call = ForwardedCall(goal, "GET", b"/", b"", b"r")
        bench.target = None
        body = RequestBody(IncomingBody(Caller().receive, {}), {}, 10)
        with pytest.raises(RequestRefused) as caught:
            await bench.forwarder.forward(call, body, Caller().send, ResponseState())
        assert caught.value.problem.kind is ProblemKind.NOT_FOUND

    run(scenario())


async def free_endpoint() -> str:
    """Where nobody listens."""
    async with component(answering(b"")) as endpoint:
        return endpoint


def test_nobody_listens() -> None:
    async def scenario() -> None:
        assert await Bench(target_of(await free_endpoint())).refused() is ProblemKind.UPSTREAM_UNREACHABLE

    run(scenario())


def test_a_replica_that_takes_no_connection_is_passed_over() -> None:
    async def scenario() -> None:
        dead = await free_endpoint()
        async with component(answering(response())) as endpoint:
            bench = Bench(target_of(dead, endpoint))
            for _ in range(4):
                assert (await bench.call()).body == b"ok"

    run(scenario())


def test_replicas_take_turns() -> None:
    async def scenario() -> None:
        async with component(answering(response(b"a"))) as one, component(answering(response(b"b"))) as other:
            bench = Bench(target_of(one, other))
            assert {(await bench.call()).body for _ in range(2)} == {b"a", b"b"}

    run(scenario())


def test_the_least_busy_replica_is_chosen() -> None:
    pool = ConnectionPool(1.0)
    pool.enter("a")
    pool.enter("a")
    pool.enter("b")
    assert [pool.choose(("a", "b")) for _ in range(3)] == ["b", "b", "b"]
    assert pool.choose(("a", "b"), tried=["b"]) == "a"
    assert pool.choose(("a",), tried=["a"]) is None


def idle_closer(requests: list[str]) -> Handler:
    """Answers one request a connection, then closes it without saying so: a server whose keep-alive ran out."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append((await read_request(reader))[0])
        writer.write(response())
        await writer.drain()

    return handler


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_connection_closed_while_idle_costs_nothing(method: str) -> None:
    requests: list[str] = []

    async def scenario() -> None:
        async with component(idle_closer(requests)) as endpoint:
            bench = Bench(target_of(endpoint))
            for _ in range(10):
                assert (await bench.call(Caller(b"{}"), method)).body == b"ok"

    run(scenario())
    assert len(requests) == 10, "every call was made exactly once"


def test_what_the_component_may_have_seen_is_not_sent_again() -> None:
    requests: list[str] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append((await read_request(reader))[0])
        writer.write(response())
        requests.append((await read_request(reader))[0])  # and dies over it

    async def scenario() -> None:
        async with component(handler) as endpoint:
            bench = Bench(target_of(endpoint))
            await bench.call()
            assert await bench.refused() is ProblemKind.UPSTREAM_DIED

    run(scenario())
    assert len(requests) == 2


def test_what_may_be_repeated_is_sent_again() -> None:
    requests: list[str] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append((await read_request(reader))[0])
        if len(requests) > 1:
            writer.write(response())

    async def scenario() -> None:
        async with component(handler) as endpoint:
            assert (await Bench(target_of(endpoint)).call(Caller(), "GET")).body == b"ok"

    run(scenario())
    assert len(requests) == 2


@pytest.mark.parametrize("taken", [False, True])
def test_the_kernel_knows_what_was_not_delivered(taken: bool) -> None:
    """A peer that closes before we write takes nothing, though our event loop has not noticed its end yet; one that
    closes after has taken all."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as server:
            host, port = server.getsockname()
            _, connection = await loop.create_connection(
                lambda: upstream.UpstreamConnection("x", loop), host, port
            )
            peer, _ = server.accept()
            if not taken:
                peer.close()
            connection.begin(b"POST / HTTP/1.1\r\n\r\n", False, 5.0)
            if taken:
                assert await asyncio.to_thread(peer.recv, 100)
                peer.close()
            with pytest.raises(ConnectionDropped) as caught:
                await connection.head()
            assert caught.value.undelivered is not taken

    run(scenario())


def test_idle_connections_to_retired_endpoints_are_closed() -> None:
    async def scenario() -> None:
        gone = asyncio.Event()

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(response())
            await reader.read()
            gone.set()

        async with component(handler) as endpoint:
            bench = Bench(target_of(endpoint))
            await bench.call()
            now = asyncio.get_running_loop().time()
            bench.pool.sweep(frozenset([endpoint]), now)
            assert not gone.is_set()
            bench.pool.sweep(frozenset(["10.0.0.9:80"]), now)
            await gone.wait()

    run(scenario())


def test_a_call_waits_for_a_component_that_is_asleep() -> None:
    """Once it has woken up; and once it fell asleep again at that very moment."""
    seen: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await read_request(reader))[2])
        writer.write(response(b"good morning"))

    async def scenario() -> None:
        async with component(handler) as endpoint:
            bench = Bench(target_of(endpoint))
            awake = bench.target
            assert awake is not None
            asleep = replace(awake, route=replace(awake.route, upstreams=(), asleep=True))
            bench.target, states = asleep, [asleep, awake]

            async def wake(target: UpstreamTarget) -> None:
                assert target is bench.target
                bench.target = states.pop(0)

            bench.wake = wake  # type: ignore[method-assign]
            caller = await bench.call(Caller(b"in two ", b"parts"))
            assert (caller.status, caller.body, states) == (200, b"good morning", [])

    run(scenario())
    assert seen == [b"in two parts"]


def test_a_component_that_did_not_wake_up_is_not_ready() -> None:
    async def scenario() -> None:
        bench = Bench(target_of())
        dead = bench.target
        assert dead is not None
        bench.target = replace(dead, route=replace(dead.route, asleep=True))

        async def wake(target: UpstreamTarget) -> None:
            bench.target = dead

        bench.wake = wake  # type: ignore[method-assign]
        assert await bench.refused() is ProblemKind.NOT_READY

    run(scenario())


def test_a_new_table_is_used_for_the_next_attempt() -> None:
    async def scenario() -> None:
        dead = await free_endpoint()
        async with component(answering(response())) as endpoint:
            bench = Bench(target_of(dead))
            first = bench.target
            assert first is not None
            moved = replace(first, route=replace(first.route, upstreams=(endpoint,)))
            in_force = [first, moved]
            bench.forwarder = Forwarder(bench.pool, lambda _: in_force.pop(0), bench.idle.append, bench)
            assert (await bench.call()).body == b"ok"

    run(scenario())
