"""The wire format of Protocol Buffers, as far as BuildKit's few messages need it: fields by their number, which are
integers or bytes. See https://protobuf.dev/programming-guides/encoding/. Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

Value = int | bytes
#: Values of each field of a message, in their order.
Fields = Mapping[int, list[Value]]

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_MOST_BYTES = 10  # of a varint


class WireError(ValueError):
    """What was received is not a message."""


def encoded(fields: Iterable[tuple[int, Value]]) -> bytes:
    """Return a message. Zero and empty values are left out, which is what they mean."""
    parts = bytearray()
    for number, value in fields:
        if not value:
            continue
        if isinstance(value, int):
            parts += _varint(number << 3 | _VARINT) + _varint(value)
        else:
            parts += _varint(number << 3 | _BYTES) + _varint(len(value)) + value
    return bytes(parts)


def decoded(message: bytes) -> Fields:
    """Return the fields. Raises WireError."""
    found: dict[int, list[Value]] = defaultdict(list)
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _read_varint(message, at)
            found[key >> 3].append(value)
            continue
        if kind == _BYTES:
            size, at = _read_varint(message, at)
        elif kind in (_FIXED_64, _FIXED_32):
            size = 8 if kind == _FIXED_64 else 4
        else:
            raise WireError(f"unknown kind {kind} of a field")
        if at + size > len(message):
            raise WireError("a field ends after its message")
        found[key >> 3].append(message[at : at + size])
        at += size
    return found


def text(fields: Fields, number: int) -> str:
    """Return the last value of a field as text; "" without one, or for an integer."""
    value = data(fields, number)
    return value.decode("utf-8", "replace")


def data(fields: Fields, number: int) -> bytes:
    values = fields.get(number) or [b""]
    return values[-1] if isinstance(values[-1], bytes) else b""


def integer(fields: Fields, number: int) -> int:
    values = fields.get(number) or [0]
    return values[-1] if isinstance(values[-1], int) else 0


def messages(fields: Fields, number: int) -> list[Fields]:
    """Return the messages in a field. Raises WireError."""
    return [decoded(value) for value in fields.get(number, ()) if isinstance(value, bytes)]


def _varint(number: int) -> bytes:
    """Encode an integer; negative ones as 64 bits."""
    number &= 2**64 - 1
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift, byte in enumerate(message[at : at + _MOST_BYTES]):
        number |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return number & (2**64 - 1), at + shift + 1
    raise WireError("an integer has no end")
