"""Connections of callers: their deadlines, and what becomes of them when a request goes wrong. A loop of its own serves
real connections, with an application of a few lines."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from gunicorn.asgi import protocol
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers import gasgi

from controller.web import connections
from controller.web.connections import CallerFlow, ConnectionProtocol
from controller.web.gateway.body import ARRIVED, Message, Receive, Send

App = Callable[[Message, Receive, Send], Awaitable[None]]
GET = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n"
CLOSING = b"GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 3\r\n\r\n"


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gasgi, "ASGIProtocol", gasgi.ASGIProtocol)  # undone behind the test
    for name in ("PythonProtocol", "BodyReceiver", "FlowControl"):
        monkeypatch.setattr(protocol, name, getattr(protocol, name))
    connections.install()


@asynccontextmanager
async def connected(
    app: App | None = None, keepalive: float = 30.0
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, SimpleNamespace]]:
    loop, config = asyncio.get_running_loop(), Config()
    config.set("asgi_disconnect_grace_period", 0)
    worker = SimpleNamespace(
        cfg=config,
        log=Logger(config),
        asgi=app,
        loop=loop,
        nr_conns=0,
        nr=0,
        alive=True,
        max_requests=sys.maxsize,
    )

    def make() -> ConnectionProtocol:
        made = ConnectionProtocol(worker)
        made._keepalive = keepalive
        return made

    async with await loop.create_server(make, "127.0.0.1", 0) as listening:
        reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
        try:
            yield reader, writer, worker
        finally:
            writer.close()


async def reply(send: Send, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    """Answer with the path and with what has arrived of the body."""
    message = scope[ARRIVED]() or await receive()
    await reply(send, scope["path"].encode() + message["body"])


async def read(reader: asyncio.StreamReader) -> bytes:
    """Return the body of one response."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return await reader.readexactly(int(length))


@pytest.mark.parametrize("drips", [False, True])
def test_the_header_of_the_first_request_has_a_deadline(monkeypatch: pytest.MonkeyPatch, drips: bool) -> None:
    monkeypatch.setattr(connections, "HEADER", 0.2)

    async def run() -> bytes:
        async with connected() as (reader, writer, _):
            if drips:
                writer.write(b"GET / HTTP/1.1\r\n")
            ended = asyncio.create_task(reader.read())
            while drips and not ended.done():
                writer.write(b"x")
                await asyncio.sleep(0.01)
            return await ended

    assert asyncio.run(run()) == b""


def test_a_connection_without_requests_is_closed() -> None:
    async def run() -> bytes:
        async with connected(echo, keepalive=0.1) as (reader, writer, _):
            writer.write(GET)
            assert await read(reader) == b"/"
            return await reader.read()

    assert asyncio.run(run()) == b""


def test_the_time_of_a_request_does_not_count_as_idle() -> None:
    async def slow(_: Message, __: Receive, send: Send) -> None:
        await asyncio.sleep(0.3)
        await reply(send, b"late")

    async def run() -> None:
        async with connected(slow, keepalive=0.2) as (reader, writer, _):
            for _ in range(2):
                writer.write(GET)
                assert await read(reader) == b"late"

    asyncio.run(run())


def test_requests_of_a_connection_set_no_timer_each(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> int:
        async with connected(echo) as (reader, writer, worker):
            timers = 0
            call_at = worker.loop.call_at

            def counting(*arguments: Any, **options: Any) -> asyncio.TimerHandle:
                nonlocal timers
                timers += 1
                return call_at(*arguments, **options)  # type: ignore[no-any-return]

            monkeypatch.setattr(worker.loop, "call_at", counting)
            for _ in range(50):
                writer.write(GET)
                assert await read(reader) == b"/"
            return timers

    assert asyncio.run(run()) <= 2


@pytest.mark.parametrize("pieces", [[POST + b"abc"], [POST, b"abc"], [POST + b"abc" + GET]])
def test_what_has_arrived_of_a_body(pieces: list[bytes]) -> None:
    async def run() -> bytes:
        async with connected(echo) as (reader, writer, _):
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0)
            return await read(reader)

    assert asyncio.run(run()) == b"/abc"


def test_requests_that_were_sent_together() -> None:
    async def run() -> list[bytes]:
        async with connected(echo) as (reader, writer, _):
            writer.write(POST + b"abc" + GET + POST + b"def")
            return [await read(reader) for _ in range(3)]

    assert asyncio.run(run()) == [b"/abc", b"/", b"/def"]


async def raising(_: Message, __: Receive, ___: Send) -> None:
    raise ZeroDivisionError


async def silent(_: Message, __: Receive, ___: Send) -> None:
    pass


async def halving(_: Message, __: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})


async def forging(_: Message, __: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"a\r\nset-cookie: b")]})


@pytest.mark.parametrize(
    ("app", "status"), [(raising, b" 500 "), (silent, b" 500 "), (halving, b" 200 "), (forging, b" 500 ")]
)
def test_a_fault_ends_the_connection(app: App, status: bytes) -> None:
    async def run() -> bytes:
        async with connected(app) as (reader, writer, _):
            writer.write(GET + GET)
            return await reader.read()

    answered = asyncio.run(run())
    assert answered.count(b"HTTP/1.1") == 1
    assert status in answered
    assert b"set-cookie" not in answered
    assert not answered.endswith(b"0\r\n\r\n")


def test_a_caller_who_leaves_ends_the_call() -> None:
    async def run() -> None:
        began, ended = asyncio.Event(), asyncio.Event()

        async def waiting(_: Message, __: Receive, ___: Send) -> None:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with connected(waiting) as (_, writer, _worker):
            writer.write(GET)
            await began.wait()
            writer.close()
            await ended.wait()

    asyncio.run(run())


async def answers_to(*pieces: bytes, app: App = echo) -> bytes:
    """What a caller gets who sends each piece, waits for its answer before the next one, and sends no more."""
    async with connected(app) as (reader, writer, worker):
        found = b""
        for piece in pieces[:-1]:
            writer.write(piece)
            found += await read(reader)
        writer.write(pieces[-1])
        writer.write_eof()
        found += await reader.read()
        while worker.nr_conns:
            await asyncio.sleep(0.001)
        return found


@pytest.mark.parametrize("version", [b"1.1", b"1.0"], ids=["ordinary", "read by gunicorn"])
def test_a_caller_who_sends_no_more_gets_the_answers(version: bytes) -> None:
    get, post = GET.replace(b"1.1", version), POST.replace(b"1.1", version)
    assert asyncio.run(answers_to(get)).endswith(b"\r\n\r\n/")
    assert asyncio.run(answers_to(post + b"abc")).endswith(b"\r\n\r\n/abc")
    if version == b"1.1":
        assert asyncio.run(answers_to(GET, GET + POST + b"abc" + GET)).count(b" 200 OK") == 3


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_a_caller_who_sends_no_more_may_wait_for_long(
    monkeypatch: pytest.MonkeyPatch, version: bytes
) -> None:
    monkeypatch.setattr(connections, "LOOK", 0.001)

    async def slow(scope: Message, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.05)
        await echo(scope, receive, send)

    interim, _, answer = asyncio.run(answers_to(GET.replace(b"1.1", version), app=slow)).rpartition(
        b"HTTP/1.1 200"
    )
    assert interim.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"") == b""
    assert (interim == b"") is (version == b"1.0")
    assert answer.endswith(b"/")


@pytest.mark.parametrize("request_", [GET, POST + b"abc", GET + GET], ids=["no body", "a body", "two"])
@pytest.mark.parametrize("waits_first", [True, False])
def test_a_caller_who_sends_no_more_and_leaves_ends_the_call(
    monkeypatch: pytest.MonkeyPatch, request_: bytes, waits_first: bool
) -> None:
    monkeypatch.setattr(connections, "LOOK", 0.001)
    monkeypatch.setattr(connections, "LONGEST_LOOK", 0.01)

    async def run() -> None:
        began, ended, calls = asyncio.Event(), asyncio.Event(), []

        async def waiting(scope: Message, receive: Receive, send: Send) -> None:
            calls.append(scope)
            if len(calls) < request_.count(b"HTTP/1.1"):
                await echo(scope, receive, send)
                return
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with connected(waiting) as (reader, writer, worker):
            writer.write(request_)
            writer.write_eof()
            await began.wait()
            if waits_first:
                await reader.readuntil(b"100 Continue")
            writer.close()
            await ended.wait()
            while worker.nr_conns:
                await asyncio.sleep(0.001)

    asyncio.run(run())


@pytest.mark.slow  # the kernel takes two seconds
def test_a_caller_to_whom_nothing_can_be_sent_is_noticed_when_they_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "LONGEST_LOOK", 0.01)
    monkeypatch.setattr(connections, "PROBE", 1)

    async def run(request: bytes) -> None:
        streams, began, ended = request == GET, asyncio.Event(), asyncio.Event()

        async def waiting(_: Message, __: Receive, send: Send) -> None:
            if streams:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"ab", "more_body": True})
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with connected(waiting) as (reader, writer, worker):
            writer.write(request)
            writer.write_eof()
            await began.wait()
            if streams:
                await reader.readuntil(b"ab")
            # Their host forgets the connection after a second instead of a minute.
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, 1)
            writer.close()
            await ended.wait()
            while worker.nr_conns:
                await asyncio.sleep(0.001)

    async def both() -> None:
        await asyncio.gather(run(GET.replace(b"1.1", b"1.0")), run(GET))

    asyncio.run(both())


@pytest.mark.parametrize("request_", [GET, CLOSING], ids=["ordinary", "read by gunicorn"])
@pytest.mark.parametrize("length", [b"4", b""], ids=["of a length", "a stream"])
def test_a_caller_who_sends_no_more_in_the_middle_of_an_answer(length: bytes, request_: bytes) -> None:
    """Only the end of a stream may be far."""

    async def run() -> bytes:
        ended = asyncio.Event()

        async def halves(_: Message, __: Receive, send: Send) -> None:
            headers = [(b"content-length", length)] if length else []
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"ab", "more_body": True})
            await ended.wait()
            await send({"type": "http.response.body", "body": b"cd"})

        async with connected(halves) as (reader, writer, worker):
            writer.write(request_)
            await reader.readuntil(b"ab")
            writer.write_eof()
            if length:
                ended.set()
            while worker.nr_conns:
                await asyncio.sleep(0.001)
            return await reader.read()

    assert asyncio.run(run()).strip() == (b"cd" if length else b"")


def test_a_caller_who_sends_no_more_in_the_middle_of_a_body_has_left() -> None:
    async def run() -> Message:
        heard: list[Message] = []

        async def reading(_: Message, receive: Receive, __: Send) -> None:
            heard.append(await receive())
            heard.append(await receive())

        async with connected(reading) as (reader, writer, _):
            writer.write(POST + b"a")
            writer.write_eof()
            await reader.read()
        return heard[-1]

    assert asyncio.run(run())["type"] in ("http.request", "http.disconnect")


def test_a_stopping_worker_says_that_the_connection_ends() -> None:
    async def run() -> bytes:
        async with connected(echo) as (reader, writer, worker):
            worker.alive = False
            writer.write(GET)
            return await reader.read()

    assert b"connection: close\r\n" in asyncio.run(run())


def test_a_body_that_nobody_has_read_ends_the_connection() -> None:
    async def early(_: Message, __: Receive, send: Send) -> None:
        await reply(send, b"no")

    async def run() -> bytes:
        async with connected(early) as (reader, writer, _):
            writer.write(POST + b"a")  # two bytes are missing, which may look like a request
            return await reader.read()

    assert asyncio.run(run()).endswith(b"no")


@pytest.mark.parametrize("version", [b"1.1", b"1.0"], ids=["ordinary", "read by gunicorn"])
@pytest.mark.parametrize("is_last", [True, False], ids=["the last part", "a part"])
def test_a_caller_who_reads_nothing_is_not_waited_for_without_an_end(
    monkeypatch: pytest.MonkeyPatch, version: bytes, is_last: bool
) -> None:
    monkeypatch.setattr(connections, "STALLED", 0.05)

    async def run() -> None:
        ended = asyncio.Event()

        async def large(_: Message, __: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            body = bytes(64 * 2**20)  # more than kernels take
            await send({"type": "http.response.body", "body": body, "more_body": not is_last})
            ended.set()

        async with connected(large) as (_, writer, worker):
            writer.write(GET.replace(b"1.1", version))
            await ended.wait()
            while worker.nr_conns:
                await asyncio.sleep(0.01)

    asyncio.run(run())


def test_a_caller_who_reads_slowly_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALLED", 0.01)

    class Transport:
        def __init__(self) -> None:
            self.sizes = [900, 800, 799, 799]
            self.is_aborted = False

        def get_write_buffer_size(self) -> int:
            return self.sizes.pop(0)

        def abort(self) -> None:
            self.is_aborted = True

    async def run() -> None:
        flow = CallerFlow(transport := Transport())
        flow.pause_writing()
        await flow.drain()
        assert transport.is_aborted
        assert not transport.sizes

    asyncio.run(run())


def test_a_caller_who_does_not_read_the_end_does_not_keep_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "STALLED", 0.05)
    monkeypatch.setattr(protocol, "HIGH_WATER_LIMIT", 2**30)  # nobody waits for what is left

    async def large(_: Message, __: Receive, send: Send) -> None:
        await reply(send, bytes(64 * 2**20))

    async def run() -> None:
        async with connected(large, keepalive=0.05) as (_, writer, worker):
            writer.write(GET)
            while not worker.nr:
                await asyncio.sleep(0.01)
            while worker.nr_conns:
                await asyncio.sleep(0.01)

    asyncio.run(run())


# --- what is left of a connection -------------------------------------------------------------------------------


async def wait_for_body(scope: Message, receive: Receive, send: Send) -> None:
    """Read until the caller has left."""
    while (await receive())["type"] == "http.request":
        pass


@pytest.mark.parametrize(
    ("sent", "app"),
    [
        (b"", echo),
        (b"GET / HT", echo),
        (GET, echo),
        (GET + GET, echo),
        (CLOSING, echo),
        (b"GET / HTTP/1.0\r\nhost: here\r\n\r\n", echo),
        (b"none at all\r\n\r\n", echo),
        (POST, wait_for_body),
        (POST + b"a", wait_for_body),
        (POST + b"abc", wait_for_body),
        (b"POST / HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n", wait_for_body),
    ],
)
def test_nothing_is_left_of_a_connection(sent: bytes, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """What refers to itself stays until the interpreter looks for it: after thousands of connections, with what has
    arrived of their bodies, that were tens of megabytes."""
    made: list[weakref.ref[ConnectionProtocol]] = []

    class Watched(ConnectionProtocol):
        def __init__(self, worker: Any) -> None:
            super().__init__(worker)
            made.append(weakref.ref(self))

    monkeypatch.setattr(sys.modules[__name__], "ConnectionProtocol", Watched)

    async def run() -> None:
        async with connected(app) as (_, writer, worker):
            writer.write(sent)
            await until(lambda: made)
        await until(lambda: worker.nr_conns == 0)
        await until(lambda: not made[0]())

    gc.collect()
    gc.disable()
    try:
        uvloop.run(asyncio.wait_for(run(), 20))
    finally:
        gc.enable()


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)
