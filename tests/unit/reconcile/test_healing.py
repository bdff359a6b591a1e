"""Drift: what a person or a crash did to containers is put right, with a backoff and a cap."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.domain.conditions import ConditionType
from controller.domain.errors import Transient
from controller.domain.observed import ObservedWorkload
from controller.reconcile.house import Outcome
from tests.unit.reconcile.scene import APP, Scene, ml


@pytest.fixture
def serving(scene: Scene) -> ObservedWorkload:
    scene.connect()
    scene.push(ml())
    scene.run()
    (runs,) = scene.running()
    return runs


def test_a_removed_container_comes_back(scene: Scene, serving: ObservedWorkload) -> None:
    scene.engine.vanish(serving.id)
    assert scene.run("drift").name == "Ready"
    (healed,) = scene.running()
    assert healed.name == serving.name
    assert scene.route().upstreams == (healed.endpoint,)


def test_a_container_that_died_comes_back_and_the_plan_says_what_of(
    scene: Scene, serving: ObservedWorkload
) -> None:
    scene.engine.exit(serving.id, 137, oom_killed=True)
    assert scene.run("drift").name == "Ready"
    assert "was killed for want of memory" in scene.status().plan


def test_the_network_comes_back_too(scene: Scene, serving: ObservedWorkload) -> None:
    scene.engine.vanish(serving.id)
    scene.engine.remove_network(APP)
    assert scene.run("drift").name == "Ready"


def test_while_one_replica_is_away_the_others_get_the_traffic(
    scene: Scene, serving: ObservedWorkload
) -> None:
    scene.push(ml(replicas=2))
    scene.run()
    dead, alive = scene.running()
    scene.engine.exit(dead.id)

    def check(asked: ObservedWorkload) -> None:
        if asked.id != alive.id and asked.endpoint not in scene.route().upstreams:
            assert scene.route().upstreams == (alive.endpoint,)

    scene.prober.on_probe = check
    assert scene.run("drift").name == "Ready"
    assert len(scene.route().upstreams) == 2


def test_a_crash_loop_ends_in_a_clear_state(scene: Scene, serving: ObservedWorkload) -> None:
    waits = []
    outcome = Outcome("")
    for _ in range(20):
        for runs in scene.running():
            scene.engine.exit(runs.id, 1)
        outcome = scene.run("drift")
        if outcome.retry_after is not None:
            waits.append(round(outcome.retry_after))
            scene.clock.advance(outcome.retry_after)
    assert waits == [2, 4, 8, 16]
    assert len(scene.engine.starts) == 1 + 5
    stalled = scene.condition(ConditionType.STALLED)
    assert stalled is not None
    assert (stalled.reason, stalled.message) == ("CrashLoop", "classify: restarted 5 times within 600 s")
    assert scene.events().count("CrashLoop") == 1
    assert outcome.name == "Degraded"


def test_a_crash_loop_is_left_when_a_person_asks(scene: Scene, serving: ObservedWorkload) -> None:
    for _ in range(20):
        for runs in scene.running():
            scene.engine.exit(runs.id, 1)
        scene.clock.advance(scene.run("drift").retry_after or 0.0)
    assert scene.run("manual").name == "Ready"


def test_a_repair_that_exits_before_it_is_ready_backs_off_and_says_why(
    scene: Scene, serving: ObservedWorkload
) -> None:
    scene.engine.exits_at_start["classify"] = 7
    scene.engine.vanish(serving.id)
    outcome = scene.run("drift")
    assert outcome.name == "Degraded"
    assert outcome.retry_after == pytest.approx(2.0)
    degraded = scene.condition(ConditionType.DEGRADED)
    assert degraded is not None
    assert "0 of 1 replicas run. classify exited with code 7" in degraded.message
    del scene.engine.exits_at_start["classify"]
    scene.clock.advance(2.0)
    assert scene.run("retry").name == "Ready"
    assert scene.types() == [ConditionType.READY]
    component = scene.status().component(scene.route().component)
    assert component is not None
    assert (component.failure, component.failed_fingerprint) == ("", "")


def test_a_container_that_runs_and_does_not_answer_is_told(scene: Scene, serving: ObservedWorkload) -> None:
    scene.prober.unready["classify"] = "worker 1 is stuck in predict"
    outcome = scene.run("drift")
    assert (outcome.name, outcome.retry_after) == ("Degraded", 5.0)
    assert "worker 1 is stuck" in outcome.message
    events = scene.events()
    scene.settle()
    assert scene.events() == events
    scene.prober.unready.clear()
    assert scene.run("retry").name == "Ready"
    assert scene.events()[-1] == "Ready"


def test_a_crash_between_create_and_start(scene: Scene) -> None:
    scene.connect()
    scene.push(ml())
    scene.engine.start_failures["classify"] = Transient("EngineUnreachable", "the engine went away")
    assert scene.run().name == "Failed"
    scene.engine.start_failures.clear()
    assert scene.run("retry").name == "Ready"


def test_a_crash_after_the_switch_leaves_nothing_over(scene: Scene, serving: ObservedWorkload) -> None:
    """The route leads to the new version, the old one was not removed any more."""
    scene.push(ml(image="demo:2"))
    kept = scene.engine.remove
    scene.engine.remove = lambda workload_id, grace: None  # type: ignore[method-assign]
    assert scene.run().retry_after is not None
    scene.engine.remove = kept  # type: ignore[method-assign]
    assert len(scene.running()) == 2
    assert scene.run("start").name == "Ready"
    assert len(scene.running()) == 1


def test_the_same_repair_twice_leaves_no_trace_of_being_under_way(
    scene: Scene, serving: ObservedWorkload
) -> None:
    for _ in range(2):
        current = scene.route()
        scene.store.routes.switch(replace(current, upstreams=("10.0.0.9:8002",)))
        scene.clock.advance(1000.0)
        assert scene.run("drift").name == "Ready"
    assert scene.types() == [ConditionType.READY]


def test_foreign_containers_are_left_alone(scene: Scene, serving: ObservedWorkload) -> None:
    scene.engine.take_name("postgres")
    scene.push(ml(image="demo:2"))
    scene.run()
    scene.disconnect()
    scene.run("platform")
    assert scene.engine.names() == ["postgres"]


def test_a_foreign_container_with_our_name_is_told_and_left_alone(scene: Scene) -> None:
    scene.connect()
    commit = scene.push(ml())
    scene.run()
    (ours,) = scene.running()
    scene.engine.vanish(ours.id)
    scene.engine.take_name(ours.name)
    outcome = scene.run("drift")
    assert outcome.name == "Degraded"
    assert "another container has that name" in outcome.message
    assert scene.engine.names() == [ours.name]
    assert outcome.revision == commit
