"""What the developer's function gets, and what becomes of its result, over the real service."""

from __future__ import annotations

import json
import pathlib
import subprocess
from typing import Any

import pytest

from tests.unit.serving.conftest import Serve
from tests.unit.serving.server import PYTHON, Server, text, text_function

EVERYTHING = '''
import json

def shown(value):
    return json.loads(json.dumps(value, default=public))

def public(value):
    return {name: getattr(value, name) for name in value.__slots__ if not name.startswith("_")}

class Model:
    """One object, which the loader makes."""

def load(path):
    return {"path": path, "loads": 1}

def predict(parameters, inputs, output_fields, model, context):
    """All arguments, shown.

    :param inputs.text: A text
    :type inputs.text: str, optional
    :param inputs.numbers: Numbers
    :type inputs.numbers: FP32 or INT32, optional
    :param outputs.seen: What the function got
    :type outputs.seen: dict
    """
    assert 0 < context.remaining() <= 60
    seen = {"parameters": parameters, "inputs": inputs, "output_fields": output_fields}
    seen.update(model=model, context=context)
    return {"outputs": [{"name": "seen", "datatype": "dict", "data": shown(seen)}]}
'''


def seen(server: Server, request: Any, **headers: str) -> Any:
    reply = server.post(request, **headers)
    assert reply.status == 200, reply.body
    return reply.outputs["seen"]


def test_every_argument_comes_as_in_the_request(serve: Serve) -> None:
    server = serve(EVERYTHING, loader="app:load", model_path="/w", pass_user=True).ready()
    inputs = [
        {"name": "text", "datatype": "str", "data": "Привет"},
        {"name": "numbers", "datatype": "INT32", "shape": [1, 2], "data": [1, 2], "extra": 1},
    ]
    request = {
        "parameters": [{"name": "t", "data": 1}], "model_key": "big", "inputs": inputs,
        "output_fields": [{"name": "seen", "datatype": "dict"}],
    }  # fmt: skip
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    got = seen(
        server, request, X_Request_ID="id-1", X_Forwarded_User="ivanov", traceparent=trace, tracestate="a=1"
    )
    assert got["inputs"] == inputs
    assert got["parameters"] == request["parameters"]
    assert got["output_fields"] == request["output_fields"]
    assert got["model"] == {"path": "/w", "loads": 1}
    context = got["context"]
    assert context.pop("deadline") > 0
    assert context == {
        "user": "ivanov", "request_id": "id-1", "traceparent": trace, "tracestate": "a=1",
        "parameters": request["parameters"], "model_key": "big",
    }  # fmt: skip


def test_what_is_not_sent_is_empty(serve: Serve) -> None:
    server = serve(EVERYTHING, model_path="/weights").ready()
    got = seen(server, {"inputs": []}, X_Forwarded_User="ivanov")
    assert (got["inputs"], got["parameters"], got["output_fields"]) == ([], [], [])
    assert got["model"] == "/weights"  # without a loader the model is its path
    assert got["context"]["user"] is None  # pass_user is off
    assert got["context"]["model_key"] == "default"
    assert seen(server, {"parameters": None, "output_fields": None})["parameters"] == []


def test_only_declared_arguments_are_passed(serve: Serve) -> None:
    server = serve(
        text_function('return {"text": inputs[0]["data"] + other}', "*, inputs, other='!'")
    ).ready()
    assert server.post(text()).outputs == {"text": "hi!"}


def test_keyword_arguments_take_all(serve: Serve) -> None:
    server = serve(text_function('return {"text": ",".join(sorted(rest))}', "parameters, **rest")).ready()
    assert server.post(text()).outputs == {"text": "context,inputs,model,output_fields"}


def test_the_id_is_echoed(echo: Server) -> None:
    assert echo.post({**text(), "id": "é-1"}).json["id"] == "é-1"
    assert "id" not in echo.post(text()).json


MANY = '''
def predict(parameters):
    """Many outputs, whatever the parameter says.

    :param outputs.label: A label
    :type outputs.label: str
    :param outputs.scores: Numbers
    :type outputs.scores: FP32 or INT32, optional
    """
    return eval(parameters[0])
'''


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Any:
    server = Server(tmp_path_factory.mktemp("many"), MANY).ready()
    yield server
    server.close()


LABEL = {"name": "label", "datatype": "str", "data": "cat"}


@pytest.mark.parametrize(
    ("result", "outputs"),
    [
        ('[{"name": "label", "datatype": "str", "data": "cat"}]', [LABEL]),
        ('({"name": "label", "datatype": "str", "data": "cat"},)', [LABEL]),
        ('{"outputs": [{"name": "label", "datatype": "str", "data": "cat"}]}', [LABEL]),
        ('[{"name": "label", "data": "cat"}]', [LABEL]),
        ('{"label": "cat"}', [LABEL]),
        ('{"label": "\\udcff"}', [{**LABEL, "data": "\udcff"}]),
        ('{"scores": [1, 2]}', [{"name": "scores", "datatype": "INT32", "shape": [2], "data": [1, 2]}]),
        ('{"scores": [1, 2.5]}', [{"name": "scores", "datatype": "FP32", "shape": [2], "data": [1, 2.5]}]),
        ('{"scores": 0.5}', [{"name": "scores", "datatype": "FP32", "shape": [1], "data": [0.5]}]),
        ('{"scores": []}', [{"name": "scores", "datatype": "FP32", "shape": [0], "data": []}]),
        (
            '{"scores": [[0.5, float("nan")], [float("inf"), float("-inf")]]}',
            [{"name": "scores", "datatype": "FP32", "shape": [2, 2], "data": [0.5, None, None, None]}],
        ),
        (
            '[{"name": "label", "datatype": "str", "data": "cat", "parameters": {"x": float("nan")}}]',
            [{**LABEL, "parameters": {"x": None}}],
        ),
        ('[{"name": "more", "datatype": "str", "data": "x"}]', [{"name": "more", "datatype": "str", "data": "x"}]),
        ("{}", []),
        ("[]", []),
    ],
)  # fmt: skip
def test_forms_of_results(many: Server, result: str, outputs: list[Any]) -> None:
    reply = many.post({"parameters": [result]})
    assert reply.status == 200, reply.body
    assert b"NaN" not in reply.body
    assert reply.json == {"outputs": outputs}


def test_what_departs_from_the_docstring_is_told_the_developer_once(many: Server) -> None:
    for _ in range(2):
        assert many.post({"parameters": ['[{"name": "odd", "datatype": "str", "data": ""}]']}).status == 200
    for departure in (
        "returns output 'odd', which its docstring does not describe",
        "does not return output 'label'",
    ):
        many.wait_for(departure)  # told through a pipe: it may come after the reply
        assert len(many.lines(departure)) == 1


def test_ragged_lists_have_no_shape(many: Server) -> None:
    reply = many.post({"parameters": ['{"scores": [[1], [2, 3]]}']})
    assert reply.status == 500
    assert "output 'scores' is a list of lists of different lengths" in reply.json["detail"]


def test_output_fields_limit_and_choose(many: Server) -> None:
    both = {"parameters": ['{"label": "cat", "scores": [1]}']}
    assert set(many.post(both).outputs) == {"label", "scores"}
    limited = many.post({**both, "output_fields": [{"name": "scores", "datatype": "FP32"}]})
    assert limited.json["outputs"] == [{"name": "scores", "datatype": "FP32", "shape": [1], "data": [1]}]
    listed = '[{"name": "label", "datatype": "str", "data": "a"}, {"name": "scores", "datatype": "INT32", "data": [1]}]'
    assert set(many.post({"parameters": [listed], "output_fields": [{"name": "label"}]}).outputs) == {"label"}


NUMPY = '''
import numpy as np

def predict(parameters):
    """Arrays.

    :param outputs.scores: Numbers
    :type outputs.scores: FP32 or INT32
    :param outputs.rest: Anything
    :type outputs.rest: dict
    """
    return eval(parameters[0])
'''


def test_numpy_is_understood_when_it_is_there(serve: Serve) -> None:
    if subprocess.run([PYTHON, "-c", "import numpy"], capture_output=True, check=False).returncode:
        pytest.skip("the interpreter has no numpy")
    server = serve(NUMPY).ready()

    def output(result: str) -> Any:
        reply = server.post({"parameters": [result]})
        assert reply.status == 200, reply.body
        return reply.json["outputs"][0]

    scores = {"name": "scores", "datatype": "FP32"}
    assert output('{"scores": np.array([[0.5, np.nan]], "f4")}') == {
        **scores,
        "shape": [1, 2],
        "data": [0.5, None],
    }
    assert output('{"scores": np.float32(0.5)}') == {**scores, "shape": [1], "data": [0.5]}
    assert output('{"scores": np.array([[1], [2]], "i8")}') == {
        "name": "scores", "datatype": "INT32", "shape": [2, 1], "data": [1, 2],
    }  # fmt: skip
    assert output('[{"name": "scores", "datatype": "FP32", "data": np.zeros((2, 1))}]') == {
        **scores, "shape": [2, 1], "data": [0.0, 0.0],
    }  # fmt: skip
    deep = '{"rest": {"a": np.int64(1), "b": [np.array([1.5, np.inf])], "c": np.bool_(True)}}'
    assert output(deep)["data"] == {"a": 1, "b": [[1.5, None]], "c": True}


def test_async_functions_and_loaders(serve: Serve) -> None:
    source = '''
import asyncio

async def load(path):
    return asyncio.get_running_loop()

async def predict(inputs, model):
    """Echo.

    :param inputs.text: A text
    :type inputs.text: str
    :param outputs.text: The same
    :type outputs.text: str
    """
    assert model is asyncio.get_running_loop()
    text = inputs[0]["data"]
    if text == "exit":
        raise SystemExit(3)
    if text == "block":
        await asyncio.Event().wait()
    await asyncio.sleep(0)
    return {"text": text}
'''
    server = serve(source, loader="app:load", timeout=0.3, concurrency=1).ready()
    assert server.post(text()).outputs == {"text": "hi"}
    assert server.post(text("exit")).status == 500
    assert server.post(text("block")).status == 504
    server.wait_for("after its timeout")  # cancelled: unlike a thread's, its slot is free again
    assert server.post(text()).outputs == {"text": "hi"}


def test_classes_methods_and_callable_objects(serve: Serve) -> None:
    docstring = '''"""Echo.

        :param inputs.text: A text
        :type inputs.text: str
        """'''
    source = f"""
class Service:
    def __call__(self, inputs):
        {docstring}
        return []
    @staticmethod
    def predict(inputs):
        {docstring}
        return []
"""
    assert serve(source, inference="app:Service.predict").ready().post(text()).json == {"outputs": []}


FILES = '''
import os

def predict(inputs):
    """Copy a file.

    :param inputs.file: A file
    :type inputs.file: FILE
    :param outputs.copy: Its copy
    :type outputs.copy: FILE
    """
    path = inputs[0]["data"]
    if path.endswith("same.txt"):
        return {"copy": path}
    if path.endswith("none.txt"):
        return {"copy": "/no/such/file"}
    with open(path) as source, open("/tmp/" + str(os.getpid()) + "-copy.txt", "w") as target:
        target.write(source.read().upper())
    return {"copy": target.name}
'''


def file_request(key: str) -> dict[str, Any]:
    return {"inputs": [{"name": "file", "datatype": "FILE", "data": key, "content_type": "text/plain"}]}


def test_files_from_a_local_folder(serve: Serve, tmp_path: pathlib.Path) -> None:
    root = tmp_path / "box"
    (root / "group").mkdir(parents=True)
    for name in ("cat.txt", "same.txt", "none.txt"):
        (root / "group" / name).write_text("meow")
    (tmp_path / "secret").write_text("secret")
    (root / "link").symlink_to(tmp_path / "secret")
    server = serve(FILES, files_root=str(root)).ready()
    key = server.post(file_request("group/cat.txt"), X_Request_ID="r/1").outputs["copy"]
    assert key.startswith("outputs/r_1/copy/")
    assert (root / key).read_text() == "MEOW"
    assert server.post(file_request("group/same.txt")).outputs == {"copy": "group/same.txt"}
    missing = server.post(file_request("group/none.txt"))
    assert missing.status == 500
    assert "output 'copy': there is no file at '/no/such/file'" in missing.json["detail"]
    for bad in (
        "../secret",
        "group/../../secret",
        "link",
        "/etc/passwd",
        "group",
        "nothing",
        "a//b",
        "a\0b",
        "x" * 901,
    ):
        reply = server.post(file_request(bad))
        assert reply.status == 422, bad
        assert reply.json["errors"][0]["pointer"] == "/inputs/0/data"
        assert b"secret\n" not in reply.body


def test_files_without_a_box(serve: Serve) -> None:
    reply = serve(FILES).ready().post(file_request("group/cat.txt"))
    assert reply.status == 422
    assert "no box connected" in reply.json["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is empty"),
        (b"{", "Expecting property name"),
        (b'{"inputs": []} x', "Extra data"),
        (b'{"inputs": [{"name": "text", "datatype": "str", "data": NaN}]}', "NaN is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b'"\xff"', "not UTF-8"),
        (b"[" * 50_000, "nested too deeply"),
        (b"1" * 5000, "digits"),
        (b"\xef\xbb\xbf{}", "Expecting value"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
    ],
)
def test_malformed_json_is_400(echo: Server, body: bytes, words: str) -> None:
    reply = echo.post(body)
    assert reply.status == 400
    assert reply.json["type"] == "urn:prichal:problem:malformed-json"
    assert words in reply.json["detail"]


def test_every_fault_of_a_request_is_told(echo: Server) -> None:
    request = {
        "parameters": {},
        "inputs": [{"name": "image", "datatype": "str", "data": ""}, 7, {"name": "text", "datatype": "FP32"}],
        "output_fields": [{"name": "label"}, {"name": 7, "datatype": "dict"}],
    }  # fmt: skip
    reply = echo.post(request)
    assert reply.status == 422
    assert {fault["pointer"] for fault in reply.json["errors"]} == {
        "/parameters", "/inputs/0/name", "/inputs/1", "/inputs/2/datatype",
        "/output_fields/0/name", "/output_fields/1/name",
    }  # fmt: skip
    assert "(and 5 more)" in reply.json["detail"]


def test_the_page_for_people_escapes_what_the_developer_wrote(serve: Serve) -> None:
    source = text_function("return {}").replace("A text", "<script>alert('&')</script>")
    page = serve(source).ready().get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert b"<script>alert" not in page.body
    assert b"&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;" in page.body
    assert not [link for link in page.body.decode().split('href="')[1:] if link.startswith("http")]


def test_the_description_is_served(echo: Server) -> None:
    reply = echo.get("/openapi.json")
    assert reply.json["openapi"] == "3.1.0"
    assert reply.json["info"]["title"] == "demo/echo"
    assert (
        echo.post(
            json.dumps(
                reply.json["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"][
                    "example"
                ]
            ).encode()
        ).status
        == 200
    )
