"""Large arrays of numbers within a JSON text, for ``jsontext``: where they are, and how they are read piece by piece.

A parser needs several times the memory of its text beside what it makes of it. An array without anything but numbers
may be cut at any comma, so each piece is read by itself; in what is left of the text the array is replaced by a
placeholder, which a caller cannot guess. Everything that is not as expected is left to a reader of the whole text: this
module never decides that a text is wrong.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Optional, Protocol, Union

from . import number_lists

LARGE = 64 * 1024  # bytes of an array from which on it is read by pieces
PIECE = 128 * 1024  # bytes
SPACING = 8192  # so many numbers lie within one arena of Python's allocator, which has 256 KiB or more
KEPT = 32  # places
_kept: list[Any] = []

Text = Union[bytes, bytearray]


class Unexpected(ValueError):
    """The text is not one that this module can read."""


class NumberSink(Protocol):
    """Takes the numbers of an array in place of a list. ``whole``: none that is written with a fraction or exponent."""

    whole: bool

    def add(self, elements: list[Any]) -> None:
        """Take the next elements. Raises Unexpected if it cannot take them."""

    def end(self) -> None:
        """Put what was made of them in the place of the list. Raises Unexpected."""


#: From the rest of a text: what takes the elements of arrays, by the identity of the list in the array's place.
Sinks = Callable[[Any], dict[int, NumberSink]]


class Filled(NamedTuple):
    """A large array that has been read, from ``start`` to ``end``. ``bound``: none of its elements is farther from 0,
    and all are of the types int and float; None if that is not known."""

    elements: list[Any]
    start: int
    end: int
    bound: Optional[float]


def places(text: Text, most: int, *signs: bytes) -> Optional[list[list[int]]]:
    """Where each of these signs is, None if there are more than so many: much faster than to count them all then."""
    found: list[list[int]] = []
    for sign in signs:
        here: list[int] = []
        at = text.find(sign)
        while at >= 0:
            here.append(at)
            if sum(map(len, found)) + len(here) > most:
                return None
            at = text.find(sign, at + 1)
        found.append(here)
    return found


def arrays(text: Text, opening: list[int], braces: list[int]) -> list[tuple[int, int]]:
    """The parts of a text that may be large arrays of numbers, without their brackets. The text has few brackets and
    braces: each part that they divide it into is looked through once."""
    found = []
    signs = sorted([*opening, *braces, len(text)])
    for start in opening:
        obstacle = signs[bisect_right(signs, start)]
        if obstacle - start < LARGE:
            continue
        end = text.find(b"]", start, obstacle)
        if end - start >= LARGE and text.find(b'"', start, end) < 0:
            found.append((start + 1, end))
    return found


def read(
    text: Text,
    spans: list[tuple[int, int]],
    load: Callable[[Text], Any],
    load_piece: Callable[[bytes], list[Any]],
    filled: Callable[[Filled], None],
    sinks: Optional[Sinks] = None,
) -> Any:
    """The value of a text with large ``arrays`` at these spans. ``load`` reads what is left of it, ``load_piece`` a
    part of an array, and ``filled`` looks at each that became a list. Raises Unexpected, and what these raise."""
    secret = random.SystemRandom().getrandbits(62)
    view, at = memoryview(text), 0
    rest: list[Any] = []
    for index, (start, end) in enumerate(spans):
        rest += [view[at:start], b"%d,%d" % (secret, index)]
        at = end
    value = load(b"".join([*rest, view[at:]]))
    wanted = sinks(value) if sinks is not None else {}
    missing = set(range(len(spans)))
    for place in list(_placeholders(value, secret)):
        index = place[1]
        if index not in missing:
            raise Unexpected
        missing.discard(index)
        start, end = spans[index]
        numeric = not _has_any(_OF_WORDS, text, spans[index])
        sink = wanted.get(id(place)) if numeric else None
        if sink is None or not _pour(sink, text, spans[index], load_piece):
            filled(Filled(place, start, end, _fill(place, text, spans[index], load_piece, numeric)))
    if missing:  # it was a part of a text, or is overwritten by a member of the same name
        raise Unexpected
    return value


#: One of these is in each of ``true``, ``false`` and ``null``, and none in a number.
_OF_WORDS = (b"t", b"f", b"n")
#: One of these is in each number that is not written as an integer.
_OF_FLOATS = (b".", b"e", b"E")


def _has_any(signs: tuple[bytes, ...], text: Text, span: tuple[int, int]) -> bool:
    return any(text.find(sign, *span) >= 0 for sign in signs)


def _pour(sink: NumberSink, text: Text, span: tuple[int, int], load: Callable[[bytes], list[Any]]) -> bool:
    """Give a sink the numbers of an array; False if it cannot take them."""
    if sink.whole and _has_any(_OF_FLOATS, text, span):
        return False
    try:
        for piece in _pieces(text, *span):
            sink.add(_loaded(load, piece))
        sink.end()
    except Unexpected:
        return False
    return True


def _fill(
    place: list[Any], text: Text, span: tuple[int, int], load: Callable[[bytes], list[Any]], numeric: bool
) -> Optional[float]:
    """Replace a placeholder by the elements of its array, and return their bound. There is room for all of them early
    on, since a list that grows is copied."""
    start, end = span
    have, bound = 0, 0.0 if numeric else None
    for piece in _pieces(text, start, end):
        elements = _loaded(load, piece)
        if bound is not None:  # while they are in the processor's cache
            bound = max(bound, number_lists.bound_of(elements))
        if not have:
            place[:] = [None]
            place *= int(1.05 * len(elements) * (end - start) / len(piece))
        place[have : have + len(elements)] = elements
        have += len(elements)
    del place[have:]
    _keep_memory(place)
    return bound


def _keep_memory(elements: list[Any]) -> None:
    """Hold some elements until the next array is read. Python gives memory without any objects back to the system,
    from which the next call would fetch each page of it again."""
    global _kept
    _kept = elements[: KEPT * SPACING : SPACING]


def _loaded(load: Callable[[bytes], list[Any]], piece: bytes) -> list[Any]:
    elements = load(piece)
    if not elements:  # between two commas
        raise Unexpected
    return elements


def _pieces(text: Text, start: int, end: int) -> Iterator[bytes]:
    view = memoryview(text)
    while start < end:
        comma = text.find(b",", min(start + PIECE, end), end)
        stop = end if comma < 0 else comma
        yield b"".join([b"[", view[start:stop], b"]"])
        start = stop + 1
        if stop < end <= start:  # the last comma has nothing behind it
            raise Unexpected


def _placeholders(value: Any, secret: int) -> Iterator[list[Any]]:
    containers = [value]
    while containers:
        outer = containers.pop()
        if type(outer) is list and len(outer) == 2 and type(outer[0]) is int and outer[0] == secret:
            yield outer
        elif type(outer) in (list, dict):
            inside = outer.values() if type(outer) is dict else outer
            containers += [inner for inner in inside if type(inner) in (list, dict)]
