"""FILE variables in JSON, and the header field beside it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.domain.names import ComponentName
from controller.domain.storage.keys import FilePath
from controller.web.call_files import variables
from controller.web.call_files.variables import FileInput, FileOutput, WantedOutputs
from controller.web.problems import ProblemKind, RequestRefused

BOXES = (ComponentName("userdata"), ComponentName("archive"))


def file(path: Any = "g/cat.png", **members: Any) -> dict[str, Any]:
    return {"name": "image", "datatype": "FILE", "data": path, **members}


def read(document: Any) -> WantedOutputs:
    return variables.read_request(json.dumps(document).encode(), BOXES)


def faults(document: Any) -> dict[str, str]:
    with pytest.raises(RequestRefused) as caught:
        read(document)
    assert caught.value.problem.kind is ProblemKind.INVALID
    errors = caught.value.problem.extra["errors"]
    assert isinstance(errors, list)
    return {error["pointer"]: error["detail"] for error in errors if isinstance(error, dict)}


def test_inputs_are_found_in_their_order() -> None:
    text = {"name": "text", "datatype": "str", "data": "FILE"}
    wanted = read({"inputs": [file("g/a"), text, file("g/h/b", box="archive"), file("g/c", box=None)]})
    assert wanted.inputs == (
        FileInput(0, BOXES[0], FilePath("g/a", is_group=False)),
        FileInput(2, BOXES[1], FilePath("g/h/b", is_group=False)),
        FileInput(3, BOXES[0], FilePath("g/c", is_group=False)),
    )


def test_tensors_behind_the_json_are_none_of_it() -> None:
    document = json.dumps({"inputs": [file("g/a")]}).encode()
    content = document + b"\0\xffFILE"
    lines = b"accept: */*\r\ninference-header-content-length: %d\r\n" % len(document)
    assert variables.json_part(content, lines) == document
    assert variables.read_request(variables.json_part(content, lines), BOXES).inputs
    assert variables.json_part(content, b"accept: inference-header-content-length: 1\r\n") == content
    assert variables.json_part(content, lines.replace(b": ", b": -")) == content
    assert variables.json_part(content, b"inference-header-content-length: 999999\r\n") == content


def test_what_is_told_is_bounded() -> None:
    found = [{"name": "mask", "data": f"{number}/"} for number in range(20_000)]
    assert len(faults({"inputs": [], "output_fields": found})) == 100


@pytest.mark.parametrize("levels", [10, 900, 100_000])
def test_deep_members_are_no_fault_of_ours(levels: int) -> None:
    deep = "[" * levels + "]" * levels
    for member in ("box", "name"):
        content = f'{{"inputs": [{{"datatype": "FILE", "data": "g/a", "{member}": {deep}}}]}}'
        try:
            variables.read_request(content.encode(), BOXES)
        except RequestRefused as refused:
            assert refused.problem.code == 422


def test_a_tensor_of_one_path_is_a_path() -> None:
    wanted = read({"inputs": [file(["g/a"], shape=[1])], "outputs": [{"name": "mask", "data": ["g/m"]}]})
    assert wanted.inputs[0].path.text == "g/a"
    assert wanted.targets["mask"].text == "g/m"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"FILE", b'"FILE"', b'["FILE"]', b'{"inputs": "FILE"}', b'{"inputs": ["FILE", null]}', b"\xff FILE",
        b'{"inputs": [{"datatype": "FILE"}]}', b'{"inputs": [{"datatype": "FILE", "data": 5}]}',
        b'{"inputs": [{"datatype": "FILE", "data": ["a/b", "c/d"]}]}',
        b'{"inputs": [{"datatype": "FILE", "data": ""}]}',
        b'{"output_fields": [{"name": "x"}], "outputs": 5}', b"[" * 100_000 + b"FILE",
    ],
)  # fmt: skip
def test_what_is_no_request_is_left_to_the_component(content: bytes) -> None:
    assert not variables.read_request(content, BOXES)


def test_every_fault_is_told() -> None:
    found = faults(
        {
            "inputs": [
                file("../a"),
                file("group/"),
                file("group"),
                file("g/a", box="other"),
                file("g/a", box=5),
            ],
            "output_fields": [{"name": "mask", "data": "results/"}, {"name": "other", "data": "a//b"}],
        }
    )
    assert found == {
        "/inputs/0/data": "the path has a segment '..'",
        "/inputs/1/data": "'group/' is a file group; a file in it is group/NAME",
        "/inputs/2/data": "'group' is a file group; a file in it is group/NAME",
        "/inputs/3/box": "no box 'other' is connected to this component; connected are userdata, archive",
        "/inputs/4/box": "no box 5 is connected to this component; connected are userdata, archive",
        "/output_fields/0/data": "'results/' is a file group; a file in it is results/NAME",
        "/output_fields/1/data": "the path has an empty segment: two slashes in a row, or one at the start",
    }


def test_files_of_one_call_are_limited() -> None:
    assert len(read({"inputs": [file()] * variables.MAX_FILES}).inputs) == variables.MAX_FILES
    assert "too many" in faults({"inputs": [file()] * (variables.MAX_FILES + 1)})["/inputs"]


def test_the_header_is_read_as_it_is_written() -> None:
    line = variables.write_header(312, [(0, 10_485_760), (2, 0)])
    assert line == b"x-prichal-files: 312; 0=10485760; 2=0\r\n"
    assert variables.read_header(b"312; 0=10485760; 2=0") == (312, [(0, 10_485_760), (2, 0)])
    assert variables.read_header(b"5") == (5, [])


@pytest.mark.parametrize("value", [b"", b"x", b"1;0=1", b"1; 0", b"1; 0=-1", b"1; 0=1;", b"9" * 19])
def test_another_header_is_none(value: bytes) -> None:
    with pytest.raises(ValueError, match="malformed"):
        variables.read_header(value)


@pytest.mark.parametrize(
    ("item", "content_type"),
    [
        (file("a.png"), "image/png"),
        (file("a.png", content_type="text/x-mask; v=1"), "text/x-mask; v=1"),
        (file("a.png", content_type="evil\r\nx: y"), "image/png"),
        (file("a.png", content_type=5), "image/png"),
        (file("noending"), "application/octet-stream"),
        (file(["a.csv"], parameters={"content_type": "text/x"}), "text/x"),
    ],
)
def test_the_content_type_of_an_output(item: dict[str, Any], content_type: str) -> None:
    (output,) = variables.read_outputs({"outputs": [item]}, [(0, 5)])
    name = item["data"] if isinstance(item["data"], str) else item["data"][0]
    assert output == FileOutput(0, "image", name, 5, content_type)


@pytest.mark.parametrize(
    "document", [None, [], {}, {"outputs": 5}, {"outputs": []}, {"outputs": [{"name": "x"}]}]
)
def test_outputs_that_do_not_fit(document: Any) -> None:
    with pytest.raises(ValueError, match="does not fit its outputs"):
        variables.read_outputs(document, [(0, 5)])


def test_the_outputs_of_a_reply_are_limited() -> None:
    with pytest.raises(ValueError, match="101 files"):
        variables.read_outputs({"outputs": [file()] * 101}, [(index, 1) for index in range(101)])


def output(index: int, name: str, variable: str = "mask") -> FileOutput:
    return FileOutput(index, variable, name, 1, "x/y")


def test_where_outputs_lie() -> None:
    wanted = WantedOutputs(targets={"mask": FilePath("results/m.png", is_group=False)})
    outputs = [
        output(0, "x.png"),
        output(1, "y.png", "other"),
        output(2, "y.png", "third"),
        output(3, "z", "mask"),
    ]
    assert [path.text for path in variables.places(outputs, wanted, "r:1")] == [
        "results/m.png",
        "predictions/r:1/y.png",
        "predictions/r:1/2/y.png",
        "predictions/r:1/z",
    ]


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\\b", "\x00", "x" * 256, "\udcff"])
def test_a_name_that_is_none_is_replaced(name: str) -> None:
    (path,) = variables.places([output(4, name)], WantedOutputs(), "r")
    assert path.text == "predictions/r/output-4"


def test_the_reply_has_paths() -> None:
    document = {"id": "\udcff", "outputs": [file("x.png"), {"name": "n", "data": 1}, file(["y"], shape=[1])]}
    outputs = variables.read_outputs(document, [(0, 1), (2, 1)])
    paths = variables.places(outputs, WantedOutputs(), "r")
    reply = json.loads(variables.with_paths(json.dumps(document).encode(), outputs, paths))
    assert reply["id"] == "\udcff"
    assert reply["outputs"] == [
        file("predictions/r/x.png", content_type="image/png"),
        {"name": "n", "data": 1},
        file(["predictions/r/y"], shape=[1], parameters={"content_type": "application/octet-stream"}),
    ]
