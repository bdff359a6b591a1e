"""How values of callers stand in messages about faults: bounded in number and length."""

from __future__ import annotations

from typing import Any

from .texts import Text

MAX_FAULTS = 100  # that are reported for one request
_JSON_NAMES = {
    bool: Text("a boolean"),
    dict: Text("an object"),
    list: Text("an array"),
    str: Text("a string"),
    int: Text("a number"),
    float: Text("a number"),
}


def json_name(value: object) -> str:
    """Return JSON's name for the type of a value: ``an array``, ``null``."""
    return (
        "null"
        if value is None
        else _JSON_NAMES.get(type(value), Text("a value of type {name}", name=type(value).__name__))
    )


def shown(value: object) -> str:
    """A value in a message: numbers as they are, of others what they are."""
    if value == "" and isinstance(value, str):
        return Text("an empty one")
    return _brief(value) if type(value) in (int, float) else json_name(value)


def quoted(text: str) -> str:
    """A text of others in a message."""
    return (
        repr(text)
        if len(text) <= 100
        else Text("{text!r}... of {count} characters", text=text[:100], count=len(text))
    )


def escape(token: str) -> str:
    """Escape one reference token of a JSON pointer (RFC 6901)."""
    return token.replace("~", "~0").replace("/", "~1")


def _brief(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        return Text("a number of thousands of digits")
    if text in ("inf", "-inf"):
        return Text("a number too large for 64 bits")
    return text if len(text) <= 40 else Text("a number of {count} digits", count=len(text))
