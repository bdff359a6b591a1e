"""What goes into a JSON column comes out the same, and what does not fit is refused."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.conditions import Condition, ConditionType
from controller.domain.names import AppName, ComponentName
from controller.domain.routes import Api, Route, Service
from controller.domain.secret import Secret
from controller.domain.spec import SecretSpec
from controller.domain.status import AppStatus, ComponentStatus, RepositoryRecord
from controller.store.codec import decode, encode


def _finite(value: object) -> bool:
    return re.search(r"\b(nan|inf)\b", repr(value)) is None


@pytest.mark.parametrize("kind", [AppStatus, Route, RepositoryRecord, Api, Service])
def test_equal_after_a_round_trip(kind: type) -> None:
    # from_type follows the type hints: a field of a new type that the codec cannot carry fails here
    @given(st.from_type(kind).filter(_finite))
    def check(value: object) -> None:
        text = encode(value)
        found: object = decode(kind, text)
        assert found == value
        assert encode(found) == text

    check()


def test_a_status_with_all_its_parts() -> None:
    condition = Condition(ConditionType.READY, True, "Ready", "2 von 2 – läuft", 12.5, "abc")
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
