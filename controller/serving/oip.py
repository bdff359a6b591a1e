"""The Open Inference Protocol v2 over JSON, for its existing clients: translated to and from the platform's
own request.

FP32, FP64 and INT32 are the same in both; BYTES stands for str and dict (as JSON text). FILE is a datatype of its own
with its path as data: only so does the platform know that it has to bring a file. Where files come from a local folder,
BYTES does for it, too.
Nested tensor data are accepted and flattened. The binary tensor extension is not offered.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from . import problems
from .docstring import Datatype, Signature, Variable
from .http1 import Request, Response
from .outputs import encode
from .predict import Predictor, decode
from .problems import Fault, Problem

_NUMERIC = ("FP32", "FP64", "INT32")


class OpenInference:
    """One component as a model of the protocol, named like the component."""

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

    def infer(self, request: Request, answer: Callable[[Response], None]) -> Response:
        """POST /v2/models/<name>/infer. A problem carries its detail as ``error``, too, where the protocol's
        clients look.
        """
        try:
            return self._predictor.answer(request, self._read, self._predictor.check, self._write, answer)
        except Problem as problem:
            problem.extra.setdefault("error", problem.detail)
            raise

    def _read(self, request: Request) -> Any:
        if b"inference-header-content-length" in request.headers:
            raise Problem(
                problems.MEDIA_TYPE, "the binary tensor extension is not offered; send tensors as JSON"
            )
        body = decode(request)
        if not isinstance(body, dict) or not isinstance(body.get("inputs"), list):
            return body  # the check tells what is wrong
        faults: list[Fault] = []
        translated: dict[str, Any] = {
            "inputs": [self._input(item, index, faults) for index, item in enumerate(body["inputs"])]
        }
        if faults:
            raise Problem(problems.INVALID, f"{faults[0].pointer}: {faults[0].detail}", faults)
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

    def _input(self, item: Any, index: int, faults: list[Fault]) -> Any:
        """A tensor as an input of ours; what cannot be translated is left for the check to tell, or added to
        ``faults``.
        """
        variable = (
            self._inputs.get(item["name"])
            if isinstance(item, dict) and isinstance(item.get("name"), str)
            else None
        )
        if variable is None or not isinstance(item.get("data"), list):
            return item
        data = _flat(item["data"])
        if item.get("datatype") == "FILE" and len(data) == 1:
            return {**item, "data": data[0]}
        if item.get("datatype") != "BYTES":
            return {**item, "data": data}
        datatype = next(
            (d for d in (Datatype.STR, Datatype.DICT, Datatype.FILE) if d in variable.datatypes), None
        )
        if datatype is None:
            return item
        if datatype is Datatype.DICT:
            try:
                data = [json.loads(text) for text in data]
            except (TypeError, ValueError) as error:
                faults.append(Fault(f"/inputs/{index}/data", f"must be JSON text for a dict: {error}"))
        translated = {"name": variable.name, "datatype": datatype.value}
        shape = item.get("shape")
        if len(data) == 1 and isinstance(shape, list) and all(size == 1 for size in shape):
            return {**translated, "data": data[0]}
        return {**translated, "data": data, "shape": shape if shape is not None else [len(data)]}

    def _write(self, reply: dict[str, Any]) -> bytes:
        reply["outputs"] = [_tensor(output) for output in reply["outputs"]]
        return encode({"model_name": self._name, **reply})


def _tensor_metadata(variable: Variable) -> dict[str, Any]:
    datatype = variable.datatypes[0]
    known = datatype.numeric or datatype is Datatype.FILE
    return {"name": variable.name, "datatype": datatype.value if known else "BYTES", "shape": [-1]}


def _tensor(output: dict[str, Any]) -> dict[str, Any]:
    """An output of ours as a tensor: always a list with its shape."""
    data = output["data"]
    elements = list(data) if isinstance(data, (list, tuple)) else [data]
    if output["datatype"] not in _NUMERIC:
        elements = [item if isinstance(item, str) else encode(item).decode() for item in elements]
    shape = output.get("shape")
    if shape is None or math.prod(shape) != len(elements):
        shape = [len(elements)]
    datatype = output["datatype"] if output["datatype"] in (*_NUMERIC, "FILE") else "BYTES"
    tensor = {"name": output["name"], "datatype": datatype, "shape": list(shape), "data": elements}
    kind = output.get("content_type")
    return tensor if kind is None else {**tensor, "parameters": {"content_type": kind}}


def _flat(data: list[Any]) -> list[Any]:
    """Nested lists flattened in row-major order, however deep."""
    while any(isinstance(item, list) for item in data):
        data = [element for item in data for element in (item if isinstance(item, list) else [item])]
    return data
