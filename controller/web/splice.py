"""Bytes from connection to connection: of one response as those of another request, of a caller's body as those of a
request, of a response as those of an answer. Used by `calls` for files and by the object proxy.

Where the kernel can, it moves them through a pipe (splice(2)), so that they never enter this process: that is what
keeps one gateway worker from being the bottleneck between two that are faster. What has arrived with the header, and
what is encrypted or chunked, is read and written.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Protocol

from controller.web.gateway.upstream import ConnectionDropped

PIPE = 1024 * 1024  # bytes of a pipe: the larger it is, the fewer steps there are
SMALLER_PIPE = 128 * 1024
#: So many transfers of a worker have a large pipe, and so many one that is larger than usual: a user without
#: privileges may have 64 MiB in all pipes, and tiny ones beyond that.
LARGE, LARGER = 8, 64


class _End(Protocol):
    @property
    def encrypted(self) -> bool: ...

    @property
    def closed(self) -> bool: ...

    def pause_timeout(self, held: bool) -> None: ...


class SpliceSource(_End, Protocol):
    """The reading end; see `UpstreamConnection`."""

    @property
    def buffered(self) -> bool: ...

    def bypass(self) -> bool: ...

    async def read(self, most: int | None = None) -> bytes: ...

    async def splice(self, pipe: int, most: int) -> int: ...


class SpliceSink(_End, Protocol):
    """The writing end; see `UpstreamConnection`."""

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...

    async def flush(self) -> None: ...

    async def splice_in(self, pipe: int, count: int) -> int: ...


async def pass_on(source: SpliceSource, sink: SpliceSink, count: int) -> None:
    """The next `count` bytes of what `source` answers. Time counts against the one that is waited for. Raises
    UpstreamError of `source`; if `sink` ends the rest stays where it is, and the end of its exchange tells."""
    while count and not sink.closed:
        if not source.buffered and not sink.encrypted and source.bypass():
            await _splice(source, sink, count)
            return
        data = await _read(source, count)
        count -= len(data)
        await _write(sink, data)


async def pass_on_if(
    source: SpliceSource, sink: SpliceSink, count: int, allowed: Callable[[], Awaitable[None]]
) -> None:
    """Like `pass_on`, but send the last byte only after `allowed()` has returned: without it the sink has no whole
    body. Raises what `allowed` raises, when all has been read from the source."""
    await pass_on(source, sink, max(count - 1, 0))
    if not count or sink.closed:
        return
    last = _Held()
    await pass_on(source, last, 1)
    await allowed()
    await _write(sink, last.data)


class _Held:
    """Buffers what has been read. Implements `SpliceSink`."""

    encrypted = closed = False

    def __init__(self) -> None:
        self.data = b""

    def pause_timeout(self, held: bool) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.data += data

    async def drain(self) -> None:
        pass

    async def flush(self) -> None:
        pass

    async def splice_in(self, pipe: int, count: int) -> int:
        data = os.read(pipe, count)
        self.data += data
        return len(data)


async def pieces_of(source: SpliceSource, count: int) -> AsyncIterator[bytes]:
    """Yield the next `count` bytes, which are to be looked at."""
    while count:
        data = await _read(source, count)
        count -= len(data)
        yield data


async def pour_if(
    pieces: AsyncIterator[bytes], sink: SpliceSink, allowed: Callable[[], Awaitable[None]]
) -> None:
    """Like `pass_on_if`, for pieces that were looked at: the last one goes when there is no more, and it is allowed."""
    held = b""
    async for piece in pieces:
        if held:
            await _write(sink, held)
        held = piece
    await allowed()
    await _write(sink, held)


async def _read(source: SpliceSource, most: int) -> bytes:
    with counting(source):
        data = await source.read(most)
    if not data:
        raise ConnectionDropped("its response is shorter than it says")
    return data


async def _write(sink: SpliceSink, data: bytes) -> None:
    with counting(sink):
        sink.write(data)
        await sink.drain()


async def _splice(source: SpliceSource, sink: SpliceSink, count: int) -> None:
    with _pipe() as (outlet, inlet):
        with counting(sink):
            await sink.flush()
        while count and not sink.closed:
            with counting(source):
                filled = await source.splice(inlet, min(count, PIPE))
            count -= filled
            with counting(sink):
                while filled and not sink.closed:
                    filled -= await sink.splice_in(outlet, filled)
            await asyncio.sleep(0)  # two fast ends must not keep the others of this worker waiting


@contextlib.contextmanager
def counting(connection: _End) -> Iterator[None]:
    """Meanwhile time counts against this one."""
    connection.pause_timeout(False)
    try:
        yield
    finally:
        connection.pause_timeout(True)


_pipes: set[int] = set()  # of this process, by the descriptors of their inlets


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    outlet, inlet = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    size = pipe_size(len(_pipes))
    _pipes.add(inlet)
    try:
        if size:
            with contextlib.suppress(PermissionError):  # too many pipes of this user
                fcntl.fcntl(inlet, fcntl.F_SETPIPE_SZ, size)
        yield outlet, inlet
    finally:
        _pipes.remove(inlet)
        os.close(outlet)
        os.close(inlet)


def pipe_size(others: int) -> int:
    """Beside so many others, 0: as the kernel makes it."""
    if others < LARGE:
        return PIPE
    return SMALLER_PIPE if others < LARGER else 0
