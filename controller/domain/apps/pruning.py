"""Removal of what is no longer declared: components, their containers and routes, accounts of the storage. Pure; part
of the planner.
"""

from __future__ import annotations

from controller.domain.apps.desired import DesiredApp
from controller.domain.apps.observed import ObservedApp, ObservedWorkload
from controller.domain.apps.plan import (
    Action,
    DrainWorkload,
    Hold,
    RemoveAccount,
    RemoveWorkload,
    WithdrawRoute,
)
from controller.domain.localizable import Localizable, joined
from controller.domain.names import ComponentName
from controller.domain.reasons import Reason
from controller.domain.routing.routes import Route
from controller.domain.routing.sockets import GONE_DRAIN
from controller.domain.storage.planner import bound


def hold_empty_commit(
    desired: DesiredApp, observed: ObservedApp, routes: dict[ComponentName, Route]
) -> Hold | None:
    """Guard against an empty desired state: a wrong folder must not remove everything."""
    if not desired.empty or not desired.prune or desired.approved:
        return None
    services = {service.api.name for service in observed.services} | {p.name for p in observed.pipelines}
    present = {w.component for w in observed.workloads} | set(routes) | set(bound(observed)) | services
    if not present:
        return None
    names = ", ".join(sorted(present))
    why = Localizable(
        "the commit declares nothing, {names} would all go; confirm with: prichal approve {app}",
        names=names,
        app=desired.app,
    )
    return Hold(None, Reason.PRUNE_PENDING, why)


def plan_leftover_accounts(desired: DesiredApp, observed: ObservedApp) -> list[tuple[Action, ...]]:
    """Remove accounts whose component or pipeline is gone or has another one, unless something that may use
    them runs or can be run."""
    if observed.runs or observed.pipelines != tuple(declared.pipeline for declared in desired.pipelines):
        return []
    accounts = [c.account for c in desired.components] + [p.account for p in desired.pipelines]
    wanted = {account.name for account in accounts if account}
    running = {c.spec.name: c.fingerprints for c in desired.components}
    if any(w.fingerprint not in running.get(w.component, ()) for w in observed.workloads):
        return []
    gone = sorted(observed.accounts - wanted)
    return [tuple(RemoveAccount(name, why=Localizable("no component uses it")) for name in gone)]


def plan_gone(
    desired: DesiredApp,
    observed: ObservedApp,
    routes: dict[ComponentName, Route],
    taken: frozenset[str],
) -> tuple[list[tuple[Action, ...]], list[Hold]]:
    """Remove components that run or are routed but are no longer declared. If the commit gives a component's
    path to something else, the component keeps serving until the path is taken over; `taken` are the paths
    that the rest of the plan takes over. So it does while versions in service depend on it."""
    declared = {c.spec.name for c in desired.components} | {u.name for u in desired.unresolved}
    present = {w.component for w in observed.workloads} | set(routes)
    gone = sorted(present - declared)
    if not desired.prune:
        return [], [
            Hold(name, Reason.PRUNE_DISABLED, Localizable("left Git, kept because prune is off"))
            for name in gone
        ]
    waits = {name: _why_awaited(desired, routes[name], taken) for name in gone if name in routes}
    waits |= _needed_meanwhile(gone, _still_needed(desired, routes))
    holds = [Hold(name, Reason.AWAITING_SUCCESSOR, waits[name]) for name in gone if waits.get(name)]
    leaves = [name for name in gone if not waits.get(name)]
    return [_remove_component(name, observed, routes.get(name)) for name in leaves], holds


def _still_needed(
    desired: DesiredApp, routes: dict[ComponentName, Route]
) -> dict[ComponentName, list[ComponentName]]:
    """Return what versions in service depend on, and which ones do. They may be older than the commit, which may have
    another dependency or none."""
    needed: dict[ComponentName, list[ComponentName]] = {}
    for component in desired.components:
        route = routes.get(component.spec.name)
        is_older = component.last_good and not (route and route.fingerprint in component.fingerprints)
        in_service = component.last_good if is_older and component.last_good else component
        for name in in_service.spec.depends_on:
            needed.setdefault(name, []).append(component.spec.name)
    return needed


def _needed_meanwhile(
    gone: list[ComponentName], needed: dict[ComponentName, list[ComponentName]]
) -> dict[ComponentName, str]:
    """Return why components that were removed from Git stay. What those that stay depend on themselves is not known
    any more, so all others stay with them."""
    stay = [name for name in gone if name in needed]
    others = Localizable(
        "left Git, and stays as long as {names}, which may depend on it", names=", ".join(stay)
    )
    return {
        name: Localizable(
            "left Git, and stays as long as the version in service of {names}, which depends on it",
            names=", ".join(needed[name]),
        )
        if name in needed
        else others
        for name in gone
        if stay
    }


def _why_awaited(desired: DesiredApp, route: Route, taken: frozenset[str]) -> str:
    """Return the paths that a component that was removed from Git still has to answer, as a sentence; empty
    if there are none."""
    left = [a.path for a in route.apis if desired.moved(a.path, route.component) and a.path not in taken]
    holders = dict(desired.holders)
    by = joined(
        (
            Localizable(
                "{path} (by {holders})", path=path, holders=holders[path] or Localizable("the platform")
            )
            for path in left
        ),
        ", ",
    )
    return Localizable("left Git, and keeps serving until something else answers {by}", by=by) if by else ""


def _remove_component(name: ComponentName, observed: ObservedApp, route: Route | None) -> tuple[Action, ...]:
    actions: list[Action] = []
    if route:
        actions.append(WithdrawRoute(name, why=Localizable("left Git")))
    for workload in observed.of(name):
        actions += drain_and_remove(workload, timeout=GONE_DRAIN, why=Localizable("left Git"))
    return tuple(actions)


def drain_and_remove(workload: ObservedWorkload, timeout: float, why: str) -> tuple[Action, ...]:
    """Drain everything that answers, since it may have requests in progress, even if no route names it: the
    daemon may have died between the switch and the draining."""
    component, name, id = workload.component, workload.name, workload.id
    remove = RemoveWorkload(component, name, id, why)
    if workload.endpoint is None:
        return (remove,)
    drain = DrainWorkload(
        component, name, id, workload.endpoint, timeout, why=Localizable("requests under way")
    )
    return drain, remove
