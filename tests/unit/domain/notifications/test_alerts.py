"""Which alerts follow from a status, from usage and from checks, and which notices from events and runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.domain.apps.conditions import Condition, ConditionType
from controller.domain.apps.status import Event, EventType
from controller.domain.apps.usage import Resource, Usage
from controller.domain.names import PLATFORM, AppName, ComponentName
from controller.domain.notifications.alerts import (
    EVENT_SEVERITIES,
    SEVERITIES,
    AlertType,
    alerts_of_app,
    alerts_of_checks,
    alerts_of_usage,
    notice_of_event,
    notice_of_run,
    wants,
)
from controller.domain.notifications.spec import Channel, NotificationSpec, Severity
from controller.domain.reasons import Reason
from controller.domain.runs.run import Run, RunState, Transition
from tests.support.runs import make_pipeline
from tests.support.specs import make

APP = AppName("demo")
READY, UNREADY = (
    Condition(ConditionType.READY, True, Reason.READY, "2 components as declared"),
    Condition(ConditionType.READY, False, Reason.BUILD_FAILED, "it failed"),
)


def a(kind: ConditionType, reason: Reason = Reason.BUILD_FAILED) -> Condition:
    return Condition(kind, True, reason, "it failed", revision="c" * 40)


@pytest.mark.parametrize(
    ("conditions", "types"),
    [
        ((), []),
        ((READY,), []),
        ((UNREADY,), ["NotReady"]),
        ((UNREADY, a(ConditionType.RECONCILING)), []),
        ((UNREADY, a(ConditionType.SUSPENDED)), []),
        ((UNREADY, a(ConditionType.DEGRADED)), ["Degraded"]),
        ((UNREADY, a(ConditionType.STALLED), a(ConditionType.FETCH_FAILED)), ["Stalled", "FetchFailed"]),
        ((UNREADY, a(ConditionType.APPLY_FAILED)), ["ApplyFailed"]),
        ((READY, a(ConditionType.MANIFEST_INVALID)), ["ManifestInvalid"]),
        ((READY, a(ConditionType.PRUNE_PENDING)), ["PrunePending"]),
        ((READY, a(ConditionType.WARNING)), ["Warning"]),
        ((UNREADY, a(ConditionType.WARNING)), ["Warning", "NotReady"]),
        ((READY, a(ConditionType.ROLLED_BACK)), []),
    ],
)
def test_alerts_of_conditions(conditions: tuple[Condition, ...], types: list[str]) -> None:
    found = list(alerts_of_app(APP, conditions))
    assert sorted(each.type for each in found) == sorted(types)
    assert all(each.severity is SEVERITIES[each.type] and each.message for each in found)


def test_each_condition_that_says_what_is_wrong_has_a_type() -> None:
    harmless = {"Ready", "Reconciling", "Suspended", "RolledBack"}
    assert set(ConditionType) - harmless <= set(AlertType)
    assert set(SEVERITIES) == set(AlertType)


def test_waiting_for_a_gpu_is_an_alert_with_its_reason() -> None:
    waits = replace(UNREADY, reason=Reason.WAITING_FOR_GPU)
    (found,) = alerts_of_app(APP, (waits,))
    assert (found.type, found.reason, found.severity) == ("NotReady", "WaitingForGpu", Severity.WARNING)


@pytest.mark.parametrize(
    ("reason", "severity", "told"),
    [
        (Reason.AWAITING_APPROVAL, Severity.WARNING, True),
        (Reason.OUTSIDE_WINDOW, Severity.INFO, False),
        (Reason.FROZEN, Severity.INFO, False),
    ],
)
def test_a_commit_that_waits_for_a_person_is_told(reason: Reason, severity: Severity, told: bool) -> None:
    (found,) = alerts_of_app(APP, (READY, a(ConditionType.DEPLOY_PENDING, reason)))
    assert (found.type, found.severity) == ("DeployPending", severity)
    spec = make(NotificationSpec, ComponentName("team"), Channel.EMAIL, to=("team@example.org",))
    assert wants(spec, found) is told, "by default"


def test_a_box_that_is_nearly_full_is_an_alert_of_its_own() -> None:
    usage = [
        Usage(APP, "box tables", 95, 100),
        Usage(APP, "box other", 5, 100),
        Usage(APP, Resource.CPUS, 4, 4),
        Usage(APP, Resource.STORAGE, 90, 100),
    ]
    found = list(alerts_of_usage(usage))
    assert [each.subject for each in found] == ["box tables", "storage"]
    assert found[0].message == "box tables: 95 bytes of 100 bytes are used"


def test_findings_of_checks_are_alerts_of_the_platform() -> None:
    found = list(alerts_of_checks([("disk space", "1.0 GiB free"), ("shares", "demo: storage 9 of 10")]))
    assert [(each.app, each.subject) for each in found] == [(PLATFORM, "disk space")]


@pytest.mark.parametrize("reason", list(Reason))
def test_few_events_are_notices(reason: Reason) -> None:
    found = notice_of_event(Event(APP, EventType.WARNING, reason, "text"), at=5.0)
    assert (found.severity if found else None) == EVENT_SEVERITIES.get(reason)


@pytest.mark.parametrize("state", list(RunState))
def test_runs_that_failed_are_notices(state: RunState) -> None:
    run = Run(
        "01x",
        APP,
        make_pipeline(),
        1.0,
        state=state,
        history=(Transition(state, 2.0),),
        reason=Reason.EXIT_CODE,
        message="exit code 3",
    )
    found = notice_of_run(run)
    assert (found is not None) is (state is RunState.FAILED)
    if found:
        assert (found.run, found.reason) == (run.id, "ExitCode")
        assert "exit code 3" in found.message
