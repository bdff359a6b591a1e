"""What long lists of numbers hold, found out by C code of the standard library in one pass.

``marshal`` writes each float as the letter ``g`` and its eight bytes, each integer of 32 bits as ``i`` and four: the
letters show that there is nothing else, since they are those of the exact types, and the bytes show how large the
numbers are. Four passes over the list (its types, ``min``, ``max``, and what looks for ``inf``) take four times as
long. What is not known here, the caller has to find out element by element.

Where it is known already that there is nothing but numbers, as of an array in JSON without the letters of other values,
one pass by ``math.hypot`` bounds all of them, in a third of that time.
"""

from __future__ import annotations

import marshal
import math
import threading
from typing import Any, Optional

MANY = 256  # elements from which on it is worth it
_STEP = 16384  # elements at a time, so that little memory is taken
_HEAD = 5  # bytes that marshal writes before the elements
_VERSION = 2  # of marshal's format: the last one without references
_INFINITY = 0x80

#: Steps of the upper byte of a float without its sign: below 0x43 its absolute value is below 2**49, below 0x47 it is
#: below 2**113, below 0x7F it is below 2**1009; only infinities, NaN and very large numbers have 0x7F.
EXACT, SINGLE, DOUBLE = 0x43, 0x47, 0x7F
_STEPS = tuple((top, bytes([*range(top), *range(128, 128 + top)])) for top in (EXACT, SINGLE, DOUBLE))


_ROUNDED = 1 + 2**-50  # math.hypot may be some units in the last place too low
_thread = threading.local()


class _Remembering:
    """Keeps what ``remember`` gets on this thread, as long as lists are read and checked, and nobody changes them."""

    def __enter__(self) -> None:
        _thread.known = {}

    def __exit__(self, *error: object) -> None:
        _thread.known = None


remembering = _Remembering()


def bound_of(numbers: list[Any]) -> float:
    """None of these integers and floats is farther from 0: their Euclidean norm is not less than each of them."""
    try:
        return math.hypot(*numbers) * _ROUNDED
    except OverflowError:  # an integer beyond all floats
        return math.inf


def remember(elements: list[Any], bound: float) -> None:
    """Keep the bound of a list that has nothing but elements of the types int and float."""
    known = getattr(_thread, "known", None)
    if known is not None:
        known[id(elements)] = (elements, bound)


def remembered(elements: list[Any]) -> float:
    """The bound of a list of integers and floats; infinite if it is not known."""
    known = getattr(_thread, "known", None)
    return known[id(elements)][1] if known and id(elements) in known else math.inf


def magnitude(elements: list[Any]) -> Optional[int]:
    """Return the lowest of EXACT, SINGLE and DOUBLE below which the upper bytes of all elements lie, more than DOUBLE
    if there is none; None unless the elements are many and all are of the type float."""
    if len(elements) < MANY or type(elements[0]) is not float or type(elements[-1]) is not float:
        return None
    found = 0
    for start in range(0, len(elements), _STEP):
        written = _written(elements[start : start + _STEP], b"g", 9)
        if written is None:
            return None
        tops = written[_HEAD + 8 :: 9]
        while found < len(_STEPS) and tops.translate(None, _STEPS[found][1]):
            found += 1
    return _STEPS[found][0] if found < len(_STEPS) else _INFINITY


def are_integers(elements: list[Any], low: float, high: float) -> bool:
    """Are the elements many integers from ``low`` to ``high``? False, too, if that is not known."""
    if len(elements) < MANY or type(elements[0]) is not int or type(elements[-1]) is not int:
        return False
    signed = low <= -(2**31)
    zeros = _ZEROS.get(high, ()) if low == 0 else ()
    if not (zeros or high >= 2**31 - 1) or not (signed or low == 0):
        return False  # such limits do not show in whole bytes
    for start in range(0, len(elements), _STEP):
        written = _written(elements[start : start + _STEP], b"i", 5)
        if written is None or any(written[_HEAD + 1 + place :: 5].strip(b"\0") for place in zeros):
            return False
        if not signed and not written[_HEAD + 4 :: 5].isascii():  # a sign
            return False
    return True


#: By the highest integer that has no sign, which of the four bytes are 0, the lowest first.
_ZEROS: dict[float, tuple[int, ...]] = {2**8 - 1: (1, 2, 3), 2**16 - 1: (2, 3)}


def _written(elements: list[Any], letter: bytes, size: int) -> Optional[bytes]:
    """The elements as marshal writes them, if all of them are of the type that has this letter."""
    try:
        written = marshal.dumps(elements, _VERSION)
    except ValueError:  # some are of types that it does not write
        return None
    fits = len(written) == _HEAD + size * len(elements)
    return written if fits and written[_HEAD::size].count(letter) == len(elements) else None
