"""One connection to a component: HTTP/1.1 over asyncio, the response parsed by httptools as it arrives.

Used by `pool`, `forward`, and for the storage by `presigned`, one exchange at a time. It never retries;
failures are the exceptions below. Both directions have backpressure: `drain` waits while the component does
not read, and the component is not read from while the caller does not read."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios

import httptools

from controller.web.gateway.headers import Header
from controller.web.http_connection import HttpConnection

MAX_HEAD = 64 * 1024  # bytes of a response before its header must be complete
DELIVERY = 2.0  # seconds until the component's kernel must have acknowledged something of a request
WRITE_BUFFER = 64 * 1024  # bytes of a request kept before `drain` waits
HIGH_WATER = 256 * 1024  # bytes of a response kept before the component is not read from

#: Transfer codings of a response. Others would be taken off the field, but not off the body.
_CODINGS = frozenset((b"chunked", b"identity"))


class UpstreamError(Exception):
    """Base: the exchange failed."""


class UpstreamUnreachable(UpstreamError):
    """The connection failed, so nothing was sent."""


class ConnectionDropped(UpstreamError):
    """The connection ended before the response did. `undelivered`: the component's kernel had not
    acknowledged a single byte of the request, so the component cannot have acted on it. `unread`: its
    program had not read the request to its end, or had let it wait."""

    def __init__(self, message: str, undelivered: bool = False, unread: bool = False) -> None:
        super().__init__(message)
        self.undelivered = undelivered
        self.unread = unread


class UpstreamSilent(ConnectionDropped):
    """The component's kernel acknowledges nothing: its node or its network has gone. It may have taken the
    request all the same, since kernels like to acknowledge it together with the response."""


class CallRefused(UpstreamError):
    """The serving library has answered that it did not run the call, because it has no worker yet or again."""


class ProtocolError(UpstreamError):
    """The response is not valid HTTP."""


class UpstreamTimeout(UpstreamError):
    """There was no progress within the time limit."""


class UpstreamConnection(HttpConnection):
    def __init__(self, endpoint: str, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop, WRITE_BUFFER)
        self.endpoint = endpoint
        self.used = False  # has carried an exchange before
        self.idle_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0  # when it looks; one that outlives exchanges costs less than one for each
        self._due = 0.0  # when there is something to check in this exchange
        self._parser = httptools.HttpResponseParser(self)
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers: list[Header] = []
        self._fields: dict[bytes, bytes] = {}  # the first value of each, by its name in lower case
        self._active = False
        self._head_only = False
        self._head_done = False
        self._forget_body()
        self._until_close = False
        self._keep_alive = True
        self._received = 0
        self._sent = 0
        self._error: Exception | None = None
        self._sender: asyncio.Task[object] | None = None
        self._held = False  # see hold_clock
        self._waits = False  # the serving library has said that the call waits for a slot
        self._upgrade = False  # the request asks for another protocol
        self._early: list[bytes] = []  # what arrived of it before `take_over`

    # --- an exchange -------------------------------------------------------------------------------------------

    def begin(self, data: bytes, head_only: bool, timeout: float, upgrade: bool = False) -> None:
        """Send the request's head, and its body if that is buffered. `timeout`: longest wait without progress;
        `upgrade`: the component may switch protocols."""
        self._reset()
        self._active = True
        self._head_only = head_only
        self._upgrade = upgrade
        self._timeout = timeout
        self._progress = self._loop.time()
        self._delivered = False
        self._check_at(self._progress + min(timeout, DELIVERY))
        self.write(data)

    async def head(self) -> None:
        """Wait for `status` and `headers`."""
        while not self._head_done:
            if self._error is not None:
                raise self._error
            await self._wait()

    def take_over(self, protocol: asyncio.Protocol) -> tuple[asyncio.Transport, bytes]:
        """End HTTP on this connection, after a 101, and return its transport with what has arrived of the other
        protocol. `protocol` gets the rest; it has to pass `connection_lost` on. Reading is paused. Raises
        ConnectionDropped."""
        if self._transport is None or self._error is not None or self._closed:
            raise self._error or ConnectionDropped("it closed the connection right after the handshake")
        self._check_no_more()
        transport, self._transport = self._transport, None  # `end` must not close it
        transport.set_protocol(protocol)
        return transport, b"".join(self._early)

    def field(self, name: bytes) -> bytes | None:
        """Return the first value of a field of the response."""
        return self._fields.get(name)

    def is_complete(self) -> bool:
        """Return True if all of the response has arrived; `read` may still hold some of it."""
        return self._complete

    # --- what the base asks ------------------------------------------------------------------------------------

    def bypass(self) -> bool:
        """Switch to `splice` like the base class; the parser is not used afterwards."""
        if self._left is None and not self._complete:
            self._keep_alive = self._parser.should_keep_alive()
        return super().bypass()

    def _length(self) -> int | None:
        lengths = [value for name, value in self.headers if name.lower() == b"content-length"]
        return int(lengths[0]) if len(lengths) == 1 and lengths[0].isdigit() else None

    def _fault(self) -> Exception | None:
        return self._error

    def _broken_off(self, why: str) -> ConnectionDropped:
        return ConnectionDropped(f"it closed the connection in the middle of its response{why}")

    def _unwritable(self) -> None:
        self._closed = True  # the part that it has answered is still to be read

    def _took(self, count: int) -> None:
        self._progress = self._loop.time()

    def _gave(self, count: int) -> None:
        self._sent += count
        self._progress = self._loop.time()

    # --- time and end ------------------------------------------------------------------------------------------

    def sending(self, task: asyncio.Task[object] | None) -> None:
        """Run `task`, which passes on a part of the response and may wait for the caller; it is cancelled
        after the time limit, since a caller who does not read must not block a component for ever."""
        self._sender = task
        self._progress = self._loop.time()

    def pause_timeout(self, held: bool) -> None:
        """Stop the component's time limit while somebody else has to act."""
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
        """End the exchange, and return whether the connection can be reused; if not, it is closed."""
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
        """Replace the parser, which has seen only the beginning of a response that was bypassed."""
        self._left = None
        self._parser = httptools.HttpResponseParser(self)
        if self._transport is not None:
            self._transport.resume_reading()

    def _check_at(self, due: float) -> None:
        self._due = due
        if self._timer is not None and self._timer_at > due:
            self._check_no_more()
        if self._timer is None:
            self._timer, self._timer_at = self._loop.call_at(due, self._check), due

    def _check_no_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        if not self._active or self._error is not None:
            return
        if self._loop.time() < self._due:
            self._check_at(self._due)
        elif not self._delivered and self._undelivered():
            # A network that has gone is noticed long before a slow component would be.
            self.fail(UpstreamSilent("it acknowledges nothing; its network may be gone"))
        else:
            self._delivered = True
            self._check_progress()

    def _check_progress(self) -> None:
        now = self._loop.time()
        if self._held:
            self._progress = now
        due = self._progress + self._timeout
        if due <= now:
            self.fail(UpstreamTimeout(f"no progress for {self._timeout:g} s"))
        else:
            self._check_at(due)

    # --- asyncio.Protocol --------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if not self._active or self._complete:
            self.close()  # an answer without a request: this connection is out of step
            return
        self._progress = self._loop.time()
        self._received += len(data)
        if self._early:
            self._early.append(data)
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as switched:
            self._switch(data[switched.args[0] :])
            return
        except httptools.HttpParserError as error:
            self.fail(ProtocolError(str(error)))
            return
        if not self._head_done and self._received > MAX_HEAD:
            self.fail(ProtocolError(f"its header is longer than {MAX_HEAD} bytes"))
            return
        self._wake()

    def _switch(self, rest: bytes) -> None:
        if not self._upgrade or self.status != 101:
            self.fail(ProtocolError("it switched protocols without being asked to"))
            return
        self._early.append(rest)
        if self._transport is not None:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self._finish(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._check_no_more()
        self._finish(exc)
        super().connection_lost(exc)

    def _finish(self, exc: Exception | None) -> None:
        if not self._active or self._complete or self._error is not None:
            self._closed = True
            return
        if self._until_close and exc is None:
            self._complete, self._keep_alive = True, False
            self._wake()
            return
        where = "in the middle of its response" if self._received else "without a response"
        # A kernel resets the connection of a program that ends while there is something left to read.
        unread = self._waits or (isinstance(exc, ConnectionResetError) and not self._received)
        self.fail(ConnectionDropped(f"it closed the connection {where}", self._undelivered(), unread))

    def _undelivered(self) -> bool:
        """Ask the kernel how much of what we sent the other side's kernel has not acknowledged. An idle connection
        that the component closed just before our request shows all of it; a component that took the request and
        died shows none, since its FIN or RST comes after the acknowledgement."""
        if self._received or self._transport is None or self._descriptor < 0:
            return False
        answer = fcntl.ioctl(self._descriptor, termios.TIOCOUTQ, bytes(4))
        queued: int = struct.unpack("i", answer)[0]
        return queued + self._transport.get_write_buffer_size() >= self._sent

    # --- httptools ---------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:
            self._keep_alive = False  # bytes behind the response: never trust this connection again

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:  # else a trailer field: never merged into the header
            self.headers.append((name, value))
            self._fields.setdefault(name.lower(), value)

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        self.status = self._parser.get_status_code()
        if self.status == 101 and self._upgrade:
            self._head_done = True
            return
        if self.status < 200:
            self._waits = self.field(b"x-prichal-call") == b"waiting"
            return  # interim; `on_message_complete` follows
        if b"transfer-encoding" in self._fields and self._codings() not in _CODINGS:
            self.fail(ProtocolError("its transfer coding is one that no request of ours allows"))
            return
        self._until_close = self._ends_with_connection()
        self._head_done = True
        if self._head_only:
            # The parser would wait for a body with the Content-Length of a response to HEAD.
            self._complete, self._keep_alive = True, False

    def _codings(self) -> bytes:
        """Return the value of the field, which may come in several lines."""
        lines = (value for name, value in self.headers if name.lower() == b"transfer-encoding")
        return b", ".join(lines).lower()

    def _ends_with_connection(self) -> bool:
        if self._head_only or self.status in (204, 304):
            return False
        return b"content-length" not in self._fields and b"transfer-encoding" not in self._fields

    def on_body(self, body: bytes) -> None:
        if not self._complete:
            self._keep(body, HIGH_WATER)

    def on_message_complete(self) -> None:
        if self._complete or (self.status == 101 and self._upgrade):
            return
        if self.status < 200:
            self.headers, self._fields = [], {}
            return
        self._complete = True
        self._keep_alive = self._parser.should_keep_alive()
