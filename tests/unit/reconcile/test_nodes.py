"""An engine that places workloads on nodes: it accepts them before they run, refuses some later, and loses nodes."""

from __future__ import annotations

import pytest

from controller.domain.apps.conditions import ConditionType, find
from controller.domain.apps.observed import ObservedWorkload, WorkloadState
from controller.domain.names import ComponentName
from tests.unit.reconcile.harness import APP, Harness, built, ml

FULL = "0/2 nodes have enough memory"


@pytest.fixture
def pair(harness: Harness) -> list[ObservedWorkload]:
    """Two replicas that serve."""
    harness.connect()
    harness.push(ml(replicas=2))
    harness.run()
    return harness.running()


def message(harness: Harness) -> str:
    component = harness.status().component(ComponentName("classify"))
    assert component
    ready = find(component.conditions, ConditionType.READY)
    assert ready
    return f"{ready.reason}: {ready.message}"


# --- lost nodes -------------------------------------------------------------------------------------------------


def test_the_replica_of_a_lost_node_is_replaced(harness: Harness, pair: list[ObservedWorkload]) -> None:
    lost, kept = pair
    harness.engine.lose(lost.id, "node-2 does not answer")

    def check(asked: ObservedWorkload) -> None:
        if asked.endpoint not in harness.route().upstreams:
            assert harness.route().upstreams == (kept.endpoint,), "the other one takes the calls meanwhile"

    harness.prober.on_probe = check
    assert harness.run("drift").name == "Ready"
    assert len(harness.route().upstreams) == 2
    assert lost.endpoint not in harness.route().upstreams
    assert lost.id not in {runs.id for runs in harness.running()}
    assert "is on a node that does not answer" in harness.status().plan


def test_nodes_may_be_lost_again_and_again(harness: Harness, pair: list[ObservedWorkload]) -> None:
    """That is not a crash loop of the component."""
    for _ in range(20):
        harness.engine.lose(harness.running()[0].id)
        assert harness.run("drift").name == "Ready"
    component = harness.status().component(ComponentName("classify"))
    assert component
    assert component.restarts == ()


def test_a_node_that_is_lost_while_its_workload_is_awaited(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())

    def lose(asked: ObservedWorkload) -> None:
        harness.prober.on_probe = lambda asked: None
        harness.engine.lose(asked.id, "no heartbeat for 40 s")

    harness.prober.unready["classify"] = "loading"
    harness.prober.on_probe = lose
    assert harness.run().name == "Failed"
    assert "no heartbeat for 40 s" in message(harness)
    harness.prober.unready.clear()
    assert harness.retry().name == "Ready"


# --- accepted, and not running yet ------------------------------------------------------------------------------


def test_what_is_pending_is_waited_for(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    harness.engine.pends["classify"] = FULL
    waited: list[str] = []
    sleep = harness.clock.sleep

    def admit(seconds: float) -> None:
        sleep(seconds)
        waited.extend(event.message for event in harness.store.events.list(APP, limit=1))
        (found,) = harness.engine.observe(APP).workloads
        if found.state is WorkloadState.PENDING and len(waited) > 3:
            harness.engine.admit(found.id)

    harness.clock.sleep = admit  # type: ignore[method-assign]
    assert harness.run().name == "Ready"
    assert any(FULL in text for text in waited), "people see why it takes so long"
    assert harness.events().count("StartPending") == 1


def test_what_is_pending_for_too_long_fails_with_the_reason_of_the_engine(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    harness.engine.pends["classify"] = FULL
    begun = harness.clock.now()
    outcome = harness.run()
    assert outcome.name == "Failed"
    assert outcome.retry_after is not None, "the next node may come, without a commit"
    assert harness.clock.now() - begun >= 120
    told = message(harness)
    assert told.startswith("StartPending: ")
    assert "within 120 s" in told
    assert FULL in told
    (found,) = harness.engine.observe(APP).workloads
    harness.engine.admit(found.id)
    assert harness.retry().name == "Ready"
    assert [runs.id for runs in harness.running()] == [found.id], "it keeps its place in the line"


def test_what_is_refused_after_it_was_accepted_is_a_failed_version(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    harness.engine.refuses["classify"] = "the volume does not exist"
    outcome = harness.run()
    assert outcome.name == "Failed"
    assert "the volume does not exist" in message(harness)
    assert message(harness).startswith("StartRefused: ")
    starts = len(harness.engine.starts)
    assert harness.settle().retry_after is None
    assert len(harness.engine.starts) == starts, "it is not tried again before something changes"


def test_a_version_that_serves_is_kept_while_the_next_one_is_pending(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    harness.run()
    before = harness.route()
    harness.engine.pends["classify"] = FULL
    harness.push(ml(image="demo:2"))
    harness.run()
    assert harness.route() == before
    assert "keeps serving" in message(harness)
    assert FULL in message(harness)


# --- images of all nodes ----------------------------------------------------------------------------------------


def test_a_build_is_deployed_by_its_digest_and_pulled_where_it_is_gone(harness: Harness) -> None:
    harness.engine.pushes_to = "hub.example.org"
    harness.connect()
    harness.push(built(), Dockerfile="FROM scratch")
    assert harness.run().name == "Ready"
    assert harness.engine.last_started
    image = harness.engine.last_started.image
    assert image.startswith("hub.example.org/")
    assert "@sha256:" in image

    harness.engine.images.clear()
    harness.engine.vanish(harness.running()[0].id)
    harness.run("drift")
    while harness.outcome.name != "Ready":
        harness.retry()
    assert harness.engine.pulls == [image]
    assert len(harness.engine.builds) == 1
