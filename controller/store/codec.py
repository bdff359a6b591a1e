"""Values to JSON and back, for the columns that contain a whole value of the domain.

Reading is lenient where a later release may differ: unknown keys are ignored, missing ones get the default of
the field. Everything else that does not fit is a `ValueError`, which makes a row unreadable (rows.py); so
does what the platform cannot have written (`domain.integrity`). A `Secret` is refused: secrets have a
separate column or are not stored.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache, lru_cache, partial
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from controller.domain.integrity import require_integrity
from controller.domain.localizable import Localizable, as_document, restored
from controller.domain.secret import Secret

#: Ends the name beside the text of a message (`Localizable`) under which its pattern and values are. Older releases do
#: not read it, and have the text.
_TOLD = ".told"
T = TypeVar("T")
Read = Callable[[Any], object]


def encode(value: object) -> str:
    """Return compact JSON; equal values give equal text. Raises `TypeError` for what has no JSON form, such
    as secrets.
    """
    return json.dumps(value, default=_plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type | Secret):
        plain = {field.name: getattr(value, field.name) for field in fields(value)}
        messages = {f"{name}{_TOLD}": as_document(text) for name, text in plain.items() if _is_message(text)}
        return {**plain, **messages}
    if isinstance(value, frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is not stored as JSON")


def _is_message(value: object) -> bool:
    return isinstance(value, Localizable)


def remembering(kind: type[T], column: str, most: int, longest: int) -> Callable[[sqlite3.Row], T]:
    """Return a function that decodes a column of a row. It remembers the last `most` values, by their texts, of which
    each has at most `longest` characters: rows are read again and again, and few of them have changed."""
    remembered = lru_cache(most)(partial(decode, kind))

    def read(row: sqlite3.Row) -> T:
        text = row[column]
        return remembered(text) if len(text) <= longest else decode(kind, text)

    return read


def decode(kind: type[T], text: str) -> T:
    """Return the value of type `kind` that `encode` wrote. `kind` is a dataclass, or a generic such as
    `tuple[int, ...]`.
    """
    try:
        return cast(T, _reader(cast(Any, kind))(json.loads(text)))
    except ValueError:
        raise
    # All errors that a foreign text can cause: depth, sizes, checks of a value.
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


@cache
def _reader(kind: Any) -> Read:
    """Return the function that makes a value of type `kind` of what JSON has for it. It is made once for each type:
    rows are decoded by the thousand.
    """
    kind = getattr(kind, "__supertype__", kind)  # NewType
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return partial(_optional, _reader(next(a for a in args if a is not NoneType)))
    if origin is tuple and len(args) > 1 and args[-1] is not Ellipsis:
        return partial(_tuple, tuple(map(_reader, args)))
    if origin in (tuple, frozenset):
        return partial(_collection, origin, _reader(args[0]))
    if is_dataclass(kind):
        return partial(_record, cast(type, kind))
    if kind is float:
        return _float
    return cast(type, kind) if issubclass(kind, Enum) else partial(_checked, kind)


def _optional(read: Read, raw: Any) -> object:
    return None if raw is None else read(raw)


def _tuple(reads: tuple[Read, ...], raw: Any) -> object:
    return tuple(read(item) for read, item in zip(reads, _checked(list, raw), strict=True))


def _collection(kind: Callable[[Iterable[object]], object], read: Read, raw: Any) -> object:
    return kind(map(read, _checked(list, raw)))


def _float(raw: Any) -> object:
    return float(raw) if type(raw) is int else _checked(float, raw)


def _record(kind: type, raw: Any) -> object:
    reads = _fields(kind)
    given = {name: reads[name](value) for name, value in _checked(dict, raw).items() if name in reads}
    for name, value in given.items():
        if type(value) is str and (document := raw.get(f"{name}{_TOLD}")) is not None:
            given[name] = restored(value, document)
    try:
        value = kind(**given)
    except TypeError as error:
        raise ValueError(f"{kind.__name__}: {error}") from error
    require_integrity(value)
    return value


@cache
def _fields(kind: type) -> dict[str, Read]:
    """Return the readers of its fields: when it is needed, as a type may contain itself."""
    hints = get_type_hints(kind)
    return {field.name: _reader(hints[field.name]) for field in fields(kind)}


def _checked(kind: type, raw: Any) -> Any:
    if type(raw) is not kind:
        raise ValueError(f"expected {kind.__name__}, found {type(raw).__name__}")
    return raw
