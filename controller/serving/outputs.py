"""The function's result -> the outputs of the reply, the same for both protocols.

A result is a list of outputs, ``{"outputs": [...]}``, or a plain mapping name -> value that the docstring
gives types to. Whichever it is, each output becomes one form: numbers and lists have a ``shape`` and flat ``data``,
a str, dict or FILE is one value. Every value is of its datatype, or the result is a BadOutput that names the output
and the value; NaN and infinities become null. Where a result departs from the docstring but can be answered, it is
answered, and the developer's log says so once.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Optional

from . import extent, jsontext, log, number_lists
from .arrays import array_of, plain
from .datatypes import NUMBERS, WANTED, Datatype, Numbers
from .fault_texts import json_name, shown
from .files import Files
from .http1 import HttpResponse, Piece
from .shapes import flatten, sizes
from .signature import ResultForm, Signature
from .streams import FILE_IS_YIELDED
from .tensors import NUMERIC
from .texts import Text
from .values import Misfit


class BadOutput(Exception):
    """Why a result cannot be answered, with the name of the output."""


class OutputEncoder:
    """Makes replies of results, for one signature."""

    def __init__(self, signature: Signature) -> None:
        self._variables = {variable.name: variable for variable in signature.outputs}
        self._result = signature.result
        self._told: set[str] = set()

    def collect(
        self, result: Any, wanted: list[dict[str, Any]], files: Files, call_id: str, whole: bool = True
    ) -> list[dict[str, Any]]:
        """The reply's outputs, limited to the ``wanted`` output fields if there are any. ``whole``: every described
        one is expected. Raises BadOutput."""
        fields = {field["name"]: field.get("datatype") for field in wanted}
        collected = isinstance(result, CollectedOutputs)
        outputs = [
            self._output(given, fields.get(given["name"]), hinted=not collected)
            for given in (result.outputs() if collected else self.listed(result))
            if not fields or given["name"] in fields
        ]
        if whole:
            self._compare(outputs, fields)
        return [_stored(output, index, files, call_id) for index, output in enumerate(outputs)]

    def _is_optional(self, name: Any) -> bool:
        """May it be left out, as None says?"""
        variable = self._variables.get(name)
        return variable is not None and variable.optional

    def listed(self, result: Any) -> Iterator[Mapping[str, Any]]:
        """Every output with its name and data, as the function gave it, without the optional ones that are None.
        Raises BadOutput."""
        names = set()
        for given in _listed(self._named(result)):
            if given["name"] in names:
                raise BadOutput(Text("output {given!r} is given twice", given=given["name"]))
            names.add(given["name"])
            if given["data"] is not None or not self._is_optional(given["name"]):
                yield self._prepared(given)

    def _named(self, result: Any) -> Any:
        """A result whose hint says how it gives the outputs, as a mapping of names to values. Raises BadOutput."""
        if self._result is ResultForm.SINGLE:
            return [{"name": name, "data": result} for name in self._variables]
        if self._result is ResultForm.LISTED or isinstance(result, list):
            return result
        if isinstance(result, Mapping):
            named = "outputs" in self._variables  # else it may be a list of outputs
            return [{"name": name, "data": data} for name, data in result.items()] if named else result
        members = {name: getattr(result, name) for name in self._variables if hasattr(result, name)}
        return members or result  # of which it is said that it has no outputs

    def _prepared(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """An output in types that are encoded, as far as hints have others. Raises BadOutput."""
        variable = self._variables.get(given["name"])
        if variable is None or not variable.forms:
            return given
        data, failure = given["data"], ""
        try:
            if any(form.value is not None for form in variable.forms):  # each value is looked at
                extent.check(data)
            for form in dict.fromkeys(variable.forms):
                try:
                    return {**given, "data": form.given(data)}
                except Misfit as misfit:
                    failure = failure or str(misfit)
        except ValueError as error:
            failure = str(error)
        raise BadOutput(Text("output {given!r} {failure}", given=given["name"], failure=failure))

    def yielded(self, item: Any) -> Iterator[Mapping[str, Any]]:
        """The same of an item that was yielded and is to be collected, which cannot be a file. What hints say holds of
        each item, and not of the list of all."""
        for given in self.listed(item):
            if self._datatypes(given["name"], given.get("datatype"), None) == (Datatype.FILE,):
                raise BadOutput(
                    Text(
                        "output {given!r}: {file_is_yielded}",
                        given=given["name"],
                        file_is_yielded=FILE_IS_YIELDED,
                    )
                )
            variable = self._variables.get(given["name"])
            if variable is not None and variable.forms:
                self._output(given, None)
            yield given

    def _output(self, given: Mapping[str, Any], asked: Any, hinted: bool = True) -> dict[str, Any]:
        name = given["name"]
        datatypes = self._datatypes(name, given.get("datatype"), asked)
        failure = ""
        try:
            data = _read(given["data"])
            exact = self._kept(name, data)
            for datatype in datatypes if len(datatypes) == 1 else _by_fit(datatypes, data, asked, exact):
                try:
                    output = _formed(given, data, datatype)
                except _Misfit as misfit:
                    failure = failure or str(misfit)
                    continue
                wrong = self._hint_misfit(output, datatype) if hinted else ""
                if not wrong:
                    return output
                failure = failure or wrong
        except ValueError as error:
            failure = str(error)
        raise BadOutput(Text("output {name!r} {failure}", name=name, failure=failure))

    def _kept(self, name: Any, data: _Data) -> Optional[Datatype]:
        """The datatype of an array whose hint leaves the type of its numbers to it."""
        variable = self._variables.get(name)
        array = variable is not None and any(form.array for form in variable.forms)
        return _OF_ARRAYS.get(data.held) if array else None

    def _hint_misfit(self, output: dict[str, Any], datatype: Datatype) -> str:
        variable = self._variables.get(output["name"])
        if variable is None or datatype not in variable.datatypes:
            return ""
        form = variable.form(datatype)
        return "" if form is None else form.misfit(output)

    def _datatypes(self, name: Any, stated: Any, asked: Any) -> tuple[Datatype, ...]:
        """Return which it may be of. What the function states goes before the docstring, but for numbers: callers
        rely on the description, and lose nothing if the value fits."""
        variable = self._variables.get(name)
        described = () if variable is None else variable.datatypes
        if stated is None:
            if not described:
                known = ", ".join(self._variables) or "none"
                raise BadOutput(
                    Text(
                        "output {name!r} is not in the docstring, so its datatype is not known; described are: {known}",
                        name=name,
                        known=known,
                    )
                )
            return described
        try:
            datatype = Datatype(stated)
        except ValueError:
            known = ", ".join(datatype.value for datatype in Datatype)
            raise BadOutput(
                Text(
                    "output {name!r} has the datatype {stated!r}; there are {known}",
                    name=name,
                    stated=stated,
                    known=known,
                )
            ) from None
        if described and datatype not in described:
            words = " or ".join(datatype.value for datatype in described)
            self._log_once(
                Text(
                    "the function returns output {name!r} as {datatype}, its docstring says {words}",
                    name=name,
                    datatype=datatype.value,
                    words=words,
                )
            )
            numeric = tuple(datatype for datatype in described if datatype.numeric)
            if datatype.numeric and numeric:
                return numeric
        return (datatype,)

    def _compare(self, outputs: list[dict[str, Any]], fields: dict[str, Any]) -> None:
        """Tell the developer, once, of outputs that are not described, and of described ones that do not
        come.
        """
        names = {output["name"] for output in outputs}
        if names == self._variables.keys():
            return
        for name in names - self._variables.keys():
            self._log_once(f"the function returns output {name!r}, which its docstring does not describe")
        for name, variable in self._variables.items():
            if name not in names and not variable.optional and (not fields or name in fields):
                self._log_once(f"the function does not return output {name!r}, which its docstring describes")

    def _log_once(self, message: str) -> None:
        if message not in self._told and len(self._told) < 100:
            self._told.add(message)
            log.write_line(message)


def _listed(result: Any) -> Iterator[Mapping[str, Any]]:
    """Every output with its name and data, as the function gave it. Raises BadOutput."""
    if isinstance(result, Mapping) and isinstance(result.get("outputs"), (list, tuple)):
        result = result["outputs"]
    if isinstance(result, Mapping):
        for name, value in result.items():
            yield {"name": name, "data": value}
    elif isinstance(result, (list, tuple)):
        for index, item in enumerate(result):
            if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
                raise BadOutput(Text("output {index} is not a mapping with a name", index=index))
            if "data" not in item:
                raise BadOutput(Text("output {item!r} has no data", item=item["name"]))
            yield item
    else:
        kind = "nothing" if result is None else Text("a value of type {name}", name=type(result).__name__)
        raise BadOutput(
            Text(
                "the function returned {kind}, not a list of outputs or a mapping of names to values",
                kind=kind,
            )
        )


class CollectedOutputs:
    """What a function yields, item after item, as one result: each output is a list of its values."""

    def __init__(self) -> None:
        self._outputs: dict[str, dict[str, Any]] = {}

    def add(self, given: Mapping[str, Any]) -> None:
        """Take one output of one item."""
        known = self._outputs.setdefault(given["name"], {**given, "data": []})
        known.pop("shape", None)  # which is that of one item
        known["data"].append(given["data"])

    def outputs(self) -> list[dict[str, Any]]:
        return list(self._outputs.values())


class _Misfit(ValueError):
    """Why data are not of a datatype, as the rest of a sentence about the output."""


class _Data(NamedTuple):
    """The value that the function returned for one output. ``shape`` is None for a single value; ``elements`` are a
    flat array of numpy if ``held`` is numpy's kind and size of them, else a list; ``magnitude``: of floats, if they are
    many and there is nothing else in the list."""

    shape: Optional[list[int]]
    elements: Any
    held: str = ""
    magnitude: Optional[int] = None

    def listed(self) -> _Data:
        """Return it with a list."""
        return _Data(self.shape, self.elements.tolist()) if self.held else self


_JSON = (str, int, float, bool, dict, list, type(None))
_SINGLE = frozenset(_JSON) - {list}


def _read(value: Any) -> _Data:
    """Raises ValueError."""
    if type(value) in _SINGLE:
        return _Data(None, [value])
    if isinstance(value, (list, tuple)):
        magnitude = number_lists.magnitude(value) if type(value) is list else None
        if magnitude is not None:
            return _Data([len(value)], value, magnitude=magnitude)
        return _Data(*flatten(value, plain))
    array = array_of(value)
    if array is None:
        value = plain(value)
        return _Data(*flatten(value, plain)) if isinstance(value, list) else _Data(None, [value])
    if not array.shape:
        return _Data(None, [array.item()])
    if array.dtype.kind == "O":
        return _Data(*flatten(array.tolist(), plain))
    shape, flat = [int(size) for size in array.shape], array.reshape(-1)
    if array.dtype.kind not in "biuf" or hasattr(array, "mask"):
        return _Data(shape, flat.tolist())
    return _Data(shape, flat, f"{array.dtype.kind}{array.dtype.itemsize}")


def _by_fit(
    datatypes: tuple[Datatype, ...], data: _Data, asked: Any, exact: Optional[Datatype] = None
) -> list[Datatype]:
    """Return the datatypes in the order to try: the requested one first, then the exact one, then those of integers for
    whole numbers, which come last for other numbers."""
    if data.held:
        whole = data.held[0] in "biu" and len(data.elements) > 0
    else:
        whole = (
            data.magnitude is None
            and bool(data.elements)
            and {int, bool}.issuperset(map(type, data.elements))
        )

    def order(datatype: Datatype) -> tuple[bool, bool, bool]:
        return datatype.value != asked, datatype is not exact, datatype.whole != whole

    return sorted(datatypes, key=order)


def _formed(given: Mapping[str, Any], data: _Data, datatype: Datatype) -> dict[str, Any]:
    """Encode one output in a datatype. Raises _Misfit."""
    if not datatype.numeric or data.held not in _HELD[datatype]:
        data = data.listed()
    if datatype.numeric:
        elements = _numbers(data, datatype)
    elif datatype is Datatype.FILE:
        return {**given, "datatype": datatype.value, "data": _path(given, data)}
    else:
        make = _text if datatype is Datatype.STR else _object
        extent.check(data.elements)
        elements = [make(data, index) for index in range(len(data.elements))]
        if data.shape is None:
            return {**given, "datatype": datatype.value, "data": elements[0]}
    return {
        **given,
        "datatype": datatype.value,
        "shape": _shape(given.get("shape"), data),
        "data": elements,
    }


def _shape(stated: Any, data: _Data) -> list[int]:
    if stated is None:
        return [1] if data.shape is None else data.shape
    shape = sizes(stated)
    if shape is None or math.prod(shape) != len(data.elements):
        raise _Misfit(Text("states a shape that its {count} elements do not have", count=len(data.elements)))
    return shape


#: The datatypes that arrays of these kinds of numpy are of.
_OF_ARRAYS = {
    "b1": Datatype.BOOL,
    **{f"i{size}": Datatype(f"INT{8 * size}") for size in (1, 2, 4, 8)},
    **{f"u{size}": Datatype(f"UINT{8 * size}") for size in (1, 2, 4, 8)},
    **{f"f{size}": Datatype(f"FP{8 * size}") for size in (2, 4, 8)},
}
_INTEGERS = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
#: Arrays of these kinds of numpy hold nothing that is not of the datatype.
_HELD = {
    Datatype.BOOL: frozenset({"b1"}),
    Datatype.INT8: frozenset({"i1"}),
    Datatype.INT16: frozenset({"i1", "i2", "u1"}),
    Datatype.INT32: frozenset({"i1", "i2", "i4", "u1", "u2"}),
    Datatype.INT64: frozenset({"i1", "i2", "i4", "i8", "u1", "u2", "u4"}),
    Datatype.UINT8: frozenset({"u1"}),
    Datatype.UINT16: frozenset({"u1", "u2"}),
    Datatype.UINT32: frozenset({"u1", "u2", "u4"}),
    Datatype.UINT64: frozenset({"u1", "u2", "u4", "u8"}),
    Datatype.FP16: frozenset({"f2", "i1", "i2", "u1"}),
    Datatype.BF16: frozenset({"f2", *_INTEGERS}),
    Datatype.FP32: frozenset({"f2", "f4", *_INTEGERS}),
    Datatype.FP64: frozenset({"f2", "f4", "f8", *_INTEGERS}),
}


def _numbers(data: _Data, datatype: Datatype) -> Any:
    """Return the elements as numbers of the datatype, NaN and infinities among those of floating point: what cannot
    carry them writes null."""
    if data.held or _hold(data, NUMBERS[datatype]):
        return data.elements
    return [_number(data, index, datatype) for index in range(len(data.elements))]


def _hold(data: _Data, numbers: Numbers) -> bool:
    """Are all elements such numbers? NaN and infinities, too, if there are only floats of 64 bits."""
    if data.magnitude is None:
        return numbers.hold(data.elements)
    if numbers.hold_at_once(data.elements, data.magnitude):
        return True
    return numbers is NUMBERS[Datatype.FP64] or numbers.hold(data.elements)


def _number(data: _Data, index: int, datatype: Datatype) -> Any:
    """Return one element as a number of the datatype; None for what is missing, and for NaN where there is none."""
    value = data.elements[index]
    if value is None:
        return None
    number = _as_number(value)
    if isinstance(number, float):
        if not math.isfinite(number):
            return number if float in NUMBERS[datatype].types else None
        if datatype.whole and number.is_integer():
            number = int(number)
    elif datatype is Datatype.BOOL:
        number = bool(number) if number in (0, 1) else None
    elif isinstance(value, bool) and not datatype.whole:
        number = float(value)
    if number is None or not NUMBERS[datatype].holds(number):
        raise _misfit(data, index, datatype)
    return number


def _as_number(value: Any) -> Any:
    """Return any value that Python accepts as a number as int or float; None for other values."""
    try:
        return int(operator.index(value))
    except TypeError:
        pass
    if not hasattr(value, "__float__"):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _text(data: _Data, index: int) -> str:
    value = data.elements[index]
    if type(value) is str:
        return value
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise _misfit(data, index, Datatype.STR)
    return str.__str__(value)


def _object(data: _Data, index: int) -> dict[Any, Any]:
    value = data.elements[index]
    if not isinstance(value, Mapping):
        raise _misfit(data, index, Datatype.DICT)
    return value if type(value) is dict else dict(value)


def _path(given: Mapping[str, Any], data: _Data) -> str:
    value = data.elements[0] if data.shape is None else []
    if not isinstance(value, (str, os.PathLike)):
        raise _Misfit(Text("is a FILE, its data must be a local path, not {value}", value=shown(value)))
    if not isinstance(given.get("content_type", ""), (str, type(None))):
        raise _Misfit(Text("is a FILE, its content_type must be a string"))
    return os.fsdecode(value)


def _misfit(data: _Data, index: int, datatype: Datatype) -> _Misfit:
    value = data.elements[index]
    where = "it" if data.shape is None else Text("element {index}", index=index)
    if not isinstance(value, _JSON):
        of = "" if data.shape is None else f" ({where})"
        return _Misfit(
            Text("cannot be written as JSON: {value} is not JSON{of}", value=json_name(value), of=of)
        )
    return _Misfit(
        Text(
            "cannot be written as {datatype}: {where} is {value}, not {wanted}",
            datatype=datatype.value,
            where=where,
            value=shown(value),
            wanted=WANTED[datatype],
        )
    )


def _stored(output: dict[str, Any], index: int, files: Files, call_id: str) -> dict[str, Any]:
    """A FILE output's local path replaced by its key."""
    if output["datatype"] != "FILE":
        return output
    name = output["name"]
    try:
        return {**output, "data": files.store(output["data"], index, name, call_id)}
    except (ValueError, OSError) as error:
        raise BadOutput(Text("output {name!r}: {error}", name=name, error=error)) from error


def respond(reply: dict[str, Any]) -> HttpResponse:
    """A reply, whose last member is its outputs, as JSON. Raises BadOutput."""
    first, *more = _pieces(reply)
    return HttpResponse(200, bytes(first), more=more)


def encode(reply: dict[str, Any]) -> bytes:
    """Like ``respond``, in one piece."""
    return b"".join(_pieces(reply))


def _pieces(reply: dict[str, Any]) -> list[Piece]:
    """The JSON of many numbers is a piece of its own, since to join it would copy it."""
    if any(_has_many_numbers(output) for output in reply["outputs"]):
        head = jsontext.encode({**reply, "outputs": []})
        pieces: list[Piece] = [head[:-2]]
        for output in reply["outputs"]:
            pieces += [*_encode_output(output), b","]
        pieces[-1] = b"]}"
        return pieces
    try:
        return [jsontext.encode(reply)]
    except (ValueError, TypeError):
        for output in reply["outputs"]:
            encode_part(output, output["name"])
        raise


def _has_many_numbers(output: dict[str, Any]) -> bool:
    return output["datatype"] in NUMERIC and len(output.get("data", ())) >= jsontext.LARGE


def _encode_output(output: dict[str, Any]) -> list[Piece]:
    """Encode one output; its numbers apart, if they are many, and behind all else."""
    if not _has_many_numbers(output):
        return [encode_part(output, output["name"])]
    rest = encode_part({key: value for key, value in output.items() if key != "data"}, output["name"])
    return [rest[:-1], b',"data":', *jsontext.encode_in_pieces(output["data"]), b"}"]


def encode_part(value: Any, name: str) -> bytes:
    """A part of an output as JSON. Raises BadOutput."""
    try:
        return jsontext.encode(value)
    except (ValueError, TypeError) as error:
        raise BadOutput(
            Text("output {name!r} cannot be written as JSON: {error}", name=name, error=error)
        ) from error
