"""The daemon dies at any call to the world outside; the next one converges and nothing is left over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from controller.domain.apps.conditions import ConditionType
from tests.unit.reconcile.crashing import ENOUGH, die_at
from tests.unit.reconcile.harness import APP, Harness, api, built, ml


def new_version(harness: Harness) -> None:
    harness.push(ml(image="demo:2", replicas=2), ml("added"), api())


def recreate(harness: Harness) -> None:
    harness.push(ml(image="demo:2", rollout={"strategy": "Recreate"}), api())


def repair(harness: Harness) -> None:
    harness.engine.exit(harness.running()[0].id)


def broken_version(harness: Harness) -> None:
    harness.engine.exits_at_start["classify"] = 1
    harness.push(ml(image="demo:2"), api())


def new_build(harness: Harness) -> None:
    harness.push(built(), api(), Dockerfile="FROM scratch")


def failed_build(harness: Harness) -> None:
    harness.engine.build_failures["Dockerfile"] = "exit 3"
    new_build(harness)


def component_leaves(harness: Harness) -> None:
    harness.push(ml("other"))


def falls_asleep(harness: Harness) -> None:
    harness.push(ml(hibernation={"idleAfter": "10m"}), api())
    harness.run()
    harness.clock.advance(1000.0)


def wakes_up(harness: Harness) -> None:
    """For good: `_converge` lets so much time pass that it would fall asleep again."""
    falls_asleep(harness)
    harness.run()
    assert harness.running() == []
    harness.push(ml(), api())


def rollback(harness: Harness) -> None:
    harness.push(ml(image="demo:2"), api())
    assert harness.run().name == "Ready"
    harness.roll_back()


def ended_rollback(harness: Harness) -> None:
    rollback(harness)
    harness.run("rollback")
    harness.push(ml(image="demo:3"), api())


def disconnect(harness: Harness) -> None:
    harness.disconnect()


@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        (new_version, "Ready"),
        (recreate, "Ready"),
        (repair, "Ready"),
        (broken_version, "Degraded"),
        pytest.param(new_build, "Ready", marks=pytest.mark.slow),
        pytest.param(failed_build, "Degraded", marks=pytest.mark.slow),
        (component_leaves, "Ready"),
        (falls_asleep, "Ready"),
        (wakes_up, "Ready"),
        (rollback, "Ready"),
        (ended_rollback, "Ready"),
        (disconnect, "Removed"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_whatever_the_call_the_next_daemon_goes_on(
    tmp_path: Path, change: Callable[[Harness], None], outcome: str, after: bool
) -> None:
    expected = _shape_without_death(tmp_path / "whole", change)
    for number in range(1, ENOUGH):
        harness = Harness(tmp_path / str(number))
        try:
            _serve_first(harness)
            change(harness)
            died = die_at(harness, number, after)
            _converge(harness, outcome)
            assert _shape(harness) == expected, f"after death at call {number}"
        finally:
            harness.store.close()
        if not died:
            return
    pytest.fail("the pass makes more calls than ENOUGH")


def _serve_first(harness: Harness) -> None:
    harness.connect()
    harness.push(ml(), api())
    assert harness.run().name == "Ready"


def _shape_without_death(folder: Path, change: Callable[[Harness], None]) -> object:
    harness = Harness(folder)
    try:
        _serve_first(harness)
        change(harness)
        harness.run()
        return _shape(harness)
    finally:
        harness.store.close()


def _converge(harness: Harness, outcome: str) -> None:
    """The outcome is there after at most three passes, and stays. A repair that was interrupted may have been counted:
    its pause is waited for."""
    for _ in range(3):
        found = harness.run("start")
        if found.name == outcome and not found.retry_after:
            break
        harness.clock.advance(found.retry_after or 0.0)
    assert harness.run("start").name == outcome
    assert harness.condition(ConditionType.RECONCILING) is None


def _shape(harness: Harness) -> object:
    there = sorted((w.name, w.state) for w in harness.engine.observe(APP).workloads)
    routed = [(r.component, len(r.upstreams), r.asleep, r.apis) for r in harness.store.routes.of(APP)]
    components = [c.name for c in harness.status().components]
    return there, routed, harness.types(), components
