"""Drift: what a person or a crash did to containers is put right, with a backoff and a cap."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.domain.apps.conditions import ConditionType
from controller.domain.apps.observed import ObservedWorkload
from controller.domain.apps.requests import Outcome
from controller.domain.errors import Transient
from controller.domain.reasons import Reason
from controller.reconcile.deps import PassOutcome
from tests.unit.reconcile.harness import APP, Harness, ml


@pytest.fixture
def serving(harness: Harness) -> ObservedWorkload:
    harness.connect()
    harness.push(ml())
    harness.run()
    (runs,) = harness.running()
    return runs


def test_a_removed_container_comes_back(harness: Harness, serving: ObservedWorkload) -> None:
    harness.engine.vanish(serving.id)
    assert harness.run("drift").name == "Ready"
    (healed,) = harness.running()
    assert healed.name == serving.name
    assert harness.route().upstreams == (healed.endpoint,)


def test_a_container_that_died_comes_back_and_the_plan_says_what_of(
    harness: Harness, serving: ObservedWorkload
) -> None:
    harness.engine.exit(serving.id, 137, oom_killed=True)
    assert harness.run("drift").name == "Ready"
    assert "was OOM-killed" in harness.status().plan


def test_the_network_comes_back_too(harness: Harness, serving: ObservedWorkload) -> None:
    harness.engine.vanish(serving.id)
    harness.engine.remove_network(APP)
    assert harness.run("drift").name == "Ready"


def test_while_one_replica_is_away_the_others_get_the_traffic(
    harness: Harness, serving: ObservedWorkload
) -> None:
    harness.push(ml(replicas=2))
    harness.run()
    dead, alive = harness.running()
    harness.engine.exit(dead.id)

    def check(asked: ObservedWorkload) -> None:
        if asked.id != alive.id and asked.endpoint not in harness.route().upstreams:
            assert harness.route().upstreams == (alive.endpoint,)

    harness.prober.on_probe = check
    assert harness.run("drift").name == "Ready"
    assert len(harness.route().upstreams) == 2


def test_a_crash_loop_ends_in_a_clear_state(harness: Harness, serving: ObservedWorkload) -> None:
    waits = []
    outcome = PassOutcome(Outcome.NONE)
    for _ in range(20):
        for runs in harness.running():
            harness.engine.exit(runs.id, 1)
        outcome = harness.run("drift")
        if outcome.retry_after is not None:
            waits.append(round(outcome.retry_after))
            harness.clock.advance(outcome.retry_after)
    assert waits == [2, 4, 8, 16]
    assert len(harness.engine.starts) == 1 + 5
    stalled = harness.condition(ConditionType.STALLED)
    assert stalled is not None
    assert (stalled.reason, stalled.message) == ("CrashLoop", "classify: restarted 5 times within 600 s")
    assert harness.events().count("CrashLoop") == 1
    assert outcome.name == "Degraded"


def test_a_crash_loop_is_left_when_a_person_asks(harness: Harness, serving: ObservedWorkload) -> None:
    for _ in range(20):
        for runs in harness.running():
            harness.engine.exit(runs.id, 1)
        harness.clock.advance(harness.run("drift").retry_after or 0.0)
    assert harness.run("manual").name == "Ready"


def test_a_repair_that_exits_before_it_is_ready_backs_off_and_says_why(
    harness: Harness, serving: ObservedWorkload
) -> None:
    harness.engine.exits_at_start["classify"] = 7
    harness.engine.vanish(serving.id)
    outcome = harness.run("drift")
    assert outcome.name == "Degraded"
    assert outcome.retry_after == pytest.approx(2.0)
    degraded = harness.condition(ConditionType.DEGRADED)
    assert degraded is not None
    assert "0 of 1 replicas run. classify exited with code 7" in degraded.message
    del harness.engine.exits_at_start["classify"]
    harness.clock.advance(2.0)
    assert harness.run("retry").name == "Ready"
    assert harness.types() == [ConditionType.READY]
    component = harness.status().component(harness.route().component)
    assert component is not None
    assert (component.failure, component.failed_fingerprint) == ("", "")


def test_a_container_that_runs_and_does_not_answer_is_told(
    harness: Harness, serving: ObservedWorkload
) -> None:
    harness.prober.unready["classify"] = "worker 1 is stuck in predict"
    outcome = harness.run("drift")
    assert (outcome.name, outcome.retry_after) == ("Degraded", 5.0)
    assert "worker 1 is stuck" in outcome.message
    events = harness.events()
    harness.settle()
    assert harness.events() == events
    harness.prober.unready.clear()
    assert harness.run("retry").name == "Ready"
    assert harness.events()[-1] == "Ready"


def test_a_crash_between_create_and_start(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    harness.engine.start_failures["classify"] = Transient(Reason.ENGINE_UNREACHABLE, "the engine went away")
    assert harness.run().name == "Failed"
    harness.engine.start_failures.clear()
    assert harness.retry().name == "Ready"


def test_a_crash_after_the_switch_leaves_nothing_over(harness: Harness, serving: ObservedWorkload) -> None:
    """The route leads to the new version, the old one was not removed any more."""
    harness.push(ml(image="demo:2"))
    kept = harness.engine.remove
    harness.engine.remove = lambda workload_id, grace: None  # type: ignore[method-assign]
    assert harness.run().retry_after is not None
    harness.engine.remove = kept  # type: ignore[method-assign]
    assert len(harness.running()) == 2
    assert harness.run("start").name == "Ready"
    assert len(harness.running()) == 1


def test_the_same_repair_twice_leaves_no_trace_of_being_under_way(
    harness: Harness, serving: ObservedWorkload
) -> None:
    for _ in range(2):
        current = harness.route()
        harness.store.routes.switch(replace(current, upstreams=("10.0.0.9:8002",)))
        harness.clock.advance(1000.0)
        assert harness.run("drift").name == "Ready"
    assert harness.types() == [ConditionType.READY]


def test_foreign_containers_are_left_alone(harness: Harness, serving: ObservedWorkload) -> None:
    harness.engine.take_name("postgres")
    harness.push(ml(image="demo:2"))
    harness.run()
    harness.disconnect()
    harness.run("platform")
    assert harness.engine.names() == ["postgres"]


def test_a_foreign_container_with_our_name_is_told_and_left_alone(harness: Harness) -> None:
    harness.connect()
    commit = harness.push(ml())
    harness.run()
    (ours,) = harness.running()
    harness.engine.vanish(ours.id)
    harness.engine.take_name(ours.name)
    outcome = harness.run("drift")
    assert outcome.name == "Degraded"
    assert "another container has that name" in outcome.message
    assert harness.engine.names() == [ours.name]
    assert outcome.revision == commit
