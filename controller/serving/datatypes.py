"""The datatypes of inputs and outputs, and which values each holds."""

from __future__ import annotations

import enum
import math
from typing import Any, NamedTuple, Optional

from . import number_lists
from .texts import Text

INT32_MAX = 2**31 - 1
FP32_MAX = math.nextafter(
    2.0**128 - 2.0**103, 0.0
)  # the last number that rounds to a finite FP32, not up to infinity
FP16_MAX = math.nextafter(65520.0, 0.0)
BF16_MAX = math.nextafter(2.0**128 - 2.0**119, 0.0)
FP64_MAX = 1.7976931348623157e308
_NUMERIC = frozenset({int, float})


class Datatype(enum.Enum):
    """The type of a variable's ``data``: the reference's six, and the other types of numbers that the Open Inference
    Protocol has. ``whole``: of integers."""

    FP32 = "FP32"
    FP64 = "FP64"
    INT32 = "INT32"
    STR = "str"
    DICT = "dict"
    FILE = "FILE"
    BOOL = "BOOL"
    INT8 = "INT8"
    INT16 = "INT16"
    INT64 = "INT64"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    FP16 = "FP16"
    BF16 = "BF16"

    def __init__(self, text: str) -> None:
        self.numeric = text not in ("str", "dict", "FILE")
        self.whole = "INT" in text


class Numbers(NamedTuple):
    """The numbers of a datatype: Python's types, the limits, and the words for them."""

    types: frozenset[type]
    low: float
    high: float
    wanted: str

    def hold(self, elements: list[Any]) -> bool:
        """Are all of these such numbers? False, too, for some that hold NaN."""
        return (
            not elements
            or self.hold_at_once(elements)
            or (
                self.types.issuperset(map(type, elements))
                and self.low <= min(elements)
                and max(elements) <= self.high
            )
        )

    def hold_at_once(self, elements: list[Any], magnitude: Optional[int] = None) -> bool:
        """Are these many such numbers of one type? False, too, if that is not known. ``magnitude`` of the floats, if it
        has been found out already."""
        if int in self.types and number_lists.are_integers(elements, self.low, self.high):
            return True
        if float in self.types and number_lists.remembered(elements) <= self.high:
            return True
        most = _MAGNITUDES.get(self.high)
        if most is None:
            return False
        found = number_lists.magnitude(elements) if magnitude is None else magnitude
        return found is not None and found <= most

    def take(self, elements: list[Any]) -> bool:
        """Check the data, and replace integers that were written as ``7.0`` in place."""
        if self.hold(elements):
            return True
        if float in self.types or not _NUMERIC.issuperset(map(type, elements)):
            return False
        elements[:] = map(whole, elements)
        return self.hold(elements)

    def holds(self, value: Any) -> bool:
        return type(value) in self.types and self.low <= value <= self.high


#: The magnitudes of lists that hold nothing beyond the limit of a datatype; FP16 ends below all of them.
_MAGNITUDES = {
    FP32_MAX: number_lists.SINGLE,
    BF16_MAX: number_lists.SINGLE,
    FP64_MAX: number_lists.DOUBLE,
}


def whole(value: Any) -> Any:
    """A float without a fraction as an integer: JSON does not tell ``7.0`` from ``7``. All else as it is."""
    return int(value) if type(value) is float and value.is_integer() else value


def integers(low: int, high: int) -> Numbers:
    return Numbers(frozenset({int}), low, high, Text("an integer within {low}..{high}", low=low, high=high))


def floats(bits: int, high: float) -> Numbers:
    return Numbers(
        frozenset({int, float}), -high, high, Text("a {bits}-bit floating-point number", bits=bits)
    )


NUMBERS = {
    **{Datatype(f"INT{bits}"): integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{Datatype(f"UINT{bits}"): integers(0, 2**bits - 1) for bits in (8, 16, 32, 64)},
    Datatype.BOOL: Numbers(frozenset({bool}), False, True, Text("true or false")),
    Datatype.FP16: floats(16, FP16_MAX),
    Datatype.BF16: floats(16, BF16_MAX),
    Datatype.FP32: floats(32, FP32_MAX),
    Datatype.FP64: floats(64, FP64_MAX),
}
WANTED = {
    **{datatype: numbers.wanted for datatype, numbers in NUMBERS.items()},
    Datatype.STR: Text("a string"),
    Datatype.DICT: Text("an object"),
    Datatype.FILE: Text("the path of a file, a non-empty string"),
}


def fits(datatype: Datatype, value: Any) -> bool:
    """Is this one value (no list) of the datatype?"""
    if datatype.numeric:
        return NUMBERS[datatype].holds(value)
    if datatype is Datatype.DICT:
        return isinstance(value, dict)
    return isinstance(value, str) and (datatype is Datatype.STR or value != "")
