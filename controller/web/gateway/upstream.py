"""One connection to a component: HTTP/1.1 over asyncio, the response parsed by httptools as it arrives.

Used by `pool`, `forward`, and for the storage by `links`, one exchange at a time. Never retries and never decides; what
goes wrong is one of the exceptions below. Both directions have backpressure: `drain` waits while the component does not
read, and the component is not read from while the caller does not read.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import termios
from typing import cast

import httptools

from controller.web.gateway.headers import Header

MAX_HEAD = 64 * 1024  # bytes of a response before its header must be complete
WRITE_BUFFER = 64 * 1024  # bytes of a request kept before `drain` waits
HIGH_WATER = 256 * 1024  # bytes of a response kept before the component is not read from


class UpstreamError(Exception):
    """Base: the exchange failed."""


class Unreachable(UpstreamError):
    """No connection came about: nothing was sent."""


class Dropped(UpstreamError):
    """The connection ended before the response did. `undelivered`: the component's kernel had not taken a single
    byte of the request, so it cannot have been acted on."""

    def __init__(self, message: str, undelivered: bool = False) -> None:
        super().__init__(message)
        self.undelivered = undelivered


class Garbage(UpstreamError):
    """The response is not HTTP as we know it."""


class TimedOut(UpstreamError):
    """No progress in time."""


class UpstreamConnection(asyncio.Protocol):
    def __init__(self, endpoint: str, loop: asyncio.AbstractEventLoop) -> None:
        self.endpoint = endpoint
        self.used = False  # has carried an exchange before
        self.idle_since = 0.0
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._descriptor = -1
        self._closed = False
        self._writable: asyncio.Future[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers: list[Header] = []
        self._active = False
        self._head_only = False
        self._head_done = False
        self._complete = False
        self._until_close = False
        self._keep_alive = True
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._received = 0
        self._body = 0  # bytes of the response's body that have passed the parser
        self._left: int | None = None  # bytes of it that will not, see bypass
        self._paused = False
        self._sent = 0
        self._error: Exception | None = None
        self._sender: asyncio.Task[object] | None = None
        self._held = False  # see hold_clock

    # --- an exchange -------------------------------------------------------------------------------------------

    def begin(self, data: bytes, head_only: bool, timeout: float) -> None:
        """Send the request's head, and its body if that is at hand. `timeout`: longest wait without progress."""
        self._reset()
        self._active = True
        self._head_only = head_only
        self._timeout = timeout
        self._progress = self._loop.time()
        self._timer = self._loop.call_later(timeout, self._check_progress)
        self.write(data)

    def write(self, data: bytes) -> None:
        if self._transport is None or self._closed:
            return  # connection_lost has said why
        self._sent += len(data)
        self._transport.write(data)

    async def drain(self) -> None:
        """Wait while the component does not read. Raises nothing: the end of the exchange tells."""
        if self._writable is not None:
            await self._writable
            self._progress = self._loop.time()

    async def head(self) -> None:
        """Wait for `status` and `headers`."""
        while not self._head_done:
            if self._error is not None:
                raise self._error
            await self._wait()

    async def read(self, most: int | None = None) -> bytes:
        """What has arrived of the body, at least one byte and at most `most`; empty at its end."""
        while not self._chunks:
            if self._complete:
                return b""
            if self._error is not None:
                raise self._error
            await self._wait()
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks = []
        self._buffered = 0
        if most is not None and len(data) > most:
            self._chunks = [data[most:]]
            self._buffered = len(data) - most
            return data[:most]
        if self._paused and self._transport is not None:
            self._paused = False
            self._progress = self._loop.time()
            self._transport.resume_reading()
        return data

    @property
    def encrypted(self) -> bool:
        return self._transport is not None and self._transport.get_extra_info("sslcontext") is not None

    @property
    def buffered(self) -> bool:
        return bool(self._chunks)

    def is_complete(self) -> bool:
        """Whether all of the response has arrived; `read` may still hold some of it."""
        return self._complete

    # --- past the parser ---------------------------------------------------------------------------------------

    def bypass(self) -> bool:
        """From now on, what is still to come of the body is to be taken with `splice`. False if it cannot be: its
        length is not known, it is encrypted, or all of it is here."""
        if self._left is not None:
            return self._left > 0
        if self._transport is None or self._complete or self.encrypted:
            return False
        lengths = [value for name, value in self.headers if name.lower() == b"content-length"]
        if len(lengths) != 1 or not lengths[0].isdigit():
            return False
        if not self._paused:
            self._transport.pause_reading()
        self._paused, self._keep_alive = False, self._parser.should_keep_alive()
        self._left = int(lengths[0]) - self._body
        return self._left > 0

    async def splice(self, pipe: int, most: int) -> int:
        """Move at least one byte of the body into a pipe; how many. The pipe must be empty."""
        assert self._left is not None
        while self._error is None:
            try:
                count = os.splice(self._descriptor, pipe, min(most, self._left))
            except BlockingIOError:
                await self._readable()
                continue
            except OSError as error:
                raise Dropped(f"it closed the connection in the middle of its response: {error}") from error
            if not count:
                raise Dropped("it closed the connection in the middle of its response")
            self._left -= count
            self._complete = not self._left
            return count
        raise self._error

    async def splice_in(self, pipe: int, count: int) -> int:
        """Move bytes from a pipe into the request's body; how many. Raises nothing, as `drain`. What was written
        before must be flushed."""
        while not self._closed:
            try:
                moved = os.splice(pipe, self._descriptor, count)
            except BlockingIOError:
                await self._until_writable()
                continue
            except OSError:
                self._closed = True
                break
            self._sent += moved
            return moved
        return 0

    async def flush(self) -> None:
        """Wait until the kernel has all that was written."""
        if self._transport is not None and not self._closed:
            self._transport.set_write_buffer_limits(high=0)
            await self.drain()
            self._transport.set_write_buffer_limits(high=WRITE_BUFFER)

    async def _readable(self) -> None:
        self._loop.add_reader(self._descriptor, self._wake)
        try:
            await self._wait()
        finally:
            if self._descriptor >= 0:
                self._loop.remove_reader(self._descriptor)

    async def _until_writable(self) -> None:
        self.pause_writing()
        self._loop.add_writer(self._descriptor, self.resume_writing)
        try:
            await self.drain()
        finally:
            if self._descriptor >= 0:
                self._loop.remove_writer(self._descriptor)

    # --- time and end ------------------------------------------------------------------------------------------

    def sending(self, task: asyncio.Task[object] | None) -> None:
        """`task` passes a part of the response on and may wait for the caller; it is cancelled when that takes longer
        than the time limit, since a caller who does not read must not hold a component for ever."""
        self._sender = task
        self._progress = self._loop.time()

    def hold_clock(self, held: bool) -> None:
        """While it is held somebody else is to act, and time does not count against the component."""
        self._held = held
        self._progress = self._loop.time()

    def fail(self, error: Exception) -> None:
        """End the exchange: `head` and `read` raise `error`."""
        if self._error is None and not self._complete:
            self._error = error
        self.close()
        self._wake()
        if self._sender is not None:
            self._sender.cancel()

    def end(self) -> bool:
        """The exchange is over; whether the connection can carry another one. If not, it is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._active = False
        reusable = self._complete and self._keep_alive and not self._closed and self._error is None
        if not reusable or self._writable is not None:
            self.close()
            return False
        if self._left is not None:
            self._resume_parsing()
        self.used = True
        return True

    def _resume_parsing(self) -> None:
        """The parser has seen only the beginning of a response that was bypassed."""
        self._left = None
        self._parser = httptools.HttpResponseParser(self)
        if self._transport is not None:
            self._transport.resume_reading()

    def close(self) -> None:
        self._closed = True
        if self._transport is not None:
            self._transport.abort()

    @property
    def closed(self) -> bool:
        return self._closed

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _check_progress(self) -> None:
        if self._held:
            self._progress = self._loop.time()
        left = self._progress + self._timeout - self._loop.time()
        if left <= 0:
            self._timer = None
            self.fail(TimedOut(f"no progress for {self._timeout:g} s"))
        else:
            self._timer = self._loop.call_later(left, self._check_progress)

    # --- asyncio.Protocol --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER)
        sock: socket.socket = transport.get_extra_info("socket")
        # A descriptor of our own, since the transport's is gone when `connection_lost` wants to ask the kernel.
        self._descriptor = os.dup(sock.fileno())

    def data_received(self, data: bytes) -> None:
        if not self._active or self._complete:
            self.close()  # an answer nobody asked for: this connection is out of step
            return
        self._progress = self._loop.time()
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.fail(Garbage("it switched protocols without being asked to"))
            return
        except httptools.HttpParserError as error:
            self.fail(Garbage(str(error)))
            return
        if not self._head_done and self._received > MAX_HEAD:
            self.fail(Garbage(f"its header is longer than {MAX_HEAD} bytes"))
            return
        if self._buffered > HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self._finish(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(exc)
        self._closed = True
        self.resume_writing()
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_writer(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1

    def _finish(self, exc: Exception | None) -> None:
        if not self._active or self._complete or self._error is not None:
            self._closed = True
            return
        if self._until_close and exc is None:
            self._complete, self._keep_alive = True, False
            self._wake()
            return
        where = "in the middle of its response" if self._received else "without a response"
        self.fail(Dropped(f"it closed the connection {where}", undelivered=self._undelivered()))

    def _undelivered(self) -> bool:
        """Ask the kernel how much of what we sent the other side's kernel has not acknowledged. An idle connection
        that the component closed just before our request shows all of it; a component that took the request and
        died shows none, since its FIN or RST comes after the acknowledgement."""
        if self._received or self._transport is None or self._descriptor < 0:
            return False
        answer = fcntl.ioctl(self._descriptor, termios.TIOCOUTQ, bytes(4))
        queued: int = struct.unpack("i", answer)[0]
        return queued + self._transport.get_write_buffer_size() >= self._sent

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None:
            if not self._writable.done():
                self._writable.set_result(None)
            self._writable = None

    # --- httptools ---------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:
            self._keep_alive = False  # bytes behind the response: never trust this connection again

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:  # else a trailer field: never merged into the header
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        self.status = self._parser.get_status_code()
        if self.status < 200:
            return  # interim; `on_message_complete` follows
        self._until_close = self._ends_with_connection()
        self._head_done = True
        if self._head_only:
            # The parser would wait for the body that a HEAD's Content-Length speaks of.
            self._complete, self._keep_alive = True, False

    def _ends_with_connection(self) -> bool:
        if self._head_only or self.status in (204, 304):
            return False
        return not any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in self.headers)

    def on_body(self, body: bytes) -> None:
        if not self._complete:
            self._chunks.append(body)
            self._buffered += len(body)
            self._body += len(body)

    def on_message_complete(self) -> None:
        if self._complete:
            return
        if self.status < 200:
            self.headers = []
            return
        self._complete = True
        self._keep_alive = self._parser.should_keep_alive()
