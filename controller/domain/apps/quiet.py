"""Decides whether a pass would find nothing to do, by what the last one has seen. Most passes are of this kind, so the
reconciler looks at what decides a pass before it loads, plans and judges; see controller/reconcile/quiet.py.

A pass may be passed over only if all that decides it can be compared. What it cannot see so (the storage, images of
stages, GPUs that apps share) makes every pass a whole one, and so does everything that is not settled. A test compares
both ways to take a pass, whatever happens in between.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from controller.domain.apps.desired import DesiredApp
from controller.domain.apps.observed import ObservedApp
from controller.domain.apps.plan import Plan
from controller.domain.apps.requests import Trigger
from controller.domain.apps.spec import PlatformSpec
from controller.domain.apps.status import AppStatus

#: Seconds from one whole pass to the next one, whatever is seen meanwhile. It also removes what is old.
WHOLE_PASS = 600.0
#: Triggers that tell nothing that cannot be seen.
_PERIODIC = {Trigger.DRIFT, Trigger.POLL, Trigger.RETRY, Trigger.WEBHOOK, Trigger.PUSH}


@dataclass(frozen=True)
class PassInputs:
    """What decides a pass, besides time and whether containers are ready: what is declared, a digest of the rows of the
    state, the commit, and what the engine shows."""

    platform: PlatformSpec
    rows: bytes
    commit: str
    observed: ObservedApp


@dataclass(frozen=True)
class QuietPass:
    """A whole pass that has changed nothing. `endpoints` were ready, each with the path that was asked; `retry_at` is
    when something may change by itself, if ever. Times are Unix seconds."""

    inputs: PassInputs
    endpoints: tuple[tuple[str, str], ...]
    begun: float
    retry_at: float | None
    message: str

    def holds(self, triggers: frozenset[Trigger], now: float) -> bool:
        """Return whether the next pass may compare its inputs with those of this one."""
        until = min(self.begun + WHOLE_PASS, math.inf if self.retry_at is None else self.retry_at)
        return triggers <= _PERIODIC and self.begun <= now < until


def is_comparable(desired: DesiredApp) -> bool:
    """Return whether all that decides passes over this app is in `PassInputs`, or is readiness."""
    shares_gpus = any(component.spec.resources.gpus for component in desired.components)
    has_model = any(component.model for component in desired.components)
    unseen = (desired.boxes, desired.pipelines, desired.unresolved, shares_gpus, has_model)
    return not any(unseen)


def is_settled(before: AppStatus, after: AppStatus, plan: Plan) -> bool:
    """Return whether a pass has found everything as it should be, has nothing new to tell, and watches nothing."""
    watches = any(component.watch for component in after.components)
    return after == before and plan.empty and not (plan.holds or after.setbacks or after.rollback or watches)
