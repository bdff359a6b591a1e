"""Messages to callers that pages of the platform can show in another language: they know what they were made of.

A ``Text`` is its English text. Pages of the platform ask for pattern and values (``WANTED`` in the field Accept of
their calls) and have translations of the patterns; all others get what they always got. What the developer's code says
is a value, or no ``Text`` at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Optional

#: A parameter of ``application/problem+json``.
WANTED = b"messages=1"
_PLACE = re.compile(r"\{([a-z][a-z0-9_]*)(!r)?\}")


class Text(str):
    """``Text("input {name!r} is missing", name="rgb")``. A value may be a ``Text``."""

    pattern: str
    values: Mapping[str, Any]

    def __new__(cls, pattern: str, /, **values: Any) -> Text:
        def value_of(place: re.Match[str]) -> str:
            if place[1] not in values:
                return place[0]
            value = values[place[1]]
            return repr(value) if place[2] else str(value)

        made = super().__new__(cls, _PLACE.sub(value_of, pattern))
        made.pattern, made.values = pattern, values
        return made

    def __str__(self) -> str:
        return self  # so that ``str(error)`` is the message that the error was made of

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.pattern, dict(self.values))


def joined(separator: str, *parts: str) -> str:
    """The parts as one text, which knows of each."""
    names = [f"part{number}" for number in range(len(parts))]
    return Text(separator.join(f"{{{name}}}" for name in names), **dict(zip(names, parts)))


def wants_messages(headers: Mapping[bytes, bytes]) -> bool:
    return WANTED in headers.get(b"accept", b"")


def as_document(text: str) -> Optional[dict[str, Any]]:
    """What a ``Text`` was made of, for JSON."""
    if not isinstance(text, Text):
        return None
    return {
        "pattern": text.pattern,
        "values": {name: as_document(value) or _plain(value) for name, value in text.values.items()},
    }


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float)) else str(value)


def _again(pattern: str, values: dict[str, Any]) -> Text:
    return Text(pattern, **values)
