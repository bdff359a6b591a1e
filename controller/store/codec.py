"""Values to JSON and back, for the columns that contain a whole value of the domain.

Reading is lenient where a later release may differ: unknown keys are ignored, missing ones get the default of
the field. Everything else that does not fit is a `ValueError`, which makes a row unreadable (rows.py); so
does what the platform cannot have written (`domain.integrity`). A `Secret` is refused: secrets have a
separate column or are not stored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from controller.domain.integrity import require_integrity
from controller.domain.secret import Secret

T = TypeVar("T")


def encode(value: object) -> str:
    """Return compact JSON; equal values give equal text. Raises `TypeError` for what has no JSON form, such
    as secrets.
    """
    return json.dumps(value, default=_plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type | Secret):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is not stored as JSON")


def decode(kind: type[T], text: str) -> T:
    """Return the value of type `kind` that `encode` wrote. `kind` is a dataclass, or a generic such as
    `tuple[int, ...]`.
    """
    try:
        return cast(T, _typed(kind, json.loads(text)))
    except ValueError:
        raise
    # All errors that a foreign text can cause: depth, sizes, checks of a value.
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _typed(kind: Any, raw: Any) -> object:
    kind = getattr(kind, "__supertype__", kind)  # NewType
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return None if raw is None else _typed(next(a for a in args if a is not NoneType), raw)
    if origin in (tuple, frozenset):
        return origin(_items(args, _checked(list, raw)))
    if is_dataclass(kind):
        return _record(cast(type, kind), _checked(dict, raw))
    if issubclass(kind, Enum):
        return kind(raw)
    return float(raw) if kind is float and type(raw) is int else _checked(kind, raw)


def _items(args: tuple[Any, ...], raw: list[Any]) -> list[object]:
    kinds = args if args[-1] is not Ellipsis and len(args) > 1 else args[:1] * len(raw)
    return [_typed(kind, item) for kind, item in zip(kinds, raw, strict=True)]


def _record(kind: type, raw: Mapping[str, Any]) -> object:
    hints = _hints(kind)
    try:
        value = kind(**{name: _typed(hints[name], value) for name, value in raw.items() if name in hints})
    except TypeError as error:
        raise ValueError(f"{kind.__name__}: {error}") from error
    require_integrity(value)
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _checked(kind: type, raw: Any) -> Any:
    if type(raw) is not kind:
        raise ValueError(f"expected {kind.__name__}, found {type(raw).__name__}")
    return raw
