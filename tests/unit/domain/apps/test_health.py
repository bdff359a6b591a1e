"""Verdicts: one component from a snapshot, the app from its components and from what the plan held back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.domain.apps.conditions import Condition, Conditions, ConditionType, find
from controller.domain.apps.health import judge_app, judge_component
from controller.domain.apps.observed import WorkloadState
from controller.domain.apps.plan import Hold, Plan
from controller.domain.apps.status import ComponentStatus
from controller.domain.reasons import Reason
from tests.support.builders import APP, COMMIT, component, fingerprint, observed, route, spec, workload

V1 = component(revision=COMMIT)
RUNS = workload()
BLANK = ComponentStatus(V1.spec.name, "MLComponent")
FAILED = replace(
    BLANK, failed_fingerprint=fingerprint("v2"), failure_reason=Reason.NOT_READY, failure="no answer in 120 s"
)


def types(conditions: Conditions) -> list[tuple[str, bool]]:
    return [(c.type, c.status) for c in conditions]


def test_serving() -> None:
    (ready,) = judge_component(V1, observed(RUNS), route(V1, RUNS), BLANK)
    assert ready == Condition(
        ConditionType.READY, True, Reason.SERVING, "version v1v1v1v1 serves", revision=COMMIT
    )


def test_asleep_is_ready() -> None:
    dozing = replace(V1, spec=spec(idle_after=600.0), asleep=True)
    (ready,) = judge_component(
        dozing, observed(), route(V1, fingerprint=fingerprint("v1"), asleep=True), BLANK
    )
    assert (ready.status, ready.reason) == (True, "Hibernating")
    assert ready.message == "nobody has called for 10m; the next call starts version v1v1v1v1"


def test_waking_up_is_not_ready_yet() -> None:
    napping = replace(V1, spec=spec(idle_after=600.0))
    conditions = judge_component(napping, observed(), route(V1, asleep=True), BLANK)
    assert types(conditions) == [(ConditionType.READY, False), (ConditionType.DEGRADED, True)]


def test_a_failed_version_beside_one_asleep_is_degraded() -> None:
    conditions = judge_component(component(version="v2"), observed(), route(V1, asleep=True), FAILED)
    assert types(conditions) == [(ConditionType.READY, False), (ConditionType.DEGRADED, True)]


def test_nothing_serves_yet() -> None:
    (ready,) = judge_component(V1, observed(), None, BLANK)
    assert (ready.status, ready.reason) == (False, "NotServing")


def test_another_version_serves_still() -> None:
    (ready,) = judge_component(component(version="v2"), observed(RUNS), route(V1, RUNS), BLANK)
    assert (ready.status, ready.reason) == (False, "NotServing")


@pytest.mark.parametrize(
    "dead",
    [
        workload(replica=1, state=WorkloadState.STOPPED),
        workload(replica=1, address=None),
        workload(replica=1, address="not-routed"),
        workload(version="v0", replica=1),
    ],
    ids=["stopped", "off the network", "not routed", "of another version"],
)
def test_a_replica_is_missing(dead: object) -> None:
    two = component(replicas=2)
    conditions = judge_component(two, observed(RUNS, dead), route(two, RUNS), BLANK)  # type: ignore[arg-type]
    assert types(conditions) == [(ConditionType.READY, False), (ConditionType.DEGRADED, True)]
    assert conditions[1].message == "1 of 2 replicas run"


def test_a_missing_replica_says_what_the_engine_says_of_it() -> None:
    waits = replace(workload(replica=1, state=WorkloadState.PENDING), detail="0/2 nodes have enough memory")
    two = component(replicas=2)
    _, degraded = judge_component(two, observed(RUNS, waits), route(two, RUNS), BLANK)
    assert degraded.message == (f"1 of 2 replicas run. {waits.name} is pending: 0/2 nodes have enough memory")


def test_a_repair_that_failed_says_why() -> None:
    memory = replace(BLANK, failure_reason=Reason.EXITED, failure="classify exited with code 3")
    _, degraded = judge_component(V1, observed(), route(V1, RUNS), memory)
    assert degraded.message == "0 of 1 replicas run. classify exited with code 3"


def test_it_runs_but_says_that_it_is_not_ready() -> None:
    _, degraded = judge_component(V1, observed(RUNS), route(V1, RUNS), BLANK, unready="model not loaded")
    assert (degraded.type, degraded.reason) == (ConditionType.DEGRADED, "NotAnswering")
    assert degraded.message == "model not loaded"


def test_a_failed_version_beside_a_serving_one_is_degraded() -> None:
    ready, degraded = judge_component(component(version="v2"), observed(RUNS), route(V1, RUNS), FAILED)
    assert types((ready, degraded)) == [(ConditionType.READY, False), (ConditionType.DEGRADED, True)]
    assert degraded.message == "version v1v1v1v1 keeps serving. no answer in 120 s"


def test_a_failed_first_version_is_stalled() -> None:
    _, stalled = judge_component(component(version="v2"), observed(), None, FAILED)
    assert (stalled.type, stalled.reason, stalled.message) == (
        ConditionType.STALLED,
        "NotReady",
        "no answer in 120 s",
    )


def test_the_last_good_version_in_place_of_a_failed_one_tells_the_reason_of_that() -> None:
    kept = replace(V1, failure_reason=Reason.IMAGE_NOT_FOUND, failure="demo:9 is not there")
    ready, degraded = judge_component(kept, observed(RUNS), route(V1, RUNS), BLANK)
    assert (ready.status, ready.reason, degraded.reason) == (False, "ImageNotFound", "ImageNotFound")


def test_a_failure_of_another_version_is_forgotten() -> None:
    assert types(judge_component(V1, observed(RUNS), route(V1, RUNS), FAILED)) == [
        (ConditionType.READY, True)
    ]


# --- the app -----------------------------------------------------------------------------------------------------

GOOD = replace(BLANK, conditions=(Condition(ConditionType.READY, True, Reason.SERVING, "serves"),))
BAD = replace(
    BLANK,
    name=component("other").spec.name,
    conditions=(
        Condition(ConditionType.READY, False, Reason.NOT_READY, "no answer"),
        Condition(ConditionType.DEGRADED, True, Reason.NOT_READY, "no answer"),
    ),
)


def plan(*holds: Hold) -> Plan:
    return Plan(APP, COMMIT, holds=holds)


def test_an_app_is_ready_with_all_its_components() -> None:
    (ready,) = judge_app((GOOD,), plan(), ())
    assert (ready.status, ready.message, ready.revision) == (True, "1 component as declared", COMMIT)


def test_an_app_without_components_is_ready() -> None:
    assert judge_app((), plan(), ())[0].status


def test_one_bad_component_makes_the_app_bad_and_is_named() -> None:
    ready, degraded = judge_app((GOOD, BAD), plan(), ())
    assert (ready.status, degraded.type) == (False, ConditionType.DEGRADED)
    assert degraded.message == "other: no answer"


def test_an_app_that_would_lose_everything_is_not_ready() -> None:
    ready, pending = judge_app((), plan(Hold(None, Reason.PRUNE_PENDING, "all would go")), ())
    assert (ready.status, ready.reason, pending.type) == (False, "PrunePending", ConditionType.PRUNE_PENDING)


def test_a_crash_loop_stalls_the_app() -> None:
    conditions = judge_app((BAD,), plan(Hold(BAD.name, Reason.CRASH_LOOP, "restarted 5 times")), ())
    stalled = find(conditions, ConditionType.STALLED)
    assert stalled is not None
    assert (stalled.reason, stalled.message) == ("CrashLoop", "other: restarted 5 times")


@pytest.mark.parametrize("reason", ["Backoff", "PruneDisabled"])
def test_a_hold_that_is_no_alarm_adds_no_condition(reason: str) -> None:
    assert types(judge_app((GOOD,), plan(Hold(GOOD.name, Reason(reason), "…")), ())) == [
        (ConditionType.READY, True)
    ]


def test_warnings_are_shown_and_do_no_harm() -> None:
    ready, warning = judge_app((GOOD,), plan(), ("a plain Secret lies in Git",))
    assert (ready.status, warning.type, warning.message) == (
        True,
        ConditionType.WARNING,
        "a plain Secret lies in Git",
    )
