"""Scale to zero: what nobody calls is put to sleep, and comes back when somebody does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.domain.apps.conditions import ConditionType, find
from controller.domain.apps.hibernation import NEWS_DELAY
from controller.domain.errors import Transient
from controller.domain.reasons import Reason
from tests.support.fake_engine import image_id
from tests.unit.reconcile.harness import APP, Harness, app, built, ml

IDLE = 600.0
NAPS = {"idleAfter": "10m"}
UNREACHABLE = Transient(Reason("GitUnreachable"), "no route to host")


@pytest.fixture
def asleep(harness: Harness) -> Harness:
    harness.connect()
    harness.push(ml(hibernation=NAPS))
    harness.run()
    fall_asleep(harness)
    return harness


def fall_asleep(harness: Harness) -> None:
    harness.clock.advance(IDLE + NEWS_DELAY)
    assert harness.run("drift").name == "Ready"
    assert harness.running() == []


def call(harness: Harness) -> None:
    """As a gateway does it."""
    harness.store.activity.touch([(APP, harness.route().component)], harness.clock.now())


def reason(harness: Harness) -> str:
    (component,) = harness.status().components
    ready = find(component.conditions, ConditionType.READY)
    assert ready is not None
    return ready.reason


def test_goes_to_sleep_when_nobody_has_called_for_so_long(harness: Harness) -> None:
    harness.connect()
    harness.push(ml(hibernation=NAPS))
    assert harness.run().retry_after == IDLE + NEWS_DELAY
    harness.clock.advance(400.0)
    call(harness)
    harness.clock.advance(400.0)
    outcome = harness.run("retry")
    assert (outcome.retry_after, len(harness.running())) == (IDLE + NEWS_DELAY - 400.0, 1)
    harness.clock.advance(outcome.retry_after or 0.0)
    outcome = harness.run("retry")
    assert (outcome.name, outcome.retry_after) == ("Ready", None)
    assert harness.running() == []
    assert (harness.route().upstreams, harness.route().asleep) == ((), True)
    assert reason(harness) == "Hibernating"
    starts = len(harness.engine.starts)
    harness.settle()
    assert len(harness.engine.starts) == starts


def test_without_hibernation_it_runs_for_ever(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    assert harness.run().retry_after is None
    harness.clock.advance(1e6)
    harness.run("drift")
    assert len(harness.running()) == 1


def test_a_call_wakes_it_up_and_is_no_restart(asleep: Harness) -> None:
    call(asleep)
    assert asleep.run("wake").name == "Ready"
    (runs,) = asleep.running()
    assert asleep.route().upstreams == (runs.endpoint,)
    assert not asleep.route().asleep
    (component,) = asleep.status().components
    assert component.restarts == ()
    assert reason(asleep) == "Serving"
    fall_asleep(asleep)


def test_waking_up_does_not_wait_for_git(asleep: Harness) -> None:
    asleep.sources.fault = UNREACHABLE
    fetched = asleep.sources.fetched
    call(asleep)
    assert asleep.run("wake", "retry").name == "Ready"
    assert len(asleep.running()) == 1
    assert asleep.sources.fetched == fetched


def test_waking_up_hides_no_trouble_with_git(asleep: Harness) -> None:
    asleep.sources.fault = UNREACHABLE
    asleep.run("poll")
    events = asleep.events().count("GitUnreachable")
    call(asleep)
    outcome = asleep.run("wake")
    assert (outcome.name, outcome.retry_after is not None) == ("Failed", True)
    assert asleep.types() == [ConditionType.READY, ConditionType.FETCH_FAILED]
    assert asleep.events().count("GitUnreachable") == events
    assert len(asleep.running()) == 1


def test_a_commit_that_comes_with_the_call_is_taken(asleep: Harness) -> None:
    commit = asleep.push(ml(image="demo:2", hibernation=NAPS))
    call(asleep)
    asleep.run("wake", "webhook")
    assert asleep.status().applied_revision == commit


def test_what_does_not_wake_up_is_told_and_tried_again(asleep: Harness) -> None:
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


def test_a_new_version_is_tried_at_once_and_sleeps_like_the_old_one(asleep: Harness) -> None:
    before = asleep.route().fingerprint
    commit = asleep.push(ml(image="demo:2", hibernation=NAPS))
    assert asleep.run("webhook").name == "Ready"
    assert asleep.status().applied_revision == commit
    assert asleep.route().fingerprint != before
    assert len(asleep.running()) == 1
    fall_asleep(asleep)


def test_a_new_version_that_fails_leaves_the_old_one_asleep(asleep: Harness) -> None:
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


def test_it_wakes_up_when_it_is_to_hibernate_no_more(asleep: Harness) -> None:
    asleep.push(ml())
    assert asleep.run().name == "Ready"
    assert len(asleep.running()) == 1
    assert asleep.route().wake_within == 0.0


def test_declaring_hibernation_is_no_new_version(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    harness.run()
    (runs,) = harness.running()
    harness.clock.advance(2 * IDLE)
    harness.push(ml(hibernation=NAPS))
    assert harness.run().name == "Ready"
    assert [w.id for w in harness.running()] == [runs.id], "and nothing is known yet of earlier calls"
    assert harness.route().wake_within == 120.0
    fall_asleep(harness)


def test_a_suspended_app_is_left_as_it_is(harness: Harness) -> None:
    harness.connect()
    harness.push(ml(hibernation=NAPS))
    harness.run()
    harness.connect(app(suspend=True))
    harness.clock.advance(2 * IDLE)
    harness.run("drift")
    assert len(harness.running()) == 1


def test_the_image_of_what_sleeps_is_kept(harness: Harness) -> None:
    harness.connect()
    first = harness.push(built_napping(), Dockerfile="FROM base")
    harness.run()
    fall_asleep(harness)
    serving = harness.status().components[0].image
    for number in range(3):
        commit = harness.push(built_napping(), Dockerfile=f"FROM base\nRUN {number}")
        harness.prober.unready[commit] = "no model"
        harness.run("webhook")
    call(harness)
    harness.run("wake")
    harness.clock.advance(IDLE + NEWS_DELAY)
    harness.run("drift")  # a pass that tidies up
    assert harness.running() == []
    assert serving in harness.engine.images
    assert image_id(harness.engine.builds[0]) == serving
    assert harness.route().revision == first
    call(harness)
    harness.run("wake")
    assert len(harness.running()) == 1


def test_activity_lost_with_the_state_leaves_it_asleep(asleep: Harness) -> None:
    asleep.clock.advance(100 * 86400.0)
    asleep.store.prune()
    asleep.run("drift")
    assert asleep.running() == []
    assert reason(asleep) == "Hibernating"


def test_a_route_written_before_there_was_hibernation_is_renewed(harness: Harness) -> None:
    harness.connect()
    harness.push(ml(hibernation=NAPS))
    harness.run()
    harness.store.routes.switch(replace(harness.route(), wake_within=0.0))
    harness.run("drift")
    assert harness.route().wake_within == 120.0


def built_napping() -> str:
    return built().replace('"mlService"', '"hibernation": {"idleAfter": "10m"}, "mlService"')
