"""Bytes from connection to connection, over real sockets: all of them, in order, and soon, however they come."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from controller.web.gateway.pool import ConnectionPool
from controller.web.gateway.upstream import ConnectionDropped, UpstreamConnection
from controller.web.objects.caller import CallerConnection, ObjectRequest
from controller.web.splice import LARGE, LARGER, PIPE, pass_on, pipe_size

MEBIBYTE = 2**20
ASK = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def relay(serve: Serve, size: int, told: list[BaseException]) -> AsyncIterator[tuple[str, int]]:
    """The address of one that answers each request with what `serve` answers, passed on. `serve` is given connections
    of its own; what goes wrong in passing on is `told`."""
    pool, ends = ConnectionPool(5.0), set[asyncio.Task[None]]()

    async def serving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        ends.add(task)
        with contextlib.suppress(ConnectionError):
            await serve(reader, writer)
        writer.close()

    behind = await asyncio.start_server(serving, "127.0.0.1", 0)
    host, port = behind.sockets[0].getsockname()

    async def answer(caller: CallerConnection, _: ObjectRequest) -> None:
        endpoint = f"{host}:{port}"
        connection = pool.idle(endpoint) or await pool.connect(endpoint)
        connection.begin(ASK, head_only=False, timeout=30.0)
        try:
            await connection.head()
            caller.begin(200, [(b"content-length", b"%d" % size)])
            connection.pause_timeout(True)
            await pass_on(connection, caller, size)
        except ConnectionDropped as error:
            told.append(error)
            raise
        finally:
            if connection.end():
                pool.give_back(connection, 0.0)

    callers = asyncio.Queue[CallerConnection]()
    loop = asyncio.get_running_loop()
    front = await loop.create_server(lambda: CallerConnection(answer, callers.put_nowait), "127.0.0.1", 0)
    try:
        yield front.sockets[0].getsockname()
    finally:
        await callers.get()  # there is one caller, who has left
        pool.close()
        front.close()
        behind.close()
        await asyncio.gather(*ends)


async def head(size: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Whether there was a request."""
    try:
        await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return False
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
    return True


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(ASK)
    await reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize("size", [1, 1000, 64 * 1024, MEBIBYTE + 1, 9 * MEBIBYTE])
@pytest.mark.parametrize("step", [700, 64 * 1024, 3 * MEBIBYTE])
def test_what_comes_in_whatever_steps_goes_out_as_it_came(size: int, step: int) -> None:
    """And the connections on both sides can carry the next exchange."""
    content = os.urandom(size)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await head(size, reader, writer):
            for start in range(0, min(size, 200 * step), step):
                writer.write(content[start : start + step])
                await writer.drain()
                await asyncio.sleep(0)
            writer.write(content[200 * step :])

    async def look() -> None:
        async with relay(serve, size, []) as address:
            reader, writer = await asyncio.open_connection(*address, limit=4 * MEBIBYTE)
            for _ in range(3):
                await ask(reader, writer)
                assert await reader.readexactly(size) == content
            writer.close()
            await writer.wait_closed()

    asyncio.run(look())


def test_a_few_bytes_are_not_kept_until_there_are_many() -> None:
    """Behind a megabyte that came fast: each piece is sent only when the one before has arrived at the other end."""
    pieces = [bytes(MEBIBYTE), b"a", b"bc", bytes(1000), b"end"]
    size = sum(map(len, pieces))
    arrived = asyncio.Queue[None]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await head(size, reader, writer):
            for piece in pieces:
                writer.write(piece)
                await arrived.get()
            writer.close()

    async def look() -> None:
        async with relay(serve, size, []) as address:
            reader, writer = await asyncio.open_connection(*address, limit=4 * MEBIBYTE)
            await ask(reader, writer)
            for piece in pieces:
                assert await reader.readexactly(len(piece)) == piece
                arrived.put_nowait(None)
            writer.close()

    asyncio.run(look())


def test_what_breaks_off_is_told_at_both_ends() -> None:
    size, told = 3 * MEBIBYTE, list[BaseException]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await head(size, reader, writer):
            writer.write(bytes(2 * MEBIBYTE))
            await writer.drain()
            writer.close()

    async def look() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(
            lambda _loop, _context: None
        )  # the answer's task ends with what it was told
        async with relay(serve, size, told) as address:
            reader, writer = await asyncio.open_connection(*address, limit=4 * MEBIBYTE)
            await ask(reader, writer)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await reader.readexactly(size)
            writer.close()

    asyncio.run(look())
    assert "in the middle of its response" in str(told[0])


def test_nothing_paces_what_stays_on_this_host() -> None:
    async def look() -> None:
        server = socket.create_server(("127.0.0.1", 0))
        host, port = server.getsockname()
        connection: UpstreamConnection = await ConnectionPool(5.0).connect(f"{host}:{port}")
        with socket.socket(fileno=os.dup(connection._descriptor)) as sock:
            name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        assert name.rstrip(b"\0") == b"reno"
        connection.close()
        while connection._descriptor >= 0:
            await asyncio.sleep(0)
        server.close()

    asyncio.run(look())


def test_many_transfers_share_what_a_user_may_have_in_pipes() -> None:
    assert (pipe_size(0), pipe_size(LARGER)) == (PIPE, 0)
    assert sum(pipe_size(others) for others in range(1000)) <= 16 * MEBIBYTE
    assert pipe_size(LARGE) < PIPE
