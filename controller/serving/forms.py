"""What a type hint says of a variable's data beyond its datatype: how many values, which ones, and what the function
gets of them.

``faults`` is a part of the check of requests; it replaces the objects of a dict by what the hint makes of them.
``python`` makes the argument of an input that has been checked. ``given`` prepares a result for the encoder, and
``misfit`` looks at what that has made.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import count as numbers
from itertools import islice
from typing import Any, Optional

from .arrays import plain
from .fault_texts import MAX_FAULTS, json_name
from .problems import RequestFault
from .shapes import shape_faults, size_faults
from .tensors import NUMERIC, BinaryTensor
from .texts import Text
from .values import Misfit, Value, chosen, named, one_of, value_of

MAX_EMPTY = 1000  # lists that hold nothing, which cost the caller nothing


@dataclasses.dataclass(frozen=True)
class Form:
    """The data of one datatype. ``rank``: 0 for one value, 1 for a list, 2 for lists of lists, and so on; None if all
    are right. ``choices``: the only values there are. ``value``: what is in each object. ``make``: makes what the
    function gets of one element, ``sequences`` what it gets of lists, those of the outermost first. ``array``: it gets
    an array of numpy. ``yielded``: an output of a function that yields; collected, they are a list."""

    rank: Optional[int] = None
    choices: tuple[Any, ...] = ()
    value: Optional[Value] = None
    make: Optional[Callable[[Any], Any]] = None
    sequences: tuple[Callable[[Iterable[Any]], Any], ...] = ()
    array: bool = False
    yielded: bool = False

    def faults(self, item: dict[str, Any], pointer: str) -> list[RequestFault]:
        """What is wrong with an input that is of the datatype."""
        found = self._rank_faults(item, pointer)
        if found or (not self.choices and self.value is None):
            return found
        data = item["data"]
        single = not isinstance(data, (list, BinaryTensor))
        elements = [data] if single else data.elements() if isinstance(data, BinaryTensor) else data
        places = iter([f"{pointer}/data"]) if single else (f"{pointer}/data/{at}" for at in numbers())
        if self.value is None:
            found += islice(self._other_choices(elements, places), MAX_FAULTS)
            return found
        taken = []
        for element, at in zip(elements, places):
            if len(found) < MAX_FAULTS:
                taken.append(self.value.take(element, at, found))
        item["data"] = taken[0] if single else taken
        return found

    def _other_choices(self, elements: Iterable[Any], places: Iterable[str]) -> Iterator[RequestFault]:
        for element, at in zip(elements, places):
            if not chosen(element, self.choices):
                yield RequestFault(
                    at,
                    Text(
                        "must be {choices}, not {element}",
                        choices=one_of(self.choices),
                        element=named(element),
                    ),
                )

    def _rank_faults(self, item: dict[str, Any], pointer: str) -> list[RequestFault]:
        if self.rank is None:
            return []
        data: Any = item["data"]
        shape: Any = item.get("shape")
        single = not isinstance(data, (list, BinaryTensor))
        if self.rank == 0:
            number = 1 if single else math.prod(shape) if isinstance(data, BinaryTensor) else len(data)
            return (
                []
                if number == 1
                else [RequestFault(f"{pointer}/data", Text("must be one value, not {number}", number=number))]
            )
        if single:
            return [
                RequestFault(
                    f"{pointer}/data", Text("must be a flat array, not {data}", data=json_name(data))
                )
            ]
        if self.rank == 1 and (shape is None or item["datatype"] not in NUMERIC):
            return []
        if shape is None:
            return [
                RequestFault(
                    f"{pointer}/shape", Text("is missing: the list has {rank} dimensions", rank=self.rank)
                )
            ]
        wrong = shape_faults(shape, pointer)
        if not wrong and len(shape) != self.rank:
            words = Text("must have {rank}, not {count}", rank=_dimensions(self.rank), count=len(shape))
            wrong = [RequestFault(f"{pointer}/shape", words)]
        if not wrong and _empty_lists(shape) > MAX_EMPTY:
            wrong = [
                RequestFault(
                    f"{pointer}/shape", Text("has more than {max_empty} empty lists", max_empty=MAX_EMPTY)
                )
            ]
        return wrong or ([] if isinstance(data, BinaryTensor) else size_faults(shape, len(data), pointer))

    def python(self, item: dict[str, Any]) -> Any:
        """What the function gets for an input without faults, whose numbers are a list, or an array if it takes one."""
        data = item["data"]
        if self.array or self.rank is None:
            return data
        if self.rank == 0:
            (element,) = data if isinstance(data, list) else [data]
            return element if self.make is None else self.make(element)
        elements = data if self.make is None else [self.make(element) for element in data]
        return _nested(elements, item["shape"] if self.rank > 1 else [len(elements)], self.sequences)

    def given(self, data: Any) -> Any:
        """A value that the function returned, in types that the encoder knows. Raises Misfit."""
        if self.value is not None:
            listed = plain(data) if self.rank else data
            if self.rank and not isinstance(listed, (list, tuple)):
                raise Misfit(Text("is not a list, as its type hint says"))
            try:
                return [self.value.give(one) for one in listed] if self.rank else self.value.give(data)
            except Misfit as misfit:
                raise Misfit(Text("{misfit}, as its type hint says", misfit=misfit)) from None
        return _values_of(data) if self.choices else data

    def misfit(self, output: dict[str, Any]) -> str:
        """What the hint does not allow in an encoded output, as the rest of a sentence about it; "" if nothing."""
        data = output["data"]
        single = isinstance(data, (str, dict))
        shape = [] if single else output.get("shape", [])
        if self.rank == 0 and not single and len(data) != 1 and not self.yielded:
            return Text("has {count} values, its type hint says one", count=len(data))
        if self.rank and not self.yielded and (single or (len(shape) != self.rank and len(data))):
            what = Text("is one value") if single else Text("has {count}", count=_dimensions(len(shape)))
            return Text("{what}, its type hint says {rank}", what=what, rank=_dimensions(self.rank))
        for element in ([data] if single else data) if self.choices else ():
            if not chosen(element, self.choices):
                return Text(
                    "is {element}, not {choices}, as its type hint says",
                    element=named(element),
                    choices=one_of(self.choices),
                )
        return ""


def _nested(flat: list[Any], shape: list[int], sequences: tuple[Callable[[Iterable[Any]], Any], ...]) -> Any:
    """A flat list in its shape, as sequences of sequences."""
    if len(shape) == 1:
        return sequences[0](flat)
    size = math.prod(shape[1:])
    rows = (flat[row * size : (row + 1) * size] for row in range(shape[0]))
    return sequences[0](_nested(row, shape[1:], sequences[1:]) for row in rows)


def _dimensions(count: int) -> str:
    return f"{count} dimension{'' if count == 1 else 's'}"


def _empty_lists(shape: list[int]) -> int:
    """How many lists a shape makes that hold nothing."""
    return math.prod(shape[: shape.index(0)]) if 0 in shape else 0


def _values_of(data: Any) -> Any:
    found = value_of(data)
    return [_values_of(one) for one in found] if isinstance(found, (list, tuple)) else found
