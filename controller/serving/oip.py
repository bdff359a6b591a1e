"""The Open Inference Protocol v2 over JSON, for its existing clients: translated to and from the platform's
own request.

Tensors of every numeric type are accepted if their values fit the datatypes of the docstring; BYTES stands
for str and dict (as JSON text). FILE is a separate datatype with its path as data, so that the platform knows
that it has to transfer a file. With files from a local folder, BYTES works for it, too. Nested tensor data
are accepted and flattened. The binary tensor extension is not offered."""

from __future__ import annotations

from typing import Any, Optional

from . import jsontext, problems
from .docstring import Datatype, Signature, Variable
from .http1 import HttpRequest, HttpResponse
from .outputs import encode, encode_part
from .predict import PredictCaller, Predictor, decode
from .problems import RequestFault, ServingProblem
from .shapes import Shapeless, flatten
from .validate import (
    FP32_MAX,
    MAX_FAULTS,
    NUMBERS,
    Numbers,
    floats,
    integers,
    number_faults,
    quoted,
    shape_faults,
    size_faults,
)

#: Other content types that the protocol's clients use for JSON.
JSON_TYPES = (b"", b"application/octet-stream")
_INTEGERS = {
    "BOOL": Numbers(frozenset({int}), 0, 1, "true or false"),
    **{f"INT{bits}": integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": integers(0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}
_FLOATS = {
    "FP16": floats(16, 65519.0),  # from 65520 on it is rounded to infinity
    "BF16": floats(16, FP32_MAX),
    "FP32": NUMBERS[Datatype.FP32],
    "FP64": NUMBERS[Datatype.FP64],
}
_TENSORS = {**_INTEGERS, **_FLOATS}
_TEXTS = (Datatype.STR, Datatype.DICT, Datatype.FILE)


class OpenInference:
    """Serves one component as a model of the protocol, with the component's name."""

    def __init__(self, name: str, signature: Signature, predictor: Predictor) -> None:
        self._name = name
        self._signature = signature
        self._inputs = {variable.name: variable for variable in signature.inputs}
        self._predictor = predictor

    def metadata(self) -> dict[str, Any]:
        """GET /v2/models/<name>."""
        return {
            "name": self._name,
            "versions": [],
            "platform": "prichal",
            "inputs": [_tensor_metadata(variable) for variable in self._signature.inputs],
            "outputs": [_tensor_metadata(variable) for variable in self._signature.outputs],
        }

    def infer(self, request: HttpRequest, caller: PredictCaller) -> HttpResponse:
        """POST /v2/models/<name>/infer. Raises ServingProblem, Abandoned, Disconnected."""
        return self._predictor.answer(request, self._read, self._predictor.check, self._write, caller)

    def _read(self, request: HttpRequest) -> Any:
        if b"inference-header-content-length" in request.headers:
            raise ServingProblem(
                problems.MEDIA_TYPE, "the binary tensor extension is not offered; send tensors as JSON"
            )
        body = decode(request, JSON_TYPES)
        if not isinstance(body, dict) or not isinstance(body.get("inputs"), list):
            return body  # the check tells what is wrong
        faults: list[RequestFault] = []
        translated: dict[str, Any] = {
            "inputs": [
                self._input(item, f"/inputs/{index}", faults) for index, item in enumerate(body["inputs"])
            ]
        }
        if faults:
            raise problems.invalid(faults[:MAX_FAULTS])
        if isinstance(body.get("parameters"), dict):
            translated["parameters"] = [
                {"name": key, "data": value} for key, value in body["parameters"].items()
            ]
        if isinstance(body.get("outputs"), list):
            translated["output_fields"] = [
                {"name": item["name"]} if isinstance(item, dict) and "name" in item else item
                for item in body["outputs"]
            ]
        if "id" in body:
            translated["id"] = body["id"]
        return translated

    def _input(self, item: Any, pointer: str, faults: list[RequestFault]) -> Any:
        """Translate a tensor into an input of ours; anything else is reported by the check, or added to ``faults``."""
        name = item.get("name") if isinstance(item, dict) else None
        variable = self._inputs.get(name) if isinstance(name, str) else None
        if variable is None or not isinstance(item.get("data"), list):
            return item
        try:
            shape, data = flatten(item["data"])
        except Shapeless as error:
            faults.append(RequestFault(f"{pointer}/data", str(error)))
            return item
        nested = {"shape": shape} if len(shape) > 1 else {}  # what the tensor says of it goes before
        item = {**nested, **item, "data": data}
        sent = item.get("datatype")
        if sent == "BYTES":
            return _texts(item, pointer, variable, faults)
        if sent == "FILE" and len(data) == 1:
            return {**item, "data": data[0]}
        datatype = _numeric(sent, variable)
        if datatype is not None:
            return _numbers(item, pointer, datatype, faults)
        if isinstance(sent, str) and all(known.value != sent for known in variable.datatypes):
            faults.append(_wrong_type(sent, pointer, variable))
        return item

    def _write(self, reply: dict[str, Any]) -> bytes:
        outputs = [_tensor(output) for output in reply["outputs"]]
        return encode({"model_name": self._name, **reply, "outputs": outputs})


def _numeric(sent: Any, variable: Variable) -> Optional[Datatype]:
    """The datatype of the variable for which a tensor of another type is taken; None if it is not translated."""
    if not isinstance(sent, str) or sent not in _TENSORS:
        return None
    if any(datatype.value == sent for datatype in variable.datatypes):
        return None
    wider = (
        (Datatype.FP32, Datatype.FP64) if sent in _FLOATS else (Datatype.INT32, Datatype.FP64, Datatype.FP32)
    )
    return next((datatype for datatype in wider if datatype in variable.datatypes), None)


def _numbers(
    item: dict[str, Any], pointer: str, datatype: Datatype, faults: list[RequestFault]
) -> dict[str, Any]:
    data = item["data"]
    if item["datatype"] == "BOOL":
        data = [int(value) if type(value) is bool else value for value in data]
    faults += number_faults(data, pointer, _TENSORS[item["datatype"]])
    return {**item, "datatype": datatype.value, "data": data}


def _texts(
    item: dict[str, Any], pointer: str, variable: Variable, faults: list[RequestFault]
) -> dict[str, Any]:
    """A tensor of BYTES as one text, object or file, or several."""
    datatype = next((datatype for datatype in _TEXTS if datatype in variable.datatypes), None)
    if datatype is None:
        faults.append(_wrong_type("BYTES", pointer, variable))
        return item
    data, shape = item["data"], item.get("shape")
    if shape is not None:
        wrong = shape_faults(shape, pointer) or size_faults(shape, data, pointer)
        if wrong:
            faults += wrong
            return item
    if datatype is Datatype.DICT:
        try:
            data = [_object(text) for text in data]
        except ValueError as error:
            faults.append(RequestFault(f"{pointer}/data", f"must be JSON text for a dict: {error}"))
    translated = {"name": variable.name, "datatype": datatype.value}
    if len(data) == 1 and shape is not None:
        return {**translated, "data": data[0]}
    return {**translated, "data": data, "shape": [len(data)] if shape is None else shape}


def _object(text: Any) -> Any:
    if not isinstance(text, str):
        raise ValueError("each element must be a string")
    return jsontext.read(text)


def _wrong_type(sent: str, pointer: str, variable: Variable) -> RequestFault:
    known = " or ".join(dict.fromkeys(map(_tensor_type, variable.datatypes)))
    return RequestFault(
        f"{pointer}/datatype", f"{quoted(sent)} is not a datatype of {variable.name!r}; use {known}"
    )


def _tensor_type(datatype: Datatype) -> str:
    return "BYTES" if datatype in (Datatype.STR, Datatype.DICT) else datatype.value


def _tensor_metadata(variable: Variable) -> dict[str, Any]:
    return {"name": variable.name, "datatype": _tensor_type(variable.datatypes[0]), "shape": [-1]}


def _tensor(output: dict[str, Any]) -> dict[str, Any]:
    """Translate an output of ours into a tensor, which is always a list with its shape."""
    data, datatype = output["data"], output["datatype"]
    several = isinstance(data, list)
    elements = data if several else [data]
    if datatype == "dict":
        elements = [encode_part(element, output["name"]).decode() for element in elements]
    tensor = {
        "name": output["name"],
        "datatype": "BYTES" if datatype in ("str", "dict") else datatype,
        "shape": output["shape"] if several else [1],
        "data": elements,
    }
    kind = output.get("content_type") if datatype == "FILE" else None
    return tensor if kind is None else {**tensor, "parameters": {"content_type": kind}}
