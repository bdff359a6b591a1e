"""How much a value becomes when all of it is written. A small value may stand for very much: a range of a thousand
million numbers, a list that is in another one a thousand times. To write it would take all the memory, and all the time
of the interpreter, from other calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from .texts import Text

MOST_VALUES = 2**26
MOST_CHARACTERS = 2**29
#: Elements that are taken at once: meanwhile no other call gets the interpreter.
STEP = 2**14
LEVELS = 1000  # more are nested too deeply for the encoder, which says so
_NUMBERS = frozenset({int, float, bool, type(None)})
_TEXTS = (str, bytes, bytearray, memoryview)

#: The values on one level, and how often each is there.
_Level = dict[int, tuple[Any, int]]


class TooExtensive(ValueError):
    """A value is much more than can be written, as the rest of a sentence about it."""


def check(value: Any) -> None:
    """Raises TooExtensive. Looks at each list and mapping once a level, however often it is there."""
    values = characters = 0
    level: _Level = {id(value): (value, 1)}
    for _ in range(LEVELS):
        below: _Level = {}
        for outer, times in level.values():
            check_count(values + times * _size(outer))
            more, long = _look_into(outer, times, below)
            values, characters = values + more, characters + long
            check_count(values)
            if characters > MOST_CHARACTERS:
                raise TooExtensive(
                    Text("has more than {most} characters in all, which is too much", most=MOST_CHARACTERS)
                )
        if not below:
            return
        level = below


def check_count(count: int) -> None:
    """Raises TooExtensive if there are so many values."""
    if count > MOST_VALUES:
        raise TooExtensive(Text("has more than {most} values in all, which is too much", most=MOST_VALUES))


def listed(values: Sequence[Any]) -> list[Any]:
    """The elements of a sequence that may compute them, in steps, between which other calls run. Raises TooExtensive,
    before anything is computed if its length says so."""
    check_count(len(values))
    found: list[Any] = []
    steps = _steps(values)
    for step in steps:
        found += step
        check_count(len(found))  # its length may not be true
    return found


def _steps(values: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(values)
    while step := list(islice(iterator, STEP)):
        yield step


def _size(value: Any) -> int:
    if isinstance(value, _TEXTS):
        return 1
    return len(value) if isinstance(value, (Mapping, Sequence)) else 1


def _look_into(outer: Any, times: int, below: _Level) -> tuple[int, int]:
    """Count the values and the characters of one value, and note what is to be looked into."""
    if isinstance(outer, _TEXTS):
        return times, times * len(outer)
    if isinstance(outer, Mapping):
        names = sum(len(name) for name in outer if type(name) is str)
        inner: Iterable[Any] = outer.values()
    elif isinstance(outer, Sequence) and not isinstance(outer, range):
        names, inner = 0, outer
    else:
        size = getattr(outer, "size", 1) if hasattr(outer, "__array__") else _size(outer)
        return times * (size if isinstance(size, int) else 1), 0
    values, characters = times * len(outer), times * names
    if _NUMBERS.issuperset(map(type, inner)):
        return values, characters
    for value in inner:
        if type(value) is str:
            characters += times * len(value)
        elif type(value) not in _NUMBERS:
            known = below.get(id(value))
            below[id(value)] = (value, times if known is None else known[1] + times)
    return values, characters
