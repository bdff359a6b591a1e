"""The function's result -> the ``outputs`` of the reply, as JSON bytes.

A result is a list of outputs, ``{"outputs": [...]}``, or a plain mapping name -> value that the docstring
gives types to. numpy's scalars and arrays are understood if the developer's code has imported numpy. NaN and
infinities become null. What JSON cannot carry is a BadOutput that names the output. Where a result departs
from the docstring but can be answered, it is answered, and the developer's log says so once.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from typing import Any, Optional

from . import log
from .docstring import Datatype, Signature, Variable
from .files import Files
from .validate import fits, json_name


class BadOutput(Exception):
    """Why a result cannot be answered, with the name of the output."""


class Outputs:
    """Makes replies of results, for one signature."""

    def __init__(self, signature: Signature) -> None:
        self._variables = {variable.name: variable for variable in signature.outputs}
        self._told: set[str] = set()

    def collect(
        self, result: Any, wanted: list[dict[str, Any]], files: Files, call_id: str
    ) -> list[dict[str, Any]]:
        """The reply's outputs, limited to the ``wanted`` output fields if there are any. Raises BadOutput."""
        types = {field["name"]: field.get("datatype") for field in wanted}
        if isinstance(result, Mapping) and isinstance(result.get("outputs"), (list, tuple)):
            result = result["outputs"]
        if isinstance(result, Mapping):
            outputs = [
                self._typed(name, value, types)
                for name, value in result.items()
                if not types or name in types
            ]
        elif isinstance(result, (list, tuple)):
            outputs = [self._given(item, index) for index, item in enumerate(result)]
        else:
            kind = "nothing" if result is None else f"a value of type {type(result).__name__}"
            raise BadOutput(
                f"the function returned {kind}, not a list of outputs or a mapping of names to values"
            )
        if types:
            outputs = [output for output in outputs if output["name"] in types]
        self._compare(outputs, types)
        return [_stored(output, index, files, call_id) for index, output in enumerate(outputs)]

    def _given(self, item: Any, index: int) -> dict[str, Any]:
        """An output that the function wrote out itself, arrays flattened."""
        if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
            raise BadOutput(f"output {index} is not a mapping with a name")
        name = item["name"]
        if "data" not in item:
            raise BadOutput(f"output {name!r} has no data")
        output = dict(item)
        if output.get("datatype") is None:
            output["datatype"] = self._datatype(name, item["data"], None).value
        if _is_array(output["data"]):
            shape, output["data"] = _flat_array(output["data"])
            output.setdefault("shape", shape)
        return output

    def _typed(self, name: Any, value: Any, types: dict[str, Optional[str]]) -> dict[str, Any]:
        """An output from a mapping's value: numbers as a flat list with their shape."""
        datatype = self._datatype(name, value, types.get(name))
        if not datatype.numeric:
            if isinstance(value, os.PathLike):
                value = os.fspath(value)
            return {"name": name, "datatype": datatype.value, "data": value}
        if _is_array(value):
            shape, flat = _flat_array(value)
        else:
            shape, flat = _flat_list(value, str(name))
        if datatype is not Datatype.INT32 and flat and isinstance(flat[0], bool):
            flat = [float(number) for number in flat]
        return {"name": name, "datatype": datatype.value, "shape": shape, "data": flat}

    def _datatype(self, name: Any, value: Any, asked: Optional[str]) -> Datatype:
        variable = self._variables.get(name)
        if variable is None:
            known = ", ".join(self._variables) or "none"
            raise BadOutput(
                f"output {name!r} is not in the docstring, so its datatype is not known; described are: {known}"
            )
        if asked is not None:
            return Datatype(asked)
        if len(variable.datatypes) == 1:
            return variable.datatypes[0]
        return _best(variable, value)

    def _compare(self, outputs: list[dict[str, Any]], types: dict[str, Optional[str]]) -> None:
        """Tell the developer, once, of outputs that are not described, and of described ones that do not
        come.
        """
        names = {output["name"] for output in outputs}
        if names == self._variables.keys():
            return
        for name in names - self._variables.keys():
            self._tell_once(f"the function returns output {name!r}, which its docstring does not describe")
        for name, variable in self._variables.items():
            if name not in names and not variable.optional and (not types or name in types):
                self._tell_once(
                    f"the function does not return output {name!r}, which its docstring describes"
                )

    def _tell_once(self, message: str) -> None:
        if message not in self._told and len(self._told) < 100:
            self._told.add(message)
            log.tell(message)


def _stored(output: dict[str, Any], index: int, files: Files, call_id: str) -> dict[str, Any]:
    """A FILE output's local path replaced by its key."""
    if output["datatype"] != "FILE":
        return output
    name, path = output["name"], output["data"]
    if not isinstance(path, (str, os.PathLike)):
        raise BadOutput(f"output {name!r} is a FILE, its data must be a local path, not {json_name(path)}")
    try:
        return {**output, "data": files.store(os.fspath(path), index, name, call_id)}
    except (ValueError, OSError) as error:
        raise BadOutput(f"output {name!r}: {error}") from error


def _best(variable: Variable, value: Any) -> Datatype:
    """The datatype of several that the value is of: whole numbers are INT32 where that is one of them."""
    if _is_array(value):
        whole, sample = value.dtype.kind in "iu", (value.item(0) if value.size else 0.0)
    else:
        flat = _flat_list(value, variable.name)[1] or [0.0]
        whole, sample = all(fits(Datatype.INT32, element) for element in flat), flat[0]
    ordered = sorted(variable.datatypes, key=lambda datatype: (datatype is Datatype.INT32) != whole)
    return next((datatype for datatype in ordered if isinstance(sample, _PYTHON_TYPES[datatype])), ordered[0])


_PYTHON_TYPES: dict[Datatype, tuple[type, ...]] = {
    Datatype.FP32: (int, float),
    Datatype.FP64: (int, float),
    Datatype.INT32: (int,),
    Datatype.STR: (str,),
    Datatype.DICT: (dict,),
    Datatype.FILE: (str, os.PathLike),
}


def _is_array(value: Any) -> bool:
    """Is it an array or scalar of numpy, or a tensor that turns into one? False where numpy was never
    imported.
    """
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic))


def _flat_array(array: Any) -> tuple[list[int], list[Any]]:
    """Shape and flat list of an array; a scalar becomes one element."""
    shape = [int(size) for size in array.shape] or [1]
    return shape, array.reshape(-1).tolist()


def _flat_list(value: Any, name: str) -> tuple[list[int], list[Any]]:
    """Shape and flat list of a number or of nested lists of equal lengths."""
    if not isinstance(value, (list, tuple)):
        return [1], [value]
    shape, flat = [len(value)], list(value)
    while flat and isinstance(flat[0], (list, tuple)):
        size = len(flat[0])
        if not all(isinstance(row, (list, tuple)) and len(row) == size for row in flat):
            raise BadOutput(f"output {name!r} is a list of lists of different lengths, which has no shape")
        shape, flat = [*shape, size], [element for row in flat for element in row]
    return shape, flat


def _default(value: Any) -> Any:
    """What JSON does not know: numpy's numbers and arrays, also deep inside a dict."""
    if _is_array(value):
        return value.tolist()
    raise TypeError(f"a value of type {type(value).__name__} is not JSON")


_encoder = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_default)


def encode(reply: dict[str, Any]) -> bytes:
    """A reply as JSON. Raises BadOutput."""
    try:
        return _encoder.encode(reply).encode()
    except UnicodeEncodeError:
        return json.dumps(
            _finite(reply), default=_default
        ).encode()  # lone surrogates: JSON can escape them, UTF-8 cannot
    except (ValueError, TypeError, RecursionError):
        return _encode_slowly(reply)


def _encode_slowly(reply: dict[str, Any]) -> bytes:
    """With NaN and infinities as null; if it fails still, say which output is to blame."""
    outputs = []
    for output in reply.get("outputs", ()):
        try:
            output = _finite(output)
            json.dumps(output, allow_nan=False, default=_default)
        except (ValueError, TypeError, RecursionError) as error:
            raise BadOutput(f"output {output.get('name')!r} cannot be written as JSON: {error}") from error
        outputs.append(output)
    return json.dumps({**reply, "outputs": outputs}, default=_default).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {_key(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return _finite(value.tolist()) if _is_array(value) else value


def _key(key: Any) -> Any:
    return str(key) if isinstance(key, float) else key
