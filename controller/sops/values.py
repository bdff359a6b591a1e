"""Values as SOPS sees them: its encrypted texts, and the bytes of each value that count for the MAC.

SOPS is written in Go. What it leaves in plain counts as Go's YAML library understands it, which differs from YAML 1.2:
dates are times, `0777` is octal, `1_000` is a number.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

_BASE64 = r"[A-Za-z0-9+/]+={0,2}"
_ENCRYPTED: Final = re.compile(
    rf"ENC\[AES256_GCM,data:({_BASE64}),iv:({_BASE64}),tag:({_BASE64}),type:([a-z]+)\]"
)
_NULL: Final = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE: Final = frozenset(("true", "True", "TRUE"))
_FALSE: Final = frozenset(("false", "False", "FALSE"))
_INT: Final = re.compile(
    r"([-+]?)(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|0[0-7]*|[1-9][0-9]*)"
)  # Go's ParseInt with base 0
_BASES: Final = {"x": 16, "b": 2, "o": 8}
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_TIME: Final = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})"
    r"(?:[Tt](\d{1,2}):(\d{1,2}):(\d{1,2})(?:[.,](\d+))?(Z|[-+]\d\d:\d\d)"
    r"| (\d{1,2}):(\d{1,2}):(\d{1,2})(?:[.,](\d+))?)?",
    re.ASCII,
)
_INT64: Final = range(-(2**63), 2**63)
_LONG: Final = 400  # characters; no number that has a value of its own is longer

Plain = None | bool | int | float | str


@dataclass(frozen=True)
class Time:
    """A point in time, in RFC 3339 as Go writes it."""

    text: str


@dataclass(frozen=True)
class EncryptedText:
    data: bytes
    iv: bytes
    tag: bytes
    type: str


def encrypted_text(text: str) -> EncryptedText | None:
    """Return the parts of an encrypted value; None for any other text."""
    found = _ENCRYPTED.fullmatch(text)
    if found is None:
        return None
    try:
        data, iv, tag = (base64.b64decode(part, validate=True) for part in found.groups()[:3])
    except binascii.Error:
        return None
    return EncryptedText(data, iv, tag, found[4])


def decrypted_value(content: bytes, type: str) -> Plain | Time:
    """Return the value of a type that was encrypted. Raises ValueError."""
    text = content.decode("utf-8")
    match type:
        case "str" | "bytes":
            return text
        case "int":
            return int(text)
        case "float":
            return float(text)
        case "bool":
            return text.lower() in ("true", "t", "1")
        case "time":
            return Time(text)
        case _:
            raise ValueError(f"its type {type!r} is unknown")


def plain_value(text: str) -> Plain | Time:
    """Return what Go's YAML library makes of a text without quotes."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if text[0] not in "+-.0123456789" or len(text) > _LONG:
        return text
    time = _time(text)
    if time is not None:
        return time
    bare = text if text[0] == "." else text.replace("_", "")
    if (number := _int(bare)) is not None and number in _INT64:
        return number
    if _FLOAT.fullmatch(bare) and math.isfinite(value := float(bare)):
        return value
    return text


def mac_bytes(value: Plain | Time) -> bytes:
    """Return the bytes of a value that go into the MAC. Raises ValueError for half a character."""
    if isinstance(value, bool):
        return b"True" if value else b"False"
    if isinstance(value, Time):
        return value.text.encode()
    if isinstance(value, float):
        return _float_text(value).encode()
    return str(value).encode()


def _int(text: str) -> int | None:
    found = _INT.fullmatch(text)
    if found is None:
        return None
    sign, digits = found.groups()
    base = 10
    if digits[0] == "0" and len(digits) > 1:
        base = _BASES.get(digits[1].lower(), 8)
    number = int(digits.lstrip("0oO") or "0", 8) if base == 8 else int(digits, base)
    return -number if sign == "-" else number


def _float_text(value: float) -> str:
    """Return the shortest digits that mean this number, without an exponent."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return format(Decimal(repr(value)), "f").removesuffix(".0")


def _time(text: str) -> Time | None:
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    year, month, day = (int(part) for part in found.groups()[:3])
    clock = found.groups()[3:6] if found[4] else found.groups()[8:11]
    hour, minute, second = (int(part or 0) for part in clock)
    try:
        datetime(year, month, day, hour, minute, second)
    except ValueError:
        return None
    fraction = (found[7] or found[12] or "")[:9].rstrip("0")
    zone = "Z" if found[8] in (None, "Z", "+00:00", "-00:00") else found[8]
    date = f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}"
    return Time(f"{date}{'.' + fraction if fraction else ''}{zone}")
