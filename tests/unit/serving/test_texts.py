"""Faults know what they were made of, and tell it to those who ask for it alone."""

from __future__ import annotations

import json
import pickle
from typing import Any

from controller.domain.localizable import Localizable
from controller.serving import http1, problems
from controller.serving.problems import RequestFault
from controller.serving.texts import Text, as_document, joined

FAULTS = [
    RequestFault("/inputs", Text("input {name!r} is missing", name="rgb")),
    RequestFault("", "a text of others"),
]
WANTS = {b"accept": b"application/json, application/problem+json; messages=1, */*; q=0.9"}


def body(headers: dict[bytes, bytes]) -> dict[str, Any]:
    response = http1.problem_response(problems.invalid(FAULTS), "1", "/predict", headers)
    found: dict[str, Any] = json.loads(response.body)
    return found


def test_only_who_asks_gets_them() -> None:
    for headers in ({}, {b"accept": b"application/json"}):
        assert "messages" not in body(headers)
    told = body(WANTS)
    assert {name: value for name, value in told.items() if name != "messages"} == body({}), (
        "the rest is the same"
    )
    detail, first, second = told["messages"]
    assert first == {"pattern": "input {name!r} is missing", "values": {"name": "rgb"}}
    assert second is None, "others have written it"
    assert first in [*detail["values"].values(), *detail["values"]["part0"]["values"].values()]


def test_a_text_is_its_english_text() -> None:
    text = Text("{a!r} and {b} {unknown}", a="it's", b=Text("{n} more", n=2))
    assert text == '"it\'s" and 2 more {unknown}'
    assert str(ValueError(text)) is text
    again = pickle.loads(pickle.dumps(text))
    assert (again, as_document(again)) == (text, as_document(text))
    both = as_document(joined(": ", "x", text))
    assert both is not None
    assert both["values"]["part1"] == as_document(text)


def test_the_platform_puts_them_into_its_own_messages() -> None:
    message = Localizable("must be an object, not {what}", what=Text("a value of type {name}", name="set"))
    assert message == "must be an object, not a value of type set"
    assert isinstance(message.values["what"], Localizable)
