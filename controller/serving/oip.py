"""The Open Inference Protocol v2, for its existing clients: translated to and from the platform's own request.

Tensors come as JSON, flat or nested, or as bytes behind the JSON (the binary tensor extension, ``tensors``), and go as
the caller asks, each output for itself. Tensors of every numeric type are accepted if their values fit the datatypes of
the docstring; BYTES stands for str and dict (as JSON text). FILE is a separate datatype with its path as data, so that
the platform knows that it has to transfer a file. With files from a local folder, BYTES works for it, too."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from . import VERSION, jsontext, problems
from .call_states import PredictCaller
from .datatypes import NUMBERS, Datatype, Numbers
from .fault_texts import MAX_FAULTS, json_name, quoted
from .http1 import TENSORS, HttpRequest, HttpResponse
from .json_body import decode, parse
from .outputs import encode, encode_part, respond
from .predict import Predictor
from .problems import RequestFault, ServingProblem
from .shapes import Shapeless, flatten, shape_faults, size_faults
from .signature import Signature, Variable
from .tensors import BadTensor, BinaryTensor, check_bool, pack, pack_texts, size_of, unpack_texts
from .validate import number_faults

#: Other content types that the protocol's clients use for JSON.
JSON_TYPES = (b"", b"application/octet-stream")
MODEL_VERSION = "1"  # the only one that is served at a time
EXTENSIONS = ["binary_tensor_data", "model_repository"]
HEADER = "Inference-Header-Content-Length"
_SIZE = "binary_data_size"
_ALL_BINARY = "binary_data_output"
#: Which of a variable's datatypes a tensor of another type is taken as.
_FOR_WHOLE = tuple(
    Datatype(name)
    for name in (
        "INT32", "INT64", "UINT64", "UINT32", "INT16", "UINT16", "INT8", "UINT8", "FP64", "FP32", "BF16", "FP16",
    )
)  # fmt: skip
_FOR_FLOAT = (Datatype.FP32, Datatype.FP64, Datatype.BF16, Datatype.FP16)
_TEXTS = (Datatype.STR, Datatype.DICT, Datatype.FILE)
_ZERO_OR_ONE = Numbers(frozenset({int, bool}), 0, 1, "true or false")
_TENSORS = {datatype.value: datatype for datatype in Datatype if datatype.numeric}


class OpenInference:
    """Serves one component as a model of the protocol, with the component's name."""

    def __init__(self, name: str, signature: Signature, predictor: Predictor) -> None:
        self._name = name
        self._signature = signature
        self._inputs = {variable.name: variable for variable in signature.inputs}
        self._predictor = predictor

    def server(self) -> dict[str, Any]:
        """GET /v2."""
        return {"name": "prichal", "version": VERSION, "extensions": EXTENSIONS}

    def metadata(self) -> dict[str, Any]:
        """GET /v2/models/<name>."""
        return {
            "name": self._name,
            "versions": [MODEL_VERSION],
            "platform": "prichal",
            "inputs": [_tensor_metadata(variable) for variable in self._signature.inputs],
            "outputs": [_tensor_metadata(variable) for variable in self._signature.outputs],
        }

    def index(self) -> list[dict[str, str]]:
        """POST /v2/repository/index."""
        return [{"name": self._name, "version": MODEL_VERSION, "state": "READY", "reason": ""}]

    def infer(self, request: HttpRequest, caller: PredictCaller) -> HttpResponse:
        """POST /v2/models/<name>/infer. Raises ServingProblem, Abandoned, Disconnected."""
        call = TensorCall(self._name, self._inputs)
        return self._predictor.answer(request, call.read, self._predictor.check, call.write, caller)


class TensorCall:
    """One call: its request, and how its caller wants the outputs."""

    def __init__(self, name: str, inputs: Mapping[str, Variable]) -> None:
        self._name = name
        self._inputs = inputs
        self._all_binary = False
        self._binary: dict[str, bool] = {}

    def read(self, request: HttpRequest) -> Any:
        """Translate a request into one of ours. Raises ServingProblem."""
        length = _json_length(request)
        if length is None:
            body = decode(request, JSON_TYPES)
            behind = None
        else:
            behind = _BytesBehind(memoryview(request.body)[length:])
            body = parse(request.body[:length], request.sinks)
        if not isinstance(body, dict) or not isinstance(body.setdefault("inputs", []), list):
            return body  # the check tells what is wrong
        faults: list[RequestFault] = []
        translated: dict[str, Any] = {
            "inputs": [
                self._input(item, f"/inputs/{index}", behind, faults)
                for index, item in _until_enough(body["inputs"], faults)
            ]
        }
        if behind is not None and behind.left and not faults:
            faults.append(RequestFault("/inputs", f"{behind.left} bytes behind the JSON are of no input"))
        self._read_outputs(body, translated, faults)
        if faults:
            raise problems.invalid(faults[:MAX_FAULTS])
        if "id" in body:
            translated["id"] = body["id"]
        return translated

    def _read_outputs(
        self, body: dict[str, Any], translated: dict[str, Any], faults: list[RequestFault]
    ) -> None:
        parameters = body.get("parameters")
        if isinstance(parameters, dict):
            self._all_binary = _flag(parameters, _ALL_BINARY, "", faults)
            translated["parameters"] = [
                {"name": key, "data": value} for key, value in parameters.items() if key != _ALL_BINARY
            ]
        elif parameters is not None:
            faults.append(RequestFault("/parameters", f"must be an object, not {json_name(parameters)}"))
        if isinstance(body.get("outputs"), list):
            translated["output_fields"] = [
                self._output_field(item, f"/outputs/{index}", faults)
                for index, item in _until_enough(body["outputs"], faults)
            ]

    def _output_field(self, item: Any, pointer: str, faults: list[RequestFault]) -> Any:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            return item  # the check tells what is wrong
        parameters = item.get("parameters")
        if isinstance(parameters, dict) and "binary_data" in parameters:
            self._binary[item["name"]] = _flag(parameters, "binary_data", pointer, faults)
        return {name: item[name] for name in ("name", "data") if name in item}

    def _input(
        self, item: Any, pointer: str, behind: Optional[_BytesBehind], faults: list[RequestFault]
    ) -> Any:
        """Translate a tensor into an input of ours; anything else is reported by the check, or added to ``faults``."""
        name = item.get("name") if isinstance(item, dict) else None
        variable = self._inputs.get(name) if isinstance(name, str) else None
        has_bytes = isinstance(item, dict) and _SIZE in _parameters(item)
        if variable is None:
            if has_bytes and behind is not None:
                behind.skip(item["parameters"][_SIZE])
            return item
        if has_bytes:
            return _from_bytes(item, pointer, variable, behind, faults)
        if not isinstance(item.get("data"), list):
            return item
        data = item["data"]
        if data and type(data[0]) is list:  # else the check reports lists among the elements
            try:
                shape, data = flatten(data)
            except Shapeless as error:
                faults.append(RequestFault(f"{pointer}/data", str(error)))
                return item
            item = {"shape": shape, **item, "data": data}  # what the tensor says of its shape goes before
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

    def write(self, reply: dict[str, Any]) -> HttpResponse:
        """Translate a reply of ours. One that has a file is JSON as a whole. Raises BadOutput."""
        pieces: list[Any] = []
        with_file = any(output["datatype"] == "FILE" for output in reply["outputs"])
        outputs = [
            (None if with_file or not self._wants_bytes(output) else _in_bytes(output, pieces))
            or _tensor(output)
            for output in reply["outputs"]
        ]
        reply = {"model_name": self._name, "model_version": MODEL_VERSION, **reply, "outputs": outputs}
        if not pieces:
            return respond(reply)
        head = encode(reply)
        headers = [(HEADER, str(len(head)))]
        return HttpResponse(200, head, "application/octet-stream", headers, more=pieces)

    def _wants_bytes(self, output: dict[str, Any]) -> bool:
        return self._binary.get(output["name"], self._all_binary)


class _BytesBehind:
    """The bytes behind the JSON, of which each input takes its own, in their order."""

    def __init__(self, raw: memoryview) -> None:
        self._raw = raw
        self.left = len(raw)

    def take(self, size: Any) -> memoryview:
        """Raises BadTensor."""
        if type(size) is not int or size < 0:
            shown = size if type(size) is int else json_name(size)
            raise BadTensor(f"must be a number of bytes, not {shown}")
        if size > self.left:
            raise BadTensor(f"is {size} bytes, and {self.left} are left behind the JSON")
        start = len(self._raw) - self.left
        self.left -= size
        return self._raw[start : start + size]

    def skip(self, size: Any) -> None:
        """Pass over the bytes of an unknown input, so that only its name is reported."""
        with contextlib.suppress(BadTensor):
            self.take(size)


def _until_enough(items: list[Any], faults: list[RequestFault]) -> Iterator[tuple[int, Any]]:
    """The items with their places, until there are as many faults as are told."""
    for index, item in enumerate(items):
        if len(faults) >= MAX_FAULTS:
            return
        yield index, item


def _json_length(request: HttpRequest) -> Optional[int]:
    """Return how many bytes of the body are JSON, None for all of them. Raises ServingProblem."""
    value = request.headers.get(TENSORS)
    if value is None:
        return None
    length = int(value) if value.isdigit() and len(value) <= 18 else -1
    if not 0 <= length <= len(request.body):
        detail = (
            f"{HEADER} must be the number of the body's bytes that are JSON, at most the {len(request.body)} that it"
            f" has, not {value[:40].decode('latin-1')!r}"
        )
        raise ServingProblem(problems.BAD_TENSORS, detail)
    return length


def _flag(parameters: dict[str, Any], name: str, pointer: str, faults: list[RequestFault]) -> bool:
    value = parameters.get(name, False)
    if type(value) is not bool:
        faults.append(
            RequestFault(f"{pointer}/parameters/{name}", f"must be true or false, not {json_name(value)}")
        )
    return value is True


def _from_bytes(
    item: dict[str, Any],
    pointer: str,
    variable: Variable,
    behind: Optional[_BytesBehind],
    faults: list[RequestFault],
) -> Any:
    """Translate a tensor whose elements lie behind the JSON."""
    try:
        if behind is None:
            raise BadTensor(f"is given without the header field {HEADER}")
        raw = behind.take(item["parameters"][_SIZE])
    except BadTensor as error:
        faults.append(RequestFault(f"{pointer}/parameters/{_SIZE}", str(error)))
        return item
    wrong = _faults_beside_bytes(item, pointer, variable)
    if wrong:
        faults += wrong
        return item
    parameters = _without(item["parameters"], _SIZE)
    rest = {**item, "parameters": parameters} if parameters else _without(item, "parameters")
    try:
        if item["datatype"] == "BYTES":
            texts = unpack_texts(raw, math.prod(item["shape"]))
            return _texts({**rest, "data": texts}, pointer, variable, faults)
        return {**rest, **_binary_numbers(raw, item, variable)}
    except BadTensor as error:
        faults.append(RequestFault(pointer, f"its binary data {error}"))
        return item


def _faults_beside_bytes(item: dict[str, Any], pointer: str, variable: Variable) -> list[RequestFault]:
    """Return what is wrong with a tensor whose elements lie behind the JSON, whatever they are."""
    if "data" in item:
        return [RequestFault(f"{pointer}/data", f"is given beside {_SIZE}; a tensor has one of them")]
    wrong = shape_faults(item.get("shape"), pointer)
    if wrong:
        return wrong
    sent = item.get("datatype")
    if not isinstance(sent, str) or sent == "FILE":
        what = "a FILE has its path as data, not bytes" if sent else "is missing"
        return [RequestFault(f"{pointer}/datatype", what)]
    if sent != "BYTES" and _numeric(sent, variable) is None:
        return [_wrong_type(sent, pointer, variable)]
    return []


def _binary_numbers(raw: memoryview, item: dict[str, Any], variable: Variable) -> dict[str, Any]:
    """Return numbers that lie behind the JSON, with their datatype for the function. Raises BadTensor."""
    sent, shape = item["datatype"], item["shape"]
    given, target = _TENSORS[sent], _numeric(sent, variable)
    assert target is not None  # by `_faults_beside_bytes`
    wanted = math.prod(shape) * size_of(given)
    if len(raw) != wanted:
        raise BadTensor(f"has {len(raw)} bytes; {sent} in the shape {shape} needs {wanted}")
    if given is Datatype.BOOL:
        check_bool(raw)
        given = target if target is Datatype.BOOL else Datatype.UINT8  # numbers 0 and 1, the same bytes
    return {"datatype": target.value, "data": BinaryTensor(given, raw)}


def _without(item: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key != name}


def _numeric(sent: Any, variable: Variable) -> Optional[Datatype]:
    """Return the datatype of the variable that a tensor of numbers is taken as; None if there is none."""
    datatype = _TENSORS.get(sent) if isinstance(sent, str) else None
    if datatype is None or datatype in variable.datatypes:
        return datatype
    wider = _FOR_WHOLE if datatype.whole or datatype is Datatype.BOOL else _FOR_FLOAT
    return next((known for known in wider if known in variable.datatypes), None)


def _numbers(
    item: dict[str, Any], pointer: str, target: Datatype, faults: list[RequestFault]
) -> dict[str, Any]:
    """Translate numbers in JSON: those of another type than the variable's are checked here as what they are."""
    data, sent = item["data"], _TENSORS[item["datatype"]]
    if Datatype.BOOL in (sent, target) and _ZERO_OR_ONE.hold(data):
        data = list(map(bool if target is Datatype.BOOL else int, data))
    elif sent is not target:
        faults += number_faults(data, pointer, NUMBERS[sent])
    return {**item, "datatype": target.value, "data": data}


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
        wrong = shape_faults(shape, pointer) or size_faults(shape, len(data), pointer)
        if wrong:
            faults += wrong
            return item
    if datatype is Datatype.DICT:
        try:
            data = [_object(text) for text in data]
        except ValueError as error:
            faults.append(RequestFault(f"{pointer}/data", f"must be JSON text for a dict: {error}"))
    translated = {**item, "datatype": datatype.value, "shape": [len(data)] if shape is None else shape}
    single = len(data) == 1 and shape is not None
    return {**translated, "data": data[0] if single else data}


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
    form = variable.form(variable.datatypes[0])
    rank = None if form is None or form.yielded else form.rank
    shape = [1] if rank == 0 else [-1] * (rank or 1)
    return {"name": variable.name, "datatype": _tensor_type(variable.datatypes[0]), "shape": shape}


def _tensor(output: dict[str, Any]) -> dict[str, Any]:
    """Translate an output of ours into a tensor, which is always a list with its shape."""
    data, datatype = output["data"], output["datatype"]
    single = isinstance(data, (str, Mapping))
    elements = [data] if single else data
    if datatype == "dict":
        elements = [encode_part(element, output["name"]).decode() for element in elements]
    tensor = {
        "name": output["name"],
        "datatype": "BYTES" if datatype in ("str", "dict") else datatype,
        "shape": [1] if single else output["shape"],
        "data": elements,
    }
    kind = output.get("content_type") if datatype == "FILE" else None
    parameters = {**_parameters(output), **({} if kind is None else {"content_type": kind})}
    return {**tensor, "parameters": parameters} if parameters else tensor


def _parameters(tensor: dict[str, Any]) -> Mapping[str, Any]:
    """Return what is said of a tensor beside its data."""
    given = tensor.get("parameters")
    return given if isinstance(given, Mapping) else {}


def _in_bytes(output: dict[str, Any], pieces: list[Any]) -> Optional[dict[str, Any]]:
    """Translate an output of ours into a tensor whose elements are added to the pieces behind the JSON; None if bytes
    cannot carry them: half a surrogate pair, or null for an integer."""
    datatype, data = Datatype(output["datatype"]), output["data"]
    single = isinstance(data, (str, Mapping))
    raw: Optional[bytes]
    if datatype.numeric:
        raw = pack(datatype, data)
    else:
        texts = [data] if single else data
        if datatype is Datatype.DICT:
            texts = [encode_part(element, output["name"]).decode() for element in texts]
        try:
            raw = pack_texts(texts)
        except UnicodeEncodeError:
            return None
    if raw is None:
        return None
    pieces.append(raw)
    return {
        "name": output["name"],
        "datatype": _tensor_type(datatype),
        "shape": [1] if single else output["shape"],
        "parameters": {**_parameters(output), _SIZE: len(raw)},
    }
