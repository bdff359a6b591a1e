"""Numbers of a large JSON array for a function that takes arrays of numpy: they go into the memory of a tensor piece by
piece, and never make a list (``json_pieces``). What a datatype cannot hold, or not exactly as it was sent, is left to
the list, of which the check says what is wrong."""

from __future__ import annotations

from typing import Any

from .datatypes import NUMBERS, Datatype
from .json_pieces import Unexpected
from .tensors import BinaryTensor, dtype

#: Datatypes whose numbers numpy rounds and bounds as the list's are. BF16 and BOOL it does not have in this form, and
#: UINT64 does not fit the integers that are read.
TAKEN = frozenset(
    datatype
    for datatype in Datatype
    if datatype.numeric and datatype not in (Datatype.BF16, Datatype.BOOL, Datatype.UINT64)
)
#: orjson reads integers below -(2**63) as floats, the first of which are equal to it.
_LOW = -(2**63) + 1


class TensorSink:
    """Makes the ``data`` of an input a tensor of its datatype. Implements ``json_pieces.NumberSink``."""

    def __init__(self, numpy: Any, item: dict[str, Any], datatype: Datatype) -> None:
        self._numpy = numpy
        self._item = item
        self._datatype = datatype
        self._parts: list[Any] = []
        self.whole = datatype.whole
        self._low = max(NUMBERS[datatype].low, _LOW) if datatype.whole else NUMBERS[datatype].low

    def add(self, elements: list[Any]) -> None:
        """Raises Unexpected."""
        try:
            part = self._numpy.fromiter(elements, "<i8" if self.whole else "<f8", len(elements))
        except (OverflowError, TypeError, ValueError):
            raise Unexpected from None
        if not (self._low <= part.min() and part.max() <= NUMBERS[self._datatype].high):
            raise Unexpected
        self._parts.append(part.astype(dtype(self._datatype), copy=False))

    def end(self) -> None:
        array = self._numpy.concatenate(self._parts)
        self._parts.clear()
        self._item["data"] = BinaryTensor(self._datatype, memoryview(array).cast("B"))
