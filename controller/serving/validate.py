"""Is a request what the component's docstring describes? Signature -> a check of decoded JSON, giving every
fault with its pointer.

Plain Python made once per signature: lists of numbers are checked at C speed (``number_lists``, or else set, min and
max), and looked at one by one only when something is wrong. Strict about inputs: null, NaN and booleans are not
numbers. ``1.0`` is an integer, as JSON Schema has it, and the check makes it one in place. Members that the
interface does not know are ignored, as in the Open Inference Protocol; so is the ``shape`` of values other
than numbers, which callers write in many forms. Every check is linear in the size of the request, and what it
tells is bounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple, Optional

from . import number_lists
from .docstring import Datatype, Signature, Variable
from .problems import RequestFault
from .shapes import MAX_RANK
from .tensors import BinaryTensor

INT32_MAX = 2**31 - 1
FP32_MAX = math.nextafter(
    2.0**128 - 2.0**103, 0.0
)  # the last number that rounds to a finite FP32, not up to infinity
FP16_MAX = math.nextafter(65520.0, 0.0)
BF16_MAX = math.nextafter(2.0**128 - 2.0**119, 0.0)
FP64_MAX = 1.7976931348623157e308
MAX_FAULTS = 100  # that are reported for one request


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
    return Numbers(frozenset({int}), low, high, f"an integer within {low}..{high}")


def floats(bits: int, high: float) -> Numbers:
    return Numbers(frozenset({int, float}), -high, high, f"a {bits}-bit floating-point number")


NUMBERS = {
    **{Datatype(f"INT{bits}"): integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{Datatype(f"UINT{bits}"): integers(0, 2**bits - 1) for bits in (8, 16, 32, 64)},
    Datatype.BOOL: Numbers(frozenset({bool}), False, True, "true or false"),
    Datatype.FP16: floats(16, FP16_MAX),
    Datatype.BF16: floats(16, BF16_MAX),
    Datatype.FP32: floats(32, FP32_MAX),
    Datatype.FP64: floats(64, FP64_MAX),
}
_SIZES = integers(0, INT32_MAX)
WANTED = {
    **{datatype: numbers.wanted for datatype, numbers in NUMBERS.items()},
    Datatype.STR: "a string",
    Datatype.DICT: "an object",
    Datatype.FILE: "the path of a file, a non-empty string",
}
_NUMERIC = frozenset({int, float})
_JSON_NAMES = {
    bool: "a boolean",
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
}

Check = Callable[[Any], list[RequestFault]]


def compile_check(signature: Signature) -> Check:
    """A function from a decoded request body to its faults: an empty list when it is right. The check never
    raises.
    """
    inputs = {variable.name: variable for variable in signature.inputs}
    required = [variable.name for variable in signature.inputs if not variable.optional]
    outputs = {variable.name: variable for variable in signature.outputs}

    def check(body: Any) -> list[RequestFault]:
        if not isinstance(body, dict):
            return [RequestFault("", f"the body must be an object with inputs, not {json_name(body)}")]
        faults = list(_members(body))
        faults += _inputs(body.get("inputs", []), inputs, required)
        if body.get("output_fields"):
            faults += _output_fields(body["output_fields"], outputs)
        return faults[:MAX_FAULTS]

    return check


def json_name(value: object) -> str:
    """Return JSON's name for the type of a value: ``an array``, ``null``."""
    return (
        "null" if value is None else _JSON_NAMES.get(type(value), f"a value of type {type(value).__name__}")
    )


def shown(value: object) -> str:
    """A value in a message: numbers as they are, of others what they are."""
    if value == "" and isinstance(value, str):
        return "an empty one"
    return _brief(value) if type(value) in (int, float) else json_name(value)


def quoted(text: str) -> str:
    """A text of others in a message."""
    return repr(text) if len(text) <= 100 else f"{text[:100]!r}... of {len(text)} characters"


def fits(datatype: Datatype, value: Any) -> bool:
    """Is this one value (no list) of the datatype?"""
    if datatype.numeric:
        return NUMBERS[datatype].holds(value)
    if datatype is Datatype.DICT:
        return isinstance(value, dict)
    return isinstance(value, str) and (datatype is Datatype.STR or value != "")


def escape(token: str) -> str:
    """Escape one reference token of a JSON pointer (RFC 6901)."""
    return token.replace("~", "~0").replace("/", "~1")


def _members(body: dict[str, Any]) -> Iterator[RequestFault]:
    for name, kind in (("parameters", list), ("output_fields", list), ("model_key", str), ("id", str)):
        value = body.get(name)
        if value is not None and not isinstance(value, kind):
            yield RequestFault(f"/{name}", f"must be {_JSON_NAMES[kind]}, not {json_name(value)}")


def _inputs(items: Any, variables: dict[str, Variable], required: list[str]) -> list[RequestFault]:
    if not isinstance(items, list):
        return [RequestFault("/inputs", f"must be an array of inputs, not {json_name(items)}")]
    faults: list[RequestFault] = []
    seen: set[str] = set()
    for index, item in enumerate(items):
        if len(faults) > MAX_FAULTS:
            return faults
        variable, fault = _named(item, f"/inputs/{index}", variables, "input")
        if fault or variable is None:
            faults += [fault] if fault else []
            continue
        if variable.name in seen:
            faults.append(RequestFault(f"/inputs/{index}/name", f"input {variable.name!r} is given twice"))
        seen.add(variable.name)
        faults += _item(item, f"/inputs/{index}", variable)
    if len(seen) < len(variables):
        faults += [
            RequestFault("/inputs", f"input {name!r} is missing") for name in required if name not in seen
        ]
    return faults


def _named(
    item: Any, pointer: str, variables: dict[str, Variable], noun: str
) -> tuple[Optional[Variable], Optional[RequestFault]]:
    if not isinstance(item, dict):
        return None, RequestFault(pointer, f"must be an object with a name, not {json_name(item)}")
    name = item.get("name")
    if not isinstance(name, str):
        return None, RequestFault(
            f"{pointer}/name", "is missing" if name is None else f"must be a string, not {json_name(name)}"
        )
    if name not in variables:
        known = f"known are {', '.join(variables)}" if variables else f"this component has no {noun}s"
        return None, RequestFault(f"{pointer}/name", f"unknown {noun} {quoted(name)}; {known}")
    return variables[name], None


def _output_fields(items: Any, variables: dict[str, Variable]) -> list[RequestFault]:
    if not isinstance(items, list):
        return []  # told by _members
    named = (
        _named(item, f"/output_fields/{index}", variables, "output")[1] for index, item in enumerate(items)
    )
    return list(islice((fault for fault in named if fault is not None), MAX_FAULTS))


def _datatype(
    item: dict[str, Any], pointer: str, variable: Variable
) -> tuple[Optional[Datatype], list[RequestFault]]:
    given = item.get("datatype")
    for datatype in variable.datatypes:
        if datatype.value == given:
            return datatype, []
    allowed = " or ".join(datatype.value for datatype in variable.datatypes)
    text = quoted(given) if isinstance(given, str) else json_name(given)
    what = "is missing" if given is None else f"{text} is not a datatype of {variable.name!r}"
    return None, [RequestFault(f"{pointer}/datatype", f"{what}; use {allowed}")]


def _item(item: dict[str, Any], pointer: str, variable: Variable) -> list[RequestFault]:
    datatype, faults = _datatype(item, pointer, variable)
    if datatype is None:
        return faults
    if "data" not in item:
        return [RequestFault(f"{pointer}/data", "is missing")]
    form = variable.form(datatype)
    faults = _data(item, pointer, datatype, form is not None and form.rank != 0)
    return faults if faults or form is None else form.faults(item, pointer)


def _data(item: dict[str, Any], pointer: str, datatype: Datatype, listed: bool) -> list[RequestFault]:
    """Are the data of the datatype? ``listed``: they may be a list without a shape."""
    data, shape = item["data"], item.get("shape")
    if type(data) is BinaryTensor:
        return _bytes(data, pointer, datatype)
    if datatype is Datatype.FILE:
        kind = item.get("content_type")
        faults = (
            []
            if kind is None or isinstance(kind, str)
            else [RequestFault(f"{pointer}/content_type", "must be a string")]
        )
        return faults + _scalar(data, pointer, datatype)
    if datatype.numeric and shape is not None:
        return _shaped(data, shape, pointer, datatype)
    if isinstance(data, list) and (datatype.numeric or shape is not None or listed):
        return element_faults(data, pointer, datatype)
    if datatype.whole:
        data = item["data"] = whole(data)
    return _scalar(data, pointer, datatype)


def _bytes(tensor: BinaryTensor, pointer: str, datatype: Datatype) -> list[RequestFault]:
    """Do all numbers fit? They are looked at only if their type does not say so. NaN and infinities fit every
    floating-point type."""
    sent, numbers = NUMBERS[tensor.datatype], NUMBERS[datatype]
    if tensor.datatype is datatype or (numbers.low <= sent.low and sent.high <= numbers.high):
        return []
    elements = tensor.elements()
    if numbers.hold(elements):
        return []
    wrong = (
        index for index, value in enumerate(elements) if math.isfinite(value) and not numbers.holds(value)
    )
    return _first_fault(elements, wrong, pointer, numbers.wanted)


def _scalar(data: Any, pointer: str, datatype: Datatype) -> list[RequestFault]:
    if fits(datatype, data):
        return []
    return [RequestFault(f"{pointer}/data", f"must be {WANTED[datatype]}, not {shown(data)}")]


def _shaped(data: Any, shape: Any, pointer: str, datatype: Datatype) -> list[RequestFault]:
    faults = shape_faults(shape, pointer)
    if faults:
        return faults
    if not isinstance(data, list):
        return [
            RequestFault(
                f"{pointer}/data", f"must be a flat array, as a shape is given, not {json_name(data)}"
            )
        ]
    return element_faults(data, pointer, datatype) or size_faults(shape, data, pointer)


def shape_faults(shape: Any, pointer: str) -> list[RequestFault]:
    """Is it an array of sizes?"""
    if not isinstance(shape, list) or not _SIZES.take(shape):
        return [RequestFault(f"{pointer}/shape", f"must be an array of sizes, each {_SIZES.wanted}")]
    if len(shape) > MAX_RANK:
        return [RequestFault(f"{pointer}/shape", f"has more than {MAX_RANK} dimensions")]
    return []


def size_faults(shape: list[int], data: list[Any], pointer: str) -> list[RequestFault]:
    """Does a sound shape fit the number of elements?"""
    wanted = math.prod(shape)
    if wanted == len(data):
        return []
    return [RequestFault(f"{pointer}/shape", f"{shape} needs {wanted} elements, data has {len(data)}")]


def element_faults(data: list[Any], pointer: str, datatype: Datatype) -> list[RequestFault]:
    if datatype.numeric:
        return number_faults(data, pointer, NUMBERS[datatype])
    wrong = (index for index, value in enumerate(data) if not fits(datatype, value))
    return _first_fault(data, wrong, pointer, WANTED[datatype])


def number_faults(data: list[Any], pointer: str, numbers: Numbers) -> list[RequestFault]:
    if numbers.take(data):
        return []
    wrong = (index for index, value in enumerate(data) if not numbers.holds(value))
    return _first_fault(data, wrong, pointer, numbers.wanted)


def _first_fault(data: list[Any], wrong: Iterator[int], pointer: str, wanted: str) -> list[RequestFault]:
    """The first wrong element with its value, and how many more there are."""
    first = next(wrong, None)
    if first is None:
        return []
    more = sum(1 for _ in wrong)
    nested = "; data is flat, its dimensions go into shape" if isinstance(data[first], list) else ""
    also = f" (and {more} more like it)" if more else ""
    return [
        RequestFault(f"{pointer}/data/{first}", f"must be {wanted}, not {shown(data[first])}{nested}{also}")
    ]


def _brief(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        return "a number of thousands of digits"
    if text in ("inf", "-inf"):
        return "a number too large for 64 bits"
    return text if len(text) <= 40 else f"a number of {len(text)} digits"
