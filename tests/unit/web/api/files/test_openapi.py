"""The description of the files API: it is sound, and the API answers as it says."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from controller.config import Settings
from controller.domain.storage.keys import MAX_KEY, user_area
from controller.store import SqliteStore
from controller.web.api.files.area import MAX_PUT, MAX_REMOVED, PAGE
from controller.web.api.files.openapi import document
from controller.web.api.files.uploads import MAX_FILE, MAX_PARTS
from controller.web.app import create_app
from controller.web.storage import StorageClient
from tests.support.fake_objects import FakeObjects
from tests.support.files import BUCKET, Files
from tests.support.openapi import references

DOCUMENT = document("/demo/files", ["data"])
SCHEMAS = DOCUMENT["components"]["schemas"]


@pytest.fixture
def files(store: SqliteStore, settings: Settings, storage: StorageClient, objects: FakeObjects) -> Files:
    return Files(create_app(store, settings, storage).test_client(), store, objects)


def schema_of(path: str, method: str, status: int) -> dict[str, Any]:
    responses = DOCUMENT["paths"][path][method]["responses"]
    if str(status) not in responses:
        status = 0
    response = responses[str(status)] if status else DOCUMENT["components"]["responses"]["Problem"]
    [content] = response["content"].values()
    return {**content["schema"], "components": {"schemas": SCHEMAS}}


def check(path: str, method: str, response: Any) -> None:
    """Raises unless the answer is one that the description knows."""
    Draft202012Validator(schema_of(path, method, response.status_code)).validate(
        response.get_json(force=True)
    )


def bounds(node: Any) -> list[int]:
    """All `maximum` and `default` in a part of the description, in their order."""
    if isinstance(node, list):
        return [found for item in node for found in bounds(item)]
    if not isinstance(node, dict):
        return []
    own = [node[name] for name in ("maximum", "default") if isinstance(node.get(name), int)]
    return own + [found for value in node.values() for found in bounds(value)]


def test_its_bounds_are_those_of_the_code() -> None:
    group, file = DOCUMENT["paths"]["/{box}/{group}/"], DOCUMENT["paths"]["/{box}/{file}"]
    assert bounds(group["get"]["parameters"]) == [PAGE, PAGE]
    assert bounds(file["put"]["parameters"]) == [MAX_PUT, MAX_PARTS]
    assert bounds(file["post"]["parameters"]) == [MAX_FILE]
    assert bounds(SCHEMAS["Begun"]) == [MAX_PARTS]
    assert f"{MAX_REMOVED:,} files" in group["delete"]["description"]
    assert file["parameters"][1]["schema"]["maxLength"] == MAX_KEY


def test_what_is_referred_to_is_there() -> None:
    found = references(DOCUMENT)
    assert found
    for reference in found:
        node: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
        assert node


def test_schemas_are_schemas() -> None:
    for schema in SCHEMAS.values():
        Draft202012Validator.check_schema(schema)


def test_operations_have_names_of_their_own_and_path_parameters_are_described() -> None:
    names = []
    for path, item in DOCUMENT["paths"].items():
        described = {p["name"] for p in item.get("parameters", []) if p["in"] == "path"}
        assert described == {part[1:-1] for part in path.split("/") if part.startswith("{")}
        names += [item[method]["operationId"] for method in item if method != "parameters"]
    assert len(set(names)) == len(names) == 9


def test_boxes_are_named() -> None:
    [box] = [p for p in DOCUMENT["paths"]["/{box}/{file}"]["parameters"] if p["name"] == "box"]
    assert box["schema"]["enum"] == ["data"]
    [box] = [
        p for p in document("/demo/files", [])["paths"]["/{box}/{file}"]["parameters"] if p["name"] == "box"
    ]
    assert "enum" not in box["schema"], "an empty list of values would be no schema"


def test_the_api_describes_itself(files: Files) -> None:
    assert files.ask("GET", "openapi.json").json == DOCUMENT


def test_answers_are_as_described(files: Files, objects: FakeObjects) -> None:
    group, file = "/{box}/{group}/", "/{box}/{file}"
    check("/", "get", files.ask("GET", ""))
    check(file, "put", files.ask("PUT", "data/g/f", size=7))
    files.given("g/f", "g/h/i")
    check(file, "get", files.ask("GET", "data/g/f"))
    check(group, "get", files.ask("GET", "data/g", limit=1))
    check(group, "get", files.ask("GET", "data", recursive=1))
    begun = files.ask("POST", "data/g/large", uploads="", size=3)
    check(file, "post", begun)
    upload = begun.json["upload"]
    check(file, "put", files.ask("PUT", "data/g/large", upload=upload, part=1))
    objects.put_part(BUCKET, user_area("ann") + "g/large", upload, 1, b"abc")
    check(file, "get", files.ask("GET", "data/g/large", upload=upload))
    check(file, "post", files.ask("POST", "data/g/large", upload=upload))
    check(group, "delete", files.ask("DELETE", "data/g"))
    assert files.ask("DELETE", "data/g/f").status_code == 404
    for path, method, answer in (
        (file, "put", files.ask("PUT", "data/g/f", size=10**10)),
        (file, "get", files.ask("GET", "data/g/f")),
        (group, "get", files.ask("GET", "data/g", limit=0)),
    ):
        assert answer.status_code >= 400
        check(path, method, answer)
