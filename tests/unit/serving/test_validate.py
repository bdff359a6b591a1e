"""Requests against the description: single faults, and that the check and the published OpenAPI document agree."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.serving.datatypes import FP32_MAX, Datatype
from controller.serving.openapi import document, example
from controller.serving.signature import Signature, Variable
from controller.serving.validate import compile_check


def variable(name: str, *datatypes: Datatype, optional: bool = False) -> Variable:
    return Variable(name, datatypes, optional, f"The {name}")


SIGNATURE = Signature(
    inputs=(
        variable("single", Datatype.FP32),
        variable("double", Datatype.FP64, optional=True),
        variable("count", Datatype.INT32, optional=True),
        variable("text", Datatype.STR, optional=True),
        variable("options", Datatype.DICT, optional=True),
        variable("file", Datatype.FILE, optional=True),
        variable("either", Datatype.STR, Datatype.INT32, Datatype.FP32, optional=True),
    ),
    outputs=(variable("label", Datatype.STR), variable("scores", Datatype.FP32, Datatype.FP64)),
    summary="Summary",
    description="",
)
check = compile_check(SIGNATURE)
SINGLE = {"name": "single", "datatype": "FP32", "data": [1]}


def pointers(*inputs: Any, **members: Any) -> list[str]:
    return [fault.pointer for fault in check({"inputs": [SINGLE, *inputs], **members})]


def item(name: str, datatype: Any, data: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "data": data, **more}


@pytest.mark.parametrize(
    "good",
    [
        item("double", "FP64", [1, 2.5, -0.0, 1.7e308]),
        item("double", "FP64", 1.5),
        item("double", "FP64", []),
        item("double", "FP64", [], shape=[0, 3]),
        item("double", "FP64", [1], shape=[]),
        item("double", "FP64", [1, 2, 3, 4, 5, 6], shape=[1, 2, 3]),
        item("double", "FP64", [1], shape=None),
        item("count", "INT32", [2**31 - 1, -(2**31)]),
        item("count", "INT32", 7),
        item("text", "str", ""),
        item("text", "str", ["a", "b"], shape=[2]),
        item("text", "str", ["a", "b"], shape=0),
        item("text", "str", "a", shape=[7]),
        item("options", "dict", {}),
        item("options", "dict", [{}, {}], shape=[2]),
        item("file", "FILE", "group/cat.png", content_type="image/png"),
        item("file", "FILE", "group/cat.png", content_type=None),
        item("either", "str", "a"),
        item("either", "INT32", 1),
        item("either", "FP32", [3.4028235e38]),
        item("text", "str", "a", unknown="member"),
    ],
)
def test_right_inputs(good: dict[str, Any]) -> None:
    assert pointers(good) == []


@pytest.mark.parametrize(
    ("bad", "pointer"),
    [
        (item("double", "FP64", [1, "2"]), "/data/1"),
        (item("double", "FP64", [1, None]), "/data/1"),
        (item("double", "FP64", [True]), "/data/0"),
        (item("double", "FP64", [[1]]), "/data/0"),
        (item("double", "FP64", [float("inf")]), "/data/0"),
        (item("double", "FP64", [10**400]), "/data/0"),
        (item("double", "FP64", None), "/data"),
        (item("double", "FP64", "1"), "/data"),
        (item("double", "FP64", False), "/data"),
        (item("double", "FP64", [1, 2], shape=[3]), "/shape"),
        (item("double", "FP64", [1, 2], shape=[-2]), "/shape"),
        (item("double", "FP64", [1, 2], shape=[True, 2]), "/shape"),
        (item("double", "FP64", [1, 2], shape=[2.5]), "/shape"),
        (item("double", "FP64", [1, 2], shape=2), "/shape"),
        (item("double", "FP64", [1, 2], shape=[2**31]), "/shape"),
        (item("double", "FP64", [1], shape=[1] * 33), "/shape"),
        (item("double", "FP64", 1, shape=[1]), "/data"),
        (item("single", "FP32", [1]), "/name"),
        (item("count", "INT32", [2**31]), "/data/0"),
        (item("count", "INT32", [1, -(2**31) - 1]), "/data/1"),
        (item("count", "INT32", [1.5]), "/data/0"),
        (item("count", "INT32", True), "/data"),
        (item("either", "FP32", [3.5e38]), "/data/0"),
        (item("text", "str", 1), "/data"),
        (item("text", "str", ["a"]), "/data"),
        (item("text", "str", ["a", 1], shape=[2]), "/data/1"),
        (item("options", "dict", []), "/data"),
        (item("options", "dict", "{}"), "/data"),
        (item("file", "FILE", ""), "/data"),
        (item("file", "FILE", ["a"]), "/data"),
        (item("file", "FILE", "a", content_type=1), "/content_type"),
        (item("text", "dict", {}), "/datatype"),
        (item("text", "STR", ""), "/datatype"),
        (item("text", None, ""), "/datatype"),
        (item("text", ["str"], ""), "/datatype"),
        ({"name": "text", "datatype": "str"}, "/data"),
        ({"datatype": "str", "data": ""}, "/name"),
        (item("texd", "str", ""), "/name"),
        (item(7, "str", ""), "/name"),  # type: ignore[arg-type]
        ("text", ""),
        (None, ""),
    ],
)
def test_wrong_inputs_are_pointed_at(bad: Any, pointer: str) -> None:
    assert pointers(bad) == [f"/inputs/1{pointer}"]


@pytest.mark.parametrize("body", [None, [], "x", 7, True])
def test_a_body_that_is_no_object(body: Any) -> None:
    assert [fault.pointer for fault in check(body)] == [""]


def test_missing_and_wrong_members() -> None:
    assert [fault.detail for fault in check({})] == ["input 'single' is missing"]
    assert pointers(parameters={}, model_key=1, id=7, output_fields={}) == [
        "/parameters", "/output_fields", "/model_key", "/id",
    ]  # fmt: skip
    assert [fault.pointer for fault in check({"inputs": {}})] == ["/inputs"]
    assert pointers(output_fields=[{"name": "label"}, {"name": "x"}, {}, 1]) == [
        "/output_fields/1/name", "/output_fields/2/name", "/output_fields/3",
    ]  # fmt: skip


def test_many_wrong_elements_are_told_as_one_fault() -> None:
    (fault,) = check({"inputs": [item("single", "FP32", [1, "a", 2, None, True])]})
    assert fault.pointer == "/inputs/0/data/1"
    assert fault.detail == "must be a 32-bit floating-point number, not a string (and 2 more like it)"


def test_a_nested_list_is_told_where_dimensions_go() -> None:
    (fault,) = check({"inputs": [item("single", "FP32", [[1, 2], [3, 4]])]})
    assert "its dimensions go into shape" in fault.detail


NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**31, -(2**31), 2**31 - 1, 1e39, FP32_MAX, 0.5, 718.0, -0.0, 2.0**31, 1e300]),
    st.none(), st.booleans(), st.text(max_size=2),
)  # fmt: skip
OBJECTS: st.SearchStrategy[Any] = st.just({})
DATA: st.SearchStrategy[Any] = st.one_of(
    NUMBERS, st.lists(NUMBERS, max_size=3), OBJECTS, st.lists(OBJECTS, max_size=2)
)
ITEMS = st.builds(
    lambda name, datatype, data, shape: {
        key: value
        for key, value in {"name": name, "datatype": datatype, "data": data, "shape": shape}.items()
        if value != "-"
    },
    st.sampled_from([*(variable.name for variable in SIGNATURE.inputs), "other", "-"]),
    st.sampled_from([*(datatype.value for datatype in Datatype), "-", "FP16"]),
    st.one_of(DATA, st.just("-")),
    st.sampled_from(["-", None, 0, 1, "x", [], [1], [2], {}, [[1]], -1]),
).filter(
    # JSON Schema cannot say that a shape fits the number of elements.
    lambda item: item.get("shape") is None or item.get("datatype") in ("str", "dict", "FILE")
)
BODIES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"inputs": st.lists(ITEMS, max_size=3).map(lambda items: [SINGLE, *items])},
    optional={
        "id": st.sampled_from(["a", None, 1]),
        "parameters": st.sampled_from([[], None, {}, [1]]),
        "model_key": st.sampled_from(["a", None, 1]),
        "output_fields": st.sampled_from(
            [
                None,
                [],
                {},
                [{"name": "label"}],
                [{"name": "scores", "datatype": "FP64"}],
                [{"name": "x"}],
                [{"name": "label", "datatype": "FP64"}, {"name": "scores", "datatype": 7}],
                [1],
            ]
        ),
    },
)
DOCUMENT = document(SIGNATURE, "demo/net")
REQUESTS = jsonschema.Draft202012Validator(
    {"$ref": "#/components/schemas/Request", "components": DOCUMENT["components"]}
)


@given(BODIES)
def test_the_check_and_the_published_schema_agree(body: dict[str, Any]) -> None:
    described = REQUESTS.is_valid(body)
    assert (check(body) == []) == described


@pytest.mark.parametrize(
    ("data", "shape", "expected"),
    [
        (718.0, None, 718),
        ([1, 2.0, -0.0], None, [1, 2, 0]),
        ([1.0, 2.0], [2.0], [1, 2]),
        (-2147483648.0, None, -(2**31)),
    ],
)
def test_integers_written_as_floats_reach_the_function_as_integers(
    data: Any, shape: Any, expected: Any
) -> None:
    body = {"inputs": [SINGLE, item("count", "INT32", data, shape=shape)]}
    assert check(body) == []
    found = body["inputs"][1]["data"]
    assert found == expected
    for number in found if isinstance(found, list) else [found]:
        assert type(number) is int


@given(
    st.recursive(
        NUMBERS, lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["inputs", "name"]), inner)
    )
)
def test_no_json_crashes_the_check(body: Any) -> None:
    assert isinstance(check(body), list)


def test_the_example_is_accepted() -> None:
    assert check(example(SIGNATURE)) == []


def test_the_document() -> None:
    assert document(SIGNATURE, "t", "/app/net/")["servers"] == [{"url": "/app/net"}]
    assert DOCUMENT["info"] == {"title": "demo/net", "version": "1", "summary": "Summary"}
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["Input.either"]["oneOf"][1]["properties"]["datatype"] == {"const": "INT32"}
    jsonschema.Draft202012Validator.check_schema(schemas["Request"])
    jsonschema.Draft202012Validator.check_schema(schemas["Reply"])


def test_a_component_without_inputs() -> None:
    empty = Signature((), (), "", "")
    assert compile_check(empty)({}) == []
    assert [fault.pointer for fault in compile_check(empty)({"inputs": [item("x", "str", "")]})] == [
        "/inputs/0/name"
    ]
    assert document(empty, "t")["paths"]["/predict"]["post"]["summary"] == "Call the inference function"


@pytest.mark.parametrize("size", [-1, 2**31, 2**40, 2**63, 10**30])
def test_the_limit_of_a_size_is_named(size: int) -> None:
    (fault,) = check({"inputs": [SINGLE, item("double", "FP64", [1], shape=[size])]})
    assert fault.pointer == "/inputs/1/shape"
    assert "0..2147483647" in fault.detail
