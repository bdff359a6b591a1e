"""Is a request what the component's docstring describes? Signature -> a check of decoded JSON, giving every
fault with its pointer.

Plain Python made once per signature: lists of numbers are checked with set, min and max, at C speed, and
looked at one by one only when something is wrong. Strict about inputs: null, NaN and booleans are not
numbers, ``1.0`` is not an INT32. Members that the interface does not know are passed over, as in the Open
Inference Protocol.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Optional

from .docstring import Datatype, Signature, Variable
from .problems import Fault

INT32_MAX = 2**31 - 1
FP32_MAX = math.nextafter(
    2.0**128 - 2.0**103, 0.0
)  # the last number that rounds to a finite FP32, not up to infinity
_LIMITS: dict[Datatype, tuple[float, float]] = {
    Datatype.INT32: (-INT32_MAX - 1, INT32_MAX),
    Datatype.FP32: (-FP32_MAX, FP32_MAX),
    Datatype.FP64: (-1.7976931348623157e308, 1.7976931348623157e308),
}
_NUMBERS: dict[Datatype, frozenset[type]] = {
    Datatype.INT32: frozenset({int}),
    Datatype.FP32: frozenset({int, float}),
    Datatype.FP64: frozenset({int, float}),
}
_WANTED = {
    Datatype.FP32: "a 32-bit floating-point number",
    Datatype.FP64: "a 64-bit floating-point number",
    Datatype.INT32: "an integer within -2147483648..2147483647",
    Datatype.STR: "a string",
    Datatype.DICT: "an object",
    Datatype.FILE: "the path of a file, a non-empty string",
}
_JSON_NAMES = {
    bool: "a boolean",
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
}

Check = Callable[[Any], list[Fault]]


def compile_check(signature: Signature) -> Check:
    """A function from a decoded request body to its faults: an empty list when it is right. The check never
    raises.
    """
    inputs = {variable.name: variable for variable in signature.inputs}
    required = [variable.name for variable in signature.inputs if not variable.optional]
    outputs = {variable.name: variable for variable in signature.outputs}

    def check(body: Any) -> list[Fault]:
        if not isinstance(body, dict):
            return [Fault("", f"the body must be an object with inputs, not {json_name(body)}")]
        faults = list(_members(body))
        faults += _inputs(body.get("inputs", []), inputs, required)
        if body.get("output_fields"):
            faults += _output_fields(body["output_fields"], outputs)
        return faults

    return check


def json_name(value: object) -> str:
    """How JSON calls the kind of a value: ``an array``, ``null``."""
    return "null" if value is None else _JSON_NAMES.get(type(value), type(value).__name__)


def fits(datatype: Datatype, value: Any) -> bool:
    """Is this one value (no list) of the datatype?"""
    if datatype.numeric:
        low, high = _LIMITS[datatype]
        return type(value) in _NUMBERS[datatype] and low <= value <= high
    if datatype is Datatype.DICT:
        return isinstance(value, dict)
    return isinstance(value, str) and (datatype is Datatype.STR or value != "")


def escape(token: str) -> str:
    """One reference token of a JSON pointer (RFC 6901)."""
    return token.replace("~", "~0").replace("/", "~1")


def _members(body: dict[str, Any]) -> Iterator[Fault]:
    for name, kind in (("parameters", list), ("output_fields", list), ("model_key", str), ("id", str)):
        value = body.get(name)
        if value is not None and not isinstance(value, kind):
            yield Fault(f"/{name}", f"must be {_JSON_NAMES[kind]}, not {json_name(value)}")


def _inputs(items: Any, variables: dict[str, Variable], required: list[str]) -> list[Fault]:
    if not isinstance(items, list):
        return [Fault("/inputs", f"must be an array of inputs, not {json_name(items)}")]
    faults: list[Fault] = []
    seen: set[str] = set()
    for index, item in enumerate(items):
        variable, fault = _named(item, f"/inputs/{index}", variables, "input")
        if fault or variable is None:
            faults += [fault] if fault else []
            continue
        if variable.name in seen:
            faults.append(Fault(f"/inputs/{index}/name", f"input {variable.name!r} is given twice"))
        seen.add(variable.name)
        faults += _item(item, f"/inputs/{index}", variable)
    if len(seen) < len(variables):
        faults += [Fault("/inputs", f"input {name!r} is missing") for name in required if name not in seen]
    return faults


def _named(
    item: Any, pointer: str, variables: dict[str, Variable], noun: str
) -> tuple[Optional[Variable], Optional[Fault]]:
    if not isinstance(item, dict):
        return None, Fault(pointer, f"must be an object with a name, not {json_name(item)}")
    name = item.get("name")
    if not isinstance(name, str):
        return None, Fault(
            f"{pointer}/name", "is missing" if name is None else f"must be a string, not {json_name(name)}"
        )
    if name not in variables:
        known = f"known are {', '.join(variables)}" if variables else f"this component has no {noun}s"
        return None, Fault(f"{pointer}/name", f"unknown {noun} {name!r}; {known}")
    return variables[name], None


def _output_fields(items: Any, variables: dict[str, Variable]) -> list[Fault]:
    if not isinstance(items, list):
        return []  # told by _members
    faults: list[Fault] = []
    for index, item in enumerate(items):
        variable, fault = _named(item, f"/output_fields/{index}", variables, "output")
        if fault:
            faults.append(fault)
        elif variable and item.get("datatype") is not None:
            faults += _datatype(item, f"/output_fields/{index}", variable)[1]
    return faults


def _datatype(
    item: dict[str, Any], pointer: str, variable: Variable
) -> tuple[Optional[Datatype], list[Fault]]:
    given = item.get("datatype")
    for datatype in variable.datatypes:
        if datatype.value == given:
            return datatype, []
    allowed = " or ".join(datatype.value for datatype in variable.datatypes)
    what = "is missing" if given is None else f"{given!r} is not a datatype of {variable.name!r}"
    return None, [Fault(f"{pointer}/datatype", f"{what}; use {allowed}")]


def _item(item: dict[str, Any], pointer: str, variable: Variable) -> list[Fault]:
    datatype, faults = _datatype(item, pointer, variable)
    if datatype is None:
        return faults
    if "data" not in item:
        return [Fault(f"{pointer}/data", "is missing")]
    data, shape = item["data"], item.get("shape")
    if datatype is Datatype.FILE:
        kind = item.get("content_type")
        faults = (
            []
            if kind is None or isinstance(kind, str)
            else [Fault(f"{pointer}/content_type", "must be a string")]
        )
        return faults + _scalar(data, pointer, datatype)
    if shape is not None:
        return _shaped(data, shape, pointer, datatype)
    if datatype.numeric and isinstance(data, list):
        return _elements(data, pointer, datatype)
    return _scalar(data, pointer, datatype)


def _scalar(data: Any, pointer: str, datatype: Datatype) -> list[Fault]:
    if fits(datatype, data):
        return []
    return [Fault(f"{pointer}/data", f"must be {_WANTED[datatype]}, not {_shown(data)}")]


def _shaped(data: Any, shape: Any, pointer: str, datatype: Datatype) -> list[Fault]:
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size <= INT32_MAX for size in shape):
        return [Fault(f"{pointer}/shape", "must be an array of non-negative integers")]
    if not isinstance(data, list):
        return [Fault(f"{pointer}/data", f"must be a flat array, as a shape is given, not {json_name(data)}")]
    faults = _elements(data, pointer, datatype)
    wanted = math.prod(shape)
    if wanted != len(data) and not faults:
        faults.append(Fault(f"{pointer}/shape", f"{shape} needs {wanted} elements, data has {len(data)}"))
    return faults


def _elements(data: list[Any], pointer: str, datatype: Datatype) -> list[Fault]:
    if not data:
        return []
    if datatype.numeric:
        low, high = _LIMITS[datatype]
        if _NUMBERS[datatype].issuperset(map(type, data)) and low <= min(data) and max(data) <= high:
            return []
    wrong = (index for index, value in enumerate(data) if not fits(datatype, value))
    first = next(wrong, None)
    if first is None:
        return []
    more = sum(1 for _ in wrong)
    nested = "; data is flat, its dimensions go into shape" if isinstance(data[first], list) else ""
    also = f" (and {more} more like it)" if more else ""
    return [
        Fault(
            f"{pointer}/data/{first}", f"must be {_WANTED[datatype]}, not {_shown(data[first])}{nested}{also}"
        )
    ]


def _shown(value: Any) -> str:
    if type(value) in (int, float):
        return _brief(value)
    return json_name(value)


def _brief(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        return "a number of thousands of digits"
    if text in ("inf", "-inf"):
        return "a number too large for 64 bits"
    return text if len(text) <= 40 else f"a number of {len(text)} digits"
