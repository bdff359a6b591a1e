"""Bytes of one response as bytes of another request: from connection to connection. Used by `calls` for files.

Where the kernel can, it moves them through a pipe (splice(2)), so that they never enter this process: that is what
keeps one gateway worker from being the bottleneck between two that are faster. What has arrived with the header, and
what is encrypted or chunked, is read and written.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Iterator

from controller.web.gateway.upstream import Dropped, UpstreamConnection

PIPE = 512 * 1024  # bytes; a user without privileges may have so many in some hundred pipes


async def pass_on(source: UpstreamConnection, sink: UpstreamConnection, count: int) -> None:
    """The next `count` bytes of what `source` answers. Time counts against the one that is waited for. Raises
    UpstreamError of `source`; if `sink` ends the rest stays where it is, and the end of its exchange tells."""
    while count and not sink.closed:
        if not source.buffered and not sink.encrypted and source.bypass():
            await _splice(source, sink, count)
            return
        with _turn(source):
            data = await source.read(count)
        if not data:
            raise Dropped("its response is shorter than it says")
        count -= len(data)
        with _turn(sink):
            sink.write(data)
            await sink.drain()


async def _splice(source: UpstreamConnection, sink: UpstreamConnection, count: int) -> None:
    with _pipe() as (outlet, inlet):
        with _turn(sink):
            await sink.flush()
        while count and not sink.closed:
            with _turn(source):
                filled = await source.splice(inlet, min(count, PIPE))
            count -= filled
            with _turn(sink):
                while filled and not sink.closed:
                    filled -= await sink.splice_in(outlet, filled)
            await asyncio.sleep(0)  # two fast ends must not keep the others of this worker waiting


@contextlib.contextmanager
def _turn(connection: UpstreamConnection) -> Iterator[None]:
    connection.hold_clock(False)
    try:
        yield
    finally:
        connection.hold_clock(True)


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    outlet, inlet = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with contextlib.suppress(PermissionError):  # too many pipes of this user: a small one does, too
            fcntl.fcntl(inlet, fcntl.F_SETPIPE_SZ, PIPE)
        yield outlet, inlet
    finally:
        os.close(outlet)
        os.close(inlet)
