"""Nested lists as one flat list and a shape: each element is touched once a level, and there are few levels."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Optional

from .datatypes import INT32_MAX, integers
from .extent import check_count
from .problems import RequestFault
from .texts import Text

MAX_RANK = 32  # dimensions of a shape, as many as numpy's arrays had for long
_LISTS = frozenset({list, tuple})
_LEAVES = frozenset({int, float, bool, str, dict, type(None)})
_SIZES = integers(0, INT32_MAX)
_KNOWN = _LISTS | _LEAVES


class Shapeless(ValueError):
    """Why nested lists have no shape, as the rest of a sentence about them."""


def _same(value: Any) -> Any:
    return value


def flatten(nested: Sequence[Any], plain: Callable[[Any], Any] = _same) -> tuple[list[int], list[Any]]:
    """Shape and elements in row-major order. ``plain`` makes lists of what is one without being a list or tuple.
    Raises Shapeless, and ValueError as ``plain`` and for very many elements.
    """
    shape, level = [len(nested)], nested if isinstance(nested, list) else list(nested)
    if _LEAVES.issuperset(map(type, level)):
        return shape, level  # the usual case
    _check_extent(nested)
    while True:
        kinds = set(map(type, level))
        if not kinds <= _KNOWN:
            level = _plain_values(level, plain)
            kinds = set(map(type, level))
        if kinds.isdisjoint(_LISTS):
            return shape, level
        sizes = set(map(len, level)) if kinds <= _LISTS else set()
        if len(sizes) != 1:
            raise Shapeless(Text("is a list of lists of different lengths, which has no shape"))
        if len(shape) == MAX_RANK:
            raise _too_deep()
        shape.append(sizes.pop())
        check_count(math.prod(shape))
        level = list(chain.from_iterable(level))


def _plain_values(level: list[Any], plain: Callable[[Any], Any]) -> list[Any]:
    """The values of a level with lists for what is one otherwise. Raises ValueError."""
    found, count = [], 0
    for item in level:
        if type(item) not in _KNOWN:
            item = plain(item)
            count += len(item) if type(item) is list else 0
            check_count(count)  # before all the others become lists, too
        found.append(item)
    return found


def _check_extent(nested: Sequence[Any]) -> None:
    """Check the depth, and the number of elements, before copying: a list that contains itself would grow with each
    level. What has a shape has the lengths of its first elements."""
    inner: Any = nested
    count = 1
    for _ in range(MAX_RANK):
        if type(inner) not in _LISTS or not inner:
            check_count(count * len(inner) if isinstance(inner, range) else count)
            return
        count *= len(inner)
        inner = inner[0]
    if type(inner) in _LISTS:
        raise _too_deep()


def _too_deep() -> Shapeless:
    return Shapeless(Text("is nested deeper than {max_rank} levels", max_rank=MAX_RANK))


def sizes(shape: Any) -> Optional[list[int]]:
    """Return a shape as a list of integers, or None if it is not a shape."""
    if isinstance(shape, (str, bytes)) or not hasattr(shape, "__len__") or len(shape) > MAX_RANK:
        return None
    try:
        found = [operator.index(size) for size in shape]
    except TypeError:
        return None
    return found if all(size >= 0 for size in found) and math.prod(found) < 2**63 else None


def shape_faults(shape: Any, pointer: str) -> list[RequestFault]:
    """Is it an array of sizes?"""
    if not isinstance(shape, list) or not _SIZES.take(shape):
        return [
            RequestFault(
                f"{pointer}/shape", Text("must be an array of sizes, each {wanted}", wanted=_SIZES.wanted)
            )
        ]
    if len(shape) > MAX_RANK:
        return [
            RequestFault(f"{pointer}/shape", Text("has more than {max_rank} dimensions", max_rank=MAX_RANK))
        ]
    return []


def size_faults(shape: list[int], count: int, pointer: str) -> list[RequestFault]:
    """Does a sound shape fit the number of elements?"""
    wanted = math.prod(shape)
    if wanted == count:
        return []
    return [
        RequestFault(
            f"{pointer}/shape",
            Text(
                "{shape} needs {wanted} elements, data has {count}",
                shape=shape,
                wanted=wanted,
                count=count,
            ),
        )
    ]
