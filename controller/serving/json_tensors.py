"""Numbers of a large JSON array for a function that takes arrays of numpy: they go into the memory of a tensor piece by
piece, and never make a list (``json_pieces``). What a datatype cannot hold, or not exactly as it was sent, is left to
the list, of which the check says what is wrong."""

from __future__ import annotations

import struct
from typing import Any

from .datatypes import Datatype
from .json_pieces import Unexpected
from .tensors import BinaryTensor, dtype, packed

#: Datatypes whose numbers ``struct`` rounds and bounds as the list's are. It takes any number for a BOOL, and numpy
#: does not have BF16.
TAKEN = frozenset(
    datatype for datatype in Datatype if datatype.numeric and datatype not in (Datatype.BF16, Datatype.BOOL)
)


class TensorSink:
    """Makes the ``data`` of an input a tensor of its datatype. Implements ``json_pieces.NumberSink``."""

    def __init__(self, numpy: Any, item: dict[str, Any], datatype: Datatype) -> None:
        self._numpy = numpy
        self._item = item
        self._datatype = datatype
        self._raw = bytearray()
        self.whole = datatype.whole

    def add(self, elements: list[Any]) -> None:
        """Raises Unexpected."""
        try:
            self._raw += packed(self._datatype, elements)
        except (OverflowError, struct.error):
            raise Unexpected from None

    def end(self) -> None:
        """Raises Unexpected."""
        raw = memoryview(self._raw)
        numbers = self._numpy.frombuffer(raw, dtype(self._datatype))
        if not (self.whole or self._numpy.isfinite(numbers).all()):
            raise Unexpected  # some are too large
        self._item["data"] = BinaryTensor(self._datatype, raw)
