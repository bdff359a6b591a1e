"""Derives the conditions of a component and of the app from one snapshot. Pure; called after every pass."""

from __future__ import annotations

import re
from collections.abc import Iterable

from controller.domain.apps.conditions import Condition, Conditions, ConditionType, find, is_ready
from controller.domain.apps.desired import DesiredComponent
from controller.domain.apps.observed import ObservedApp, WorkloadState
from controller.domain.apps.plan import Hold, Plan, subject_text
from controller.domain.apps.spec import ComponentKind
from controller.domain.apps.status import BoxStatus, ComponentStatus, Setback
from controller.domain.localizable import Localizable, joined, sentences
from controller.domain.names import short
from controller.domain.reasons import Reason
from controller.domain.routing.routes import Route
from controller.domain.units import render_duration

#: Reasons of plans' holds which mean that nothing happens before the input changes.
_STALLING = {Reason.FAILED, Reason.CRASH_LOOP, Reason.PRUNE_PENDING}
#: Kinds without a status of their own: the app reports what the plan holds back of them.
_PARTS = {ComponentKind.API_COMPONENT, ComponentKind.EXPERIMENT_PIPELINE, ComponentKind.PLATFORM_APP}


#: How programs in most languages, and the C library, report a read-only file system.
_READ_ONLY = re.compile(r"read-only file ?system|\bErrno 30\b|\bEROFS\b", re.IGNORECASE)


def cannot_write(log: str) -> bool:
    """Return True if the last lines of a container's log report a read-only file system."""
    return _READ_ONLY.search(log) is not None


def judge_component(
    component: DesiredComponent,
    observed: ObservedApp,
    route: Route | None,
    memory: ComponentStatus,
    unready: str = "",
    setback: Setback | None = None,
    held: Hold | None = None,
) -> tuple[Condition, ...]:
    """`unready`: what the serving workload itself said when asked and it was not ready, else empty. `setback`: what
    the last attempt to bring the component to its state came to. `held`: why the plan does not start it now, although
    nothing is wrong with it."""
    revision = component.revision
    if component.failure:
        return _failed(component.failure_reason or Reason.NOT_READY, component.failure, route, revision)
    if memory.failed_fingerprint in component.fingerprints:
        return _failed(memory.failure_reason or Reason.NOT_READY, memory.failure, route, revision)
    if route is None or route.fingerprint not in component.fingerprints:
        if setback:
            return _set_back(setback, route, revision)
        if held:
            return (_waits(held, route, revision),)
        message = Localizable("no version serves yet")
        return (Condition(ConditionType.READY, False, Reason.NOT_SERVING, message, revision=revision),)
    if component.asleep and route.asleep:
        idle = render_duration(component.spec.idle_after or 0.0)
        message = Localizable(
            "nobody has called for {idle}; the next call starts version {fingerprint}",
            idle=idle,
            fingerprint=short(route.fingerprint),
        )
        return (Condition(ConditionType.READY, True, Reason.HIBERNATING, message, revision=revision),)
    return _of_running(component, observed, route, memory, unready, setback, held)


def _of_running(
    component: DesiredComponent,
    observed: ObservedApp,
    route: Route,
    memory: ComponentStatus,
    unready: str,
    setback: Setback | None,
    held: Hold | None,
) -> tuple[Condition, ...]:
    """Return the conditions of a component whose wanted version is in service."""
    revision = component.revision
    alive = [
        w
        for w in observed.of(component.spec.name)
        if w.fingerprint == route.fingerprint
        and w.state is WorkloadState.RUNNING
        and w.endpoint in route.upstreams
    ]
    if len(alive) < component.spec.replicas:
        message = Localizable(
            "{count} of {replicas} replicas run", count=len(alive), replicas=component.spec.replicas
        )
        waits = held.why if held else ""
        why = setback.message if setback else memory.failure or waits or _engine_says(observed, route)
        return _degraded(Reason.REPLICAS_MISSING, sentences(message, why) if why else message, revision)
    if unready:
        return _degraded(Reason.NOT_ANSWERING, unready, revision)
    message = Localizable("version {fingerprint} serves", fingerprint=short(route.fingerprint))
    if any(workload.root == "writable" for workload in alive):
        message = Localizable(
            "version {fingerprint} serves, with a root file system that it can write: it did not start without",
            fingerprint=short(route.fingerprint),
        )
    return (Condition(ConditionType.READY, True, Reason.SERVING, message, revision=revision),)


def _waits(held: Hold, route: Route | None, revision: str) -> Condition:
    serving = route is not None and route.in_service
    message = (
        Localizable(
            "version {fingerprint} keeps serving. {why}", fingerprint=short(route.fingerprint), why=held.why
        )
        if serving and route
        else held.why
    )
    return Condition(ConditionType.READY, False, held.reason, message, revision=revision)


def _engine_says(observed: ObservedApp, route: Route) -> str:
    """Return what the engine says of a replica that it does not run (yet), "" if it says nothing."""
    of_version = (w for w in observed.of(route.component) if w.fingerprint == route.fingerprint)
    return next(
        (
            Localizable("{name} is {state}: {detail}", name=w.name, state=w.state, detail=w.detail)
            for w in of_version
            if w.detail
        ),
        "",
    )


def _failed(reason: Reason, why: str, route: Route | None, revision: str) -> tuple[Condition, ...]:
    serving = route is not None and route.in_service
    kind = ConditionType.DEGRADED if serving else ConditionType.STALLED
    message = (
        Localizable(
            "version {fingerprint} keeps serving. {why}", fingerprint=short(route.fingerprint), why=why
        )
        if serving and route
        else why
    )
    return (
        Condition(ConditionType.READY, False, reason, message, revision=revision),
        Condition(kind, True, reason, message, revision=revision),
    )


def _set_back(setback: Setback, route: Route | None, revision: str) -> tuple[Condition, ...]:
    message = setback.message
    if route and route.in_service:
        message = Localizable(
            "version {fingerprint} keeps serving. {message}",
            fingerprint=short(route.fingerprint),
            message=message,
        )
    kind = ConditionType.STALLED if setback.stalled else ConditionType.APPLY_FAILED
    return (
        Condition(ConditionType.READY, False, setback.reason, message, revision=revision),
        Condition(kind, True, setback.reason, message, revision=revision),
    )


def _degraded(reason: Reason, message: str, revision: str) -> tuple[Condition, ...]:
    return (
        Condition(ConditionType.READY, False, reason, message, revision=revision),
        Condition(ConditionType.DEGRADED, True, reason, message, revision=revision),
    )


def judge_app(
    components: tuple[ComponentStatus, ...],
    plan: Plan,
    warnings: tuple[str, ...],
    boxes: tuple[BoxStatus, ...] = (),
) -> tuple[Condition, ...]:
    """Return the app's own conditions, from those of its components and boxes and the holds of the plan."""
    revision = plan.revision
    parts: list[tuple[str, Conditions]] = [(c.name, c.conditions) for c in components]
    parts += [(Localizable("box {box}", box=box.name), box.conditions) for box in boxes]
    parts += _shared(components, boxes, plan)
    conditions = [_app_ready(parts, plan)]
    for kind in (ConditionType.DEGRADED, ConditionType.STALLED, ConditionType.APPLY_FAILED):
        hit = [(name, found) for name, own in parts if (found := find(own, kind))]
        if hit:
            text = _lines(hit)
            conditions.append(Condition(kind, True, hit[0][1].reason, text, revision=revision))
    conditions += _held(
        plan.holds, revision, stalled=any(c.type == ConditionType.STALLED for c in conditions)
    )
    if warnings:
        conditions.append(
            Condition(ConditionType.WARNING, True, Reason.WARNINGS, joined(warnings, "\n"), revision=revision)
        )
    return tuple(conditions)


def _lines(parts: Iterable[tuple[str, Condition]]) -> str:
    return joined([joined((name, condition.message), ": ") for name, condition in parts], "\n")


def _shared(
    components: tuple[ComponentStatus, ...], boxes: tuple[BoxStatus, ...], plan: Plan
) -> list[tuple[str, Conditions]]:
    """Return the failures and waits that no condition of a component or box reports."""
    unready: set[str] = {c.name for c in components if not is_ready(c.conditions)}
    unready |= {
        subject_text(ComponentKind.DATA_BOX, box.name) for box in boxes if not is_ready(box.conditions)
    }
    return [
        (hold.subject, (_of_hold(hold, ConditionType.READY), _of_hold(hold, kind)))
        for hold in plan.holds
        if (kind := _kind(hold)) and hold.subject not in unready
    ]


def _kind(hold: Hold) -> ConditionType | None:
    if hold.reason == Reason.AWAITING_SUCCESSOR:
        return ConditionType.DEGRADED
    if not hold.failed:
        return None
    return ConditionType.APPLY_FAILED if hold.transient else ConditionType.STALLED


def _of_hold(hold: Hold, kind: ConditionType) -> Condition:
    return Condition(kind, kind is not ConditionType.READY, hold.reason, hold.why)


def _app_ready(parts: list[tuple[str, Conditions]], plan: Plan) -> Condition:
    revision = plan.revision
    if pending := next((hold for hold in plan.holds if hold.reason == Reason.PRUNE_PENDING), None):
        return Condition(ConditionType.READY, False, pending.reason, pending.why, revision=revision)
    waiting = [
        (name, ready) for name, own in parts if (ready := find(own, ConditionType.READY)) and not ready.status
    ]
    waiting += [
        (hold.subject, Condition(ConditionType.READY, False, hold.reason, hold.why))
        for hold in plan.holds
        if hold.kind in _PARTS and not hold.failed
    ]
    if waiting:
        # What the others wait for comes first: its reason is that of the app, and its line all that a forge shows.
        waiting.sort(key=lambda part: part[1].reason == Reason.DEPENDENCY_NOT_READY)
        text = _lines(waiting)
        return Condition(ConditionType.READY, False, waiting[0][1].reason, text, revision=revision)
    count = len(parts)
    message = (
        Localizable("1 component as declared")
        if count == 1
        else Localizable("{count} components as declared", count=count)
    )
    return Condition(ConditionType.READY, True, Reason.READY, message, revision=revision)


def _held(holds: tuple[Hold, ...], revision: str, stalled: bool) -> list[Condition]:
    conditions = []
    for hold in holds:
        if hold.reason == Reason.PRUNE_PENDING:
            conditions.append(
                Condition(ConditionType.PRUNE_PENDING, True, hold.reason, hold.why, revision=revision)
            )
        elif hold.failed or hold.reason == Reason.AWAITING_SECRET:  # of which nothing is wrong
            continue
        elif (hold.reason in _STALLING or hold.kind in _PARTS) and hold.component and not stalled:
            text = joined((hold.subject, hold.why), ": ")
            conditions.append(Condition(ConditionType.STALLED, True, hold.reason, text, revision=revision))
            stalled = True
    return conditions
