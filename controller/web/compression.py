"""Responses of the platform's own as gzip, for callers that accept it. Used by the ASGI application for what it does
not forward: the files API, the run API, status, metrics, descriptions, results of async calls.

Not compressed, see docs/security.md: pages, responses to requests that a browser sends with a cookie or for a page of
another origin, and those that set a cookie. A secret that is compressed together with a text of somebody else's choice
could be guessed by the length of the response (BREACH). Nor are parts of a whole, and what has no length: it streams.
"""

from __future__ import annotations

import asyncio
from typing import Final

from controller.serving.compression import accepts_gzip, gzipped, is_compressible
from controller.web.gateway.body import Message, Send
from controller.web.gateway.headers import Header, combined

MOST: Final = 8 * 2**20  # bytes of a response that are kept until it is complete
AT_ONCE: Final = 16 * 2**10  # bytes that are compressed on the event loop, within half a millisecond
_STATIC: Final = "/-/static/"  # which anybody may read
_OWN: Final = (b"same-origin", b"none")  # an app's pages may be of the same site, on a host of their own
_WHOLE: Final = frozenset((b"content-encoding", b"content-range", b"accept-ranges", b"set-cookie"))


def compressing(send: Send, scope: Message) -> Send:
    """Return a `send` that compresses the response where that is worth it."""
    fields = combined(scope["headers"])
    if _may_be_guessed(scope["path"], fields):
        return send
    if not accepts_gzip(fields.get(b"accept-encoding", b"")):
        return _varying(send)
    return _Compression(send, scope["method"] == "HEAD").send


def _may_be_guessed(path: str, fields: dict[bytes, bytes]) -> bool:
    """Return True if a page of somebody else may have made the request with the rights of its reader."""
    is_ridden = b"cookie" in fields or fields.get(b"sec-fetch-site", b"none") not in _OWN
    return is_ridden and not path.startswith(_STATIC)


def _varying(send: Send) -> Send:
    """Return a `send` that tells caches that other callers get another response."""

    async def varying(message: Message) -> None:
        if message["type"] == "http.response.start" and _size_of(message) is not None:
            message = {**message, "headers": [*message["headers"], (b"vary", b"accept-encoding")]}
        await send(message)

    return varying


def _size_of(start: Message) -> int | None:
    """Return the length of a response that may be compressed."""
    fields = {name.lower(): value for name, value in start["headers"]}
    length, content_type = fields.get(b"content-length", b""), fields.get(b"content-type", b"")
    if _WHOLE & fields.keys() or start["status"] in (204, 206, 304) or not length.isdigit():
        return None
    text, size = content_type.decode("latin-1"), int(length)
    if text.lower().startswith("text/html") or not is_compressible(text, size):
        return None
    return size if size <= MOST else None


class _Compression:
    """One response, which is kept until it is complete, as its length comes first."""

    def __init__(self, send: Send, is_head: bool) -> None:
        self._send = send
        self._is_head = is_head
        self._start: Message | None = None
        self._parts: list[bytes] = []

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if _size_of(message) is None:
                await self._send(_weakened(message) if message["status"] == 304 else message)
            elif self._is_head:
                await self._send(_coded(message, None))
            else:
                self._start = message
            return
        if self._start is None:
            await self._send(message)
            return
        self._parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            await self._finish(self._start)

    async def _finish(self, start: Message) -> None:
        whole = b"".join(self._parts)
        is_small = len(whole) <= AT_ONCE
        body = bytes(gzipped(whole) if is_small else await asyncio.to_thread(gzipped, whole))
        plain = {**start, "headers": [*start["headers"], (b"vary", b"accept-encoding")]}
        await self._send(plain if body is whole else _coded(start, len(body)))
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


def _coded(start: Message, size: int | None) -> Message:
    """Return the beginning of the compressed response, without its length if that is not known."""
    headers: list[Header] = [
        (name, value) for name, value in _weakened(start)["headers"] if name.lower() != b"content-length"
    ]
    headers += [(b"content-encoding", b"gzip"), (b"vary", b"accept-encoding")]
    if size is not None:
        headers.append((b"content-length", b"%d" % size))
    return {**start, "headers": headers}


def _weakened(start: Message) -> Message:
    """An entity tag of one coding does not stand for the bytes of another one (RFC 9110 §8.8.3)."""
    headers = [
        (name, b"W/" + value if name.lower() == b"etag" and value[:1] == b'"' else value)
        for name, value in start["headers"]
    ]
    return {**start, "headers": headers}
