"""With orjson the answers are the same, and come sooner: large requests and replies without any, with the image's, and
with the one that is kept beside the serving library.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.serving.kept import kept_folder, library_without
from tests.unit.serving.server import Reply, Server

ROOT = Path(__file__).parents[3]
SOURCE = '''
import sys

def predict(inputs, parameters):
    """Give back what came, or make what is asked for.

    :param inputs.single: numbers
    :type inputs.single: FP32, optional
    :param inputs.double: numbers
    :type inputs.double: FP64, optional
    :param inputs.long: whole numbers
    :type inputs.long: INT64, optional
    :param inputs.object: an object
    :type inputs.object: dict, optional
    :param inputs.text: a text
    :type inputs.text: str, optional
    :param outputs.single: numbers
    :type outputs.single: FP32, optional
    :param outputs.double: numbers
    :type outputs.double: FP64, optional
    :param outputs.long: whole numbers
    :type outputs.long: INT64, optional
    :param outputs.object: an object
    :type outputs.object: dict, optional
    :param outputs.text: a text
    :type outputs.text: str, optional
    :param outputs.seen: what beside
    :type outputs.seen: str
    :param outputs.fast: is orjson there for the function?
    :type outputs.fast: INT32
    """
    made = {}
    if parameters:
        import numpy
        made = eval(parameters[0], {"numpy": numpy, "nan": float("nan"), "inf": float("inf")})
    given = {item["name"]: item["data"] for item in inputs}
    kinds = sorted({type(value).__name__ for value in given.get("object", {}).values()})
    return {**given, **made, "seen": repr(kinds), "fast": "orjson" in sys.modules}
'''
PAD = " " * 20_000  # makes a text large


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, ...]]:
    """Without orjson, with the image's, and with the kept one."""
    folder = ROOT / "build" / "clients"
    requirements = ROOT / "tests" / "clients" / "requirements.txt"
    subprocess.run([ROOT / "scripts" / "python-env", folder, requirements], check=True)
    kept_folder()
    without = tmp_path_factory.mktemp("plain")
    library_without(without)
    with contextlib.ExitStack() as stack:
        servers = (
            Server(without, SOURCE, component="net"),
            Server(tmp_path_factory.mktemp("image"), SOURCE, folder / "bin" / "python", component="net"),
            Server(tmp_path_factory.mktemp("kept"), SOURCE, component="net"),
        )
        for server in servers:
            stack.callback(server.close)
        yield tuple(server.ready() for server in servers)


def same(servers: tuple[Server, ...], body: bytes) -> Reply:
    """The reply of all."""
    plain, *fast = (server.post(body) for server in servers)
    assert {plain.status} == {reply.status for reply in fast}, (plain.body[:500], fast[0].body[:500])
    if plain.status != 200:
        for reply in fast:
            assert {**plain.json, "instance": ""} == {**reply.json, "instance": ""}
        return plain
    outputs = [reply.json["outputs"] for reply in (plain, *fast)]
    assert [found.pop()["data"] for found in outputs] == [[0], [1], [0]]
    first, *others = ({output["name"]: repr(output["data"]) for output in found} for found in outputs)
    assert all(first == other for other in others)
    return plain


def request(name: str, datatype: str, data: str) -> bytes:
    return f'{{"inputs": [{{"name": "{name}", "datatype": "{datatype}", "data": {data}}}]{PAD}}}'.encode()


NUMBERS = [0.1, -0.0, 5e-324, 1e16, 123456789.125, 1 / 3, 2, 10**15, 3.4e38, 1e-7]


@pytest.mark.parametrize(
    "body",
    [
        request("double", "FP64", json.dumps(NUMBERS * 2000)),
        request("single", "FP32", json.dumps(NUMBERS * 2000)),
        request("double", "FP64", "1e400"),
        request("double", "FP64", "[1e400]"),
        request("double", "FP64", f"[{2**64}, {2**70}, -{2**64}, 0.{'1' * 30}]"),
        request("double", "FP64", "9" * 400),
        request("double", "FP64", "9" * 5000),
        request("double", "FP64", "[NaN]"),
        request("double", "FP64", json.dumps([0.5] * 20_000 + [None] + [0.5] * 20_000)),
        request("double", "FP64", json.dumps([0.5] * 20_000 + [True] + [0.5] * 20_000)),
        request("single", "FP32", json.dumps([0.5] * 20_000 + [1e39] + [0.5] * 20_000)),
        request("single", "FP32", json.dumps([0.5] * 40_000)[:-1] + ",]"),
        request("long", "INT64", json.dumps([2**40] * 20_000 + [7.0, -(2**63) - 1] + [1] * 20_000)),
        request("double", "FP64", json.dumps([0.5] * 20_000 + [-(2**63) - 1] + [0.5] * 20_000)),
        request("double", "FP64", "[1,]"),
        request("double", "FP64", "[01]"),
        request("double", "FP64", "[true]"),
        request("long", "INT64", f"[{2**63 - 1}, -{2**63}, 7.0]"),
        request("long", "INT64", f"[{2**63}]"),
        request("long", "INT64", f"[{2**64}]"),
        request("object", "dict", f'{{"a": {2**64}, "b": {2**64 - 1}, "c": 1.5}}'),
        request("object", "dict", f'{{"a":-{2**70}}}'),
        request("object", "dict", '{"a": 1, "a": 2}'),
        request("object", "dict", "[" * 200 + "]" * 200),
        request("object", "dict", '{"a":' * 97 + "1" + "}" * 97),
        request("object", "dict", '{"a":' * 98 + "1" + "}" * 98),
        request("object", "dict", "[" * 100_000),
        request("text", "str", '"\\ud800"'),
        request("text", "str", '"\\ud83d\\ude00\\u0000"'),
        request("text", "str", '"a').replace(b"}", b""),
        b"\xff" + request("text", "str", '""'),
        b"\xef\xbb\xbf" + request("text", "str", '""'),
        PAD.encode(),
    ],
)  # fmt: skip
def test_requests_are_read_alike(servers: tuple[Server, ...], body: bytes) -> None:
    same(servers, body)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ('{"double": [0.1, nan, inf, None, True, 3] * 5000}', [0.1, None, None, None, 1.0, 3]),
        ('{"double": [0.1, 2**70, 1] * 5000}', [0.1, 2**70, 1]),
        ('{"double": numpy.array([0.1, nan, -inf] * 5000)}', [0.1, None, None]),
        ('{"single": numpy.array([0.1, nan, 2] * 5000, "f4")}', [0.10000000149011612, None, 2.0]),
        ('{"single": numpy.array([0.5, 2] * 9000, "f2")[::-1]}', [2.0, 0.5]),
        ('{"double": numpy.array([[1, 2]] * 9000, ">i4").T.copy().T[:, ::-1]}', [2, 1]),
        ('{"long": numpy.arange(20000)[::2]}', [0, 2, 4]),
        ('{"long": numpy.full(20000, 255, "u1")}', [255]),
        ('{"long": [2**62, None] * 9000}', [2**62, None]),
        ('{"long": [2**63] * 20000}', "not an integer within"),
        ('{"object": {"a": {1, 2}}, "long": [1] * 20000}', "set is not JSON"),
        ('{"text": "\\udcff", "long": [1] * 20000}', [1]),
    ],
)  # fmt: skip
def test_replies_are_written_alike(servers: tuple[Server, ...], made: str, expected: Any) -> None:
    reply = same(servers, json.dumps({"inputs": [], "parameters": [made]}).encode())
    if isinstance(expected, str):
        assert expected in reply.json["detail"]
        return
    (data,) = (output["data"] for output in reply.json["outputs"] if len(output["data"]) > 1000)
    assert data[: len(expected)] == expected
