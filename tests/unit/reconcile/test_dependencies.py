"""Components that wait for each other: what others depend on serves first."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from controller.domain.apps.requests import Outcome
from controller.domain.errors import Transient
from controller.domain.reasons import Reason
from tests.unit.reconcile.harness import Harness, api, manifest, ml

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
