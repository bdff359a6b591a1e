"""The description of calls whose answer is fetched later."""

from __future__ import annotations

import re
from typing import Any

from controller.serving.docstring import parse
from controller.serving.later import with_later_answers
from controller.serving.openapi import document, secured
from controller.serving.signature import Signature

TEXT = """Tell what a picture shows.

:param inputs.image: A picture
:type inputs.image: FILE
:param outputs.label: What it shows
:type outputs.label: str
"""


def described() -> dict[str, Any]:
    signature = parse(TEXT)
    assert isinstance(signature, Signature)
    return document(signature, "demo/classify")


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def test_calls_are_described_beside_the_function() -> None:
    before = described()
    found = with_later_answers(before)
    assert before == described(), "the description of the container itself stays"
    added = {"/calls", "/calls/{id}", "/calls/{id}/result", "/calls/{id}/events"}
    assert set(found["paths"]) - set(before["paths"]) == added
    predict = found["paths"]["/predict"]["post"]
    assert {each["name"] for each in predict["parameters"]} == {
        "Prefer",
        "Idempotency-Key",
        "X-Prichal-Webhook",
    }
    assert "Location" in predict["responses"]["202"]["headers"]
    assert predict["responses"]["200"] == before["paths"]["/predict"]["post"]["responses"]["200"]
    known = {f"#/components/schemas/{name}" for name in found["components"]["schemas"]}
    assert references(found) <= known
    ids = [operation["operationId"] for path in found["paths"].values() for operation in path.values()]
    assert len(set(ids)) == len(ids)
    for path, operations in found["paths"].items():
        for operation in operations.values():
            named = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path))


def test_with_the_schemes_of_the_api() -> None:
    found = secured(with_later_answers(described()), b'{"basic": {"type": "http", "scheme": "basic"}}')
    assert found["security"] == [{"basic": []}]
    assert "/calls/{id}" in found["paths"]
