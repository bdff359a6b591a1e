"""What a pass tells: each failure once and in full, however many conditions hold because of it."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.domain.apps.conditions import Condition, ConditionType
from controller.domain.names import ComponentName
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.reconcile.status_writer import StatusWriter
from tests.support.reasons import CONTROLLER, name_of
from tests.unit.reconcile.harness import APP

#: Together they take seconds.
pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.unit.reconcile.harness import Harness

WHY = "cannot start a.0: unable to find user app"
SERVES = "a: version 1d0c keeps serving."


def degraded(message: str) -> list[Condition]:
    return [
        Condition(ConditionType.READY, False, Reason.FAILED, message),
        Condition(ConditionType.DEGRADED, True, Reason.FAILED, message),
    ]


def told(harness: Harness, *events: str, message: str) -> str:
    """The event of a condition, after those events of the same pass."""
    status_writer = StatusWriter(harness.store, harness.clock, APP, ())
    for event in events:
        status_writer.record_event(Reason.FAILED, event, ComponentName("a"), warn=True)
    status_writer.set_conditions(degraded(message))
    return harness.store.events.list(APP)[-1].message


@pytest.mark.parametrize(
    ("events", "message", "wanted"),
    [
        ([WHY], f"{SERVES} {WHY}", SERVES),
        ([WHY, WHY], f"{SERVES} {WHY}", SERVES),
        ([WHY[:-4], WHY], f"{SERVES} {WHY}", SERVES),
        ([WHY], WHY, WHY),
        ([], f"{SERVES} {WHY}", f"{SERVES} {WHY}"),
        (["", "a", "is"], "a class is unfit", "a class is unfit"),
        (["version"], "a: versions 1 and 2", "a: versions 1 and 2"),
        (["class of it"], "a subclass of items", "a subclass of items"),
    ],
)
def test_a_failure_is_told_once_in_a_pass(
    harness: Harness, events: list[str], message: str, wanted: str
) -> None:
    assert told(harness, *events, message=message) == wanted


def test_what_was_told_by_an_earlier_pass_is_not_told_again(harness: Harness) -> None:
    for _ in range(3):
        status_writer = StatusWriter(harness.store, harness.clock, APP, ())
        status_writer.set_conditions(degraded(WHY))
        status_writer.save()
    assert [event.message for event in harness.store.events.list(APP)] == [WHY]
    status_writer = StatusWriter(harness.store, harness.clock, APP, ())
    status_writer.set_conditions([replace(condition, reason=Reason("Other")) for condition in degraded(WHY)])
    assert len(harness.store.events.list(APP)) == 2, "another reason is news"


WORDS = st.text("abc .:", min_size=1, max_size=25)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=50,
)
@given(st.lists(WORDS, max_size=4), st.lists(WORDS, min_size=1, max_size=4))
def test_nothing_is_lost_and_nothing_is_told_in_vain(
    harness: Harness, events: list[str], parts: list[str]
) -> None:
    message = "|".join(parts)
    status_writer = StatusWriter(harness.store, harness.clock, APP, (Secret("hunter2"),), silent=True)
    status_writer._told = list(events)
    left = status_writer._without_reported(message)
    assert left or not message
    rest = iter(message)
    assert all(char in rest for char in left), "only whole parts are left out, in their order"


def test_nothing_else_writes_a_status() -> None:
    """The store's methods that save a status are called here alone; decisions of people have a table of their own."""
    writers = {"save", "record_plan", "forget"}
    found = {
        path.name
        for path in CONTROLLER.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in writers and name_of(node.value) == "apps"
    }
    assert found == {"status_writer.py"}
