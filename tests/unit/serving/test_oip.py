"""The Open Inference Protocol's routes, as its clients use them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.serving.server import Reply, Server

SOURCE = '''
def predict(inputs, parameters, output_fields):
    """Shows what it got.

    :param inputs.image: Pixels
    :type inputs.image: FP32 or INT32, optional
    :param inputs.prompt: A text, or several
    :type inputs.prompt: str, optional
    :param inputs.options: Options
    :type inputs.options: dict, optional
    :param outputs.scores: Scores
    :type outputs.scores: FP64
    :param outputs.seen: What it got
    :type outputs.seen: dict
    :param outputs.label: A label
    :type outputs.label: str
    """
    seen = {"inputs": inputs, "parameters": parameters, "output_fields": output_fields}
    return {"scores": [[0.25, 0.75]], "seen": seen, "label": "cat"}
'''


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("oip"), SOURCE, component="net").ready()
    yield server
    server.close()


def infer(server: Server, *inputs: dict[str, Any], **members: Any) -> Reply:
    return server.post({"inputs": inputs, **members}, "/v2/models/net/infer")


def seen(reply: Reply) -> Any:
    import json

    assert reply.status == 200, reply.body
    (text,) = reply.outputs["seen"]
    return json.loads(text)


def test_metadata_and_health(server: Server) -> None:
    assert server.get("/v2").json["name"] == "prichal"
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/net/ready"):
        assert server.get(path).status == 200
    model = server.get("/v2/models/net").json
    assert model["name"] == "net"
    assert {"name": "image", "datatype": "FP32", "shape": [-1]} in model["inputs"]
    assert {"name": "seen", "datatype": "BYTES", "shape": [-1]} in model["outputs"]
    assert server.get("/v2/models/other").status == 404


def test_outputs_are_tensors(server: Server) -> None:
    reply = infer(server, id="42")
    assert reply.json["model_name"] == "net"
    assert reply.json["id"] == "42"
    assert {"name": "scores", "datatype": "FP64", "shape": [1, 2], "data": [0.25, 0.75]} in reply.json[
        "outputs"
    ]
    assert {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["cat"]} in reply.json["outputs"]


def test_inputs_are_translated(server: Server) -> None:
    got = seen(
        infer(
            server,
            {"name": "image", "datatype": "FP32", "shape": [2, 2], "data": [[1.0, 2.0], [3.0, 4.0]]},
            {"name": "prompt", "datatype": "BYTES", "shape": [1], "data": ["hello"]},
            {"name": "options", "datatype": "BYTES", "shape": [1, 1], "data": ['{"a": 1}']},
            parameters={"t": 0.5},
        )
    )
    assert got["parameters"] == [{"name": "t", "data": 0.5}]
    assert got["inputs"] == [
        {"name": "image", "datatype": "FP32", "shape": [2, 2], "data": [1.0, 2.0, 3.0, 4.0]},
        {"name": "prompt", "datatype": "str", "data": "hello", "shape": [1]},
        {"name": "options", "datatype": "dict", "data": {"a": 1}, "shape": [1, 1]},
    ]


def test_several_texts_keep_their_shape(server: Server) -> None:
    got = seen(infer(server, {"name": "prompt", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}))
    assert got["inputs"] == [{"name": "prompt", "datatype": "str", "data": ["a", "b"], "shape": [2]}]


def test_outputs_can_be_chosen(server: Server) -> None:
    assert set(infer(server, outputs=[{"name": "label"}]).outputs) == {"label"}


@pytest.mark.parametrize(
    ("tensor", "pointer"),
    [
        ({"name": "image", "datatype": "FP32", "shape": [3], "data": [1, 2]}, "/inputs/0/shape"),
        ({"name": "image", "datatype": "INT64", "shape": [1], "data": [2**31]}, "/inputs/0/data/0"),
        ({"name": "other", "datatype": "INT32", "shape": [1], "data": [1]}, "/inputs/0/name"),
        ({"name": "image", "datatype": "BYTES", "shape": [1], "data": ["x"]}, "/inputs/0/datatype"),
        ({"name": "options", "datatype": "BYTES", "shape": [1], "data": ["{"]}, "/inputs/0/data"),
        ({"name": "options", "datatype": "BYTES", "shape": [1], "data": ["7"]}, "/inputs/0/data"),
        ({"name": "prompt", "datatype": "BYTES", "shape": [2], "data": ["a"]}, "/inputs/0/shape"),
        ({"name": "prompt", "datatype": "BYTES", "data": [1]}, "/inputs/0/data/0"),
        ({"name": "prompt", "datatype": "BYTES"}, "/inputs/0/datatype"),
    ],
)
def test_faults_point_and_carry_error(server: Server, tensor: dict[str, Any], pointer: str) -> None:
    reply = infer(server, tensor)
    assert reply.status == 422, reply.body
    assert [fault["pointer"] for fault in reply.json["errors"]] == [pointer]
    assert reply.json["error"] == reply.json["detail"]


@pytest.mark.parametrize("body", [[], {"inputs": 7}, {"inputs": [7]}, 7])
def test_odd_bodies(server: Server, body: Any) -> None:
    assert server.post(body, "/v2/models/net/infer").status == 422
