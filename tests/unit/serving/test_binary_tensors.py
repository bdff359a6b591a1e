"""Tensors as bytes behind the JSON, both ways: every datatype comes back as it went, and bytes that lie are refused."""

from __future__ import annotations

import gzip
import io
import json
import math
import random
import re
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.serving.datatypes import Datatype
from controller.serving.http1 import HttpRequest, RequestReader
from controller.serving.oip import TensorCall
from controller.serving.problems import ServingProblem
from controller.serving.signature import Variable
from controller.serving.tensors import BadTensor, BinaryTensor, as_array, dtype, pack, unpack, unpack_texts
from tests.unit.serving.kept import kept_folder, library_without
from tests.unit.serving.server import Reply, Server

NUMERIC = [datatype for datatype in Datatype if datatype.numeric]
LINES = "\n".join(
    f"    :param {side}.{datatype.value}: some\n    :type {side}.{datatype.value}: {datatype.value}, optional"
    for side in ("inputs", "outputs")
    for datatype in Datatype
    if datatype is not Datatype.FILE
)
SOURCE = f'''
def predict(inputs, parameters, output_fields):
    """Give the inputs back.

{LINES}
    :param outputs.seen: what came beside the data
    :type outputs.seen: dict, optional
    """
    beside = [{{key: value for key, value in item.items() if key != "data"}} for item in inputs]
    seen = {{"beside": beside, "parameters": parameters, "kinds": [str(type(item["data"])) for item in inputs]}}
    return [*inputs, {{"name": "seen", "datatype": "dict", "data": seen}}]
'''
INFER = "/v2/models/net/infer"
BINARY = {"binary_data_output": True}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("binary"), SOURCE, component="net", max_body=1_000_000).ready()
    yield server
    server.close()


def tensor(name: str, raw: bytes, shape: list[int], datatype: str = "", **parameters: Any) -> dict[str, Any]:
    parameters = {"binary_data_size": len(raw), **parameters}
    return {"name": name, "datatype": datatype or name, "shape": shape, "parameters": parameters}


def send(server: Server, document: Any, *pieces: bytes, length: object = None) -> Reply:
    head = json.dumps(document).encode()
    fields = {"Inference-Header-Content-Length": str(len(head) if length is None else length)}
    return server.ask("POST", INFER, b"".join([head, *pieces]), fields)


def read(reply: Reply) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The JSON of a reply, and the bytes of its outputs."""
    assert reply.status == 200, reply.body
    if "inference-header-content-length" not in reply.headers:
        return reply.json, {}
    assert reply.headers["content-type"] == "application/octet-stream"
    at = int(reply.headers["inference-header-content-length"])
    document, found = json.loads(reply.body[:at]), {}
    for output in document["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            found[output["name"]], at = reply.body[at : at + size], at + size
    assert at == len(reply.body)
    return document, found


def seen(document: dict[str, Any]) -> Any:
    (text,) = next(output["data"] for output in document["outputs"] if output["name"] == "seen")
    return json.loads(text)


@settings(deadline=None, max_examples=15)
@given(st.data())
@pytest.mark.parametrize("datatype", [d for d in NUMERIC if d is not Datatype.BF16])
def test_numbers_come_back_as_they_went(server: Server, datatype: Datatype, data: st.DataObject) -> None:
    shape = arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)
    array = data.draw(arrays.arrays(dtype(datatype), shape))
    raw, name = array.tobytes(), datatype.value
    outputs = [{"name": name, "parameters": {"binary_data": True}}, {"name": "seen"}]
    document, found = read(
        send(server, {"inputs": [tensor(name, raw, list(array.shape))], "outputs": outputs}, raw)
    )
    assert np.array_equal(
        np.frombuffer(found[name], dtype(datatype)), array.reshape(-1), equal_nan=array.dtype.kind == "f"
    )
    output = document["outputs"][0]
    assert (output["shape"], output["datatype"]) == (list(array.shape), name)
    assert seen(document)["beside"] == [{"name": name, "datatype": name, "shape": list(array.shape)}]
    assert seen(document)["kinds"] == ["<class 'list'>"]
    if array.dtype.kind != "f" or np.isfinite(array).all():
        as_json = {
            "name": name,
            "datatype": name,
            "shape": list(array.shape),
            "data": array.reshape(-1).tolist(),
        }
        same = server.post({"inputs": [as_json]}, INFER)
        assert same.outputs[name] == as_json["data"], "the same in JSON"


@pytest.mark.parametrize("datatype", NUMERIC)
def test_packed_and_unpacked_in_lists(datatype: Datatype) -> None:
    numbers: list[Any] = [False, True] if datatype is Datatype.BOOL else [0, 1, 100]
    raw = pack(datatype, numbers)
    assert raw is not None
    assert unpack(datatype, memoryview(raw)) == numbers
    array = np.array(numbers, "?" if datatype is Datatype.BOOL else None)
    assert pack(datatype, array) == raw


def test_bf16_is_rounded_to_the_nearest() -> None:
    def there_and_back(*numbers: float | None) -> list[float]:
        raw = pack(Datatype.BF16, list(numbers))
        assert raw is not None
        return unpack(Datatype.BF16, memoryview(raw))

    assert there_and_back(1.0, -2.5, 1 + 2**-8, 1 + 3 * 2**-8, 3.3895313892515355e38) == [
        1.0, -2.5, 1.0, 1 + 2**-6, 3.3895313892515355e38,
    ]  # fmt: skip
    assert there_and_back(math.inf, -math.inf) == [math.inf, -math.inf]
    assert all(map(math.isnan, there_and_back(math.nan, None)))


def test_texts_and_objects_come_back_with_their_shape(server: Server) -> None:
    texts = ["", "cat", "Кот\0", "\N{CAT}"]
    raw = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)
    options = b'{"a": [1]}'
    counted = struct.pack("<I", len(options)) + options
    inputs = [tensor("str", raw, [2, 2], "BYTES", kind="words"), tensor("dict", counted, [1], "BYTES")]
    document, found = read(send(server, {"id": "7", "inputs": inputs, "parameters": BINARY}, raw, counted))
    assert found["str"] == raw
    assert json.loads(found["dict"][4:]) == {"a": [1]}
    (first, second, _), said = document["outputs"], json.loads(found["seen"][4:])
    assert (first["datatype"], first["shape"], second["shape"]) == ("BYTES", [2, 2], [1])
    assert said["beside"] == [
        {"name": "str", "datatype": "str", "shape": [2, 2], "parameters": {"kind": "words"}},
        {"name": "dict", "datatype": "dict", "shape": [1]},
    ]
    assert said["parameters"] == []
    assert first["parameters"] == {"kind": "words", "binary_data_size": len(raw)}
    assert (document["id"], document["model_name"], document["model_version"]) == ("7", "net", "1")


def test_each_output_goes_as_it_is_asked_for(server: Server) -> None:
    one = {"name": "INT64", "datatype": "INT64", "shape": [1], "data": [2**40]}
    two = {"name": "FP16", "datatype": "FP16", "shape": [1], "data": [0.5]}
    outputs = [{"name": "INT64", "parameters": {"binary_data": False}}, {"name": "FP16"}]
    reply = server.post({"inputs": [one, two], "outputs": outputs, "parameters": BINARY}, INFER)
    document, found = read(reply)
    assert document["outputs"][0]["data"] == [2**40]
    assert found == {"FP16": struct.pack("<e", 0.5)}


def test_what_bytes_cannot_carry_goes_as_json(server: Server) -> None:
    text = {"name": "str", "datatype": "BYTES", "shape": [1], "data": ["\udcff"]}
    document, found = read(server.post({"inputs": [text], "parameters": BINARY}, INFER))
    assert document["outputs"][0]["data"] == ["\udcff"]
    assert list(found) == ["seen"]


NAN_AND_INFINITY = {
    "FP16": struct.pack("<2e", math.nan, -math.inf),
    "BF16": struct.pack("<2f", math.nan, -math.inf)[2:4] + struct.pack("<f", -math.inf)[2:],
    "FP32": struct.pack("<2f", math.nan, -math.inf),
    "FP64": struct.pack("<2d", math.nan, -math.inf),
}


@pytest.mark.parametrize("datatype", NAN_AND_INFINITY)
@pytest.mark.parametrize("name", NAN_AND_INFINITY)
def test_nan_and_infinities_are_numbers_of_every_floating_point_type(
    server: Server, datatype: str, name: str
) -> None:
    raw = NAN_AND_INFINITY[datatype]
    request = {"inputs": [tensor(name, raw, [2], datatype)]}
    document, _ = read(send(server, request, raw))
    assert document["outputs"][0]["data"] == [None, None]
    document, found = read(send(server, {**request, "parameters": BINARY}, raw))
    first, second = unpack(Datatype(name), memoryview(found[name]))
    assert math.isnan(first)
    assert second == -math.inf


@pytest.mark.parametrize(
    ("datatype", "name", "raw", "numbers"),
    [
        ("UINT8", "FP32", b"\0\xff", [0, 255]),
        ("BOOL", "INT32", b"\0\1", [0, 1]),
        ("INT64", "INT32", struct.pack("<2q", -1, 2**31 - 1), [-1, 2**31 - 1]),
        ("FP64", "FP32", struct.pack("<2d", 0.5, 3.4e38), [0.5, 3.4e38]),
        ("BF16", "FP64", b"\x80\x3f\x00\xc0", [1.0, -2.0]),
        ("UINT64", "INT64", struct.pack("<2Q", 0, 2**63 - 1), [0, 2**63 - 1]),
    ],
)
def test_other_types_of_numbers_that_fit(
    server: Server, datatype: str, name: str, raw: bytes, numbers: list[float]
) -> None:
    document, _ = read(send(server, {"inputs": [tensor(name, raw, [2], datatype)]}, raw))
    assert document["outputs"][0]["data"] == numbers
    assert [type(number) for number in document["outputs"][0]["data"]] == [type(number) for number in numbers]


FOUR = struct.pack("<f", 1.0)
LARGE = struct.pack("<2f", math.inf, 70000.0)
LARGER = struct.pack("<2d", math.nan, 1e39)
LONG = struct.pack("<q", 2**31)


@pytest.mark.parametrize(
    ("item", "raw", "pointer"),
    [
        (tensor("FP32", FOUR, [2]), FOUR, "/inputs/0"),
        (tensor("FP32", FOUR, [1], "FP64"), FOUR, "/inputs/0"),
        (tensor("FP32", FOUR, [2**31 - 1] * 32), FOUR, "/inputs/0"),
        (tensor("FP32", FOUR, [1] * 33), FOUR, "/inputs/0/shape"),
        (tensor("FP32", FOUR, [-1]), FOUR, "/inputs/0/shape"),
        (tensor("FP32", FOUR, None), FOUR, "/inputs/0/shape"),  # type: ignore[arg-type]
        (tensor("FP32", FOUR, [1], binary_data_size=5), FOUR, "/inputs/0/parameters/binary_data_size"),
        (tensor("FP32", FOUR, [1], binary_data_size=3), FOUR, "/inputs/0"),
        (tensor("FP32", FOUR, [1], binary_data_size=-4), FOUR, "/inputs/0/parameters/binary_data_size"),
        (tensor("FP32", FOUR, [1], binary_data_size=2**80), FOUR, "/inputs/0/parameters/binary_data_size"),
        (tensor("FP32", FOUR, [1], binary_data_size=4.0), FOUR, "/inputs/0/parameters/binary_data_size"),
        (tensor("FP32", FOUR, [1], binary_data_size=True), FOUR, "/inputs/0/parameters/binary_data_size"),
        (tensor("FP32", FOUR, [1], binary_data_size=None), FOUR, "/inputs/0/parameters/binary_data_size"),
        (tensor("FP32", FOUR, [1], "FILE"), FOUR, "/inputs/0/datatype"),
        (tensor("FP32", FOUR, [1], "FP8"), FOUR, "/inputs/0/datatype"),
        ({**tensor("FP32", FOUR, [1]), "datatype": ["FP32"]}, FOUR, "/inputs/0/datatype"),
        ({**tensor("FP32", FOUR, [1]), "datatype": None}, FOUR, "/inputs/0/datatype"),
        ({**tensor("FP32", FOUR, [1]), "data": [1.0]}, FOUR, "/inputs/0/data"),
        (tensor("str", FOUR, [1], "FP32"), FOUR, "/inputs/0/datatype"),
        (tensor("INT32", FOUR, [1], "FP32"), FOUR, "/inputs/0/datatype"),
        (tensor("FP32", FOUR, [1], "BYTES"), FOUR, "/inputs/0"),
        (tensor("FP32", b"\0\0\0\0", [1], "BYTES"), b"\0\0\0\0", "/inputs/0/datatype"),
        (tensor("other", FOUR, [1], "FP32"), FOUR, "/inputs/0/name"),
        (tensor("FP32", FOUR, [1]), FOUR + b"\0", "/inputs"),
        (tensor("BOOL", b"\2", [1]), b"\2", "/inputs/0"),
        (tensor("INT32", b"\2", [1], "BOOL"), b"\2", "/inputs/0"),
        (tensor("BOOL", b"\1", [1], "INT8"), b"\1", "/inputs/0/datatype"),
        (tensor("INT8", b"\x80", [1], "UINT8"), b"\x80", "/inputs/0/data/0"),
        (tensor("FP16", LARGE, [2], "FP32"), LARGE, "/inputs/0/data/1"),
        (tensor("FP32", LARGER, [2], "FP64"), LARGER, "/inputs/0/data/1"),
        (tensor("INT32", LONG, [1], "INT64"), LONG, "/inputs/0/data/0"),
        (tensor("str", b"\xff\xff\xff\xff", [1], "BYTES"), b"\xff\xff\xff\xff", "/inputs/0"),
        (tensor("str", b"\1\0\0", [1], "BYTES"), b"\1\0\0", "/inputs/0"),
        (tensor("str", b"\1\0\0\0\xff", [1], "BYTES"), b"\1\0\0\0\xff", "/inputs/0"),
        (tensor("str", b"\0\0\0\0\0\0\0\0", [1], "BYTES"), b"\0\0\0\0\0\0\0\0", "/inputs/0"),
        (tensor("str", b"\0\0\0\0", [2**31 - 1] * 2, "BYTES"), b"\0\0\0\0", "/inputs/0"),
        (tensor("dict", b"\1\0\0\0{", [1], "BYTES"), b"\1\0\0\0{", "/inputs/0/data"),
        (tensor("dict", b"\1\0\0\x007", [1], "BYTES"), b"\1\0\0\x007", "/inputs/0/data"),
    ],
)  # fmt: skip
def test_bytes_that_lie_are_refused(server: Server, item: dict[str, Any], raw: bytes, pointer: str) -> None:
    reply = send(server, {"inputs": [item]}, raw)
    assert reply.status == 422, reply.body
    assert reply.json["errors"][0]["pointer"] == pointer, reply.body
    assert reply.json["error"]


def test_tensors_cannot_share_bytes(server: Server) -> None:
    inputs = [tensor("FP32", FOUR, [1]), tensor("INT32", FOUR, [1])]
    reply = send(server, {"inputs": inputs}, FOUR)
    assert reply.json["errors"] == [
        {
            "pointer": "/inputs/1/parameters/binary_data_size",
            "detail": "is 4 bytes, and 0 are left behind the JSON",
        }
    ]


@pytest.mark.parametrize("length", ["-1", "", "x", "1e3", "99999999999999999999", "1000"])
def test_the_header_field_must_be_a_length_within_the_body(server: Server, length: str) -> None:
    reply = send(server, {"inputs": []}, length=length)
    assert reply.status == 400
    assert reply.json["type"] == "urn:prichal:problem:malformed-tensors"
    assert "at most the 14" in reply.json["error"]


def test_the_header_field_may_cut_the_json_nowhere_else(server: Server) -> None:
    assert send(server, {"inputs": []}, length=5).status == 400
    assert send(server, {}, b"\0").status == 422
    without = server.post({"inputs": [tensor("FP32", FOUR, [1])]}, INFER)
    assert without.json["errors"][0]["pointer"] == "/inputs/0/parameters/binary_data_size"


@pytest.mark.parametrize(
    ("member", "pointer"),
    [
        ({"parameters": {"binary_data_output": 1}}, "/parameters/binary_data_output"),
        ({"parameters": []}, "/parameters"),
        ({"outputs": [{"name": "str", "parameters": {"binary_data": "yes"}}]}, "/outputs/0/parameters/binary_data"),
        ({"outputs": [{"name": "other"}]}, "/output_fields/0/name"),
    ],
)  # fmt: skip
def test_wishes_are_checked(server: Server, member: dict[str, Any], pointer: str) -> None:
    reply = server.post({"inputs": [], **member}, INFER)
    assert reply.status == 422, reply.body
    assert [fault["pointer"] for fault in reply.json["errors"]] == [pointer]


def test_a_compressed_body_has_its_bytes_too(server: Server) -> None:
    head = json.dumps({"inputs": [tensor("FP32", FOUR, [1])], "parameters": BINARY}).encode()
    fields = {"Inference-Header-Content-Length": str(len(head)), "Content-Encoding": "gzip"}
    _, found = read(server.ask("POST", INFER, gzip.compress(head + FOUR), fields))
    assert found["FP32"] == FOUR


@given(st.binary(max_size=60), st.integers(0, 5))
def test_texts_of_any_bytes(raw: bytes, count: int) -> None:
    try:
        texts = unpack_texts(memoryview(raw), count)
    except BadTensor as error:
        assert str(error)
        return
    assert len(texts) == count
    assert b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts) == raw


def test_model_versions_and_the_repository(server: Server) -> None:
    assert server.get("/v2").json["extensions"] == ["binary_tensor_data", "model_repository"]
    assert server.get("/v2/models/net").json == server.get("/v2/models/net/versions/1").json
    assert server.get("/v2/models/net").json["versions"] == ["1"]
    assert server.get("/v2/models/net/versions/1/ready").status == 200
    assert server.post({"inputs": []}, "/v2/models/net/versions/1/infer").json["model_version"] == "1"
    index = server.ask("POST", "/v2/repository/index", b"{}")
    assert index.json == [{"name": "net", "version": "1", "state": "READY", "reason": ""}]
    assert server.get("/v2/repository/index").headers["allow"] == "POST, OPTIONS"
    for path in ("/v2/models/net/versions/2", "/v2/models/other", "/v2/models/net/versions/2/ready"):
        reply = server.get(path)
        assert (reply.status, reply.json["error"]) == (404, reply.json["detail"])
    assert server.post({"inputs": []}, "/v2/models/net/versions/2/infer").json["error"]


def test_a_request_of_faults_takes_little_memory() -> None:
    call = TensorCall("net", {"x": Variable("x", (Datatype.FP32,), False, "")})
    item = b'{"name":"x","datatype":"Z","data":[]}'
    request = HttpRequest("POST", "/", {b"content-type": b"application/json"}, False)
    request.body = b'{"inputs":[' + b",".join([item] * 10_000) + b"]}"
    size = len(request.body)
    tracemalloc.start()
    try:
        json.loads(request.body)
        parsed = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        with pytest.raises(ServingProblem):
            call.read(request)
        assert tracemalloc.get_traced_memory()[1] < parsed + 2 * size
    finally:
        tracemalloc.stop()


# --- functions that take arrays --------------------------------------------------------------------------------------

ARRAYS = '''
def predict(inputs):
    """Tell what the arrays are.

    :param inputs: what came
    :type inputs: arrays
    :param inputs.image: numbers
    :type inputs.image: FP32
    :param inputs.flags: flags
    :type inputs.flags: BOOL, optional
    :param inputs.half: numbers
    :type inputs.half: BF16, optional
    :param inputs.text: a text
    :type inputs.text: str, optional
    :param outputs.image: twice the numbers
    :type outputs.image: FP32
    :param outputs.seen: what they are
    :type outputs.seen: dict
    """
    given = {item["name"]: item["data"] for item in inputs}
    seen = {name: [str(data.dtype), list(data.shape), data.tolist()] for name, data in given.items() if name != "text"}
    given["image"] *= 2
    return {"image": given["image"], "seen": {**seen, "text": given.get("text")}}
'''


@pytest.fixture(scope="module")
def arrays_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("arrays"), ARRAYS, component="net", max_body=1_000_000).ready()
    yield server
    server.close()


def test_a_function_may_take_arrays(arrays_server: Server) -> None:
    pixels = struct.pack("<4f", 0.5, 1.5, -1.0, math.inf)
    inputs = [
        tensor("image", pixels, [1, 2, 2], "FP32"),
        {"name": "flags", "datatype": "BOOL", "shape": [2], "data": [True, False]},
        tensor("half", b"\x80\x3f", [1], "BF16"),
        {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["hi"]},
    ]
    document, found = read(send(arrays_server, {"inputs": inputs, "parameters": BINARY}, pixels, b"\x80\x3f"))
    assert document["outputs"][0]["shape"] == [1, 2, 2]
    assert struct.unpack("<4f", found["image"]) == (1.0, 3.0, -2.0, math.inf)
    assert json.loads(found["seen"][4:]) == {
        "image": ["float32", [1, 2, 2], [[[0.5, 1.5], [-1.0, None]]]],
        "flags": ["bool", [2], [True, False]],
        "half": ["float32", [1], [1.0]],
        "text": "hi",
    }


@pytest.mark.parametrize(
    ("item", "shape"),
    [({"data": [1, 2]}, [2]), ({"data": [1, 2], "shape": [2, 1]}, [2, 1]), ({"data": 1.5}, []), ({"data": []}, [0])],
)  # fmt: skip
def test_arrays_on_our_own_face(arrays_server: Server, item: dict[str, Any], shape: list[int]) -> None:
    reply = arrays_server.post({"inputs": [{"name": "image", "datatype": "FP32", **item}]})
    assert reply.status == 200, reply.body
    assert reply.outputs["seen"]["image"][:2] == ["float32", shape]


@pytest.mark.parametrize("path", [INFER, "/predict"])
def test_large_arrays_as_json(arrays_server: Server, path: str) -> None:
    """They make no lists on their way, and are checked and shaped as all others."""
    numbers = [0.1, 7, -2.5, 1e-7] * 10_000
    item: dict[str, Any] = {"name": "image", "datatype": "FP32", "data": numbers}
    for shape in ([40_000], [4, 100, 100], None):
        sent = item if shape is None else {**item, "shape": shape}
        reply = arrays_server.post({"inputs": [sent]}, path)
        assert reply.status == 200, reply.body
        (image,) = (output for output in reply.json["outputs"] if output["name"] == "image")
        assert image["shape"] == (shape or [40_000])
        assert image["data"] == [float(np.float32(2) * np.float32(number)) for number in numbers]
    wrong = {
        "/inputs/0/shape": {**item, "shape": [3, 7]},
        "/inputs/0/data/4": {**item, "data": [0.5] * 4 + [1e39] + [0.5] * 40_000},
        "/inputs/0/data/2": {**item, "data": [0.5] * 2 + [None] + [0.5] * 40_000},
        "/inputs/0/datatype": {**item, "datatype": "str"},
        "/inputs/0/name": {**item, "name": "other"},
    }
    for pointer, sent in wrong.items():
        reply = arrays_server.post({"inputs": [sent]}, path)
        assert reply.status == 422, reply.body[:1000]
        assert pointer in [error["pointer"] for error in reply.json["errors"]]


def test_arrays_of_json_take_less_memory_than_their_text(tmp_path: Path) -> None:
    server = Server(tmp_path, ARRAYS.replace("data.tolist()]", "[]]"), component="net").ready()
    chance = random.Random(7)
    pixels = [chance.random() for _ in range(400_000)]

    def call(data: list[float]) -> int:
        body = {
            "inputs": [{"name": "image", "datatype": "FP32", "data": data}],
            "outputs": [{"name": "seen"}],
        }
        text = json.dumps(body).encode()
        assert server.post(text, INFER).status == 200
        return len(text)

    call([0.5] * 20_000)
    before = peak(server)
    size = call(pixels)
    grown = peak(server) - before
    server.close()
    assert size / 2 < grown < 2 * size


def test_an_empty_array_of_a_size_beyond_all_memory(arrays_server: Server) -> None:
    """Such a shape fits its data, none at all, but numpy refuses it: the function has not failed."""
    shape = [0, 2**31 - 1, 2**31 - 1, 2**31 - 1]
    listed = arrays_server.post(
        {"inputs": [{"name": "image", "datatype": "FP32", "data": [], "shape": shape}]}
    )
    in_bytes = send(arrays_server, {"inputs": [tensor("image", b"", shape, "FP32")]})
    for reply in (listed, in_bytes):
        assert reply.status == 422, reply.body
        assert reply.json["errors"][0]["pointer"] == "/inputs/0/shape"


@pytest.mark.parametrize(
    ("datatype", "numbers"), [("UINT8", [0, 255]), ("INT64", [-1, 7]), ("FP64", [0.5, 2.0])]
)
def test_arrays_of_other_types_of_numbers(arrays_server: Server, datatype: str, numbers: list[float]) -> None:
    raw = np.array(numbers).astype(dtype(Datatype(datatype))).tobytes()
    for padding in ("", " ", "  ", "   "):  # wherever the bytes begin
        request = {"inputs": [tensor("image", raw, [2], datatype)], "id": padding}
        document, _ = read(send(arrays_server, request, raw))
        assert document["outputs"][0]["data"] == [2 * number for number in numbers]


def peak(server: Server) -> int:
    """Bytes that the worker has had at most."""
    pid = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()[0]
    (line,) = re.findall(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return 1024 * int(line)


def test_arrays_take_little_more_memory_than_their_bytes(tmp_path: Path) -> None:
    source = ARRAYS.replace("data.tolist()]", "[]]")
    server = Server(tmp_path, source, component="net").ready()
    raw = bytes(12_000_000)

    def call(raw: bytes) -> None:
        outputs = [{"name": "seen"}]
        request = {"inputs": [tensor("image", raw, [len(raw) // 4], "FP32")], "outputs": outputs}
        read(send(server, request, raw))

    call(FOUR)
    before = peak(server)
    call(raw)
    grown = peak(server) - before
    server.close()
    assert len(raw) / 2 < grown < 3 * len(raw)


def test_a_large_body_lies_where_its_numbers_need_no_copy() -> None:
    pixels = np.arange(100_000, dtype="<f8")
    raw = pixels.tobytes()
    for length in range(40, 60):
        body = b" " * length + raw
        head = f"POST / HTTP/1.1\r\nHost: a\r\nInference-Header-Content-Length: {length}\r\n"
        stream = io.BytesIO(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        reader = RequestReader(stream.read, stream.readinto)
        request = reader.head()
        assert request
        received = reader.body(request, len(body))
        assert received == body
        tensor = BinaryTensor(Datatype.FP64, memoryview(received)[length:])
        array = as_array(np, Datatype.FP64, tensor, [len(pixels)])
        assert np.shares_memory(array, np.frombuffer(received, "u1"))
        assert array.flags.writeable
        assert (array == pixels).all()


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False], ids=["orjson", "Python's own JSON"])
@pytest.mark.parametrize("output", ["numbers", "first"])
def test_numbers_as_json_take_little_more_memory_than_their_objects(
    tmp_path: Path, kept: bool, output: str
) -> None:
    """A number is a text of 20 bytes, and an object of 32 in a list of 8 bytes for each: twice its text. The request's
    text is there at the same time, that of the reply later."""
    if kept:
        kept_folder()
    else:
        library_without(tmp_path)
    server = Server(tmp_path, MANY, component="net").ready()
    chance = random.Random(7)
    numbers = [chance.random() for _ in range(400_000)]
    document = {"inputs": [{"name": "numbers", "datatype": "FP64", "data": numbers}]}
    body = json.dumps({**document, "output_fields": [{"name": output}]}).encode()

    def call(body: bytes) -> None:
        reply = server.post(body)
        assert reply.status == 200
        assert reply.outputs["numbers"] == numbers if output == "numbers" else reply.outputs["first"]

    small = {
        "inputs": [{"name": "numbers", "datatype": "FP64", "data": [1.0]}],
        "output_fields": [{"name": "first"}],
    }
    assert server.post(small).status == 200
    before = peak(server)
    call(body)
    grown = peak(server) - before
    server.close()
    assert len(body) / 2 < grown < 3.3 * len(body)


MANY = '''
def predict(inputs, output_fields):
    """Give back numbers.

    :param inputs.numbers: numbers
    :type inputs.numbers: FP64
    :param outputs.numbers: all of them
    :type outputs.numbers: FP64, optional
    :param outputs.first: the first of them
    :type outputs.first: FP64, optional
    """
    data, name = inputs[0]["data"], output_fields[0]["name"]
    return {name: data if name == "numbers" else data[0]}
'''


def test_arrays_need_numpy(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('not here')")
    server = Server(tmp_path, ARRAYS)
    assert server.wait_ended() == 3
    assert "numpy cannot be imported (ImportError: not here): install it into the image" in "\n".join(
        server.lines()
    )
    server.close()
