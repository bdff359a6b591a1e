"""What must hold of every plan, whatever was declared, whatever runs, and wherever a crash cuts it off."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.domain.apps.desired import DesiredApp, DesiredComponent
from controller.domain.apps.observed import ObservedWorkload, WorkloadState
from controller.domain.apps.pauses import PlannerPolicy
from controller.domain.apps.plan import Plan, RemoveWorkload, StartWorkload, WithdrawRoute
from controller.domain.apps.planner import plan_app
from controller.domain.apps.spec import Strategy
from controller.domain.apps.status import AppStatus, ComponentStatus
from controller.domain.names import ComponentName
from controller.domain.routing.routes import Route
from tests.support.builders import APP, component, desired, model, observed, route, workload
from tests.support.simulator import World

NOW = 1_000_000.0
NAMES = ("a", "b")
VERSIONS = ("v1", "v2")
POLICY = PlannerPolicy()
CASES = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Case:
    desired: DesiredApp
    world: World
    status: AppStatus

    def plan(self, world: World | None = None) -> Plan:
        world = world or self.world
        known = tuple(_known(c, world) for c in self.desired.components)
        return plan_app(
            replace(self.desired, components=known), world.observed, world.routes, self.status, POLICY, NOW
        )


def _known(component: DesiredComponent, world: World) -> DesiredComponent:
    """What was brought is there when the next pass asks."""
    pin = replace(component.pin, present=component.pin.deploy in world.images)
    if not component.model:
        return replace(component, pin=pin)
    here = replace(component.model, present=component.model.digest in world.models)
    return replace(component, pin=pin, model=here)


@st.composite
def workloads(draw: st.DrawFn, name: str) -> list[ObservedWorkload]:
    """Any replicas of any versions in any state; one that runs may be off the network, any may have been renamed."""
    made = []
    for version, replica in product(VERSIONS, range(3)):
        if draw(st.booleans()):
            continue
        found = workload(name, version, replica, draw(st.sampled_from(WorkloadState)))
        oddity = draw(st.sampled_from(["", "", "", "", "off the network", "renamed"]))
        if oddity == "off the network":
            found = replace(found, address=None)
        elif oddity == "renamed":
            found = replace(found, name=f"renamed-{found.name}")
        made.append(found)
    return made


@st.composite
def routes(draw: st.DrawFn, name: str, there: list[ObservedWorkload]) -> list[Route]:
    """To some of what runs of one version, and perhaps to an address where nothing is any more."""
    if draw(st.booleans()):
        return []
    version = draw(st.sampled_from(VERSIONS))
    to = component(name, version)
    alive = [w for w in there if w.fingerprint == to.fingerprint and w.endpoint]
    chosen = draw(st.lists(st.sampled_from(alive), unique=True)) if alive else []
    made = route(to, *chosen, fingerprint=to.fingerprint)
    if draw(st.booleans()):
        made = replace(made, upstreams=(*made.upstreams, f"gone-{name}:8002"))
    return [replace(made, asleep=not made.upstreams and draw(st.booleans()))]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    declared = draw(st.sets(st.sampled_from(NAMES)))
    components = [
        component(
            name,
            draw(st.sampled_from(VERSIONS)),
            replicas=draw(st.integers(1, 3)),
            recreate=draw(st.booleans()),
            present=draw(st.booleans()),
            apis=draw(st.sets(st.sampled_from([f"{name}-x", f"{name}-y"]))),
            model=draw(st.sampled_from([None, model("1"), model("2"), model("2", present=True)])),
        )
        for name in sorted(declared)
    ]
    running = [w for name in NAMES for w in draw(workloads(name))]
    routed = [r for name in NAMES for r in draw(routes(name, [w for w in running if w.component == name]))]
    in_service = {(r.component, r.fingerprint) for r in routed if r.in_service}
    components = [
        replace(c, asleep=(c.spec.name, c.fingerprint) in in_service and draw(st.booleans()))
        for c in components
    ]
    memory = [
        ComponentStatus(
            ComponentName(name),
            "MLComponent",
            failed_fingerprint=draw(st.sampled_from(["", *component(name).fingerprints])),
            restarts=draw(
                st.sampled_from([(), (NOW - 1,), (NOW - 100,), (NOW - 5, NOW - 4, NOW - 3, NOW - 2, NOW - 1)])
            ),
        )
        for name in NAMES
        if draw(st.booleans())
    ]
    whole = desired(*components, prune=draw(st.booleans()), approved=draw(st.booleans()))
    images = [c.pin.deploy for c in components if c.pin.present]
    network = draw(st.booleans()) or any(w.endpoint for w in running)
    models = [c.model.digest for c in components if c.model and c.model.present]
    world = World.of(observed(*running, network=network), routed, images, models)
    return Case(whole, world, AppStatus(APP, components=tuple(memory)))


@CASES
@given(cases())
def test_planning_on_the_result_of_a_plan_is_empty(case: Case) -> None:
    after = case.world.after(case.plan().actions)
    assert case.plan(after).actions == ()


@CASES
@given(cases())
def test_what_is_declared_and_not_held_back_ends_up_running_and_routed(case: Case) -> None:
    plan = case.plan()
    after = case.world.after(plan.actions)
    held = {hold.component for hold in plan.holds}
    for wanted in case.desired.components:
        name = wanted.spec.name
        if name in held or wanted.asleep:
            continue
        alive = after.running(name, wanted.fingerprint)
        assert {w.replica for w in alive} == set(range(wanted.spec.replicas))
        assert [w for w in after.observed.of(name) if w not in alive] == []
        (routed,) = [r for r in after.routes if r.component == name]
        assert set(routed.upstreams) == {w.endpoint for w in alive}
        assert (routed.fingerprint, routed.apis) == (wanted.fingerprint, wanted.apis)
        assert not routed.asleep


@CASES
@given(cases())
def test_what_is_idle_ends_up_without_a_container_and_keeps_its_version(case: Case) -> None:
    after = case.world.after(case.plan().actions)
    for wanted in case.desired.components:
        if not wanted.asleep:
            continue
        assert after.observed.of(wanted.spec.name) == ()
        (routed,) = [r for r in after.routes if r.component == wanted.spec.name]
        assert (routed.fingerprint, routed.upstreams, routed.asleep) == (wanted.fingerprint, (), True)
        started = [a.workload.component for a in case.plan().actions if isinstance(a, StartWorkload)]
        assert wanted.spec.name not in started


@CASES
@given(cases())
def test_what_left_git_goes_only_with_prune_and_never_all_at_once(case: Case) -> None:
    plan = case.plan()
    after = case.world.after(plan.actions)
    declared = {c.spec.name for c in case.desired.components}
    present = {w.component for w in case.world.observed.workloads} | {r.component for r in case.world.routes}
    allowed = case.desired.prune and (declared or case.desired.approved)
    for name in present - declared:
        before = case.world.observed.of(name)
        assert after.observed.of(name) == (() if allowed else before)


@CASES
@given(cases())
def test_only_what_is_in_the_snapshot_is_ever_removed(case: Case) -> None:
    known = {w.id for w in case.world.observed.workloads}
    removed = [a.id for a in case.plan().actions if isinstance(a, RemoveWorkload)]
    assert known.issuperset(removed)
    assert len(removed) == len(set(removed))


@CASES
@given(cases())
def test_a_component_that_serves_never_loses_all_its_traffic(case: Case) -> None:
    """At every step. Recreate, leaving Git and going to sleep are the ways in which it may."""
    world, plan = case.world, case.plan()
    lasting = [
        c.spec.name
        for c in case.desired.components
        if c.spec.rollout.strategy is Strategy.BLUE_GREEN and not c.asleep
    ]
    serving = [name for name in lasting if world.live_upstreams(name)]
    for action in plan.actions:
        world = world.act(action)
        for name in serving:
            assert world.live_upstreams(name), f"{name} is down after: {action}"


@CASES
@given(cases())
def test_never_more_than_declared(case: Case) -> None:
    world, plan = case.world, case.plan()
    most = {c.spec.name: c.spec.replicas + _surplus(world, c) for c in case.desired.components}
    for action in plan.actions:
        world = world.act(action)
        for wanted in case.desired.components:
            assert len(world.running(wanted.spec.name, wanted.fingerprint)) <= most[wanted.spec.name]


@CASES
@given(cases())
def test_a_crash_after_any_action_changes_nothing_about_the_end(case: Case) -> None:
    plan = case.plan()
    end = case.world.after(plan.actions)
    for cut in range(len(plan.actions)):
        crashed = case.world.after(plan.actions[:cut])
        again = case.plan(crashed)
        after = crashed.after(again.actions)
        assert case.plan(after).actions == ()
        if not plan.holds and not again.holds:
            assert _shape(after) == _shape(end)


@CASES
@given(cases())
def test_a_failed_version_is_not_started_again(case: Case) -> None:
    failed = {c.failed_fingerprint for c in case.status.components if c.failed_fingerprint}
    serving = {r.fingerprint for r in case.world.routes}
    by_name = {c.name: c.failed_fingerprint for c in case.status.components}
    routed = {r.component: r.fingerprint for r in case.world.routes}
    for action in case.plan().actions:
        if isinstance(action, StartWorkload) and action.workload.fingerprint in failed - serving:
            assert by_name.get(action.workload.component) != action.workload.fingerprint
        if isinstance(action, StartWorkload) and action.heals:
            assert routed[action.workload.component] == action.workload.fingerprint


@CASES
@given(cases(), st.randoms(use_true_random=False))
def test_equal_input_gives_equal_text(case: Case, random: object) -> None:
    first = case.plan().render()
    turned = replace(
        case,
        world=replace(case.world, routes=case.world.routes[::-1]),
        status=replace(case.status, components=case.status.components[::-1]),
    )
    assert first == case.plan().render() == turned.plan().render()


@CASES
@given(cases())
def test_every_action_says_why_and_a_route_is_withdrawn_only_for_what_left(case: Case) -> None:
    declared = {c.spec.name for c in case.desired.components}
    for action in case.plan().actions:
        assert action.why
        assert not (isinstance(action, WithdrawRoute) and action.component in declared)


def _surplus(world: World, wanted: DesiredComponent) -> int:
    """Replicas beyond the declared ones: they go on until those that stay are ready."""
    there = world.running(wanted.spec.name, wanted.fingerprint)
    return sum(1 for w in there if w.replica >= wanted.spec.replicas)


def _shape(world: World) -> tuple[object, ...]:
    """What a world has come to, without the names that depend on the way there."""
    there = sorted((w.component, w.fingerprint, w.replica, w.state) for w in world.observed.workloads)
    routed = sorted((r.component, r.fingerprint, len(r.upstreams), r.asleep, r.apis) for r in world.routes)
    return there, routed, world.observed.network
