"""The planner compares the desired with the observed state and returns a plan. Pure; called by the reconciler
and `prichal plan`.

Safety rules, each held by a property test:
- only workloads in the snapshot (hence ours) are ever named in a removal;
- a serving workload is drained and removed only after the route points elsewhere (or its component left Git);
- a version that failed is not started again before something changes;
- only a version that has been ready hibernates, and its route stays, so that a call can start it;
- planning on the result of a plan gives an empty plan.
"""

from __future__ import annotations

from controller.domain.apps.component_rollout import ComponentRollout
from controller.domain.apps.desired import DesiredApp
from controller.domain.apps.gpu_plan import NO_GPUS, GpuView, hold_without_gpus
from controller.domain.apps.observed import ObservedApp
from controller.domain.apps.pauses import PlannerPolicy, pause_failed
from controller.domain.apps.plan import (
    Action,
    AwaitReady,
    DrainWorkload,
    EnsureNetwork,
    Hold,
    Plan,
    PublishServices,
    RemoveNetwork,
    RemoveWorkload,
    StartWorkload,
    SwitchRoute,
    WithdrawRoute,
)
from controller.domain.apps.pruning import hold_empty_commit, plan_gone, plan_leftover_accounts
from controller.domain.apps.spec import ComponentKind
from controller.domain.apps.status import AppStatus
from controller.domain.localizable import Localizable
from controller.domain.names import ComponentName
from controller.domain.routing.planner import plan_services
from controller.domain.routing.routes import Route
from controller.domain.runs.planner import plan_pipelines
from controller.domain.storage.planner import incomplete_copies, plan_boxes

_REMOVALS = (WithdrawRoute, DrainWorkload, RemoveWorkload)


def plan_app(
    desired: DesiredApp,
    observed: ObservedApp,
    routes: tuple[Route, ...],
    status: AppStatus,
    policy: PlannerPolicy,
    now: float,
    gpus: GpuView = NO_GPUS,
) -> Plan:
    """Return the plan. `routes` are those in force for the app, `status` has results of earlier passes
    (failed versions, restarts), `now` is in Unix seconds, `gpus` are the host's."""
    by_component = {route.component: route for route in routes}
    steps, holds = _plan_components(desired, observed, by_component, status, policy, now)
    everything = hold_empty_commit(desired, observed, by_component)
    if everything is None:
        planned, held = _plan_others(desired, observed, routes, status, policy)
        steps, holds = [step for step in (*steps, *planned) if step], [*holds, *held]
        leaving, _ = plan_gone(desired, observed, by_component, _taken(steps))
    else:
        leaving = []
    repairs, held = _repair_left(desired, observed, by_component, leaving, status, policy, now)
    steps, holds = [*steps, *repairs], [*holds, *held]
    if any(isinstance(action, StartWorkload) for step in steps for action in step) and not observed.network:
        steps.insert(0, (EnsureNetwork(why=Localizable("the app has no network yet")),))
    steps, pauses, paused = pause_failed(steps, status, policy, now)
    steps, waits, requests = hold_without_gpus(steps, observed, gpus, paused)
    if everything:
        told = (*holds, everything, *pauses, *waits)
        return Plan(desired.app, desired.revision, tuple(steps), told, requests, paused)
    removals, kept = plan_gone(desired, observed, by_component, _taken(steps))
    removals, kept_failed, _ = pause_failed(removals, status, policy, now)
    kept += kept_failed  # containers that cannot be removed yet need the network
    if observed.network and not _needs_network(desired, observed, [*holds, *kept]):
        why = Localizable("the app has no component left")
        network, kept_network, _ = pause_failed([(RemoveNetwork(why),)], status, policy, now)
        removals += network
        kept += kept_network
    holds += (*kept, *pauses, *waits)
    return Plan(desired.app, desired.revision, (*steps, *removals), tuple(holds), requests, paused)


def _plan_components(
    desired: DesiredApp,
    observed: ObservedApp,
    routes: dict[ComponentName, Route],
    status: AppStatus,
    policy: PlannerPolicy,
    now: float,
) -> tuple[list[tuple[Action, ...]], list[Hold]]:
    """Plan each component that is declared, and hold those that could not be resolved."""
    steps: list[tuple[Action, ...]] = []
    holds: list[Hold] = []
    unready = _unready(desired, routes)
    copying = incomplete_copies(desired, observed)
    for component in desired.components:
        route = routes.get(component.spec.name)
        rollout = ComponentRollout(desired, component, observed, route, status, policy, now)
        actions, held = rollout.healing() or rollout.waiting(unready, copying) or rollout.plan()
        steps.append(actions)
        holds += held
    holds += [
        Hold(u.name, u.reason, u.why, kind=u.kind, failed=u.transient, transient=u.transient)
        for u in desired.unresolved
    ]
    return steps, holds


def _plan_others(
    desired: DesiredApp,
    observed: ObservedApp,
    routes: tuple[Route, ...],
    status: AppStatus,
    policy: PlannerPolicy,
) -> tuple[list[tuple[Action, ...]], list[Hold]]:
    """Plan what is declared besides components."""
    steps: list[tuple[Action, ...]] = []
    holds: list[Hold] = []
    for planned, held in (
        plan_boxes(desired, observed, policy.instance),
        plan_pipelines(desired, observed, status, may_publish=not incomplete_copies(desired, observed)),
        (plan_services(desired, observed, routes), []),
        (plan_leftover_accounts(desired, observed), []),
    ):
        steps += planned
        holds += held
    return steps, holds


def _repair_left(
    desired: DesiredApp,
    observed: ObservedApp,
    routes: dict[ComponentName, Route],
    leaving: list[tuple[Action, ...]],
    status: AppStatus,
    policy: PlannerPolicy,
    now: float,
) -> tuple[list[tuple[Action, ...]], list[Hold]]:
    """Repair components that left Git and stay for now, and change nothing else about them."""
    steps: list[tuple[Action, ...]] = []
    holds: list[Hold] = []
    names = {action.component for group in leaving for action in group if isinstance(action, _REMOVALS)}
    for component in desired.left:
        route = routes.get(component.spec.name)
        if component.spec.name in names or route is None or route.fingerprint not in component.fingerprints:
            continue
        actions, held = ComponentRollout(desired, component, observed, route, status, policy, now).plan()
        # What was started and does not answer yet is awaited: the daemon may have died in between.
        if held or any(isinstance(action, (StartWorkload, AwaitReady)) for action in actions):
            steps += [actions] if actions else []
            holds += held
    return steps, holds


def _unready(desired: DesiredApp, routes: dict[ComponentName, Route]) -> frozenset[ComponentName]:
    """Return the components whose declared version does not serve. One that is asleep does: a call starts it."""
    serving = {
        component.spec.name
        for component in desired.components
        if not component.failure
        and (route := routes.get(component.spec.name))
        and route.fingerprint in component.fingerprints
        and (route.upstreams or route.asleep)
    }
    declared = {component.spec.name for component in desired.components}
    declared |= {each.name for each in desired.unresolved if each.kind is ComponentKind.ML_COMPONENT}
    return frozenset(declared - serving)


def _taken(steps: list[tuple[Action, ...]]) -> frozenset[str]:
    """Return the paths of APIs that these groups take over from others."""
    switches = (a for group in steps for a in group if isinstance(a, (SwitchRoute, PublishServices)))
    return frozenset(path for switch in switches for path in switch.takes)


def _needs_network(desired: DesiredApp, observed: ObservedApp, holds: list[Hold]) -> bool:
    """Return True if containers need it, containers that need it may be left, or the next run will need it."""
    runs = desired.pipelines or observed.pipelines or observed.runs
    return bool(desired.components or runs) or any(hold.kind is ComponentKind.ML_COMPONENT for hold in holds)
