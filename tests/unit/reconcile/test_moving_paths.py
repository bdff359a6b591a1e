"""APIs that change hands, with the real route table. All ways at once: tests/unit/domain/apps/test_moving_paths.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.domain.apps.conditions import ConditionType
from controller.domain.apps.desired import Workload
from controller.domain.errors import Transient
from controller.domain.names import ComponentName
from controller.domain.reasons import Reason
from controller.domain.routing.routes import Route
from tests.unit.reconcile.harness import APP, Harness, api, ml


def leads_to(harness: Harness, path: str) -> list[str]:
    return [r.component for r in harness.store.routes.of(APP) for a in r.apis if a.path == path]


def watch_switches(harness: Harness, path: str) -> list[list[str]]:
    """Who answers the path after each change of the table."""
    seen: list[list[str]] = []
    routes = harness.store.routes
    switch, withdraw = routes.switch, routes.withdraw

    def switched(route: Route, keeps: frozenset[str] = frozenset()) -> int:
        version = switch(route, keeps)
        seen.append(leads_to(harness, path))
        return version

    def withdrawn(app: str, component: ComponentName) -> int:
        version = withdraw(APP, component)
        seen.append(leads_to(harness, path))
        return version

    routes.switch, routes.withdraw = switched, withdrawn  # type: ignore[method-assign]
    return seen


def test_a_renamed_component_is_answered_all_along(harness: Harness) -> None:
    harness.connect()
    harness.push(ml("old"), api("the-api", "old"))
    harness.run()
    seen = watch_switches(harness, "image")
    harness.push(ml("new"), api("the-api", "new"))
    assert harness.run().name == "Ready"
    assert seen == [["new"], ["new"]]
    assert not harness.running("old")


def test_a_renamed_component_that_does_not_come_up_leaves_the_old_one_in_service(harness: Harness) -> None:
    harness.connect()
    harness.push(ml("old"), api("the-api", "old"))
    harness.run()
    harness.engine.exits_at_start["new"] = 3
    harness.push(ml("new", "demo:2"), api("the-api", "new"))
    outcome = harness.run()
    assert (outcome.name, leads_to(harness, "image")) == ("Degraded", ["old"])
    assert len(harness.running("old")) == 1
    assert "old: left Git, and keeps serving until something else answers image (by new)" in outcome.message
    harness.settle()
    assert len(harness.running("old")) == 1
    del harness.engine.exits_at_start["new"]
    harness.push(ml("new", "demo:3"), api("the-api", "new"))
    assert harness.run().name == "Ready"
    assert leads_to(harness, "image") == ["new"]
    assert not harness.running("old")


def test_swapped_paths_with_one_side_broken_are_answered_by_what_can(harness: Harness) -> None:
    harness.connect()
    harness.push(ml("a"), ml("b"), api("a-api", "a", "x"), api("b-api", "b", "y"))
    harness.run()
    harness.engine.exits_at_start["b"] = 3
    harness.push(ml("a", "demo:2"), ml("b", "demo:2"), api("a-api", "a", "y"), api("b-api", "b", "x"))
    harness.run()
    assert leads_to(harness, "x") == ["a"]
    assert leads_to(harness, "y") == ["a"]
    assert harness.condition(ConditionType.DEGRADED) is not None
    del harness.engine.exits_at_start["b"]
    harness.push(ml("a", "demo:2"), ml("b", "demo:3"), api("a-api", "a", "y"), api("b-api", "b", "x"))
    assert harness.run().name == "Ready"
    assert (leads_to(harness, "x"), leads_to(harness, "y")) == (["b"], ["a"])


def test_what_left_git_with_its_path_goes_although_a_neighbour_fails(harness: Harness) -> None:
    harness.connect()
    harness.push(ml("old"), api("the-api", "old"), ml("other"))
    harness.run()
    harness.engine.exits_at_start["other"] = 3
    harness.push(ml("other", "demo:2"))
    harness.run()
    assert not harness.running("old")
    assert leads_to(harness, "image") == []


NAMES, PATHS = ("a", "b", "c", "d"), ("x", "y", "z")
HOLDERS = st.lists(st.sampled_from(NAMES), min_size=3, max_size=3)
IMAGES = st.fixed_dictionaries({name: st.sampled_from(["demo:1", "demo:2"]) for name in NAMES})


def commit(holders: list[str], images: dict[str, str]) -> list[str]:
    """Each path with the component that answers it; a component without a path is not declared."""
    apis = [api(f"{path}-api", holder, path) for path, holder in zip(PATHS, holders, strict=True)]
    return [*(ml(name, images[name]) for name in sorted(set(holders))), *apis]


def answered(harness: Harness, path: str) -> bool:
    """By something that runs. Groups run side by side: what was seen counts if nothing was switched meanwhile."""
    while True:
        version, routes = harness.store.routes.version(), harness.store.routes.of(APP)
        addresses = {w.endpoint for w in harness.engine.observe(APP).workloads if w.endpoint}
        if harness.store.routes.version() == version:
            break
    found = [route for route in routes if any(a.path == path for a in route.apis)]
    return len(found) == 1 and bool(found[0].upstreams) and set(found[0].upstreams) <= addresses


@settings(deadline=None, max_examples=60)
@given(HOLDERS, IMAGES, HOLDERS, IMAGES, st.sets(st.sampled_from(NAMES)), st.booleans())
def test_whatever_moves_and_fails_each_path_is_answered_all_along(
    old: list[str],
    before: dict[str, str],
    new: list[str],
    after: dict[str, str],
    failing: set[str],
    for_good: bool,
) -> None:
    """Swaps, circles of three, renames and paths brought together or apart, executed by the real pass."""
    with TemporaryDirectory() as folder, closing_scene(Path(folder)) as harness:
        harness.connect()
        harness.push(*commit(old, before))
        assert harness.run().name == "Ready"
        watched = watch_paths(harness)
        fails = Failing(harness, failing, for_good)
        harness.push(*commit(new, after))
        harness.run()
        harness.settle(passes=2)
        assert not watched, watched
        fails.repair()
        harness.clock.advance(1000.0)
        harness.push(
            *commit(new, {name: "demo:3" if name in failing else image for name, image in after.items()})
        )
        assert harness.run().name == "Ready"
        assert not watched, watched
        assert [leads_to(harness, path) for path in PATHS] == [[holder] for holder in new]
        assert {w.component for w in harness.engine.observe(APP).workloads} == set(new)


class Failing:
    """These components do not come up: they exit, or cannot be started for now."""

    def __init__(self, harness: Harness, names: set[str], for_good: bool) -> None:
        self._scene, self._start = harness, harness.engine.start
        if for_good:
            harness.engine.exits_at_start.update(dict.fromkeys(names, 3))
            return

        def start(workload: Workload, name: str) -> None:
            if workload.component in names:
                raise Transient(Reason.ENGINE_FAILED, "not today")
            self._start(workload, name)

        harness.engine.start = start  # type: ignore[method-assign]

    def repair(self) -> None:
        self._scene.engine.exits_at_start.clear()
        self._scene.engine.start = self._start  # type: ignore[method-assign]


def watch_paths(harness: Harness) -> list[tuple[str, str]]:
    """Grows with each path that nothing running answers, after each change of routes and containers."""
    lost: list[tuple[str, str]] = []

    def after(target: Any, name: str) -> None:
        inner = getattr(target, name)

        def call(*args: Any, **options: Any) -> Any:
            found = inner(*args, **options)
            lost.extend((path, name) for path in PATHS if not answered(harness, path))
            return found

        setattr(target, name, call)

    for name in ("switch", "withdraw", "publish"):
        after(harness.store.routes, name)
    after(harness.engine, "remove")
    return lost


@contextmanager
def closing_scene(folder: Path) -> Iterator[Harness]:
    harness = Harness(folder)
    try:
        yield harness
    finally:
        harness.store.close()
