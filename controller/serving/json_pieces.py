"""Large arrays of numbers within a JSON text, for ``jsontext``: where they are, and how they are read piece by piece.

A parser needs several times the memory of its text beside what it makes of it. An array without anything but numbers
may be cut at any comma, so each piece is read by itself; in what is left of the text the array is replaced by a
placeholder, which a caller cannot guess. Everything that is not as expected is left to a reader of the whole text: this
module never decides that a text is wrong.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, Union

LARGE = 64 * 1024  # bytes of an array from which on it is read by pieces
PIECE = 128 * 1024  # bytes

Text = Union[bytes, bytearray]


class Unexpected(ValueError):
    """The text is not one that this module can read."""


class _Places:
    """Where a sign is, at or behind places that only grow: the text is looked through once."""

    def __init__(self, text: Text, sign: bytes) -> None:
        self._text = text
        self._sign = sign
        self._found = -1

    def after(self, place: int) -> int:
        """Return the length of the text if there is none."""
        if self._found < place:
            found = self._text.find(self._sign, place)
            self._found = len(self._text) if found < 0 else found
        return self._found


def has_few(text: Text, most: int, *signs: bytes) -> bool:
    """Are there at most so many of these signs? Much faster than to count them all, if they are."""
    found = 0
    for sign in signs:
        at = text.find(sign)
        while at >= 0:
            found += 1
            if found > most:
                return False
            at = text.find(sign, at + 1)
    return True


def arrays(text: Text) -> list[tuple[int, int]]:
    """The parts of a text with few brackets that may be large arrays of numbers, without their brackets."""
    found = []
    opening = _Places(text, b"[")
    others = [_Places(text, sign) for sign in (b"]", b"[", b"{", b'"')]
    start = opening.after(0)
    while start < len(text):
        end, *obstacles = (places.after(start + 1) for places in others)
        if end - start >= LARGE and end < min(obstacles):
            found.append((start + 1, end))
        start = opening.after(start + 1)
    return found


def read(
    text: Text,
    load: Callable[[Text], Any],
    load_piece: Callable[[bytes], list[Any]],
    filled: Callable[[list[Any], int, int], None],
) -> Any:
    """The value of a text with few brackets. ``load`` reads the text, or what is left of it, ``load_piece`` a part of a
    large array, and ``filled`` looks at the elements of one with its place. Raises Unexpected, and what these raise."""
    spans = arrays(text)
    if not spans:
        return load(text)
    secret = random.SystemRandom().getrandbits(62)
    view, at = memoryview(text), 0
    rest: list[Any] = []
    for index, (start, end) in enumerate(spans):
        rest += [view[at:start], b"%d,%d" % (secret, index)]
        at = end
    value = load(b"".join([*rest, view[at:]]))
    missing = set(range(len(spans)))
    for place in _placeholders(value, secret):
        index = place[1]
        if index not in missing:
            raise Unexpected
        missing.discard(index)
        _fill(place, text, spans[index], load_piece)
        filled(place, *spans[index])
    if missing:  # it was a part of a text, or is overwritten by a member of the same name
        raise Unexpected
    return value


def _fill(place: list[Any], text: Text, span: tuple[int, int], load: Callable[[bytes], list[Any]]) -> None:
    """Replace a placeholder by the elements of its array. There is room for all of them early on, since a list that
    grows is copied."""
    start, end = span
    have = 0
    for piece in _pieces(text, start, end):
        elements = load(piece)
        if not elements:  # between two commas
            raise Unexpected
        if not have:
            place[:] = [None]
            place *= int(1.05 * len(elements) * (end - start) / len(piece))
        place[have : have + len(elements)] = elements
        have += len(elements)
    del place[have:]


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
