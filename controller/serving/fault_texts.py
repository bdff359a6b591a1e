"""How values of callers stand in messages about faults: bounded in number and length."""

from __future__ import annotations

from typing import Any

MAX_FAULTS = 100  # that are reported for one request
_JSON_NAMES = {
    bool: "a boolean",
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
}


def json_name(value: object) -> str:
    """Return JSON's name for the type of a value: ``an array``, ``null``."""
    return (
        "null" if value is None else _JSON_NAMES.get(type(value), f"a value of type {type(value).__name__}")
    )


def shown(value: object) -> str:
    """A value in a message: numbers as they are, of others what they are."""
    if value == "" and isinstance(value, str):
        return "an empty one"
    return _brief(value) if type(value) in (int, float) else json_name(value)


def quoted(text: str) -> str:
    """A text of others in a message."""
    return repr(text) if len(text) <= 100 else f"{text[:100]!r}... of {len(text)} characters"


def escape(token: str) -> str:
    """Escape one reference token of a JSON pointer (RFC 6901)."""
    return token.replace("~", "~0").replace("/", "~1")


def _brief(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        return "a number of thousands of digits"
    if text in ("inf", "-inf"):
        return "a number too large for 64 bits"
    return text if len(text) <= 40 else f"a number of {len(text)} digits"
