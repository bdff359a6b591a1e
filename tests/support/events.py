"""Server-sent events as a browser reads them (HTML Living Standard, 9.2.6)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """`id` is the last one that the stream has named."""

    kind: str
    id: str
    data: str


def parse_events(stream: bytes) -> Iterator[Event]:
    """The complete events; comments and `retry` are passed over."""
    kind, last_id, data = "", "", list[str]()
    for line in re.split("\r\n|\n|\r", stream.decode()):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield Event(kind or "message", last_id, "\n".join(data))
            kind, data = "", []
        elif name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id" and "\0" not in value:
            last_id = value
