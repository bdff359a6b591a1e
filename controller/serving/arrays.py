"""numpy's arrays and scalars, and what turns into an array, as plain Python values. numpy is never imported here:
where the developer's code has not imported it, there is nothing of it to be found.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from .extent import listed
from .texts import Text

_NOT_SEQUENCES = (str, bytes, bytearray, memoryview)
_UNKNOWN_TO_JSON = "cmMV"  # numpy's kinds: complex numbers, times, records


def array_of(value: Any) -> Any:
    """The value as an array of numpy, if it is one or turns into one (a tensor, a column of a table), else None.
    Raises ValueError for arrays of what JSON does not have.
    """
    numpy = sys.modules.get("numpy")
    if numpy is None or not hasattr(value, "__array__"):
        return None
    try:
        # asarray makes a matrix an array, and would drop the mask of a masked array.
        array = value if isinstance(value, numpy.ma.MaskedArray) else numpy.asarray(value)
    except Exception as error:  # code of other libraries, such as torch, raises what it likes
        raise ValueError(Text("cannot be turned into an array: {error}", error=error)) from error
    if array.dtype.kind in _UNKNOWN_TO_JSON:
        raise ValueError(
            Text("holds values of numpy's type {dtype}, which JSON does not have", dtype=array.dtype)
        )
    return array.astype("f8") if array.dtype.kind == "f" and array.dtype.itemsize > 8 else array


def plain(value: Any) -> Any:
    """Arrays as nested lists, scalars of numpy as Python's own, sequences of any kind as lists; all else as it is.
    Raises ValueError as ``array_of``, and for very long sequences.
    """
    array = array_of(value)
    if array is not None:
        return array.tolist()
    if isinstance(value, Sequence) and not isinstance(value, (list, *_NOT_SEQUENCES)):
        return listed(value)
    return value
