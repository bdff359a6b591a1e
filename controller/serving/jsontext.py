"""Reads JSON of callers, and writes JSON of results. Both are strict: there is no NaN and no infinity in JSON.

Reading is bounded: a text that is nested deeper than ``MAX_DEPTH`` is refused, since the developers' code and
the standard library process data recursively. Written values may contain numpy's arrays and scalars, mappings
and sequences of any kind; NaN and infinities become null.

The standard library does all of it. Where there is orjson (``native``), ``accelerate`` makes it read large texts and
write long lists of numbers, with the same values: what it would take or refuse otherwise than the standard library is
left to that. Large arrays of numbers are read by pieces (``json_pieces``), whichever of them reads."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from itertools import chain
from typing import Any, NoReturn, Optional, Union

from . import json_pieces, native, number_lists
from .arrays import plain
from .native import JsonCodec
from .plain_json import Decoder, Encoder, dumps
from .texts import Text

MAX_DEPTH = 100
MAX_DIGITS = 4300  # of an integer: to read one takes the square of its length
LARGE = 10_000  # bytes of a text, and numbers of a list, from which on orjson is worth its checks
#: Numbers that are written at once: by Python's own code, and by orjson of a list and of an array. A part of a list is
#: a copy, a part of an array refers to it.
STEP, LIST_STEP, ARRAY_STEP = 2**14, 2**17, 2**15
_CONTAINERS = frozenset({list, dict})
_PLAIN = frozenset({str, int, bool, type(None)})


_orjson: Any = None
_DIGITS = bytes.maketrans(b"123456789-[:, \t\r\n", b"000000000,,,,,,,,")
_LONG_INTEGER = b"," + b"0" * 19  # -(2**63) has so many digits
_LONG = 2.0**63  # integers of more than 64 bits are farther from 0


class TooDeep(ValueError):
    """The text is JSON, but nested too deeply."""


def accelerate() -> JsonCodec:
    """Use orjson from now on if there is one. Returns what was found."""
    global _orjson
    found = native.find()
    _orjson = found.module
    return found


def read(text: str) -> Any:
    """A value from JSON text. Raises ValueError with words for people."""
    try:
        value = _decoder.decode(text)
    except RecursionError:
        raise ValueError(Text("it is nested too deeply")) from None
    if text.count("[") + text.count("{") > MAX_DEPTH:
        check_depth(value)
    return value


def is_large(body: Union[bytes, bytearray]) -> bool:
    """Is it read best as the bytes that came?"""
    return len(body) >= LARGE


def read_bytes(body: Union[bytes, bytearray], sinks: Optional[json_pieces.Sinks] = None) -> Any:
    """A value from JSON in UTF-8. Raises ValueError, as ``read``, and UnicodeDecodeError. ``sinks``: where numbers of
    large arrays go instead of into lists."""
    if not is_large(body):
        return read(body.decode("utf-8"))
    brackets = json_pieces.places(body, MAX_DEPTH, b"[", b"{")
    spans = json_pieces.arrays(body, *brackets) if brackets is not None else []
    try:
        value = _read_in_pieces(body, spans, sinks) if spans else _load(body)
    except ValueError:
        return read(body.decode("utf-8"))  # which may take it, or says in our words why not
    if brackets is None:
        check_depth(value)
    return value


def _read_in_pieces(
    body: Union[bytes, bytearray], spans: list[tuple[int, int]], sinks: Optional[json_pieces.Sinks]
) -> Any:
    """The value of a text with large arrays at these places. Raises ValueError, in words of any kind."""

    def filled(array: json_pieces.Filled) -> None:
        if array.bound is not None:
            number_lists.remember(array.elements, array.bound)
        if _orjson is None or (array.bound is not None and array.bound < _LONG):
            return
        is_exact = array.bound is None and float not in set(map(type, array.elements))
        if not is_exact and _has_long_integer(body[array.start - 1 : array.end]):
            raise json_pieces.Unexpected

    load_piece = _orjson.loads if _orjson is not None else _load
    return json_pieces.read(body, spans, _load, load_piece, filled, sinks)


def _load(text: Union[bytes, bytearray]) -> Any:
    """The value of a text, by orjson if there is one. Raises ValueError, in words of any kind."""
    if _orjson is None:
        return read(text.decode("utf-8"))
    value = _orjson.loads(text)
    if not _is_exact(value) and _has_long_integer(text):
        del value  # both would take memory at once
        return read(text.decode("utf-8"))
    return value


def _is_exact(value: Any) -> bool:
    """Are there no floats that orjson may have made of integers of more than 64 bits? False, too, if that is not known,
    as of values with many containers."""
    containers, left = [value], MAX_DEPTH
    while containers:
        outer, left = containers.pop(), left - 1
        if left < 0:
            return False
        elements = list(outer.values()) if type(outer) is dict else outer if type(outer) is list else [outer]
        found = number_lists.magnitude(elements)
        if found is None:
            kinds = set(map(type, elements))
            if float in kinds and (len(elements) >= number_lists.MANY or any(map(_is_huge, elements))):
                return False
            if not kinds.isdisjoint(_CONTAINERS):
                containers += [inner for inner in elements if type(inner) in _CONTAINERS]
        elif found > number_lists.EXACT:
            return False
    return True


def _is_huge(value: Any) -> bool:
    return type(value) is float and not -(2.0**63) < value < 2.0**63


def _has_long_integer(body: Union[bytes, bytearray]) -> bool:
    """May it have an integer of more than 64 bits? orjson would read it as a float."""
    return _LONG_INTEGER in body.translate(_DIGITS)


def check_depth(value: Any) -> None:
    """Raises TooDeep. Looks at each element at most twice, level by level, and fast where there are only numbers."""
    level = [value] if type(value) in _CONTAINERS else []
    for _ in range(MAX_DEPTH):
        lists = [outer.values() if type(outer) is dict else outer for outer in level]
        if _CONTAINERS.isdisjoint(map(type, chain.from_iterable(lists))):
            return
        level = [inner for inner in chain.from_iterable(lists) if type(inner) in _CONTAINERS]
    raise TooDeep(Text("it is nested too deeply: more than {max_depth} levels", max_depth=MAX_DEPTH))


def _no_constant(name: str) -> NoReturn:
    raise ValueError(Text("{name} is not JSON; there is no way to send NaN or an infinity", name=name))


def _bounded_int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(
            Text(
                "an integer has {count} digits; {max_digits} are allowed",
                count=len(text),
                max_digits=MAX_DIGITS,
            )
        )
    return int(text)


def _is_bounded() -> bool:
    """Does Python itself refuse integers of very many digits? Old versions do not, and it can be switched off."""
    limit = getattr(sys, "get_int_max_str_digits", lambda: 0)()
    return 0 < limit <= MAX_DIGITS


_decoder = Decoder(parse_constant=_no_constant, parse_int=None if _is_bounded() else _bounded_int)


def encode(value: Any) -> bytes:
    """A value as JSON. Raises ValueError or TypeError, with words for people, if JSON cannot carry it."""
    try:
        text: str = _encoder.encode(value)
        return text.encode()
    except (ValueError, TypeError, RecursionError):
        # NaN, keys of numpy's types, or lone surrogates, which JSON can escape and UTF-8 cannot carry.
        return _encode_slowly(value)


def encode_numbers(numbers: Any) -> bytes:
    """Numbers and None, in a list or an array of numpy, as JSON, like ``encode``."""
    return _encode_many(numbers) if len(numbers) >= LARGE else encode(numbers)


def _encode_many(numbers: Any) -> bytes:
    """Numbers as JSON, by orjson if there is one and it can write them."""
    if _orjson is None:
        return encode(numbers)
    try:
        if isinstance(numbers, list):
            return bytes(_orjson.dumps(numbers))
        # orjson before 3.10.1 reads the bytes of every number in the processor's order
        kind = "f8" if numbers.dtype.kind == "f" else numbers.dtype.newbyteorder("=")
        return bytes(_orjson.dumps(numbers.astype(kind, copy=False), option=_orjson.OPT_SERIALIZE_NUMPY))
    except TypeError:  # an integer of more than 64 bits, or an array whose elements do not lie side by side
        return encode(numbers)


def encode_in_pieces(numbers: Any) -> list[Union[bytes, memoryview]]:
    """Like ``encode_numbers``, in pieces: an encoder takes several times the memory of what it writes at once."""
    step = STEP if _orjson is None else LIST_STEP if isinstance(numbers, list) else ARRAY_STEP
    if len(numbers) <= 2 * step:
        return [encode_numbers(numbers)]
    pieces: list[Union[bytes, memoryview]] = [b"["]
    for start in range(0, len(numbers), step):
        pieces += [memoryview(_encode_many(numbers[start : start + step]))[1:-1], b","]
    pieces[-1] = b"]"
    return pieces


def _encode_slowly(value: Any) -> bytes:
    try:
        return dumps(_finite(value), allow_nan=False, default=_default).encode()
    except RecursionError:
        raise ValueError(Text("it is nested too deeply, or holds itself")) from None


def _default(value: Any) -> Any:
    """Convert a value that Python's JSON does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    found = plain(value)
    if found is value:
        raise TypeError(Text("a value of type {name} is not JSON", name=type(value).__name__))
    return found


_encoder = Encoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_default)


def _finite(value: Any) -> Any:
    if type(value) in _PLAIN:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_key(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    found = plain(value)
    return value if found is value else _finite(found)


def _key(key: Any) -> Any:
    if type(key) is str:
        return key
    if not isinstance(key, tuple):  # a tuple stays one, for the encoder to name it
        key = plain(key)
    return str(key) if isinstance(key, float) and not math.isfinite(key) else key
