"""Tensors as bytes, as the Open Inference Protocol's binary tensor extension has them: elements in row-major order,
little-endian, which is the order of every processor that images are made for. A text is four bytes of length and its
UTF-8.

Floating-point numbers in bytes may be NaN and infinite, unlike in JSON. No function here copies bytes that it need not
copy; a tensor's elements are read once, when they are wanted as a list.
"""

from __future__ import annotations

import array
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

from .datatypes import Datatype
from .texts import Text

#: Bytes of one element, and its letter for memoryview and array.
_FORMATS = {
    "BOOL": (1, "?"), "INT8": (1, "b"), "INT16": (2, "h"), "INT32": (4, "i"), "INT64": (8, "q"), "UINT8": (1, "B"),
    "UINT16": (2, "H"), "UINT32": (4, "I"), "UINT64": (8, "Q"), "FP16": (2, "e"), "BF16": (2, ""), "FP32": (4, "f"),
    "FP64": (8, "d"),
}  # fmt: skip
NUMERIC = frozenset(_FORMATS)  # names of datatypes
_OF_STRUCT = frozenset("?e")  # which array does not have, nor memoryview in old versions
_LENGTH = struct.Struct("<I")
_NAN = float("nan")


class BadTensor(ValueError):
    """Why bytes are not the tensor that they are said to be, as the rest of a sentence about them."""


class BinaryTensor(NamedTuple):
    """An input's numbers in memory, as they came or as they were read from JSON."""

    datatype: Datatype
    raw: memoryview

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return len(self.raw) // size_of(self.datatype)

    def elements(self) -> list[Any]:
        """Return them as Python's numbers."""
        return unpack(self.datatype, self.raw)


def as_array(numpy: Any, datatype: Datatype, data: Any, shape: Optional[list[int]]) -> Any:
    """Numbers of an input, which have been checked, as an array of numpy that may be written to. Bytes of the same
    datatype are not copied if they lie where the processor wants them.
    """
    wanted = dtype(datatype)
    if type(data) is not BinaryTensor:
        array = numpy.array(data, wanted)
    elif data.datatype is Datatype.BF16:
        array = numpy.frombuffer(_widened(data.raw), "<f4").astype(wanted, copy=False)
    else:
        array = numpy.frombuffer(data.raw, dtype(data.datatype)).astype(wanted, copy=False)
        array = numpy.require(array, requirements=["ALIGNED", "WRITEABLE"])
    return array if shape is None else array.reshape(shape)


def size_of(datatype: Datatype) -> int:
    """Bytes of one element of a numeric datatype."""
    return _FORMATS[datatype.value][0]


def dtype(datatype: Datatype) -> str:
    """numpy's name for a numeric datatype; that of FP32 for BF16, which numpy does not have."""
    size, letter = _FORMATS[datatype.value]
    if not letter:
        return "<f4"
    return "?" if letter == "?" else f"<{'f' if letter in 'efd' else 'u' if letter.isupper() else 'i'}{size}"


def unpack(datatype: Datatype, raw: memoryview) -> list[Any]:
    """Numbers from bytes, whose length is a multiple of the element's."""
    size, letter = _FORMATS[datatype.value]
    if not letter:
        return memoryview(_widened(raw)).cast("f").tolist()
    if letter in _OF_STRUCT:
        return list(struct.unpack(f"<{len(raw) // size}{letter}", raw))
    return raw.cast(letter).tolist()  # type: ignore[call-overload,no-any-return]


def check_bool(raw: memoryview) -> None:
    """Raises BadTensor."""
    if bytes(raw).translate(None, b"\0\1"):
        raise BadTensor(Text("has a byte that is neither 0 nor 1, as those of a BOOL are"))


def pack(datatype: Datatype, elements: Any) -> Optional[bytes]:
    """Numbers of the datatype, in a list or an array of numpy, as bytes. What is missing, None, becomes NaN; integers
    have nothing for it, so the answer is None.
    """
    if not isinstance(elements, list):
        if datatype is not Datatype.BF16:
            array_bytes: bytes = elements.astype(dtype(datatype), copy=False).tobytes()
            return array_bytes
        elements = elements.tolist()
    try:
        return packed(datatype, elements)
    except (TypeError, struct.error):
        if datatype.whole or datatype is Datatype.BOOL:
            return None
        return packed(datatype, [_NAN if element is None else element for element in elements])


def packed(datatype: Datatype, elements: Sequence[Any]) -> bytes:
    """Numbers as bytes; those of floating point that are too large become infinite, but for FP16. Raises TypeError,
    OverflowError and struct.error for what is none."""
    letter = _FORMATS[datatype.value][1]
    if not letter:
        return _rounded(elements)
    if letter == "?" and None in elements:
        raise TypeError
    return struct.pack(f"{len(elements)}{letter}", *elements)  # array.array takes three times as long


def _widened(raw: memoryview) -> bytearray:
    """BF16 as FP32, of which it is the upper half."""
    wide = bytearray(2 * len(raw))
    wide[2::4], wide[3::4] = raw[0::2], raw[1::2]
    return wide


def _rounded(elements: Sequence[Any]) -> bytes:
    """Numbers as BF16: FP32 rounded to the nearest, ties to even."""
    words = memoryview(array.array("f", elements)).cast("B").cast("I")
    halves = [
        word >> 16 | 0x40 if word & 0x7FFFFFFF > 0x7F800000 else word + 0x7FFF + (word >> 16 & 1) >> 16
        for word in words
    ]
    return array.array("H", halves).tobytes()


def unpack_texts(raw: memoryview, count: int) -> list[str]:
    """So many texts from bytes. Raises BadTensor; what it costs is bounded by the bytes, not by the count."""
    texts: list[str] = []
    at, end = 0, len(raw)
    while at < end:
        if len(texts) == count:
            raise BadTensor(Text("has more than the {count} elements of its shape", count=count))
        if end - at < _LENGTH.size:
            raise BadTensor(Text("ends within the length of element {count}", count=len(texts)))
        start = at + _LENGTH.size
        at = start + _LENGTH.unpack_from(raw, at)[0]
        if at > end:
            raise BadTensor(
                Text(
                    "element {count} has {at} bytes, and {end} are left",
                    count=len(texts),
                    at=at - start,
                    end=end - start,
                )
            )
        try:
            texts.append(str(raw[start:at], "utf-8"))
        except UnicodeDecodeError as error:
            raise BadTensor(
                Text("element {count} is not UTF-8 (byte {start})", count=len(texts), start=error.start)
            ) from error
    if len(texts) < count:
        raise BadTensor(
            Text("has {count} elements, its shape needs {count2}", count=len(texts), count2=count)
        )
    return texts


def pack_texts(texts: Sequence[str]) -> bytes:
    """Raises UnicodeEncodeError."""
    coded = [text.encode() for text in texts]
    return b"".join([piece for text in coded for piece in (_LENGTH.pack(len(text)), text)])
