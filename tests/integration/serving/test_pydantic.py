"""Models of pydantic as type hints, in an image that has it: an interpreter that has, in a virtual environment."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.unit.serving.server import Reply, Server

ROOT = Path(__file__).parents[3]
SOURCE = '''
from __future__ import annotations
import datetime
from dataclasses import dataclass
from typing import Literal
import pydantic
from pydantic import BaseModel, Field

class Point(BaseModel):
    x: float = Field(ge=0, description="To the right")
    y: int = 0

class Line(BaseModel, extra="forbid"):
    points: list[Point] = Field(min_length=1)
    kind: Literal["solid", "dashed"] = "solid"
    drawn: datetime.date | None = Field(None, alias="drawnAt")
    inner: list[Line] = []

    @pydantic.field_validator("points")
    def check(cls, points):
        if len(points) == 3:
            raise ValueError("three is too many")
        if len(points) == 4:
            raise KeyError("four")
        return points

@pydantic.dataclasses.dataclass
class Box:
    width: float = Field(gt=0)

class Answer(BaseModel):
    length: float = Field(description="How long")
    first: Point
    line: Line
    note: str | None = None

def predict(line: Line, more: list[Point] = [], box: Box | None = None, mode: str = "") -> Answer:
    """Measure a line."""
    assert isinstance(line, Line) and all(isinstance(point, Point) for point in more)
    if mode == "wrong":
        return {"length": 1.0, "first": {"x": 1}, "line": line}
    return Answer(length=len(line.points) + len(more), first=line.points[0], line=line, note=box and repr(box.width))
'''


@pytest.fixture(scope="module")
def python() -> Path:
    folder = ROOT / "build" / "clients"
    requirements = ROOT / "tests" / "clients" / "requirements.txt"
    subprocess.run([ROOT / "scripts" / "python-env", folder, requirements], check=True)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def server(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("models"), SOURCE, python, component="net").ready()
    yield server
    server.close()


def request(**inputs: Any) -> dict[str, Any]:
    items = [
        {"name": name, "datatype": "str" if isinstance(data, str) else "dict", "data": data}
        for name, data in inputs.items()
    ]
    return {"inputs": items}


def call(server: Server, **inputs: Any) -> Reply:
    return server.post(request(**inputs))


def test_models_come_and_go(server: Server) -> None:
    line = {
        "points": [{"x": 1}, {"x": 2, "y": 3}],
        "drawnAt": "2026-01-02",
        "inner": [{"points": [{"x": 0}]}],
    }
    reply = call(server, line=line, more=[{"x": 1}], box={"width": 2})
    assert reply.outputs == {
        "length": [3],
        "first": {"x": 1, "y": 0},
        "line": {
            "points": [{"x": 1, "y": 0}, {"x": 2, "y": 3}],
            "kind": "solid",
            "drawnAt": "2026-01-02",
            "inner": [{"points": [{"x": 0, "y": 0}], "kind": "solid", "drawnAt": None, "inner": []}],
        },
        "note": "2.0",
    }


def test_what_a_model_refuses_has_its_pointer(server: Server) -> None:
    line = {"points": [{"x": -1}, {}, {"x": "a", "y": 0}], "kind": "odd", "other": 1}
    errors = {
        one["pointer"]: one["detail"] for one in call(server, line=line, box={"width": 0}).json["errors"]
    }
    assert {pointer.removeprefix("/inputs/0/data"): words for pointer, words in errors.items()} == {
        "/points/0/x": "Input should be greater than or equal to 0",
        "/points/1": "Field required",
        "/points/2/x": "Input should be a valid number, unable to parse string as a number",
        "/kind": "Input should be 'solid' or 'dashed'",
        "/other": "Extra inputs are not permitted",
        "/inputs/1/data": errors["/inputs/1/data"],
    }
    assert "greater than 0" in errors["/inputs/1/data"]


def test_what_a_validator_raises(server: Server) -> None:
    refused = call(server, line={"points": [{"x": 1}] * 3})
    assert refused.status == 422
    assert "three is too many" in refused.json["errors"][0]["detail"]
    failed = call(server, line={"points": [{"x": 1}] * 4})
    assert (failed.status, failed.json["exception"]) == (500, {"type": "KeyError", "message": "'four'"})


def test_a_result_that_is_not_the_model(server: Server) -> None:
    failed = call(server, line={"points": [{"x": 1}]}, mode="wrong")
    assert failed.status == 500
    assert "output 'first' is of type dict, not a Point" in failed.json["detail"]


def test_schemas_of_models_are_in_the_description(server: Server) -> None:
    document = server.get("/openapi.json").json
    schemas = document["components"]["schemas"]
    names = {name for name in schemas if name.startswith("Model.")}
    assert {"Model.Input.line.Line.Line", "Model.Input.line.Line.Point"} <= names
    reply = Draft202012Validator({"$ref": "#/components/schemas/Reply", "components": document["components"]})
    body = Draft202012Validator(
        {"$ref": "#/components/schemas/Request", "components": document["components"]}
    )
    good = {"points": [{"x": 1}]}
    for line, fits in ((good, True), ({**good, "kind": "odd"}, False), ({"points": [{"x": -1}]}, False)):
        sent = request(line=line)
        assert body.is_valid(sent) is fits
        assert (server.post(sent).status == 200) is fits
    assert list(reply.iter_errors(call(server, line=good).json)) == []
    example = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert list(body.iter_errors(example)) == []
    assert server.post(example).status == 200
    assert "How long" in server.get("/docs").body.decode()


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        ("pydantic.RootModel[list[int]]", "a RootModel: write what is in it"),
        ("pydantic.v1.BaseModel", "a model of pydantic 1: install pydantic 2"),
    ],
)
def test_models_that_are_refused(python: Path, tmp_path: Path, hint: str, words: str) -> None:
    source = f"import pydantic, pydantic.v1\ndef predict(x: {hint}) -> str:\n    return ''\n"
    server = Server(tmp_path, source, python)
    try:
        assert words in server.wait_for("argument x")
        assert server.wait_ended() == 3
    finally:
        server.close()
