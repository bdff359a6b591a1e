"""What goes into a JSON column comes out the same, and what does not fit is refused."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from controller.domain.apps.conditions import Condition, ConditionType
from controller.domain.apps.secret_uses import SecretUse
from controller.domain.apps.spec import SecretSpec, Webhook
from controller.domain.apps.status import (
    AppStatus,
    ComponentStatus,
    PreviewWatch,
    ReplicaExit,
    ReplicaStatus,
    RepositoryRecord,
)
from controller.domain.localizable import Localizable
from controller.domain.names import DNS_LABEL, PATH_SEGMENT, AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.routing.routes import Api, Route, Service
from controller.domain.secret import Secret
from controller.store.codec import decode, encode


def _finite(value: object) -> bool:
    return re.search(r"\b(nan|inf)\b", repr(value)) is None


def _whole(kind: type, **fields: SearchStrategy[object]) -> SearchStrategy[object]:
    """Any value of the kind, by its type hints: a field of a new type that the codec cannot carry fails here. `fields`:
    those that have rules of their own."""
    hints = get_type_hints(kind)
    chosen = {field.name: st.from_type(hints[field.name]) for field in dataclasses.fields(kind)}
    return st.builds(kind, **(chosen | fields))


LABEL = st.from_regex(DNS_LABEL, fullmatch=True)
HEX = st.from_regex("[0-9a-f]{1,64}", fullmatch=True)
TIME = st.floats(0, 2**40)
REPLICAS = st.lists(_whole(ReplicaStatus, name=LABEL, since=TIME), max_size=3).map(tuple)
EXIT = _whole(ReplicaExit, name=LABEL, at=TIME, code=st.integers(0, 2**32))
COMPONENT = _whole(ComponentStatus, model=HEX, replicas=REPLICAS, last_exit=st.none() | EXIT)
API = _whole(Api, path=st.from_regex(PATH_SEGMENT, fullmatch=True), name=LABEL)
IMAGES = st.lists(st.tuples(LABEL, HEX), max_size=3).map(tuple)
WHOLE = {
    AppStatus: _whole(
        AppStatus,
        app=LABEL,
        components=st.lists(COMPONENT, max_size=3).map(tuple),
        pins=st.lists(st.tuples(HEX, HEX), max_size=3).map(tuple),
        attempted_images=IMAGES,
        desired_images=IMAGES,
        applied_images=IMAGES,
        models=st.lists(st.tuples(LABEL, HEX), max_size=3).map(tuple),
        secrets=st.lists(st.from_type(SecretUse), max_size=3).map(tuple),
    ),
    Route: _whole(
        Route,
        app=LABEL,
        component=LABEL,
        upstreams=st.lists(st.sampled_from(["10.0.0.1:80", "[::1]:8002"])).map(tuple),
        boxes=st.lists(LABEL, max_size=3).map(tuple),
        apis=st.lists(API, max_size=2).map(tuple),
        webhook=st.none()
        | _whole(Webhook, secret=LABEL, url=st.sampled_from(["", "https://example.org/ends"])),
    ),
    RepositoryRecord: _whole(
        RepositoryRecord,
        name=LABEL,
        apps=st.lists(LABEL, max_size=3).map(tuple),
        previews=st.lists(_whole(PreviewWatch, app=LABEL), max_size=3).map(tuple),
    ),
    Api: API,
    Service: _whole(Service, app=LABEL, api=API, pipeline=st.none() | LABEL),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_equal_after_a_round_trip(kind: type) -> None:
    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a whole status is a large value
    @given(WHOLE[kind].filter(_finite))
    def check(value: object) -> None:
        text = encode(value)
        found: object = decode(kind, text)
        assert found == value
        assert encode(found) == text

    check()


def test_a_status_with_all_its_parts() -> None:
    condition = Condition(ConditionType.READY, True, Reason.READY, "2 von 2 – läuft", 12.5, "abc")
    component = ComponentStatus(
        ComponentName("a"), "MLComponent", conditions=(condition,), restarts=(1.0, 2.5)
    )
    status = AppStatus(AppName("demo"), conditions=(condition,), components=(component,), pins=(("a", "b"),))
    found = decode(AppStatus, encode(status))
    assert found == status
    assert found.conditions[0].type is ConditionType.READY


def test_unknown_keys_are_passed_over_and_missing_ones_take_their_default() -> None:
    stored = json.dumps({"app": "demo", "failures": 3, "invented_later": [1, 2]})
    assert decode(AppStatus, stored) == AppStatus(AppName("demo"), failures=3)


@pytest.mark.parametrize(
    "stored",
    [
        "{}",  # a field without a default
        "[]",
        '{"app": 3}',
        '{"app": "demo", "failures": "three"}',
        '{"app": "demo", "failures": true}',
        '{"app": "demo", "conditions": [{"type": "Odd", "status": true, "reason": "", "message": ""}]}',
        '{"app": "demo", "pins": [["only one"]]}',
        '{"app": "demo"',
    ],
)
def test_what_does_not_fit_is_a_value_error(stored: str) -> None:
    with pytest.raises(ValueError, match=r"expected|missing|valid|argument|delimiter"):
        decode(AppStatus, stored)


def test_a_secret_is_never_written() -> None:
    with pytest.raises(TypeError, match="Secret"):
        encode(SecretSpec("git", (("password", Secret("hunter2")),)))


def test_numbers_that_are_no_json_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        encode((float("nan"),))


def test_messages_keep_what_they_are_made_of() -> None:
    message = Localizable("{count} components as declared", count=3)
    text = encode(Condition(ConditionType.READY, True, Reason.READY, message))
    back = decode(Condition, text)
    assert isinstance(back.message, Localizable)
    assert (back.message, dict(back.message.values)) == (message, {"count": 3})
    assert json.loads(text)["message"] == "3 components as declared", "other versions read this"


@pytest.mark.parametrize(
    "told", [None, 1, "x", [], {}, {"pattern": "{count} apps", "values": {}, "sentence": False}]
)
def test_the_text_of_a_message_counts(told: object) -> None:
    row = json.loads(encode(Condition(ConditionType.READY, True, Reason.READY, Localizable("all is well"))))
    back = decode(Condition, json.dumps({**row, "message.told": told}))
    assert (back.message, type(back.message)) == ("all is well", str)
