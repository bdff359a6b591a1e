"""The description of the run API: it is sound, takes and refuses what the API does, and the API answers as it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from controller.config import Settings
from controller.domain.apps.spec import Overlap
from controller.domain.runs.run import RunCause, RunState
from controller.store import SqliteStore
from controller.web.api.runs.access import DEFAULT_PAGE, MAX_WAIT, PAGE
from controller.web.api.runs.openapi import of_all, of_one
from controller.web.api.runs.submission import RunInterface, SubmissionInvalid, read_submission
from controller.web.app import create_app
from controller.web.storage import StorageClient
from tests.support.gateway import APP
from tests.support.openapi import references
from tests.support.runs import (
    BOXES,
    INPUTS,
    OUTPUTS,
    RunCaller,
    RunDriver,
    all_pipelines,
    make_pipeline,
    one_pipeline,
)

INTERFACE = RunInterface(INPUTS, OUTPUTS, BOXES, signs=True)
ONE = of_one("/demo/train", "train", INTERFACE)
ALL = of_all("/demo/pipelines", ["other", "train"])
EMPTY = of_one("/demo/bare", "bare", RunInterface((), ()))
DATA = {"name": "data", "datatype": "FILE", "data": "g/in.csv"}


@pytest.fixture
def runs(store: SqliteStore, settings: Settings, storage: StorageClient) -> RunCaller:
    store.runs.publish(APP, (make_pipeline("other"), make_pipeline()))
    return RunCaller(create_app(store, settings, storage).test_client(), store, one_pipeline())


def validator(description: dict[str, Any], schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": description["components"]})


def check(description: dict[str, Any], path: str, method: str, response: Any) -> None:
    """Raises unless the answer is one that the description knows."""
    responses = description["paths"][path][method]["responses"]
    found = responses.get(str(response.status_code), description["components"]["responses"]["Problem"])
    [content] = found["content"].values()
    validator(description, content["schema"]).validate(response.get_json(force=True))


def test_its_bounds_are_those_of_the_code() -> None:
    listing = {each["name"]: each["schema"] for each in ONE["paths"]["/runs"]["get"]["parameters"]}
    assert listing["state"]["enum"] == [state.value for state in RunState]
    assert listing["limit"] == {"type": "integer", "minimum": 1, "maximum": PAGE, "default": DEFAULT_PAGE}
    wait = ONE["paths"]["/runs/{id}"]["get"]["parameters"][0]
    assert (wait["name"], wait["schema"]["maximum"]) == ("wait", MAX_WAIT)
    prefer = ONE["paths"]["/runs"]["post"]["parameters"][1]
    assert f"after N seconds ({MAX_WAIT:.0f})" in prefer["description"]
    schemas = ONE["components"]["schemas"]
    assert schemas["Run"]["properties"]["state"] == listing["state"]
    assert schemas["Run"]["properties"]["cause"]["enum"] == [cause.value for cause in RunCause]
    (pipelines,) = schemas["Pipelines"]["properties"].values()
    policy = pipelines["items"]["properties"]["schedule"]["properties"]["concurrencyPolicy"]
    assert policy["enum"] == [each.value for each in Overlap]


@pytest.mark.parametrize("description", [ONE, ALL, EMPTY, of_all("/demo/pipelines", [])])
def test_it_is_sound(description: dict[str, Any]) -> None:
    for reference in references(description):
        node: Any = description
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
        assert node
    for schema in description["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    names = []
    for path, item in description["paths"].items():
        described = {p["name"] for p in item.get("parameters", []) if p["in"] == "path"}
        assert described == {part[1:-1] for part in path.split("/") if part.startswith("{")}
        names += [item[method]["operationId"] for method in item if method != "parameters"]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("body", "right"),
    [
        ({"inputs": [DATA]}, True),
        ({"inputs": {"data": "a/b"}}, True),
        ({"inputs": {"data": "a/b", "rate": 1, "note": {"x": 1}}, "outputs": {"report": "a"}}, True),
        ({"inputs": [DATA, {"name": "rate", "data": [1, 2], "shape": [2], "datatype": "FP64"}]}, True),
        ({"inputs": [DATA, {"name": "rate", "data": 1, "shape": 1}]}, False),
        ({"inputs": [{**DATA, "shape": 1}, {"name": "note", "data": "x", "shape": 0}]}, True),
        ({"inputs": [{**DATA, "box": "results"}], "outputs": [{"name": "plots"}], "priority": -1}, True),
        ({"inputs": [DATA], "webhook": None, "priority": None}, True),
        ({"inputs": [DATA], "priority": -1.0}, True),
        ({"inputs": [DATA], "priority": -1.5}, False),
        ({"inputs": [DATA], "priority": True}, False),
        ({"inputs": []}, False),
        ({}, False),
        ({"inputs": [DATA, DATA]}, False),
        ({"inputs": {"data": 5}}, False),
        ({"inputs": {"data": "a/b", "x": 1}}, False),
        ({"inputs": [{**DATA, "box": "other"}]}, False),
        ({"inputs": [{**DATA, "datatype": "str"}]}, False),
        ({"inputs": [{**DATA, "x": 1}]}, False),
        ({"inputs": [DATA, {"name": "rate", "data": "1"}]}, False),
        ({"inputs": [DATA], "outputs": {"model": "a"}}, False),
        ({"inputs": [DATA], "outputs": [{"name": "report", "data": ""}]}, False),
        ({"inputs": [DATA], "priority": 1}, False),
        ({"inputs": [DATA], "output": {}}, False),
        ([], False),
    ],
)
def test_it_takes_what_the_api_takes(body: Any, right: bool) -> None:
    assert validator(ONE, ONE["components"]["schemas"]["Submission"]).is_valid(body) is right
    try:
        read_submission(body, INTERFACE)
    except SubmissionInvalid:
        assert not right
    else:
        assert right


@pytest.mark.parametrize(("description", "interface"), [(ONE, INTERFACE), (EMPTY, RunInterface((), ()))])
def test_its_example_is_taken(description: dict[str, Any], interface: RunInterface) -> None:
    submission = description["components"]["schemas"]["Submission"]
    validator(description, submission).validate(submission["example"])
    read_submission(submission["example"], interface)


def test_of_all_pipelines_the_inputs_are_any(runs: RunCaller) -> None:
    schema = ALL["components"]["schemas"]["Submission"]
    for body, right in (
        ({"inputs": [DATA, {"name": "x", "datatype": "str", "data": "y"}]}, True),
        ({"inputs": {"whatever": 1}, "outputs": {"a": "b"}}, True),
        ({}, True),
        ({"inputs": [{"data": "x"}]}, False),
        ({"inputs": 5}, False),
        ({"more": 5}, False),
    ):
        assert validator(ALL, schema).is_valid(body) is right
    [name] = ALL["paths"]["/{pipeline}/runs"]["parameters"]
    assert name["schema"]["enum"] == ["other", "train"]


def test_the_api_describes_itself(runs: RunCaller) -> None:
    assert runs.ask("GET", "openapi.json").json == ONE
    assert replace(runs, service=all_pipelines()).ask("GET", "openapi.json").json == ALL


def test_answers_are_as_described(runs: RunCaller, tmp_path: Path) -> None:
    player = RunDriver(runs.store, tmp_path / "runs")
    body = {"inputs": {"data": "a/b", "rate": [1]}, "outputs": {"report": "x"}}
    submitted = runs.submit(body)
    check(ONE, "/runs", "post", submitted)
    id = submitted.json["id"]
    check(ONE, "/runs", "post", runs.submit({"inputs": 3}))
    check(ONE, "/runs", "get", runs.ask("GET", "runs?limit=1"))
    check(ONE, "/runs", "get", runs.ask("GET", "runs?limit=x"))
    player.begin(id)
    player.end_attempt(id, "fit", 3, RunState.QUEUED, "ExitCode")
    player.begin(id)
    check(ONE, "/runs/{id}/cancel", "post", runs.ask("POST", f"runs/{id}/cancel"))
    player.finish(id, RunState.CANCELED)
    check(ONE, "/runs/{id}/cancel", "post", runs.ask("POST", f"runs/{id}/cancel"))
    check(ONE, "/runs/{id}/retry", "post", runs.ask("POST", f"runs/{id}/retry"))
    everything = replace(runs, service=all_pipelines())
    check(ALL, "/", "get", everything.ask("GET", ""))
    check(ALL, "/runs", "get", everything.ask("GET", "runs"))
    check(ALL, "/{pipeline}/runs", "post", everything.ask("POST", "other/runs", {"inputs": {"data": "a/b"}}))
    check(ALL, "/{pipeline}/runs", "post", everything.ask("POST", "none/runs", {}))
