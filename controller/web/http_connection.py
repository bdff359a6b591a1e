"""The common part of connections to components and to the storage, and of callers' connections: the parsed
body of a message, writing with backpressure, and bytes that the kernel moves past the process (splice(2)).
The base of `gateway.upstream.UpstreamConnection` and `objects.caller.CallerConnection`; `splice` joins two of
them.

Promises: only a bounded piece of a body is buffered; waiters are notified when the connection ends; the
descriptor for `splice` is open as long as the connection is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from abc import abstractmethod
from ipaddress import ip_address
from typing import cast

LOW_WATER = 512 * 1024  # bytes that are waited for while many come
MORE_TIMEOUT = 0.02  # seconds after which fewer bytes are enough


class HttpConnection(asyncio.Protocol):
    """`write_buffer`: bytes that wait to be sent before `drain` waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop, write_buffer: int) -> None:
        self._loop = loop
        self._write_buffer = write_buffer
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None
        self._descriptor = -1  # its
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._forget_body()

    def _forget_body(self) -> None:
        """Reset the body before each message."""
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._body = 0  # bytes of it that have passed the parser
        self._left: int | None = None  # bytes of it that will not, see bypass
        self._paused = False
        self._complete = False

    # --- what differs ------------------------------------------------------------------------------------------

    @abstractmethod
    def _length(self) -> int | None:
        """Return the bytes of the body, None if they are not known."""

    @abstractmethod
    def _fault(self) -> Exception | None:
        """Return the error if the body ended early."""

    @abstractmethod
    def _broken_off(self, why: str) -> Exception:
        """Return the error for a connection that ended within the body."""

    @abstractmethod
    def _unwritable(self) -> None:
        """Return True if the other end accepts no more bytes."""

    @abstractmethod
    def _took(self, count: int) -> None:
        """Record that bytes of the body were read."""

    @abstractmethod
    def _gave(self, count: int) -> None:
        """Record that bytes were sent, or, with 0, that the other end has acknowledged earlier ones."""

    # --- reading -----------------------------------------------------------------------------------------------

    @property
    def encrypted(self) -> bool:
        return self._transport is not None and self._transport.get_extra_info("sslcontext") is not None

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def buffered(self) -> bool:
        return bool(self._chunks)

    async def read(self, most: int | None = None) -> bytes:
        """Return what has arrived of the body, at least one byte and at most `most`; empty at its end."""
        while not self._chunks:
            if self._complete:
                return b""
            if (fault := self._fault()) is not None:
                raise fault
            await self._wait()
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks, self._buffered = [], 0
        if most is not None and len(data) > most:
            self._chunks, self._buffered, data = [data[most:]], len(data) - most, data[:most]
        elif self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        self._took(len(data))
        return data

    def _keep(self, body: bytes, high_water: int) -> None:
        """Buffer a piece of the body from the parser."""
        self._chunks.append(body)
        self._buffered += len(body)
        self._body += len(body)
        if self._buffered > high_water and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    # --- past the parser ---------------------------------------------------------------------------------------

    def bypass(self) -> bool:
        """Switch to `splice` for the rest of the body. Return False if that is impossible: its length is unknown,
        it is encrypted, or all of it has arrived."""
        if self._left is not None:
            return self._left > 0
        if self._transport is None or self._closed or self._complete or self.encrypted:
            return False
        length = self._length()
        if length is None:
            return False
        if not self._paused:
            self._transport.pause_reading()
        self._paused = False
        self._left = length - self._body
        return self._left > 0

    async def splice(self, pipe: int, most: int) -> int:
        """Move at least one byte of the body into an empty pipe, and return how many."""
        assert self._left is not None
        while (fault := self._fault()) is None:
            try:
                count = os.splice(self._descriptor, pipe, min(most, self._left))
            except BlockingIOError:
                await self._readable(min(most, self._left))
                continue
            except OSError as error:
                raise self._broken_off(f": {error}") from error
            if not count:
                raise self._broken_off("")
            self._left -= count
            self._complete = not self._left
            self._took(count)
            return count
        raise fault

    # --- writing -----------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._closed:
            self._gave(len(data))
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait while the other end does not read. It does not raise: failures are reported at the end of the
        exchange."""
        if self._writable is not None:
            await self._writable
            self._gave(0)

    async def flush(self) -> None:
        """Wait until the kernel has all that was written."""
        if self._transport is not None and not self._closed:
            self._transport.set_write_buffer_limits(high=0)
            await self.drain()
            self._transport.set_write_buffer_limits(high=self._write_buffer)

    async def splice_in(self, pipe: int, count: int) -> int:
        """Move bytes from a pipe to the other end, and return how many, 0 once it has disconnected. Flush
        earlier writes before."""
        while not self._closed:
            try:
                moved = os.splice(pipe, self._descriptor, count)
            except BlockingIOError:
                await self._until_writable()
                continue
            except OSError:
                self._unwritable()
                break
            self._gave(moved)
            return moved
        return 0

    # --- waiting -----------------------------------------------------------------------------------------------

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _readable(self, most: int) -> None:
        """Wait for many bytes, since a wake-up for a few of them costs more than moving them; after a short
        time any number suffices."""
        self._wait_for(min(most, LOW_WATER))
        timer = self._loop.call_later(MORE_TIMEOUT, self._wait_for, 1)
        self._loop.add_reader(self._descriptor, self._wake)
        try:
            await self._wait()
        finally:
            timer.cancel()
            if self._descriptor >= 0:
                self._loop.remove_reader(self._descriptor)
                self._wait_for(1)

    def _wait_for(self, count: int) -> None:
        """Make the connection readable only with this many bytes, or at its end."""
        if self._socket is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    async def _until_writable(self) -> None:
        self.pause_writing()
        self._loop.add_writer(self._descriptor, self.resume_writing)
        try:
            await self.drain()
        finally:
            if self._descriptor >= 0:
                self._loop.remove_writer(self._descriptor)

    # --- asyncio.Protocol --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._write_buffer)
        sock: socket.socket = transport.get_extra_info("socket")
        # A descriptor of our own, since the transport's is gone when `connection_lost` wants to ask the kernel.
        self._descriptor = os.dup(sock.fileno())
        self._socket = socket.socket(fileno=self._descriptor)
        if _is_on_this_host(self._socket):
            # Congestion control that paces packets, such as BBR, halves the rate on loopback, where no packet
            # is lost.
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self.resume_writing()
        self._wake()
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_writer(self._descriptor)
        if self._socket is not None:
            self._socket.close()
        self._descriptor, self._socket = -1, None

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None:
            if not self._writable.done():
                self._writable.set_result(None)
            self._writable = None

    def close(self) -> None:
        self._closed = True
        if self._transport is not None:
            self._transport.abort()


def _is_on_this_host(sock: socket.socket) -> bool:
    try:
        peer = sock.getpeername()
    except OSError:  # it has left already
        return False
    return sock.family in (socket.AF_INET, socket.AF_INET6) and ip_address(peer[0]).is_loopback
