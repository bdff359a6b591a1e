"""The daemon dies at any call to the world outside; the next one converges and nothing is left over.

Death is a `BaseException` out of the n-th call to the engine or the store, before or after the call took effect:
like SIGKILL, nothing of the reconciler's own handles it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.domain.apps.conditions import ConditionType
from tests.unit.reconcile.harness import APP, Harness, api, ml

ENOUGH = 60  # more calls than any of the passes here makes


class Died(BaseException):
    pass


class Mortal:
    """Passes calls on to `inner`; the one with which `lives` runs out is the last."""

    def __init__(self, inner: Any, lives: list[int], after: bool) -> None:
        self._inner, self._lives, self._after = inner, lives, after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._lives[0] -= 1
            if self._lives[0] == 0 and not self._after:
                raise Died
            result = found(*args, **kwargs)
            if self._lives[0] == 0:
                raise Died
            return result

        return call


class MortalStore:
    def __init__(self, store: Any, lives: list[int], after: bool) -> None:
        self.requests, self.repositories, self.gateways = store.requests, store.repositories, store.gateways
        self.apps = Mortal(store.apps, lives, after)
        self.events = Mortal(store.events, lives, after)
        self.routes = Mortal(store.routes, lives, after)
        self.activity = Mortal(store.activity, lives, after)
        self.transaction = store.transaction


def new_version(harness: Harness) -> None:
    harness.push(ml(image="demo:2", replicas=2), ml("added"), api())


def recreate(harness: Harness) -> None:
    harness.push(ml(image="demo:2", rollout={"strategy": "Recreate"}), api())


def repair(harness: Harness) -> None:
    harness.engine.exit(harness.running()[0].id)


def broken_version(harness: Harness) -> None:
    harness.engine.exits_at_start["classify"] = 1
    harness.push(ml(image="demo:2"), api())


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
        (component_leaves, "Ready"),
        (falls_asleep, "Ready"),
        (wakes_up, "Ready"),
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
            died = _die_at(harness, number, after)
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


def _die_at(harness: Harness, number: int, after: bool) -> bool:
    whole, lives = harness.deps, [number]
    engine, store = Mortal(harness.engine, lives, after), MortalStore(harness.store, lives, after)
    harness.deps = replace(whole, engine=engine, store=store)  # type: ignore[arg-type]
    try:
        harness.run_unchecked()
    except Died:
        return True
    finally:
        harness.deps = whole
    return False


def _converge(harness: Harness, outcome: str) -> None:
    """A repair that was interrupted may have been counted: its pause is waited for."""
    for _ in range(3):
        harness.clock.advance(harness.run("start").retry_after or 0.0)
    assert harness.run("start").name == outcome
    assert harness.condition(ConditionType.RECONCILING) is None


def _shape(harness: Harness) -> object:
    there = sorted((w.name, w.state) for w in harness.engine.observe(APP).workloads)
    routed = [(r.component, len(r.upstreams), r.asleep, r.apis) for r in harness.store.routes.of(APP)]
    components = [c.name for c in harness.status().components]
    return there, routed, harness.types(), components
