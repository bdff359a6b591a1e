"""A caller's connection to the object proxy, over real sockets: what it lets through, and whom it lets go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from controller.web.objects.caller import HIGH_WATER, MAX_FIELDS, MAX_HEAD, CallerConnection, ObjectRequest

ASK = b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n"


class Server:
    """Answers each request with what came of it."""

    def __init__(self) -> None:
        self.seen: list[ObjectRequest] = []
        self.connections: list[CallerConnection] = []
        self.left = asyncio.Event()

    async def answer(self, caller: CallerConnection, request: ObjectRequest) -> None:
        self.seen.append(request)
        caller.welcome()
        caller.pause_timeout(False)
        size = 0
        while piece := await caller.read():
            size += len(piece)
            await asyncio.sleep(0)
        text = f"{request.method} {request.target} {size}".encode()
        caller.begin(200, [(b"content-length", b"%d" % len(text))])
        caller.write(text)

    def gone(self, _: CallerConnection) -> None:
        self.left.set()


@asynccontextmanager
async def serving(
    **limits: float,
) -> AsyncIterator[tuple[Server, asyncio.StreamReader, asyncio.StreamWriter]]:
    """One connection to a server."""
    server = Server()

    def connected() -> CallerConnection:
        server.connections.append(CallerConnection(server.answer, server.gone, **limits))
        return server.connections[-1]

    listening = await asyncio.get_running_loop().create_server(connected, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
    try:
        yield server, reader, writer
    finally:
        writer.close()
        listening.close()


async def exchange(sent: bytes, **limits: float) -> tuple[Server, bytes]:
    """All that is answered until the server closes."""
    async with serving(**limits) as (server, reader, writer):
        writer.write(sent)
        return server, await reader.read()


def test_requests_are_answered_one_after_the_other() -> None:
    async def look() -> None:
        async with serving() as (server, reader, writer):
            body = b"x" * (3 * HIGH_WATER)
            writer.write(b"PUT /b HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
            await reader.readuntil(b"\r\n\r\n")
            said = b"PUT /b %d" % len(body)
            assert await reader.readexactly(len(said)) == said
            writer.write(
                b"PUT /c HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"connection: close" not in head
            assert await reader.readexactly(8) == b"PUT /c 3"
            assert [request.method for request in server.seen] == ["PUT", "PUT"]

    asyncio.run(look())


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET /a HTTP/1.1\r\nhost: h\r\nhost: i\r\n\r\n",
        b"GET /a HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"GET /a HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"GET /a HTTP/1.1\r\nhost: h\r\ncontent-length: -1\r\n\r\n",
        b"GET /a HTTP/1.1\r\nhost: h\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"GET /a HTTP/1.1\r\nhost: h\r\nrange: bytes=0-1\r\nrange: bytes=5-\r\n\r\n",
        b"GET /a HTTP/1.1\r\nhost : h\r\n\r\n",
        b"GET /a HTTP/1.1\r\n" + b"a: b\r\n" * (MAX_FIELDS + 1) + b"\r\n",
        b"GET /a HTTP/1.1\r\na: " + b"b" * MAX_HEAD + b"\r\n\r\n",
        b"GET /" + b"a" * MAX_HEAD + b" HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
def test_what_can_be_read_in_two_ways_is_read_in_none(sent: bytes) -> None:
    server, answer = asyncio.run(exchange(sent))
    assert answer.startswith(b"HTTP/1.1 400 ") or not answer
    assert server.seen == []


def test_what_comes_behind_a_request_is_not_the_next_one() -> None:
    server, answer = asyncio.run(exchange(ASK + b"DELETE /b HTTP/1.1\r\nhost: h\r\n\r\n"))
    assert answer.count(b"HTTP/1.1 200") == 1
    assert [request.target for request in server.seen] == ["/a"]


def test_who_says_nothing_is_let_go() -> None:
    for sent in (b"", b"GET /a HTTP/1.1\r\nhost:"):
        server, answer = asyncio.run(exchange(sent, head_within=0.05))
        assert (answer, server.seen) == (b"", [])


def test_who_sends_next_to_nothing_is_let_go() -> None:
    head = b"PUT /a HTTP/1.1\r\nhost: h\r\ncontent-length: 1000000\r\n\r\n"
    server, answer = asyncio.run(exchange(head + b"a", turn=0.05))
    assert answer == b""
    assert len(server.seen) == 1


def test_a_caller_who_leaves_ends_his_request() -> None:
    async def look() -> None:
        async with serving() as (server, _, writer):
            writer.write(b"PUT /a HTTP/1.1\r\nhost: h\r\ncontent-length: 1000\r\n\r\nabc")
            await writer.drain()
            while not server.seen:
                await asyncio.sleep(0)
            writer.transport.abort()
            await server.left.wait()
            assert server.connections[0].closed

    asyncio.run(look())


def test_it_stops_with_the_answer_under_way() -> None:
    async def look() -> None:
        async with serving() as (server, reader, writer):
            writer.write(b"PUT /a HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\n")
            while not server.seen:
                await asyncio.sleep(0)
            server.connections[0].stop()
            writer.write(b"abc")
            answer = await reader.read()
            assert b"connection: close" in answer
            assert answer.endswith(b"PUT /a 3")

    asyncio.run(look())
