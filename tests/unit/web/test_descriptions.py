"""What holds for every OpenAPI description that callers get, whether the platform or a component makes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from controller.domain.apps.spec import ApiVariable
from controller.domain.names import ComponentName
from controller.domain.routing.routes import Api
from controller.serving import openapi as component
from controller.serving.docstring import parse
from controller.serving.signature import Signature
from controller.web.api.files import openapi as files
from controller.web.api.runs import openapi as runs
from controller.web.api.runs.submission import RunInterface
from controller.web.auth.schemes import header_value, schemes, secured
from tests.support.specs import make

Json = dict[str, Any]
API = Api("image", ComponentName("image"), published=True)
BASIC = replace(API, users=(("ann", "x"),))
ALL = replace(BASIC, tokens=(("ci", "sha256:x"),), oidc_issuer="https://id.example.org/")


def described(text: str) -> Json:
    signature = parse(text)
    assert isinstance(signature, Signature)
    return component.document(signature, "app/component")


def variable(side: str, name: str, datatypes: str) -> str:
    return f"\n    :param {side}.{name}: {name}\n    :type {side}.{name}: {datatypes}"


EVERY_TYPE = "FP32 or FP64 or INT32 or str or dict or FILE"
TABLE = make(ApiVariable, "table", datatypes=("FILE", "str", "dict", "INT32", "FP64", "FP32"))
DOCUMENTS = {
    "component with variables": described(
        "Say." + variable("inputs", "x", EVERY_TYPE + ", optional") + variable("outputs", "y", EVERY_TYPE)
    ),
    "component without inputs": described("Say." + variable("outputs", "y", "str")),
    "component without outputs": described("Say." + variable("inputs", "x", "FP32")),
    "files": files.document("/app/files", ["data"]),
    "files without boxes": files.document("/app/files", []),
    "one pipeline": runs.of_one(
        "/app/train", "train", RunInterface((TABLE,), (make(ApiVariable, "out"),), ("data",))
    ),
    "a pipeline without variables": runs.of_one("/app/train", "train", RunInterface((), ())),
    "all pipelines": runs.of_all("/app/pipelines", ["train"]),
    "no pipelines": runs.of_all("/app/pipelines", []),
}


def schemas(node: Any, path: str = "") -> Iterator[tuple[str, Json]]:
    """Every JSON object of the document that says a type, with its place."""
    if isinstance(node, dict):
        if "type" in node and isinstance(node["type"], str | list):
            yield path, node
        for key, value in node.items():
            yield from schemas(value, f"{path}/{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from schemas(value, f"{path}/{number}")


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_every_array_says_what_its_items_are(document: Json) -> None:
    """Else openapi-python-client leaves out the whole operation, and others make an array of nothing."""
    found = dict(schemas(document["components"]))
    arrays = {path: schema for path, schema in found.items() if "array" in schema["type"]}
    assert arrays
    for path, schema in arrays.items():
        assert isinstance(schema.get("items"), dict), path


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_no_schema_is_a_bare_truth_value(document: Json) -> None:
    """Valid in JSON Schema, and unknown to most generators, but where an object is closed."""
    for path, schema in schemas(document["components"]):
        for key in ("items", "not", "if", "then", "else"):
            assert not isinstance(schema.get(key), bool), f"{path}/{key}"


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_operations_have_ids_of_their_own(document: Json) -> None:
    methods = ("get", "put", "post", "delete", "patch", "head", "options")
    found = [item[m]["operationId"] for item in document["paths"].values() for m in item if m in methods]
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ("api", "expected"),
    [
        (API, {}),
        (BASIC, {"basic": {"type": "http", "scheme": "basic"}}),
        (replace(API, tokens=(("ci", "x"),)), {"token": {"type": "http", "scheme": "bearer"}}),
        (
            ALL,
            {
                "basic": {"type": "http", "scheme": "basic"},
                "token": {"type": "http", "scheme": "bearer"},
                "openid": {
                    "type": "openIdConnect",
                    "openIdConnectUrl": "https://id.example.org/.well-known/openid-configuration",
                },
            },
        ),
    ],
)
def test_schemes(api: Api, expected: Json) -> None:
    assert schemes(api) == expected


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_a_component_says_the_same_as_the_platform(document: Json) -> None:
    """Each scheme alone is enough, and an API that is open to all asks for none."""
    assert component.secured(document, header_value(ALL)) == secured(document, ALL)
    assert secured(document, ALL)["security"] == [{"basic": []}, {"token": []}, {"openid": []}]
    assert secured(document, ALL)["components"]["schemas"] == document["components"]["schemas"]
    for open_to_all in (secured(document, API), component.secured(document, header_value(API))):
        assert open_to_all == document


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000], ids=lambda v: v[:8])
def test_a_component_passes_over_what_is_no_list_of_schemes(value: bytes) -> None:
    document = DOCUMENTS["files"]
    assert component.secured(document, value) == document
