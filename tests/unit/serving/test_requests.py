"""Requests of every kind on both protocols: bodies as existing clients send them, no fault of ours, no work without
bounds.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.serving import docstring, jsontext
from tests.unit.serving.conftest import Serve
from tests.unit.serving.server import Reply, Server, text, text_function

SOURCE = '''
def predict(inputs, parameters, output_fields):
    """Show what it got.

    :param inputs.single: Numbers
    :type inputs.single: FP32, optional
    :param inputs.count: Whole numbers
    :type inputs.count: INT32, optional
    :param inputs.double: Numbers
    :type inputs.double: FP64, optional
    :param inputs.text: A text
    :type inputs.text: str, optional
    :param inputs.options: An object
    :type inputs.options: dict, optional
    :param inputs.file: A file
    :type inputs.file: FILE, optional
    :param outputs.seen: What it got
    :type outputs.seen: dict
    :param outputs.size: How many inputs
    :type outputs.size: INT32 or FP32
    """
    return {"seen": {"inputs": inputs, "parameters": parameters, "fields": output_fields}, "size": len(inputs)}
'''
INFER = "/v2/models/net/infer"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("requests")
    (folder / "box" / "group").mkdir(parents=True)
    (folder / "box" / "group" / "cat.png").write_bytes(b"cat")
    server = Server(folder, SOURCE, component="net", files_root=str(folder / "box")).ready()
    yield server
    server.close()


def seen(reply: Reply) -> Any:
    """The inputs as the function got them."""
    assert reply.status == 200, reply.body
    shown = reply.outputs["seen"]
    return (json.loads(shown[0]) if isinstance(shown, list) else shown)["inputs"]


# --- the clients of the reference ------------------------------------------------------------------------------


PROMPT = "Extract data"


@pytest.mark.parametrize(
    "shape", [0, 1, len(PROMPT), [1], [len(PROMPT)], [], [0], "1", None, {"d": 1}, -1, 1.5, True, [[1]]]
)
@pytest.mark.parametrize(
    "item",
    [
        {"name": "text", "datatype": "str", "data": PROMPT},
        {"name": "options", "datatype": "dict", "data": {"a": 1}},
        {"name": "file", "datatype": "FILE", "data": "group/cat.png", "content_type": "image/png"},
    ],
)  # fmt: skip
def test_the_shape_of_what_is_no_number_is_passed_on(
    server: Server, item: dict[str, Any], shape: Any
) -> None:
    (got,) = seen(server.post({"inputs": [{**item, "shape": shape}]}))
    if item["datatype"] == "FILE":
        assert got.pop("data").endswith("group/cat.png")
        item = {name: value for name, value in item.items() if name != "data"}
    assert got == {**item, "shape": shape}


@pytest.mark.parametrize(
    "body",
    [
        {
            "inputs": [
                {"name": "text", "data": PROMPT, "datatype": "str", "shape": len(PROMPT)},
                {"name": "file", "data": "group/cat.png", "datatype": "FILE", "content_type": "image/png", "shape": 1},
            ],
            "output_fields": [{"name": "size", "datatype": "str"}],
        },
        {
            "parameters": [],
            "inputs": [{"name": "text", "datatype": "str", "content_type": "image/png", "data": "\x89PNG\xff"}],
            "output_fields": [{"name": "seen"}, {"name": "size"}],
            "model_key": "default",
        },
        {
            "inputs": [{"name": "text", "datatype": "str", "data": "q", "shape": 0}],
            "output_fields": [{"name": "seen", "datatype": "str"}, {"name": "size", "datatype": "FP64"}],
        },
        {
            "parameters": None,
            "model_key": None,
            "output_fields": None,
            "inputs": [{"name": "text", "datatype": "str", "data": ""}],
        },
        {
            "inputs": [{"name": "single", "datatype": "FP32", "data": [1, 2, 3, 4], "shape": [2, 2]}],
            "output_fields": [],
        },
    ],
)  # fmt: skip
def test_bodies_of_the_references_clients(server: Server, body: dict[str, Any]) -> None:
    reply = server.post(body)
    assert reply.status == 200, reply.body


@pytest.mark.parametrize("asked", ["FP64", "str", "FILE", "float", "", 7, None, ["INT32"], {"a": 1}])
def test_an_output_comes_as_the_docstring_says_whatever_is_asked(server: Server, asked: Any) -> None:
    reply = server.post({"inputs": [], "output_fields": [{"name": "size", "datatype": asked}]})
    assert reply.json["outputs"] == [{"name": "size", "datatype": "INT32", "shape": [1], "data": [0]}]


def test_one_of_the_docstrings_datatypes_may_be_asked_for(server: Server) -> None:
    reply = server.post({"inputs": [], "output_fields": [{"name": "size", "datatype": "FP32"}]})
    assert reply.json["outputs"] == [{"name": "size", "datatype": "FP32", "shape": [1], "data": [0]}]


# --- the Open Inference Protocol -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["application/octet-stream", "Application/Octet-Stream", None, "", "application/json"]
)
def test_json_by_any_name_that_the_protocols_clients_give_it(server: Server, kind: str | None) -> None:
    body = json.dumps({"inputs": []}).encode()
    headers = {} if kind is None else {"Content-Type": kind}
    assert server.ask("POST", INFER, body, headers).status == 200
    if kind != "application/json":
        assert server.ask("POST", "/predict", body, headers).status == 415


def test_what_is_no_json_is_still_refused(server: Server) -> None:
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/octet-stream; charset=utf-16",
    ):
        reply = server.ask("POST", INFER, b"{}", {"Content-Type": kind})
        assert (reply.status, reply.json["error"]) == (415, reply.json["detail"])


TYPES = ["INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"]
FLOATS = ["FP16", "BF16", "FP32", "FP64"]


@pytest.mark.parametrize(
    ("name", "sent", "data", "got"),
    [
        *(("count", sent, [0, 1, 127], [0, 1, 127]) for sent in TYPES),
        *(("double", sent, [0, 1, 127], [0, 1, 127]) for sent in TYPES),
        *(("single", sent, [0, 1, 127], [0, 1, 127]) for sent in TYPES),
        *((name, sent, [0.5, -1.5, 2], [0.5, -1.5, 2]) for name in ("single", "double") for sent in FLOATS),
        ("count", "BOOL", [True, False, 1], [1, 0, 1]),
        ("single", "BOOL", [[True], [False]], [1, 0]),
        ("count", "INT64", [[-(2**31)], [2**31 - 1]], [-(2**31), 2**31 - 1]),
        ("double", "UINT64", [2**64 - 1], [2**64 - 1]),
        ("single", "FP64", [[[0.1]]], [0.1]),
    ],
)  # fmt: skip
def test_numbers_of_other_types_are_taken_if_they_fit(
    server: Server, name: str, sent: str, data: list[Any], got: list[Any]
) -> None:
    described = {"single": "FP32", "double": "FP64", "count": "INT32"}[name]
    (item,) = seen(server.post({"inputs": [tensor(name, sent, len(got), data)]}, INFER))
    assert item == {"name": name, "datatype": described, "shape": [len(got)], "data": got}
    assert [type(value) for value in item["data"]] == [type(value) for value in got]


@pytest.mark.parametrize(
    ("name", "sent", "data", "pointer", "words"),
    [
        ("count", "INT64", [1, 2**31], "/data/1", "not 2147483648"),
        ("count", "UINT32", [2**32 - 1], "/data/0", "not 4294967295"),
        ("count", "UINT8", [256], "/data/0", "an integer within 0..255, not 256"),
        ("count", "UINT64", [-1], "/data/0", "not -1"),
        ("count", "INT8", [[1], [-129]], "/data/1", "not -129"),
        ("count", "INT64", [1.5], "/data/0", "not 1.5"),
        ("count", "INT64", [True], "/data/0", "not a boolean"),
        ("count", "INT64", [None], "/data/0", "not null"),
        ("count", "INT64", ["1"], "/data/0", "not a string"),
        ("count", "BOOL", [2], "/data/0", "true or false, not 2"),
        ("count", "BOOL", ["true"], "/data/0", "not a string"),
        ("single", "FP64", [1, 1e39], "/data/1", "not 1e+39"),
        ("single", "FP16", [70000], "/data/0", "not 70000"),
        ("double", "INT64", [2**63], "/data/0", "not 9223372036854775808"),
        ("double", "FP32", [1e39], "/data/0", "not 1e+39"),
        ("count", "FP32", [1.0], "/datatype", "use INT32"),
        ("count", "BYTES", ["1"], "/datatype", "use INT32"),
        ("count", "INT128", [1], "/datatype", "'INT128' is not a datatype"),
        ("count", ["INT64"], [1], "/datatype", "an array is not a datatype"),
        ("text", "INT64", [1], "/datatype", "use BYTES"),
        ("single", "FP32", [1.0, [2.0]], "/data/1", "not an array"),
        ("single", "FP32", [[1.0], [2.0, 3.0]], "/data", "different lengths"),
        ("text", "BYTES", [["a"], "b"], "/data", "different lengths"),
        ("text", "BYTES", ["a", "b"], "/shape", "needs 1 elements"),
        ("options", "BYTES", [7], "/data", "each element must be a string"),
        ("options", "BYTES", ['{"a": NaN}'], "/data", "NaN is not JSON"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(
    server: Server, name: str, sent: Any, data: list[Any], pointer: str, words: str
) -> None:
    size = 1 if name in ("text", "options") else len(data)
    reply = server.post({"inputs": [tensor(name, sent, size, data)]}, INFER)
    assert reply.status == 422, reply.body
    (fault,) = reply.json["errors"]
    assert fault["pointer"] == f"/inputs/0{pointer}"
    assert words in fault["detail"]
    assert reply.json["error"] == reply.json["detail"]


def test_error_is_in_every_answer_below_v2(serve: Serve) -> None:
    body = 'if inputs[0]["data"] == "fail":\n    raise ValueError("no")\ntime.sleep(60)'
    server = serve(text_function(body), component="net", timeout=0.3, max_body=1000).ready()
    failing = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["fail"]}]}
    slow = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["slow"]}]}
    replies = {
        404: server.get("/v2/models/other"),
        405: server.get(INFER),
        400: server.post(b"{", INFER),
        413: server.post(b" " * 2000, INFER),
        415: server.post({}, INFER, Content_Type="text/plain"),
        417: server.post({}, INFER, Expect="something"),
        422: server.post({"inputs": []}, INFER),
        500: server.post(failing, INFER),
        504: server.post(slow, INFER),
    }
    for status, reply in replies.items():
        assert (reply.status, reply.json["error"]) == (status, reply.json["detail"])
    assert "error" not in server.get("/v3").json
    assert "error" not in server.post(b"{").json
    large_head = server.ask("GET", "/v2", None, {"X": "x" * 40_000})
    assert (large_head.status, large_head.json["error"]) == (431, large_head.json["detail"])


def test_error_is_there_while_there_is_no_worker(serve: Serve) -> None:
    before = 'if os.path.exists("fail"): raise ImportError("gone")'
    server = serve(
        text_function('open("fail", "w").close(); os._exit(1)', before=before), component="net"
    ).ready()
    with contextlib.suppress(http.client.HTTPException, OSError):
        server.post(text())
    server.wait_for("importing app failed")
    reply = server.post({"inputs": []}, INFER)
    assert (reply.status, reply.json["error"]) == (503, reply.json["detail"])


# --- bounds ----------------------------------------------------------------------------------------------------


def nested(levels: int, inner: str = "1") -> str:
    return "[" * levels + inner + "]" * levels


def asking(text: str = "", **item: Any) -> str:
    """A body with one input. The value "HERE" is replaced by a text that is too deep for Python to write."""
    return json.dumps({"inputs": [item]}).replace('"HERE"', text)


def tensor(name: str, datatype: Any, size: int, data: Any = "HERE") -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [size], "data": data}


MANY = 300_000
ONES = ",".join(["1"] * MANY)
NUMERIC = tensor("single", "FP32", MANY)
OBJECT = {"name": "options", "datatype": "dict"}
TEXT = tensor("text", "BYTES", 1, ["a"])
LARGE = 2**31 - 1
BOUNDED = {
    "a tensor of 60 levels": (INFER, asking(nested(60, ONES), **NUMERIC)),
    "a tensor of 900 levels": (INFER, asking(nested(900, ONES), **NUMERIC)),
    "a tensor of ragged levels": (INFER, asking(f"[{nested(30, ONES)}, 1]", **NUMERIC)),
    "an open object": (INFER, asking(**tensor("options", "BYTES", 1, ["[" * 3000]))),
    "an object": (INFER, asking(**tensor("options", "BYTES", 1, ['{"a":' * 3000 + "1" + "}" * 3000]))),
    "a dict": ("/predict", asking(nested(200), **OBJECT, data={"a": "HERE"})),
    "a datatype": ("/predict", asking(nested(90), name="options", datatype="HERE", data={})),
    "a name": ("/predict", asking(nested(700), name="HERE")),
    "a box": ("/predict", asking(nested(700), name="file", datatype="FILE", box="HERE", data=1)),
    "an unknown member": (INFER, asking(nested(300), name="options", what="HERE")),
    "a shape": ("/predict", asking(**{**NUMERIC, "data": [1], "shape": [LARGE] * MANY})),
    "a shape of large sizes": ("/predict", asking(**{**NUMERIC, "data": [1], "shape": [LARGE] * 32})),
    "a shape of texts": (INFER, asking(**{**TEXT, "shape": [LARGE] * MANY})),
    "parameters": ("/predict", '{"parameters": ' + nested(800) + "}"),
    "unknown inputs": ("/predict", json.dumps({"inputs": [{"name": "x"}] * MANY})),
    "unknown outputs": ("/predict", json.dumps({"inputs": [], "output_fields": [{"name": "x"}] * MANY})),
    "tensors of another type": (
        INFER,
        json.dumps({"inputs": [tensor("text", "FP16", 1, [1])] * (MANY // 10)}),
    ),
    "tensors that do not fit": (
        INFER,
        json.dumps({"inputs": [tensor("single", "BOOL", 1, [2])] * (MANY // 10)}),
    ),
    "tensors of texts that are none": (
        INFER,
        json.dumps({"inputs": [{**TEXT, "shape": [-1]}] * (MANY // 10)}),
    ),
    "tensors without a shape": (
        INFER,
        json.dumps({"inputs": [tensor("single", "FP32", 1, [[1], 1])] * (MANY // 10)}),
    ),
    "inputs that are none": (INFER, json.dumps({"inputs": [1] * MANY})),
    "a long name": ("/predict", asking(name="x" * 10**6)),
    "a long datatype": ("/predict", asking(name="single", datatype="x" * 10**6, data=1)),
    "texts that are none": ("/predict", asking(name="text", datatype="str", shape=1, data=[1] * MANY)),
}


@pytest.mark.parametrize("case", BOUNDED)
def test_work_is_bounded(server: Server, case: str) -> None:
    """All but linear work would take minutes, and whatever recurses would fail."""
    path, body = BOUNDED[case]
    reply = server.post(body.encode(), path)
    assert reply.status in (400, 422), reply.body[:300]
    assert len(reply.body) < 100_000


@pytest.mark.parametrize("levels", [32, 33])
def test_tensors_may_have_as_many_levels_as_a_shape_sizes(server: Server, levels: int) -> None:
    given = {"name": "single", "datatype": "FP32", "data": json.loads(nested(levels))}
    reply = server.post({"inputs": [given]}, INFER)
    assert reply.status == (200 if levels == 32 else 422)
    if levels == 32:
        assert seen(reply) == [{"name": "single", "datatype": "FP32", "shape": [1] * 32, "data": [1]}]


def test_json_is_bounded_in_depth() -> None:
    assert jsontext.read(nested(100)) == json.loads(nested(100))
    assert jsontext.read(json.dumps("[" * 1000)) == "[" * 1000
    for written in (
        nested(101),
        '{"a":' * 101 + "1" + "}" * 101,
        nested(50, f'{{"a": {nested(60)}}}'),
        nested(100_000),
    ):
        with pytest.raises(ValueError, match="nested too deeply"):
            jsontext.read(written)
    with pytest.raises(ValueError, match="digits"):
        jsontext.read("1" * 5000)


def test_a_request_is_read_within_its_slot(serve: Serve) -> None:
    """So that what takes long to read is bounded in number and in time as calls are."""
    body = 'print("in")\nwhile not os.path.exists("go"): time.sleep(0.01)\nreturn {"text": ""}'
    server = serve(text_function(body), concurrency=1, queue=0).ready()
    running = server.in_background(text())
    server.wait_until(lambda: server.printed)
    assert server.post(b"{").status == 503
    server.release()
    assert running.reply().status == 200
    assert server.post(b"{").status == 400


def test_reading_counts_against_the_timeout_of_calls_with_files_too(serve: Serve) -> None:
    """They are read before they have a slot, since files come first."""
    patched = "from prichal_serving import jsontext\nread = jsontext.read\n"
    patched += "jsontext.read = lambda text: (time.sleep(1), read(text))[1]\n"
    source = text_function('return {"text": ""}', before=patched).replace(
        "text: str", "text: str, optional", 1
    )
    source = source.replace(
        "    :param outputs.text",
        "    :param inputs.file: A file\n    :type inputs.file: FILE, optional\n    :param outputs.text",
    )
    server = serve(source, timeout=0.5, files_root=".").ready()
    assert server.post(text()).status == 504


def test_docstrings_take_linear_time() -> None:
    blanks, words = " \t" * 100_000, "word\n" * 200_000
    for written in (
        f":param{blanks}x",
        f":param {blanks}inputs.x{blanks}x",
        f"{blanks}:type inputs.x{blanks}: str{blanks}or{blanks}dict",
        f":param inputs.x: X\n{words}:type inputs.x: str",
        f":type inputs.x: {'str or ' * 100_000}",
        ":a b" * 100_000 + " inputs.",
    ):
        assert docstring.parse(written)


@pytest.mark.parametrize(
    "source", ["(" * 10_000, "-" * 100_000 + "1", "x = '\0'", "x = '\ud800'", "a" + ".a" * 100_000]
)
def test_source_that_cannot_be_parsed(source: str) -> None:
    with pytest.raises(SyntaxError):
        docstring.find(source, "predict")


# --- anything --------------------------------------------------------------------------------------------------


ATOMS: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=4),
    st.sampled_from([2**31, -(2**31), 1e39, 10**400, "{}", "[" * 2000, '{"a": 1}', "group/cat.png", "../x", "\udcff"]),
)  # fmt: skip
JSON: st.SearchStrategy[Any] = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
)
KINDS = st.sampled_from(
    ["FP32", "FP64", "FP16", "INT32", "INT64", "UINT8", "BOOL", "BYTES", "str", "dict", "FILE"]
)
NAMES = st.sampled_from(["single", "double", "count", "text", "options", "file"])
SHAPES = st.lists(st.integers(-1, 3), max_size=4) | JSON
ITEMS: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {},
    optional={
        "name": NAMES | JSON, "datatype": KINDS | JSON, "shape": SHAPES,
        "data": st.one_of(st.lists(st.booleans() | st.integers(0, 3) | st.floats(0, 1)), st.lists(st.text()), JSON),
        "content_type": JSON, "box": JSON, "parameters": JSON,
    },
)  # fmt: skip
BODIES: st.SearchStrategy[Any] = (
    st.fixed_dictionaries(
        {"inputs": st.lists(ITEMS | JSON, max_size=3) | JSON},
        optional={
            "id": JSON, "parameters": JSON, "model_key": JSON,
            "output_fields": st.lists(ITEMS | JSON, max_size=2) | JSON,
            "outputs": st.lists(ITEMS | JSON, max_size=2) | JSON,
        },
    )
    | JSON
)  # fmt: skip


def assert_no_fault_of_ours(reply: Reply, path: str) -> None:
    assert reply.status < 500, reply.body
    if reply.status >= 400:
        assert reply.headers["content-type"] == "application/problem+json"
        assert ("error" in reply.json) == (path == INFER)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(["/predict", INFER]), BODIES)
def test_no_request_is_a_fault_of_ours(server: Server, path: str, body: Any) -> None:
    assert_no_fault_of_ours(server.post(body, path), path)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(["/predict", INFER]), st.binary() | st.text('[]{}",:\\u0d8 1eE.-NaIn').map(str.encode))
def test_no_bytes_are_a_fault_of_ours(server: Server, path: str, body: bytes) -> None:
    assert_no_fault_of_ours(server.post(body, path), path)
