"""One connection of a caller to the object proxy: HTTP/1.1 over asyncio, requests parsed by httptools as they
arrive, one at a time. Made by the listener; decides nothing: each request goes to `answer`, which reads the body and
sends the response through this object.

Promises: nothing is kept of a body but a bounded piece; bytes that only pass through can be moved by the kernel;
a caller who sends and reads next to nothing for a while is disconnected; an ambiguous request ends the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

import httptools

from controller.web.gateway.body import CallerGone
from controller.web.gateway.headers import Header, request_id
from controller.web.http_connection import HttpConnection

MAX_TARGET = 16 * 1024  # bytes
MAX_HEAD = 32 * 1024  # bytes of all header fields
MAX_FIELDS = 100
HEAD_WITHIN = 15.0  # seconds for a whole header, and that an idle connection is kept
TURN = 30.0  # seconds of a caller's turn before it is judged by how much they have sent or read
SLOWEST = 1024  # bytes a second, below which the caller is disconnected
LOOK = 5.0  # seconds between looks at it
WRITE_BUFFER = 256 * 1024  # bytes of a response kept before `drain` waits
HIGH_WATER = 1024 * 1024  # bytes of a body kept before the caller is not read from
LINGER = 5.0  # seconds that the rest of a refused body is read and thrown away
LINGER_BYTES = 32 * 2**20

#: Fields that may come once: two of them, and two servers may believe different ones.
_SINGLE = frozenset((b"host", b"content-length", b"transfer-encoding", b"authorization", b"range", b"expect"))


@dataclass(frozen=True)
class ObjectRequest:
    """`target` is what stands in the request line; `headers` have lower-case names, each once, repeated ones joined by
    commas; `length` of the body, None if it comes in chunks."""

    method: str
    target: str
    headers: dict[str, str]
    length: int | None
    identity: bytes


class CallerConnection(HttpConnection):
    """`answer` is given each request; it may raise anything: then the connection is closed. `left` is told the end."""

    def __init__(
        self,
        answer: Callable[[CallerConnection, ObjectRequest], Awaitable[None]],
        left: Callable[[CallerConnection], None],
        head_within: float = HEAD_WITHIN,
        turn: float = TURN,
    ) -> None:
        super().__init__(asyncio.get_running_loop(), WRITE_BUFFER)
        self._head_within = head_within
        self._turn = turn
        self._answer = answer
        self._left_us = left
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._held = True
        self._since = 0.0  # when the caller's turn began
        self._spent = 0.0  # seconds of earlier turns, and bytes that moved in them
        self._moved = 0
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._fields: list[Header] = []
        self._head_size = 0
        self._wrong = ""  # why this is not a valid request
        self._forget_body()
        self._announced: int | None = 0
        self._continue = False  # the caller waits for `100 Continue`
        self._keep_alive = True
        self.status = 0  # of the response, once it has begun

    # --- the request's body ------------------------------------------------------------------------------------

    def welcome(self) -> None:
        """The body is wanted: a caller who waits for that is told."""
        if self._continue and not self._body and not self._complete:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._continue = False

    def _length(self) -> int | None:
        return self._announced

    def _fault(self) -> CallerGone | None:
        return CallerGone() if self._closed else None

    def _broken_off(self, why: str) -> CallerGone:
        self.close()
        return CallerGone()

    def _unwritable(self) -> None:
        self.close()

    def _took(self, count: int) -> None:
        self._moved += count

    def _gave(self, count: int) -> None:
        self._moved += count

    # --- the response ------------------------------------------------------------------------------------------

    def begin(self, status: int, headers: list[Header]) -> None:
        """`headers` with the framing, which is the caller's business alone for HEAD."""
        self.status = status
        # A body that was not read stands between this response and the next request.
        self._keep_alive = self._keep_alive and (self._complete or self._left == 0) and not self._stopping
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        closing = b"" if self._keep_alive else b"connection: close\r\n"
        phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Status"
        self.write(b"HTTP/1.1 %d %b\r\n%b%b\r\n" % (status, phrase.encode(), lines, closing))

    # --- time --------------------------------------------------------------------------------------------------

    def pause_timeout(self, held: bool) -> None:
        """While it is held somebody else is to act, and time does not count against the caller."""
        now = self._loop.time()
        if not self._held:
            self._spent += now - self._since
        self._held, self._since = held, now

    def _check_head(self) -> None:
        """The header has not come in time, or nothing at all."""
        self.close()

    def _check_progress(self) -> None:
        spent = self._spent + (0.0 if self._held else self._loop.time() - self._since)
        if spent >= self._turn:
            if self._moved < SLOWEST * spent:
                self.close()
                return
            self._judge_anew()
        self._timer = self._loop.call_later(min(LOOK, self._turn), self._check_progress)

    def _judge_anew(self) -> None:
        self._spent, self._moved, self._since = 0.0, 0, self._loop.time()

    def _set_timer(self, seconds: float, check: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, check)

    @property
    def is_silent(self) -> bool:
        """True if no request is under way."""
        return self._task is None

    def refuse(self) -> None:
        """There are too many: it is closed as soon as it is there."""
        self._closed = True

    def stop(self) -> None:
        """Close now if no request is under way, else with its response."""
        self._stopping = True
        if self._task is None:
            self.close()

    # --- a request's life --------------------------------------------------------------------------------------

    async def _live(self, request: ObjectRequest) -> None:
        self._judge_anew()
        self._set_timer(min(LOOK, self._turn), self._check_progress)
        try:
            await self._answer(self, request)
            self.pause_timeout(False)
            await self.flush()
            if not self._keep_alive and not self._closed:
                await self._linger()
        except CallerGone:
            self.close()
        except BaseException:
            self.close()
            raise
        finally:
            self._task = None
        if self._keep_alive and not self._closed:
            self._next()
        else:
            self._say_goodbye()

    def _next(self) -> None:
        assert self._transport is not None
        resume = self._paused or self._left is not None
        self._reset()
        self._held = True
        self._set_timer(self._head_within, self._check_head)
        if self._stopping:
            self.close()
        elif resume:
            self._transport.resume_reading()

    def _say_goodbye(self) -> None:
        if self._transport is not None and not self._closed:
            self._closed = True
            self._transport.close()

    async def _linger(self) -> None:
        """Read what still comes for a while: closing at once would reset the connection, and the caller, still
        sending, would never see the answer."""
        left = LINGER_BYTES
        if self._complete or self._continue or self._left is not None:
            return
        try:
            async with asyncio.timeout(LINGER):
                while left > 0 and (data := await self.read()):
                    left -= len(data)
        except TimeoutError:
            return

    # --- asyncio.Protocol --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._closed:
            self.close()
            return
        self._set_timer(self._head_within, self._check_head)

    def data_received(self, data: bytes) -> None:
        if self._complete or self._left is not None:  # the next request before the answer to this one
            self._keep_alive = False
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self._task is not None and self._is_whole():  # it is what comes behind the request
                self._keep_alive = False
            else:
                self._wrong = self._wrong or str(error) or "it is not an HTTP request"
        if self._wrong:
            self._refuse()
        self._wake()

    def _is_whole(self) -> bool:
        return self._complete

    def _refuse(self) -> None:
        """Answer a malformed or incomplete request in plain text, since its format is unknown."""
        if self._task is None and not self.status:
            self._keep_alive = False
            self.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            self._say_goodbye()
        else:
            self.close()

    def eof_received(self) -> bool:
        if self._task is not None and self._complete:
            self._keep_alive = False
            return True  # the request is complete, and the caller waits for the answer
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)
        if self._task is not None:
            self._task.cancel()
        self._left_us(self)

    # --- httptools ---------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:  # pipelined; it is not answered
            self._keep_alive = False

    def on_url(self, url: bytes) -> None:
        if not self._complete:
            self._target += url
            if len(self._target) > MAX_TARGET:
                self._wrong = "its target is too long"

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._complete or self._task is not None:  # of the next request, or a trailer
            return
        self._fields.append((name.lower(), value))
        self._head_size += len(name) + len(value) + 4
        if len(self._fields) > MAX_FIELDS or self._head_size > MAX_HEAD:
            self._wrong = "its header is too long"

    def on_headers_complete(self) -> None:
        if self._complete or self._wrong:
            return
        request = self._read_head()
        if request is None:
            return
        self._announced = request.length
        self._continue = request.headers.get("expect", "").lower() == "100-continue"
        self._keep_alive = self._parser.should_keep_alive()
        self._task = self._loop.create_task(self._live(request))

    def _read_head(self) -> ObjectRequest | None:
        headers: dict[str, str] = {}
        for name, value in self._fields:
            key, text = name.decode("latin-1"), value.decode("latin-1").strip()
            if key in headers and name in _SINGLE:
                self._wrong = f"it has {key} twice"
                return None
            headers[key] = f"{headers[key]},{text}" if key in headers else text
        coding, length = headers.get("transfer-encoding"), headers.get("content-length", "0")
        if (coding is not None and (coding.lower() != "chunked" or "content-length" in headers)) or not (
            length.isascii() and length.isdigit() and len(length) < 17
        ):
            self._wrong = "its body cannot be measured"
            return None
        identity = request_id(headers.get("x-request-id", "").encode("latin-1"))
        return ObjectRequest(
            self._parser.get_method().decode("latin-1"),
            self._target.decode("latin-1"),
            headers,
            None if coding is not None else int(length),
            identity,
        )

    def on_body(self, body: bytes) -> None:
        if not self._complete:
            self._keep(body, HIGH_WATER)

    def on_message_complete(self) -> None:
        self._complete = True
