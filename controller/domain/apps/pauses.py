"""Pauses after failures: an action that failed is tried again after a pause that grows, or once its input has changed.
Pure; part of the planner.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from controller.domain.apps.gpu_plan import gpu_starts
from controller.domain.apps.plan import (
    Action,
    EnsureNetwork,
    Hold,
    StartWorkload,
    rerouted,
    subject,
    subject_text,
    version_of,
)
from controller.domain.apps.spec import ComponentKind
from controller.domain.apps.status import AppStatus, Setback
from controller.domain.backoff import Backoff
from controller.domain.localizable import Localizable
from controller.domain.names import ComponentName
from controller.domain.units import render_duration

_BACKOFF = Backoff(2.0, 300.0)


@dataclass(frozen=True)
class PlannerPolicy:
    """When the planner tries again: pauses between attempts, and how many restarts (`crash_limit`) within how many
    seconds (`crash_window`) are a crash loop. `instance` begins the names of containers and buckets."""

    instance: str = "prichal"
    backoff: Backoff = _BACKOFF
    crash_limit: int = 5
    crash_window: float = 600.0


def pause_failed(
    steps: list[tuple[Action, ...]], status: AppStatus, policy: PlannerPolicy, now: float
) -> tuple[list[tuple[Action, ...]], list[Hold], tuple[StartWorkload, ...]]:
    """Hold failed actions until their pause is over, in every pass; return the starts with GPUs that are tried again by
    themselves, too. Traffic is still routed away from dead containers, which needs only the route table; and nothing is
    started without the network. The failure of one version of a component does not prevent repairs of another."""
    setbacks = {setback.subject: setback for setback in status.setbacks if not setback.resolving}
    kept: list[tuple[Action, ...]] = []
    holds: list[Hold] = []
    paused: list[StartWorkload] = []
    networkless = False
    for group in steps:
        kind, name = subject(group)
        setback = setbacks.get(subject_text(kind, name))
        left = pause_left(setback, policy, now) if setback and _is_about(setback, group) else 0.0
        starts = any(isinstance(action, StartWorkload) for action in group)
        if setback and left > 0:
            holds.append(hold_setback(setback, kind, name, left, policy))
            networkless = networkless or isinstance(group[0], EnsureNetwork)
        elif not (networkless and starts):
            kept.append(group)
            continue
        if setback is None or not setback.stalled:
            paused += gpu_starts(group)
        if switches := rerouted(group):
            kept.append(switches)
    return kept, holds, tuple(paused)


def _is_about(setback: Setback, group: tuple[Action, ...]) -> bool:
    """Return whether the failure delays these actions: that of another version does not delay a repair."""
    heals = any(isinstance(action, StartWorkload) and action.heals for action in group)
    return not (heals and setback.version and setback.version != version_of(group))


def hold_setback(
    setback: Setback, kind: ComponentKind, name: ComponentName, left: float, policy: PlannerPolicy
) -> Hold:
    """Return what people see of an action that is not tried now; `left` are the seconds until it is."""
    if setback.stalled:
        return Hold(name, setback.reason, setback.message, kind=kind, failed=True)
    pause = policy.backoff.after(setback.attempts)
    why = Localizable(
        "{value}. Attempt {attempts} waits for {pause}",
        value=setback.message.rstrip("."),
        attempts=setback.attempts + 1,
        pause=render_duration(pause),
    )
    return Hold(name, setback.reason, why, retry_after=left, kind=kind, failed=True, transient=True)


def pause_left(setback: Setback, policy: PlannerPolicy, now: float) -> float:
    """Return the seconds until the next attempt; infinite if the input has to change first."""
    if setback.stalled and not setback.resolving:
        return math.inf
    return setback.at + policy.backoff.after(setback.attempts) - now
