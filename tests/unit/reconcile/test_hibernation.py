"""Scale to zero: what nobody calls is put to sleep, and comes back when somebody does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.domain.conditions import ConditionType, find
from controller.domain.errors import Transient
from controller.domain.hibernation import NEWS_DELAY
from tests.support.fake_engine import image_id
from tests.unit.reconcile.scene import APP, Scene, app, built, ml

IDLE = 600.0
NAPS = {"idleAfter": "10m"}
UNREACHABLE = Transient("GitUnreachable", "no route to host")


@pytest.fixture
def asleep(scene: Scene) -> Scene:
    scene.connect()
    scene.push(ml(hibernation=NAPS))
    scene.run()
    fall_asleep(scene)
    return scene


def fall_asleep(scene: Scene) -> None:
    scene.clock.advance(IDLE + NEWS_DELAY)
    assert scene.run("drift").name == "Ready"
    assert scene.running() == []


def call(scene: Scene) -> None:
    """As a gateway does it."""
    scene.store.activity.touch([(APP, scene.route().component)], scene.clock.now())


def reason(scene: Scene) -> str:
    (component,) = scene.status().components
    ready = find(component.conditions, ConditionType.READY)
    assert ready is not None
    return ready.reason


def test_goes_to_sleep_when_nobody_has_called_for_so_long(scene: Scene) -> None:
    scene.connect()
    scene.push(ml(hibernation=NAPS))
    assert scene.run().retry_after == IDLE + NEWS_DELAY
    scene.clock.advance(400.0)
    call(scene)
    scene.clock.advance(400.0)
    outcome = scene.run("retry")
    assert (outcome.retry_after, len(scene.running())) == (IDLE + NEWS_DELAY - 400.0, 1)
    scene.clock.advance(outcome.retry_after or 0.0)
    outcome = scene.run("retry")
    assert (outcome.name, outcome.retry_after) == ("Ready", None)
    assert scene.running() == []
    assert (scene.route().upstreams, scene.route().asleep) == ((), True)
    assert reason(scene) == "Hibernating"
    starts = len(scene.engine.starts)
    scene.settle()
    assert len(scene.engine.starts) == starts


def test_without_hibernation_it_runs_for_ever(scene: Scene) -> None:
    scene.connect()
    scene.push(ml())
    assert scene.run().retry_after is None
    scene.clock.advance(1e6)
    scene.run("drift")
    assert len(scene.running()) == 1


def test_a_call_wakes_it_up_and_is_no_restart(asleep: Scene) -> None:
    call(asleep)
    assert asleep.run("wake").name == "Ready"
    (runs,) = asleep.running()
    assert asleep.route().upstreams == (runs.endpoint,)
    assert not asleep.route().asleep
    (component,) = asleep.status().components
    assert component.restarts == ()
    assert reason(asleep) == "Serving"
    fall_asleep(asleep)


def test_waking_up_does_not_wait_for_git(asleep: Scene) -> None:
    asleep.sources.fault = UNREACHABLE
    fetched = asleep.sources.fetched
    call(asleep)
    assert asleep.run("wake", "retry").name == "Ready"
    assert len(asleep.running()) == 1
    assert asleep.sources.fetched == fetched


def test_waking_up_hides_no_trouble_with_git(asleep: Scene) -> None:
    asleep.sources.fault = UNREACHABLE
    asleep.run("poll")
    events = asleep.events().count("GitUnreachable")
    call(asleep)
    outcome = asleep.run("wake")
    assert (outcome.name, outcome.retry_after is not None) == ("Failed", True)
    assert asleep.types() == [ConditionType.READY, ConditionType.FETCH_FAILED]
    assert asleep.events().count("GitUnreachable") == events
    assert len(asleep.running()) == 1


def test_a_commit_that_comes_with_the_call_is_taken(asleep: Scene) -> None:
    commit = asleep.push(ml(image="demo:2", hibernation=NAPS))
    call(asleep)
    asleep.run("wake", "webhook")
    assert asleep.status().applied_revision == commit


def test_what_does_not_wake_up_is_told_and_tried_again(asleep: Scene) -> None:
    asleep.engine.exits_at_start["classify"] = 7
    call(asleep)
    outcome = asleep.run("wake")
    assert (outcome.name, outcome.retry_after) == ("Degraded", 2.0)
    assert "classify exited with code 7" in outcome.message
    assert not asleep.route().asleep, "callers are not kept waiting for it"
    asleep.clock.advance(2 * IDLE)
    assert asleep.run("drift").name == "Degraded", "what is broken is not hidden by putting it to sleep"
    del asleep.engine.exits_at_start["classify"]
    asleep.clock.advance(IDLE)
    assert asleep.run("retry").name == "Ready"
    fall_asleep(asleep)


def test_a_new_version_is_tried_at_once_and_sleeps_like_the_old_one(asleep: Scene) -> None:
    before = asleep.route().fingerprint
    commit = asleep.push(ml(image="demo:2", hibernation=NAPS))
    assert asleep.run("webhook").name == "Ready"
    assert asleep.status().applied_revision == commit
    assert asleep.route().fingerprint != before
    assert len(asleep.running()) == 1
    fall_asleep(asleep)


def test_a_new_version_that_fails_leaves_the_old_one_asleep(asleep: Scene) -> None:
    before = asleep.route()
    commit = asleep.push(ml(image="demo:2", hibernation=NAPS))
    asleep.prober.unready[commit] = "no model"
    assert asleep.run("webhook").name == "Degraded"
    assert asleep.running() == []
    assert asleep.route() == before
    call(asleep)
    asleep.run("wake")
    (runs,) = asleep.running()
    assert runs.fingerprint == before.fingerprint


def test_it_wakes_up_when_it_is_to_hibernate_no_more(asleep: Scene) -> None:
    asleep.push(ml())
    assert asleep.run().name == "Ready"
    assert len(asleep.running()) == 1
    assert asleep.route().wake_within == 0.0


def test_declaring_hibernation_is_no_new_version(scene: Scene) -> None:
    scene.connect()
    scene.push(ml())
    scene.run()
    (runs,) = scene.running()
    scene.clock.advance(2 * IDLE)
    scene.push(ml(hibernation=NAPS))
    assert scene.run().name == "Ready"
    assert [w.id for w in scene.running()] == [runs.id], "and nothing is known yet of earlier calls"
    assert scene.route().wake_within == 120.0
    fall_asleep(scene)


def test_a_suspended_app_is_left_as_it_is(scene: Scene) -> None:
    scene.connect()
    scene.push(ml(hibernation=NAPS))
    scene.run()
    scene.connect(app(suspend=True))
    scene.clock.advance(2 * IDLE)
    scene.run("drift")
    assert len(scene.running()) == 1


def test_the_image_of_what_sleeps_is_kept(scene: Scene) -> None:
    scene.connect()
    first = scene.push(built_napping(), Dockerfile="FROM base")
    scene.run()
    fall_asleep(scene)
    serving = scene.status().components[0].image
    for number in range(3):
        commit = scene.push(built_napping(), Dockerfile=f"FROM base\nRUN {number}")
        scene.prober.unready[commit] = "no model"
        scene.run("webhook")
    call(scene)
    scene.run("wake")
    scene.clock.advance(IDLE + NEWS_DELAY)
    scene.run("drift")  # a pass that tidies up
    assert scene.running() == []
    assert serving in scene.engine.images
    assert image_id(scene.engine.builds[0]) == serving
    assert scene.route().revision == first
    call(scene)
    scene.run("wake")
    assert len(scene.running()) == 1


def test_activity_lost_with_the_state_leaves_it_asleep(asleep: Scene) -> None:
    asleep.clock.advance(100 * 86400.0)
    asleep.store.prune()
    asleep.run("drift")
    assert asleep.running() == []
    assert reason(asleep) == "Hibernating"


def test_a_route_written_before_there_was_hibernation_is_renewed(scene: Scene) -> None:
    scene.connect()
    scene.push(ml(hibernation=NAPS))
    scene.run()
    scene.store.routes.switch(replace(scene.route(), wake_within=0.0))
    scene.run("drift")
    assert scene.route().wake_within == 120.0


def built_napping() -> str:
    return built().replace('"mlService"', '"hibernation": {"idleAfter": "10m"}, "mlService"')
