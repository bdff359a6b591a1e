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
from typing import Any, Optional

from .datatypes import NUMBERS, WANTED, Datatype, Numbers, fits, whole
from .fault_texts import MAX_FAULTS, json_name, quoted, shown
from .problems import RequestFault
from .shapes import shape_faults, size_faults
from .signature import Signature, Variable
from .tensors import BinaryTensor
from .texts import Text

_MEMBERS = {
    "parameters": Text("an array"),
    "output_fields": Text("an array"),
    "model_key": Text("a string"),
    "id": Text("a string"),
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
            return [
                RequestFault(
                    "", Text("the body must be an object with inputs, not {body}", body=json_name(body))
                )
            ]
        faults = list(_members(body))
        faults += _inputs(body.get("inputs", []), inputs, required)
        if body.get("output_fields"):
            faults += _output_fields(body["output_fields"], outputs)
        return faults[:MAX_FAULTS]

    return check


def _members(body: dict[str, Any]) -> Iterator[RequestFault]:
    for name, kind in _MEMBERS.items():
        value = body.get(name)
        if value is not None and json_name(value) != kind:
            yield RequestFault(
                f"/{name}", Text("must be {kind}, not {value}", kind=kind, value=json_name(value))
            )


def _inputs(items: Any, variables: dict[str, Variable], required: list[str]) -> list[RequestFault]:
    if not isinstance(items, list):
        return [
            RequestFault("/inputs", Text("must be an array of inputs, not {items}", items=json_name(items)))
        ]
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
            faults.append(
                RequestFault(
                    f"/inputs/{index}/name", Text("input {variable!r} is given twice", variable=variable.name)
                )
            )
        seen.add(variable.name)
        faults += _item(item, f"/inputs/{index}", variable)
    if len(seen) < len(variables):
        faults += [
            RequestFault("/inputs", Text("input {name!r} is missing", name=name))
            for name in required
            if name not in seen
        ]
    return faults


def _named(
    item: Any, pointer: str, variables: dict[str, Variable], noun: str
) -> tuple[Optional[Variable], Optional[RequestFault]]:
    if not isinstance(item, dict):
        return None, RequestFault(
            pointer, Text("must be an object with a name, not {item}", item=json_name(item))
        )
    name = item.get("name")
    if not isinstance(name, str):
        return None, RequestFault(
            f"{pointer}/name",
            Text("is missing")
            if name is None
            else Text("must be a string, not {name}", name=json_name(name)),
        )
    if name not in variables:
        known = (
            Text("known are {names}", names=", ".join(variables))
            if variables
            else Text("this component has no {noun}s", noun=noun)
        )
        return None, RequestFault(
            f"{pointer}/name",
            Text("unknown {noun} {name}; {known}", noun=noun, name=quoted(name), known=known),
        )
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
    what = (
        Text("is missing")
        if given is None
        else Text("{text} is not a datatype of {variable!r}", text=text, variable=variable.name)
    )
    return None, [
        RequestFault(f"{pointer}/datatype", Text("{what}; use {allowed}", what=what, allowed=allowed))
    ]


def _item(item: dict[str, Any], pointer: str, variable: Variable) -> list[RequestFault]:
    datatype, faults = _datatype(item, pointer, variable)
    if datatype is None:
        return faults
    if "data" not in item:
        return [RequestFault(f"{pointer}/data", Text("is missing"))]
    form = variable.form(datatype)
    faults = _data(item, pointer, datatype, form is not None and form.rank != 0)
    return faults if faults or form is None else form.faults(item, pointer)


def _data(item: dict[str, Any], pointer: str, datatype: Datatype, listed: bool) -> list[RequestFault]:
    """Are the data of the datatype? ``listed``: they may be a list without a shape."""
    data, shape = item["data"], item.get("shape")
    if type(data) is BinaryTensor:
        wrong = _bytes(data, pointer, datatype)
        if wrong or shape is None:
            return wrong
        return shape_faults(shape, pointer) or size_faults(shape, data.size, pointer)
    if datatype is Datatype.FILE:
        kind = item.get("content_type")
        faults = (
            []
            if kind is None or isinstance(kind, str)
            else [RequestFault(f"{pointer}/content_type", Text("must be a string"))]
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
    return [
        RequestFault(
            f"{pointer}/data", Text("must be {wanted}, not {data}", wanted=WANTED[datatype], data=shown(data))
        )
    ]


def _shaped(data: Any, shape: Any, pointer: str, datatype: Datatype) -> list[RequestFault]:
    faults = shape_faults(shape, pointer)
    if faults:
        return faults
    if not isinstance(data, list):
        return [
            RequestFault(
                f"{pointer}/data",
                Text("must be a flat array, as a shape is given, not {data}", data=json_name(data)),
            )
        ]
    return element_faults(data, pointer, datatype) or size_faults(shape, len(data), pointer)


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
    nested = Text("; data is flat, its dimensions go into shape") if isinstance(data[first], list) else ""
    also = Text(" (and {more} more like it)", more=more) if more else ""
    return [
        RequestFault(
            f"{pointer}/data/{first}",
            Text(
                "must be {wanted}, not {data}{nested}{also}",
                wanted=wanted,
                data=shown(data[first]),
                nested=nested,
                also=also,
            ),
        )
    ]
