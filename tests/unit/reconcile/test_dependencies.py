"""Components that wait for each other: what others depend on serves first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from controller.domain.apps.conditions import ConditionType
from controller.domain.apps.requests import Outcome
from controller.domain.errors import Transient
from controller.domain.reasons import Reason
from controller.reconcile.next_pass import preview
from tests.unit.reconcile.crashing import ENOUGH, die_at
from tests.unit.reconcile.harness import APP, Harness, api, app, manifest, ml, secret

READY = Outcome.READY


def chain(number: int, *, image: str = "demo:1") -> list[str]:
    """`c1` depends on `c0`, `c2` on `c1`, and so on; the last one comes first in the commit."""
    return [
        ml(f"c{place}", image=image, **({"dependsOn": [f"c{place - 1}"]} if place else {}))
        for place in reversed(range(number))
    ]


def started(harness: Harness) -> list[str]:
    """The components in the order in which containers of theirs were started."""
    events = harness.store.events.list(harness.status().app, limit=10_000)
    return [str(event.component) for event in events if event.reason == Reason.STARTED]


def reasons(harness: Harness) -> dict[str, str]:
    return {c.name: c.conditions[0].reason for c in harness.status().components}


@pytest.mark.parametrize("number", [2, 5, 12])
def test_a_chain_is_started_in_one_pass_in_its_order(harness: Harness, number: int) -> None:
    harness.connect()
    harness.push(*chain(number))
    assert harness.run().name is READY
    assert started(harness) == [f"c{place}" for place in range(number)]
    harness.push(*chain(number, image="demo:2"))
    assert harness.run().name is READY
    assert started(harness) == [f"c{place}" for place in range(number)] * 2


def test_nothing_is_replaced_before_what_it_needs_serves(harness: Harness) -> None:
    harness.connect()
    first = harness.push(*chain(2), api(component="c1"))
    harness.run()
    harness.push(ml("c0", image="missing:1"), ml("c1", image="demo:2", dependsOn=["c0"]), api(component="c1"))
    harness.run()
    assert harness.route("c1").revision == first
    assert reasons(harness)["c1"] == Reason.DEPENDENCY_NOT_READY
    for workload in harness.running("c1"):
        harness.engine.exit(workload.id)
    harness.run("container")
    harness.settle()
    assert [w.revision for w in harness.running("c1")] == [first], "the version in service is not repaired"
    harness.engine.images.add("missing:1")
    assert harness.run("manual").name is READY
    assert harness.route("c1").revision != first


def test_images_are_built_meanwhile(harness: Harness) -> None:
    harness.connect()
    harness.push(ml("c0", image="missing:1"), manifest_of_built("c1", ["c0"]), Dockerfile="FROM scratch")
    harness.run()
    assert harness.events().count("Building") == 1
    assert not harness.running("c1")
    harness.engine.images.add("missing:1")
    assert harness.run("manual").name is READY
    assert harness.events().count("Building") == 1


def manifest_of_built(name: str, needs: Sequence[str]) -> str:
    return manifest(
        "MLComponent",
        name,
        image={"build": {"context": "."}},
        mlService={"inference": "app:predict"},
        dependsOn=list(needs),
    )


def test_what_serves_is_repaired_without_the_others(harness: Harness) -> None:
    harness.connect()
    harness.push(*chain(2))
    harness.run()
    harness.engine.start_failures["c0"] = Transient(Reason.ENGINE_UNREACHABLE, "no")
    for name in ("c0", "c1"):
        for workload in harness.running(name):
            harness.engine.exit(workload.id)
    harness.run("container")
    harness.settle()
    assert harness.running("c1")


# --- dependencies that change -------------------------------------------------------------------------------------


def running(harness: Harness) -> list[str]:
    return sorted({str(w.component) for w in harness.engine.observe(APP).workloads if w.endpoint})


CHANGED: dict[str, tuple[list[str], list[str]]] = {
    "its dependency has another name": (
        [ml("c", image="missing:1"), ml("a", image="demo:2", dependsOn=["c"])],
        ["a", "c"],
    ),
    "it has no dependency any more": ([ml("a", image="missing:1")], ["a"]),
    "its dependency left and it has another one": (
        [ml("c"), ml("a", image="missing:1", dependsOn=["c"])],
        ["a", "c"],
    ),
}


@pytest.mark.parametrize("how", CHANGED)
def test_what_left_git_stays_while_a_version_in_service_depends_on_it(harness: Harness, how: str) -> None:
    manifests, after = CHANGED[how]
    harness.connect()
    first = harness.push(ml("d"), ml("b", dependsOn=["d"]), ml("a", dependsOn=["b"]), api("x", "a"))
    harness.run()
    harness.push(*manifests, api("x", "a"))
    harness.run()
    harness.settle()
    assert harness.route("a").revision == first
    assert {"a", "b", "d"} <= set(running(harness)), "also what the dependency depends on"
    assert reasons(harness)["a"] in (Reason.DEPENDENCY_NOT_READY, Reason.IMAGE_NOT_FOUND)
    degraded = harness.condition(ConditionType.DEGRADED)
    assert degraded
    plan = preview(harness.deps, APP).plan
    told = {str(hold.component): hold.why for hold in plan.holds if hold.reason == Reason.AWAITING_SUCCESSOR}
    assert told == {
        "b": "left Git, and stays as long as the version in service of a, which depends on it",
        "d": "left Git, and stays as long as b, which may depend on it",
    }
    harness.engine.images.add("missing:1")
    assert harness.run("manual").name is READY
    assert running(harness) == after


def die(harness: Harness, *names: str) -> None:
    for name in names:
        for workload in harness.running(name):
            harness.engine.exit(workload.id)
    harness.run("container")
    for _ in range(5):
        harness.settle(passes=1)


def test_a_dependency_that_left_git_and_stays_is_repaired(harness: Harness) -> None:
    harness.connect()
    first = harness.push(ml("d"), ml("b", dependsOn=["d"]), ml("a", dependsOn=["b"]), api("x", "a"))
    harness.run()
    harness.push(ml("a", image="missing:1"), api("x", "a"))
    harness.run()
    die(harness, "a", "b", "d")
    assert running(harness) == ["a", "b", "d"]
    assert {w.revision for name in ("a", "b", "d") for w in harness.running(name)} == {first}
    for name in ("b", "d"):
        assert harness.route(name).upstreams == tuple(w.endpoint for w in harness.running(name))
    harness.settle()
    assert running(harness) == ["a", "b", "d"]
    harness.engine.images.add("missing:1")
    assert harness.run("manual").name is READY
    assert running(harness) == ["a"]


@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
def test_the_daemon_dies_anywhere_in_the_repair(tmp_path: Path, after: bool) -> None:
    for number in range(1, ENOUGH):
        harness = Harness(tmp_path / str(number))
        try:
            harness.connect()
            harness.push(ml("b"), ml("a", dependsOn=["b"]), api("x", "a"))
            harness.run()
            harness.push(ml("a", image="missing:1"), api("x", "a"))
            harness.run()
            for workload in harness.running("b"):
                harness.engine.exit(workload.id)
            died = die_at(harness, number, after)
            for _ in range(3):
                harness.clock.advance(40.0)
                harness.run("start")
            assert running(harness) == ["a", "b"], f"after death at call {number}"
            assert harness.route("b").upstreams == tuple(w.endpoint for w in harness.running("b"))
        finally:
            harness.store.close()
        if not died:
            return
    pytest.fail("the pass makes more calls than ENOUGH")


def test_what_still_answers_a_path_of_its_successor_is_repaired(harness: Harness) -> None:
    harness.connect()
    harness.push(ml("old"), api("x", "old"))
    harness.run()
    harness.push(ml("new", image="missing:1"), api("x", "new"))
    harness.run()
    die(harness, "old")
    assert running(harness) == ["old"]
    harness.engine.images.add("missing:1")
    harness.run("manual")
    harness.settle(passes=2)
    assert running(harness) == ["new"]


def test_what_is_not_pruned_is_repaired(harness: Harness) -> None:
    harness.connect(app(prune=False))
    harness.push(ml("a"), ml("b"), api("x", "a"))
    harness.run()
    harness.push(ml("a"), api("x", "a"))
    harness.run()
    die(harness, "b")
    assert running(harness) == ["a", "b"]


def test_what_an_empty_commit_would_remove_is_repaired_until_somebody_confirms(harness: Harness) -> None:
    harness.connect()
    harness.push(ml("a"), api("x", "a"))
    harness.run()
    harness.push(README="nothing")
    harness.run()
    assert harness.condition(ConditionType.PRUNE_PENDING)
    die(harness, "a")
    assert running(harness) == ["a"]


def test_one_that_left_git_and_keeps_ending_is_not_started_for_ever(harness: Harness) -> None:
    harness.connect()
    harness.push(ml("b"), ml("a", dependsOn=["b"]), api("x", "a"))
    harness.run()
    harness.push(ml("a", image="missing:1"), api("x", "a"))
    harness.run()
    for _ in range(10):
        for workload in harness.running("b"):
            harness.engine.exit(workload.id)
        harness.run("container")
        harness.clock.advance(40.0)
        harness.run("retry")
    plan = preview(harness.deps, APP).plan
    assert Reason.CRASH_LOOP in {hold.reason for hold in plan.holds if hold.component == "b"}
    assert len([name for name in started(harness) if name == "b"]) < 10


def test_two_that_depend_on_each_other_the_other_way_round(harness: Harness) -> None:
    harness.connect()
    harness.push(ml("b"), ml("a", dependsOn=["b"]))
    harness.run()
    harness.push(ml("a", image="demo:2"), ml("b", image="demo:2", dependsOn=["a"]))
    assert harness.run().name is READY
    assert started(harness) == ["b", "a", "a", "b"]


@pytest.mark.parametrize(
    "manifests", [[ml("a", dependsOn=["a"])], [ml("a", dependsOn=["b"]), ml("b", dependsOn=["a"])]]
)
def test_a_cycle_is_refused_and_changes_nothing(harness: Harness, manifests: list[str]) -> None:
    harness.connect()
    first = harness.push(ml("a"), api("x", "a"))
    harness.run()
    harness.push(*manifests, api("x", "a"))
    harness.run()
    invalid = harness.condition(ConditionType.MANIFEST_INVALID)
    assert invalid
    assert "components wait for each other: a → " in invalid.message
    assert harness.route("a").revision == first


def test_one_that_is_asleep_is_not_waited_for_unless_it_is_new(harness: Harness) -> None:
    def commit(asleep: str, dependent: str) -> str:
        return harness.push(
            ml("b", image=asleep, hibernation={"idleAfter": "10m"}),
            ml("a", image=dependent, dependsOn=["b"]),
            api("x", "a"),
            api("y", "b", "y"),
        )

    harness.connect()
    commit("demo:1", "demo:1")
    harness.run()
    harness.clock.advance(3600.0)
    harness.settle(passes=2)
    assert running(harness) == ["a"]
    second = commit("demo:1", "demo:2")
    assert harness.run().name is READY
    assert (harness.route("a").revision, running(harness)) == (second, ["a"])
    third = commit("missing:1", "demo:3")
    harness.run()
    assert reasons(harness)["a"] == Reason.DEPENDENCY_NOT_READY
    assert harness.route("a").revision == second
    harness.engine.images.add("missing:1")
    assert harness.run("manual").name is READY
    assert harness.route("a").revision == third


def test_swapped_paths_with_a_dependency_are_answered_all_along(harness: Harness) -> None:
    def paths() -> dict[str, list[str]]:
        return {r.component: [each.path for each in r.apis] for r in harness.store.routes.of(APP)}

    def commit(a: str, b: str) -> None:
        harness.push(
            ml("a", image=a), ml("b", image=b, dependsOn=["a"]), api("x", "a", "q"), api("y", "b", "p")
        )
        harness.run()
        harness.settle(passes=2)

    harness.connect()
    harness.push(ml("a"), ml("b"), api("x", "a", "p"), api("y", "b", "q"))
    harness.run()
    commit("missing:1", "demo:2")
    assert paths() == {"a": ["p"], "b": ["q"]}, "neither has a new version"
    commit("demo:2", "missing:1")
    assert paths() == {"a": ["p", "q"], "b": []}, "the new version of a answers both"
    commit("demo:2", "demo:2")
    assert paths() == {"a": ["q"], "b": ["p"]}


def test_an_app_waits_for_the_reason_of_the_dependency_and_goes_on_when_it_arrives(harness: Harness) -> None:
    harness.connect()
    needs: Any = {"envFrom": [{"secretRef": {"name": "pw"}}]}
    harness.push(ml("d", **needs), ml("a", dependsOn=["d"]), api("x", "a"))
    assert harness.run().name is Outcome.WAITING
    assert reasons(harness) == {"a": Reason.DEPENDENCY_NOT_READY, "d": Reason.AWAITING_SECRET}
    ready = harness.condition(ConditionType.READY)
    assert ready
    assert ready.reason == Reason.AWAITING_SECRET
    assert ready.message.splitlines()[-1] == "a: it waits until d serves this commit"
    harness.connect(secrets=[secret("pw", PASSWORD="hunter22")])
    assert harness.run("secret").name is READY
    assert started(harness) == ["d", "a"]
