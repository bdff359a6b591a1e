"""Writes the response to an ordinary request on its connection, with its header and the beginning of its body in one
piece. Used by `connections`, once for each request; the application calls `send`.

Promises: no field can end its line early; a body is never longer than its length says; a response whose end is missing
ends with the connection, so that its caller notices.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from gunicorn.asgi.protocol import _get_cached_date_header, _get_cached_status_line

from controller.web.gateway.body import Message
from controller.web.gateway.headers import Header

_VERSION: Final = (1, 1)
_LARGE: Final = 64 * 1024  # bytes of a body that are not copied next to its header
_FRAMING: Final = (b"transfer-encoding", b"content-length")
_TOKEN = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
#: Bytes that values may have: no control characters, and no end of a line.
_OF_VALUES = bytes((9, *range(0x20, 0x7F), *range(0x80, 0x100)))
_USUAL: Final = 64  # bytes of a name at most that is kept: components choose names, and could fill the memory


class BadResponse(Exception):
    """The application has sent what would not be one response."""


class Reply:
    """`connection` is a `ConnectionProtocol`. `closes`: nothing more is served on this connection."""

    __slots__ = (
        "_chunked",
        "_connection",
        "_head",
        "_left",
        "_without_body",
        "closes",
        "complete",
        "started",
    )

    def __init__(self, connection: Any, without_body: bool, closes: bool) -> None:
        self._connection = connection
        self._without_body = without_body  # the request was HEAD
        self._head = b""  # not yet written
        self._left: int | None = None  # bytes of the body that may come
        self._chunked = False
        self.closes = closes
        self.started = False
        self.complete = False

    async def send(self, message: Message) -> None:
        """Take a message of ASGI. Nobody is told that the caller has left: the call is cancelled then."""
        if self._connection.left:
            return
        if message["type"] == "http.response.start":
            self._begin(message["status"], message["headers"])
            return
        if not self.started or self.complete:
            raise BadResponse("a body without a response, or behind its end")
        self._write(message.get("body", b""), not message.get("more_body", False))
        if (flow := self._connection.flow).write_paused:
            await flow.drain()

    @property
    def written(self) -> bool:
        """Return True if a part of the response has been written."""
        return self.started and not self._head

    @property
    def streams(self) -> bool:
        """Return True if a part of a response of unknown length has been written."""
        return self._chunked and self.written

    @property
    def keeps_alive(self) -> bool:
        """Return True if the connection can be used for another request."""
        return self.complete and not self.closes and not self._left

    def _begin(self, status: int, headers: list[Header]) -> None:
        if self.started:
            raise BadResponse("a second response")
        if status in (204, 304):
            self._without_body = True
        known = {_lower(name): value for name, value in headers}
        fields = b"".join([name + b": " + value + b"\r\n" for name, value in headers])
        if fields.translate(None, _OF_VALUES) != b"\r\n" * len(headers):
            raise BadResponse("a field whose value has a control character or the end of a line")
        if b"transfer-encoding" in known or (status == 204 and b"content-length" in known):
            self._begin(status, [header for header in headers if header[0].lower() not in _FRAMING])
            return
        if (length := known.get(b"content-length")) is not None:
            self._left = None if self._without_body else int(length)
        elif not self._without_body:
            self._chunked = True
            fields += b"transfer-encoding: chunked\r\n"
        if b"date" not in known:
            fields += _get_cached_date_header()
        if self.closes and b"connection" not in known:
            fields += b"connection: close\r\n"
        self._head = b"%b%b\r\n" % (_get_cached_status_line(_VERSION, status), fields)
        self.started = True

    def _write(self, data: bytes, last: bool) -> None:
        if self._without_body:
            data = b""
        elif self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        self.complete = last
        if self._chunked:
            self._flush(
                b"%b%b"
                % (b"%x\r\n%b\r\n" % (len(data), data) if data else b"", b"0\r\n\r\n" if last else b"")
            )
        elif data or last:
            self._flush(data)

    def _flush(self, data: bytes) -> None:
        head, self._head = self._head, b""
        if len(data) < _LARGE:
            self._connection.put(head + data)
            return
        if head:
            self._connection.put(head)
        self._connection.put(data)


def _lower(name: bytes) -> bytes:
    """Return the name of a field in lower case. Raises BadResponse if it is none."""
    return _lower_usual(name) if len(name) <= _USUAL else _checked_lower(name)


def _checked_lower(name: bytes) -> bytes:
    if _TOKEN.fullmatch(name) is None:
        raise BadResponse("a field without a name, or with one that is none")
    return name.lower()


_lower_usual = lru_cache(maxsize=1024)(_checked_lower)  # responses have few of them
