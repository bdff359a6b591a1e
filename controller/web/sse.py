"""Server-sent events as the platform sends them (HTML Living Standard, 9.2): used by every stream on the event loop.

Promises: a blank line ends an event that has data, and nothing else, because some clients hand out an empty event for
a block without data. So `retry` stands in the first event, and the comments that keep a silent stream open are single
lines.
"""

from __future__ import annotations

from typing import Final

from controller.web.gateway.body import Send

RETRY: Final = b"retry: 1000\n"  # milliseconds until a client that was cut off comes back


class EventStream:
    """One event stream as a response. `send` is ASGI's."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._first = RETRY

    async def start(self) -> None:
        headers = [
            (b"content-type", b"text/event-stream"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),  # some proxies would keep a stream until it has ended
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self.keep_open()  # a server may hold the header back until there is something behind it

    async def send(self, event: bytes) -> None:
        """`event` as `event_of` makes it."""
        first, self._first = self._first, b""
        await self._part(first + event)

    async def keep_open(self) -> None:
        await self._part(b":\n")

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _part(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})


def event_of(data: bytes, id: str = "", kind: str = "") -> bytes:
    """`data` is UTF-8 whose lines end in `\n`, the last one excepted."""
    lines = (f"id: {id}\n" if id else "") + (f"event: {kind}\n" if kind else "")
    return b"%bdata: %b\n\n" % (lines.encode(), data.replace(b"\n", b"\ndata: "))
