"""The caller's request body as it arrives over ASGI, with the platform's limit on its size. Used by `forward`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from controller.domain.localizable import Localizable
from controller.web.gateway.upstream import UpstreamConnection
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

GRACE = 30.0  # seconds until the first bytes of a body, and of delay for the rest
PACE = 8 * 2**10  # bytes a second that the caller has to send on average after that

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


#: The key in a scope below which the server has a function that returns the next part of a body if it has arrived, and
#: None if somebody has to wait.
ARRIVED = "prichal.arrived"


class CallerGone(Exception):
    """The caller closed the connection."""


class IncomingBody:
    """Wraps the server's `receive` and records whether a part of the body is still to come: a call after the
    last one would wait until the caller disconnects. `arrived` returns the next part if nobody has to wait."""

    def __init__(
        self,
        receive: Receive,
        special: dict[bytes, bytes],
        arrived: Callable[[], Message | None] | None = None,
    ) -> None:
        self._receive = receive
        self._arrived = arrived
        self._more = b"transfer-encoding" in special or special.get(b"content-length", b"0") != b"0"

    async def __call__(self) -> Message:
        return self._note(await self._receive())

    def arrived(self) -> Message | None:
        """Return the next part if it has arrived."""
        message = self._arrived() if self._arrived is not None else None
        return message and self._note(message)

    def _note(self, message: Message) -> Message:
        self._more = message["type"] == "http.request" and message.get("more_body", False)
        return message

    def more(self) -> bool:
        return self._more


class OutgoingBody(Protocol):
    """The request to a component: `head` with the request's header, then the rest if there is `more`."""

    @property
    def head(self) -> bytes: ...

    def more(self) -> bool: ...

    def is_buffered(self) -> bool:
        """Return True if all of it can be sent again."""

    def framing(self) -> bytes:
        """The header line that tells the component where the body ends."""

    def frame(self, data: bytes) -> bytes:
        """A piece as it is sent."""

    async def send(self, connection: UpstreamConnection) -> None:
        """Send the rest. While the component is not to act, its clock is held. Raises RequestRefused, CallerGone."""


class RequestBody:
    """`head` has the bytes that arrived with the header, `more` says whether there are others."""

    def __init__(self, incoming: IncomingBody, special: dict[bytes, bytes], limit: int) -> None:
        self.head = b""
        self.chunked = b"transfer-encoding" in special
        self.length = int(special.get(b"content-length", b"0"))  # gunicorn has checked the digits
        self._incoming = incoming
        self.limit = limit
        self._seen = 0
        self._waited = 0.0  # seconds for the caller, without those in which the component is slow

    def more(self) -> bool:
        return self._incoming.more()

    def is_buffered(self) -> bool:
        """Return True if `head` is all of it, so that it can be sent again."""
        return not self.more() and self._seen == len(self.head)

    async def begin(self) -> None:
        """Check the announced size and read the available part. A caller who waits for `100 Continue` gets it now."""
        if self.length > self.limit:
            raise too_large(self.limit)
        if self.more():
            self.head = self._taken(self._incoming.arrived() or await self._timely())
            if not self.more():
                self.length, self.chunked = len(self.head), False

    async def next(self) -> bytes:
        return self._taken(self._incoming.arrived() or await self._timely())

    def _taken(self, message: Message) -> bytes:
        if message["type"] != "http.request":
            raise CallerGone
        data: bytes = message.get("body", b"")
        self._seen += len(data)
        if self._seen > self.limit:
            raise too_large(self.limit)
        return data

    async def whole(self) -> bytes:
        """Return the whole body, for requests that the platform answers itself."""
        await self.begin()
        parts = [self.head]
        while self.more():
            parts.append(await self.next())
        return b"".join(parts)

    async def _timely(self) -> Message:
        """Enforce a deadline: a caller who sends a byte now and then would hold the call's resources for as long
        as they like."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(GRACE + self._seen / PACE - self._waited):
                return await self._incoming()
        except TimeoutError:
            detail = Localizable(
                "The body comes too slowly: {seen} bytes in {waited} s.",
                seen=self._seen,
                waited=format(self._waited + clock() - began, ".0f"),
            )
            raise RequestRefused(HttpProblem(ProblemKind.BODY_TIMEOUT, detail)) from None
        finally:
            self._waited += clock() - began

    def framing(self) -> bytes:
        """The header line that tells the component where the body ends."""
        if self.chunked:
            return b"transfer-encoding: chunked\r\n"
        return b"content-length: %d\r\n" % self.length

    def frame(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self.chunked and data else data

    async def send(self, connection: UpstreamConnection) -> None:
        while self.more():
            data = await self.next()
            connection.pause_timeout(False)
            connection.write(self.frame(data))
            await connection.drain()
            connection.pause_timeout(True)
        if self.chunked:
            connection.write(b"0\r\n\r\n")


class HeldBodies:
    """Bounds the bytes of whole request bodies that one worker has in memory. `what` they are is for the problem."""

    def __init__(self, most: int, what: str) -> None:
        self._most = most
        self._what = what
        self._held = 0

    async def whole(self, body: RequestBody, pieces: list[bytes]) -> bytes:
        """Return a body that has begun to arrive. Raises RequestRefused, CallerGone."""
        self.hold(body.head, pieces)
        while body.more():
            self.hold(await body.next(), pieces)
        return b"".join(pieces)

    def hold(self, data: bytes, pieces: list[bytes]) -> None:
        """Take memory until the release of `pieces`. Raises RequestRefused if there is none left."""
        pieces.append(data)
        self._held += len(data)
        if self._held > self._most:
            detail = Localizable(
                "This gateway worker holds {most} bytes of {what}.", most=self._most, what=self._what
            )
            raise RequestRefused(HttpProblem(ProblemKind.OVERLOADED, detail, retry_after=1))

    def release(self, pieces: list[bytes]) -> None:
        self._held -= sum(map(len, pieces))


def too_large(limit: int) -> RequestRefused:
    return RequestRefused(
        HttpProblem(
            ProblemKind.TOO_LARGE,
            Localizable("The body may have {limit} bytes.", limit=limit),
            extra={"limit": limit},
        )
    )


def once(content: bytes) -> Receive:
    """Return a `receive` callable for an application whose body has been read already."""

    async def receive() -> Message:
        return {"type": "http.request", "body": content, "more_body": False}

    return receive
