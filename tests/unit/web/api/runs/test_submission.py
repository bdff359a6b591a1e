"""What can be submitted to a pipeline, and every fault in what cannot."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.apps.spec import PipelineVar
from controller.domain.routing.routes import Service
from controller.domain.runs.run import RunInput, RunOutput
from controller.serving.fault_texts import MAX_FAULTS
from controller.web.api.runs.submission import (
    RunInterface,
    SubmissionInvalid,
    SubmittedRun,
    interface_of,
    read_submission,
)
from tests.support.runs import BOXES, INPUTS, OUTPUTS, make_pipeline, one_pipeline

INTERFACE = RunInterface(INPUTS, OUTPUTS, BOXES, signs=True)
DATA = {"name": "data", "datatype": "FILE", "data": "g/in.csv"}
GIVEN = (RunInput("data", "FILE", "g/in.csv"),)


def read(body: object, interface: RunInterface = INTERFACE) -> SubmittedRun:
    return read_submission(body, interface)


def faults(body: object, interface: RunInterface = INTERFACE) -> dict[str, str]:
    """Pointer -> what is wrong there."""
    with pytest.raises(SubmissionInvalid) as caught:
        read_submission(body, interface)
    found = {fault.pointer: fault.detail for fault in caught.value.faults}
    assert len(found) == len(caught.value.faults)
    return found


# --- what is right ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"inputs": [DATA]}, SubmittedRun(GIVEN)),
        ({"inputs": [{"name": "data", "data": "g/in.csv"}]}, SubmittedRun(GIVEN)),
        ({"inputs": {"data": "g/in.csv"}}, SubmittedRun(GIVEN)),
        ({"inputs": [{**DATA, "content_type": "text/csv", "shape": None}]}, SubmittedRun(GIVEN)),
        ({"inputs": {"data": "photos"}}, SubmittedRun((RunInput("data", "FILE", "photos/"),))),
        ({"inputs": {"data": "a/b/"}}, SubmittedRun((RunInput("data", "FILE", "a/b/"),))),
        (
            {"inputs": [{**DATA, "box": "results"}]},
            SubmittedRun((RunInput("data", "FILE", "g/in.csv", "results"),)),
        ),
        (
            {"inputs": {"data": "g/in.csv"}, "outputs": {"report": "today"}},
            SubmittedRun(GIVEN, (RunOutput("report", "today/"),)),
        ),
        (
            {"inputs": [DATA], "outputs": [{"name": "report", "data": "results/today", "box": "results"}]},
            SubmittedRun(GIVEN, (RunOutput("report", "results/today/", "results"),)),
        ),
        (
            {"inputs": [DATA], "outputs": [{"name": "report", "data": "a"}, {"name": "plots", "data": "ab"}]},
            SubmittedRun(GIVEN, (RunOutput("report", "a/"), RunOutput("plots", "ab/"))),
        ),
        (
            {
                "inputs": [DATA],
                "outputs": [
                    {"name": "report", "data": "a"},
                    {"name": "plots", "data": "a", "box": "results"},
                ],
            },
            SubmittedRun(GIVEN, (RunOutput("report", "a/"), RunOutput("plots", "a/", "results"))),
        ),
        ({"inputs": [DATA], "outputs": {"report": None}}, SubmittedRun(GIVEN)),
        ({"inputs": [DATA], "outputs": [{"name": "report"}]}, SubmittedRun(GIVEN)),
        ({"inputs": [DATA], "outputs": None}, SubmittedRun(GIVEN)),
        ({"inputs": [DATA], "priority": -10}, SubmittedRun(GIVEN, priority=-10)),
        (
            {"inputs": [DATA], "webhook": "https://example.org:8443/done?a=b"},
            SubmittedRun(GIVEN, webhook="https://example.org:8443/done?a=b"),
        ),
    ],
)
def test_taken(body: object, expected: SubmittedRun) -> None:
    assert read(body) == expected


@pytest.mark.parametrize(
    ("item", "datatype", "data"),
    [
        ({"name": "rate", "datatype": "FP64", "data": 0.5}, "FP64", "0.5"),
        ({"name": "rate", "data": 3}, "FP64", "3"),
        ({"name": "rate", "datatype": "INT32", "data": 3}, "INT32", "3"),
        ({"name": "rate", "data": [1, 2]}, "FP64", "[1, 2]"),
        ({"name": "rate", "data": [1, 2, 3, 4], "shape": [2, 2]}, "FP64", "[[1, 2], [3, 4]]"),
        ({"name": "rate", "data": [1, 2, 3, 4], "shape": [1, 2, 2]}, "FP64", "[[[1, 2], [3, 4]]]"),
        ({"name": "rate", "data": [1, 2], "shape": [2]}, "FP64", "[1, 2]"),
        ({"name": "rate", "data": [], "shape": [1_000_000_000, 0]}, "FP64", "[]"),
        ({"name": "rate", "data": [7], "shape": []}, "FP64", "[7]"),
        ({"name": "note", "data": "ü"}, "str", '"\\u00fc"'),
        ({"name": "note", "data": {"a": [1, None]}}, "dict", '{"a": [1, null]}'),
        ({"name": "note", "data": ["a", "b"], "shape": [2]}, "str", '["a", "b"]'),
    ],
)
def test_values_become_json(item: dict[str, Any], datatype: str, data: str) -> None:
    assert read({"inputs": [DATA, item]}).inputs == (*GIVEN, RunInput(item["name"], datatype, data))


def test_the_shorthand_finds_the_datatype_that_fits() -> None:
    found = read({"inputs": {"data": "a/b", "rate": [1, 2], "note": {"x": 1}}}).inputs
    assert [(given.name, given.datatype) for given in found] == [
        ("data", "FILE"),
        ("rate", "FP64"),
        ("note", "dict"),
    ]


@pytest.mark.parametrize(
    ("data", "shape", "passed"),
    [
        ("x", 0, '"x"'),
        ("x", 1, '"x"'),
        ("x", [7], '"x"'),
        ("x", "1", '"x"'),
        (["a", "b"], 5, '["a", "b"]'),
        (["a", "b"], [3], '["a", "b"]'),
        (["a", "b"], [2, 1], '[["a"], ["b"]]'),
        (["a", "b"], [1] * 40, '["a", "b"]'),
    ],
)
def test_the_shape_of_texts_is_not_judged(data: Any, shape: Any, passed: str) -> None:
    note = {"name": "note", "datatype": "str", "data": data, "shape": shape}
    assert read({"inputs": [DATA, note]}).inputs[1] == RunInput("note", "str", passed)


def test_faults_and_the_work_to_find_them_are_bounded() -> None:
    outputs = [{"name": "report", "data": f"group-{number}"} for number in range(20_000)]
    assert len(faults({"inputs": [DATA], "outputs": outputs})) == 100
    assert len(faults({"inputs": [DATA], **{f"member-{number}": 1 for number in range(20_000)}})) == 100


# --- what is wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "pointer", "why"),
    [
        (None, "", "must be an object, not null"),
        ([], "", "must be an object, not an array"),
        ("x", "", "not a string"),
        ({}, "/inputs", "'data' is missing"),
        ({"inputs": None}, "/inputs", "'data' is missing"),
        ({"inputs": []}, "/inputs", "'data' is missing"),
        ({"inputs": {"data": "g/f"}, "output": {}}, "/output", "unknown member"),
        ({"inputs": {"data": "g/f"}, "a/b~c": 1}, "/a~1b~0c", "unknown member"),
        ({"inputs": {"data": ".."}}, "/inputs/data", "segment '..'"),
        ({"inputs": {"data": "a//b"}}, "/inputs/data", "empty segment"),
        ({"inputs": {"data": "/a"}}, "/inputs/data", "empty segment"),
        ({"inputs": {"data": "/"}}, "/inputs/data", "empty segment"),
        ({"inputs": {"data": "a\\b"}}, "/inputs/data", "backslash"),
        ({"inputs": {"data": "a/\ud800"}}, "/inputs/data", "UTF-8"),
        ({"inputs": {"data": "a\x00"}}, "/inputs/data", "control character"),
        ({"inputs": {"data": "x" * 901}}, "/inputs/data", "900 bytes"),
        ({"inputs": {"data": ""}}, "/inputs/data", "non-empty string"),
        ({"inputs": {"data": None}}, "/inputs/data", "not null"),
        ({"inputs": {"data": 5}}, "/inputs/data", "not 5"),
        ({"inputs": {"data": ["a/b"]}}, "/inputs/data", "not an array"),
        ({"inputs": {"data": {"data": "a/b"}}}, "/inputs/data", "not an object"),
        ({"inputs": [DATA, 5]}, "/inputs/1", "must be an object with a name"),
        ({"inputs": [DATA, {}]}, "/inputs/1/name", "is missing"),
        ({"inputs": [DATA, {"name": 5}]}, "/inputs/1/name", "must be a string"),
        ({"inputs": [DATA, DATA]}, "/inputs/1/name", "given twice"),
        ({"inputs": [DATA, {"name": "rate"}]}, "/inputs/1/data", "is missing"),
        ({"inputs": [DATA, {"name": "rate", "data": "5"}]}, "/inputs/1/data", "64-bit"),
        ({"inputs": [DATA, {"name": "rate", "data": True}]}, "/inputs/1/data", "not a boolean"),
        ({"inputs": [DATA, {"name": "rate", "data": [1, None]}]}, "/inputs/1/data/1", "not null"),
        ({"inputs": {"data": "a/b", "rate": [1, "x"]}}, "/inputs/rate/1", "not a string"),
        (
            {"inputs": [DATA, {"name": "rate", "data": [1], "shape": [2]}]},
            "/inputs/1/shape",
            "needs 2 elements",
        ),
        (
            {"inputs": [DATA, {"name": "rate", "data": [1], "shape": [1] * 33}]},
            "/inputs/1/shape",
            "32 dimensions",
        ),
        (
            {"inputs": [DATA, {"name": "rate", "datatype": "FP32", "data": 1}]},
            "/inputs/1/datatype",
            "FP64 or INT32",
        ),
        (
            {"inputs": [DATA, {"name": "rate", "datatype": ["FP64"], "data": 1}]},
            "/inputs/1/datatype",
            "use FP64",
        ),
        ({"inputs": [DATA, {"name": "rate", "data": 1, "box": "results"}]}, "/inputs/1/box", "only a FILE"),
        ({"inputs": [{**DATA, "box": "other"}]}, "/inputs/0/box", "userdata, results"),
        ({"inputs": [{**DATA, "box": ["results"]}]}, "/inputs/0/box", "userdata, results"),
        ({"inputs": [{**DATA, "Box": "results"}]}, "/inputs/0/Box", "unknown member"),
        (
            {"inputs": [DATA, {"name": "weights", "data": "a/b"}]},
            "/inputs/1/name",
            "known are data, rate, note",
        ),
        ({"inputs": {"data": "a/b", "model": "a/b"}}, "/inputs/model", "unknown input"),
        ({"inputs": "g/f"}, "/inputs", "must be an array, or an object"),
        ({"inputs": [DATA], "outputs": "g"}, "/outputs", "must be an array, or an object"),
        ({"inputs": [DATA], "outputs": [3]}, "/outputs/0", "not a number"),
        ({"inputs": [DATA], "outputs": [{"data": "a"}]}, "/outputs/0/name", "is missing"),
        ({"inputs": [DATA], "outputs": [{"name": []}]}, "/outputs/0/name", "must be a string"),
        ({"inputs": [DATA], "outputs": {"model": "a"}}, "/outputs/model", "known are report, plots"),
        ({"inputs": [DATA], "outputs": [{"name": "report", "x": 1}]}, "/outputs/0/x", "unknown member"),
        ({"inputs": [DATA], "outputs": {"report": "../a"}}, "/outputs/report", "segment '..'"),
        ({"inputs": [DATA], "outputs": {"report": "/"}}, "/outputs/report", "empty segment"),
        ({"inputs": [DATA], "outputs": {"report": ""}}, "/outputs/report", "non-empty"),
        ({"inputs": [DATA], "outputs": {"report": 7}}, "/outputs/report", "non-empty string, not a number"),
        ({"inputs": [DATA], "outputs": {"report": "a", "plots": "a/"}}, "/outputs/plots", "overlaps"),
        ({"inputs": [DATA], "outputs": {"report": "a", "plots": "a/b"}}, "/outputs/plots", "'report'"),
        ({"inputs": [DATA], "outputs": {"report": "a/b/c", "plots": "a/b"}}, "/outputs/plots", "'report'"),
        (
            {"inputs": [DATA], "outputs": [{"name": "report", "box": "x"}]},
            "/outputs/0/box",
            "userdata, results",
        ),
        ({"inputs": [DATA], "outputs": [{"name": "report"}] * 2}, "/outputs/1/name", "given twice"),
        ({"inputs": [DATA], "priority": 1}, "/priority", "-10 to 0"),
        ({"inputs": [DATA], "priority": -11}, "/priority", "-10 to 0"),
        ({"inputs": [DATA], "priority": True}, "/priority", "-10 to 0"),
        ({"inputs": [DATA], "priority": "0"}, "/priority", "-10 to 0"),
        ({"inputs": [DATA], "webhook": 5}, "/webhook", "http or https"),
        ({"inputs": [DATA], "webhook": "ftp://a/b"}, "/webhook", "http or https"),
        ({"inputs": [DATA], "webhook": "https://u:p@a/b"}, "/webhook", "without user"),
        ({"inputs": [DATA], "webhook": "https:///b"}, "/webhook", "URL"),
        ({"inputs": [DATA], "webhook": "https://a:99999/"}, "/webhook", "URL"),
        ({"inputs": [DATA], "webhook": "https://[::1/"}, "/webhook", "URL"),
        ({"inputs": [DATA], "webhook": "https://a/b c"}, "/webhook", "URL"),
        ({"inputs": [DATA], "webhook": "https://a/#x"}, "/webhook", "fragment"),
        ({"inputs": [DATA], "webhook": "https://a/" + "x" * 2000}, "/webhook", "2000"),
    ],
)
def test_one_fault(body: object, pointer: str, why: str) -> None:
    found = faults(body)
    assert list(found) == [pointer], found
    assert why in found[pointer]


def test_all_faults_at_once() -> None:
    found = faults(
        {
            "inputs": [
                {"name": "rate", "data": "x"},
                {"name": "nope", "data": 1},
                {"name": "note", "data": 5},
            ],
            "outputs": [{"name": "model", "data": "a"}, {"name": "report", "data": "a/../b"}],
            "priority": 5,
            "more": 1,
        }
    )
    assert set(found) == {
        "/inputs",
        "/inputs/0/data",
        "/inputs/1/name",
        "/inputs/2/data",
        "/outputs/0/name",
        "/outputs/1/data",
        "/priority",
        "/more",
    }


def test_a_pipeline_without_boxes_takes_no_files() -> None:
    bare = RunInterface(INPUTS, OUTPUTS)
    assert set(faults({"inputs": [DATA], "outputs": {"report": "a"}}, bare)) == {
        "/inputs/0",
        "/outputs/report",
    }


def test_webhooks_must_be_signed() -> None:
    body = {"inputs": [DATA], "webhook": "https://example.org/done"}
    found = faults(body, interface_of(make_pipeline(webhook=None), one_pipeline()))
    assert list(found) == ["/webhook"]
    assert "webhook.secret" in found["/webhook"]
    none = read({**body, "webhook": None}, interface_of(make_pipeline(webhook=None), one_pipeline()))
    assert none.webhook == ""


def test_a_pipeline_without_variables() -> None:
    none = RunInterface((), ())
    assert read({}, none) == SubmittedRun()
    assert "no outputs" in faults({"outputs": {"a": "b"}}, none)["/outputs/a"]


# --- interfaces ---------------------------------------------------------------------------------------------------


def test_the_api_says_what_is_passed() -> None:
    assert interface_of(make_pipeline(), one_pipeline()) == INTERFACE


def test_without_an_api_the_pipeline_itself_says_it() -> None:
    found = interface_of(make_pipeline(), None)
    assert [(v.name, v.required) for v in found.inputs] == [("data", True), ("note", False), ("rate", False)]
    assert [v.name for v in found.outputs] == ["plots", "report"]
    given = read({"inputs": {"data": "a/b", "note": {"x": 1}, "rate": 1.5}}, found).inputs
    assert [g.datatype for g in given] == ["FILE", "dict", "FP64"]
    assert read({"inputs": [{"name": "data", "datatype": "str", "data": "x"}]}, found).inputs[0].data == '"x"'


@pytest.mark.parametrize("api", [None, one_pipeline()])
def test_what_goes_to_a_box_of_the_module_cannot_be_asked_for(api: Service | None) -> None:
    places = tuple(PipelineVar(name, publish_to=("weights", f"{name}/")) for name in ("model", "report"))
    found = interface_of(make_pipeline(vars=(*make_pipeline().vars, *places)), api)
    assert [v.name for v in found.outputs] == ["plots"]
    wrong = faults({"inputs": {"data": "a/b"}, "outputs": {"report": "a", "model": "b"}}, found)
    assert wrong == {
        f"/outputs/{name}": f"output {name!r} goes to a box of the module: it cannot be asked for"
        for name in ("model", "report")
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["inputs", "outputs", "name", "data", "datatype", "shape", "box", "rate", "report"]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    body=JSON | st.fixed_dictionaries({"inputs": JSON, "outputs": JSON, "priority": JSON, "webhook": JSON})
)
def test_whatever_is_sent_is_taken_or_refused(body: object) -> None:
    try:
        read(body)
    except SubmissionInvalid as invalid:
        assert invalid.faults
        assert all(fault.pointer == "" or fault.pointer.startswith("/") for fault in invalid.faults)


class Watched(dict[str, object]):
    """Notes how many values are looked at."""

    def __init__(self, values: dict[str, object], looks: list[str]) -> None:
        super().__init__(values)
        self.looks = looks

    def __getitem__(self, name: str) -> object:
        self.looks.append(name)
        return super().__getitem__(name)

    def get(self, name: str, default: object = None) -> object:
        self.looks.append(name)
        return super().get(name, default)


@pytest.mark.parametrize("member", ["inputs", "outputs"])
@pytest.mark.parametrize("is_list", [False, True])
@pytest.mark.parametrize("name", ["unknown-{}", "data", "report"])
def test_of_very_many_entries_few_are_looked_at(member: str, is_list: bool, name: str) -> None:
    """A body of a megabyte has tens of thousands of them, of which a hundred faults are reported."""

    def looks(count: int) -> int:
        seen: list[str] = []
        entries: dict[str, object] = {name.format(number): "a/b" for number in range(count)}
        entries |= {f"x{number}": "a/b" for number in range(count)}
        listed = [Watched({"name": name.format(number), "data": "a/b"}, seen) for number in range(count)]
        with pytest.raises(SubmissionInvalid) as caught:
            read({member: listed if is_list else Watched(entries, seen)})
        assert len(caught.value.faults) == MAX_FAULTS
        return len(seen)

    assert looks(200) == looks(20_000)
