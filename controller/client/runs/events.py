"""Parses server-sent events (HTML Living Standard, 9.2.6) of servers that end lines with a newline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

LONGEST_LINE: Final = 2**20  # bytes


@dataclass(frozen=True)
class ServerSentEvent:
    """`id` is that of this event, "" if it has none."""

    kind: str
    id: str
    data: str


def read_events(pieces: Iterable[bytes]) -> Iterator[ServerSentEvent]:
    """Yield complete events; the last one is dropped if the connection breaks. Comments and `retry` are
    ignored.
    """
    fields: dict[str, str] = {}
    data: list[str] = []
    for line in _lines(pieces):
        name, _, value = line.partition(":")
        if not line:
            if data:
                yield ServerSentEvent(fields.get("event", "message"), fields.get("id", ""), "\n".join(data))
            fields, data = {}, []
        elif name == "data":
            data.append(value.removeprefix(" "))
        else:
            fields[name] = value.removeprefix(" ")


def _lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Raises ValueError for a line that no such server sends."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > LONGEST_LINE:
            raise ValueError("a line of the event stream is too long")
        for line in lines:
            yield line.decode("utf-8", "replace")
