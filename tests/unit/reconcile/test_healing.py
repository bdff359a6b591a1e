"""Drift: what a person or a crash did to containers is put right, with a backoff and a cap."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from controller.domain.apps.conditions import ConditionType
from controller.domain.apps.observed import ObservedWorkload, WorkloadState
from controller.domain.apps.requests import Outcome, Trigger
from controller.domain.apps.status import ComponentStatus
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
    harness.engine.remove = lambda workload_id, grace, last=None: None  # type: ignore[method-assign]
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


def test_the_status_has_the_replicas_and_the_last_exit(harness: Harness) -> None:
    def status() -> ComponentStatus:
        (found,) = harness.store.apps.status(APP).components
        return found

    harness.connect()
    harness.push(ml(replicas=2))
    harness.run()
    replicas = status().replicas
    assert [each.name for each in replicas] == sorted(each.name for each in harness.running())
    assert {(each.version, each.state) for each in replicas} == {
        (status().fingerprint, WorkloadState.RUNNING)
    }
    assert status().last_exit is None
    victim = harness.running()[0]
    harness.engine.exit(victim.id, 137, oom_killed=True)
    harness.run("drift")
    exit = status().last_exit
    assert exit is not None
    assert (exit.name, exit.code, exit.oom_killed) == (victim.name, 137, True)
    assert {each.state for each in status().replicas} == {WorkloadState.RUNNING}, "it was repaired"
    harness.run("drift")
    assert status().last_exit == exit


def test_calls_wait_while_it_heals(harness: Harness, serving: ObservedWorkload) -> None:
    waits = []
    harness.prober.on_probe = lambda _: waits.append((harness.route().upstreams, harness.route().stalled))
    harness.engine.exit(serving.id, 137)
    assert harness.run("container").name == "Ready"
    assert waits[0] == ((), "")
    assert (harness.route().patience, harness.route().ready_path) == (10.0, "/health/ready")


@pytest.mark.parametrize("patience", [0.0, 2.5])
def test_the_manifest_says_how_long_calls_wait_without_a_restart(
    harness: Harness, serving: ObservedWorkload, patience: float
) -> None:
    harness.push(ml(mlService={"inference": "app:predict", "patience": patience}))
    assert harness.run().name == "Ready"
    assert [runs.id for runs in harness.running()] == [serving.id]
    assert harness.route().patience == patience


def test_no_call_waits_for_a_crash_loop(harness: Harness, serving: ObservedWorkload) -> None:
    while not harness.condition(ConditionType.STALLED):
        assert not harness.route().stalled
        for runs in harness.running():
            harness.engine.exit(runs.id, 1)
        outcome = harness.run("container")
        harness.clock.advance(outcome.retry_after or 0.0)
    assert harness.route().upstreams == ()
    assert harness.route().stalled == "it was restarted 5 times within 600 s and is not started again for now"
    harness.clock.advance(600.0)
    assert harness.run("retry").name == "Ready"
    assert (len(harness.route().upstreams), harness.route().stalled) == (1, "")


def test_no_call_waits_for_what_cannot_be_started_again(harness: Harness, serving: ObservedWorkload) -> None:
    harness.engine.exits_at_start["classify"] = 7
    harness.engine.exit(serving.id, 1)
    outcome = harness.run("container")
    assert harness.route().stalled == "its last start failed (Exited), and is tried again after a pause"
    harness.engine.exits_at_start.clear()
    harness.clock.advance(outcome.retry_after or 0.0)
    assert harness.run("retry").name == "Ready"
    assert (len(harness.route().upstreams), harness.route().stalled) == (1, "")


def test_calls_wait_for_an_engine_that_is_away(harness: Harness, serving: ObservedWorkload) -> None:
    harness.engine.start_failures["classify"] = Transient(Reason("EngineUnreachable"), "no such socket")
    harness.engine.exit(serving.id, 1)
    harness.run("container")
    assert (harness.route().upstreams, harness.route().stalled) == ((), "")


def test_no_call_waits_for_an_app_that_is_suspended(harness: Harness, serving: ObservedWorkload) -> None:
    before = harness.route()
    harness.store.apps.set_suspended(APP, True)
    harness.run("manual")
    suspended = harness.route()
    assert suspended == replace(before, stalled=suspended.stalled)
    assert "suspended" in suspended.stalled
    harness.store.apps.set_suspended(APP, False)
    assert harness.run("manual").name == "Ready"
    assert harness.route() == before


def test_healing_does_not_wait_for_git(harness: Harness, serving: ObservedWorkload) -> None:
    fetched = harness.sources.fetched
    harness.sources.fault = Transient(Reason("GitUnreachable"), "no route to host")
    harness.engine.exit(serving.id, 1)
    assert harness.run("container").name == "Ready"
    assert (harness.sources.fetched, len(harness.running())) == (fetched, 1)


def test_a_death_that_the_engine_does_not_show_yet_is_looked_at_again_soon(
    harness: Harness, serving: ObservedWorkload
) -> None:
    harness.prober.unready["classify"] = "it is not listening yet"
    pauses = []
    for _ in range(8):
        outcome = harness.run("container")
        assert outcome.retry_as is Trigger.CONTAINER
        pauses.append(outcome.retry_after or 0.0)
        harness.clock.advance(pauses[-1])
    assert pauses[0] == pytest.approx(0.05)
    assert all(later <= 2.1 * earlier for earlier, later in pairwise(pauses))
    harness.engine.exit(serving.id, 137)
    del harness.prober.unready["classify"]
    assert harness.run("container").name == "Ready"
