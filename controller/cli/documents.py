"""Documents that `-o json` prints and the HTTP API does not have (see `controller.web.api.platform.documents`),
and the one word for the state of an app. Field names are a promise to scripts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.domain.apps.conditions import ConditionType, find, is_ready
from controller.domain.apps.requests import ReconcileRequest
from controller.domain.apps.status import AppStatus
from controller.domain.units import rfc3339

if TYPE_CHECKING:
    from controller.domain.apps.plan import Plan


def state_word(status: AppStatus) -> str:
    """Return the first that applies: Suspended, Reconciling, Ready, Degraded, Stalled, NotReady or Unknown."""
    if status.suspended or find(status.conditions, ConditionType.SUSPENDED):
        return "Suspended"
    if find(status.conditions, ConditionType.RECONCILING):
        return "Reconciling"
    if is_ready(status.conditions):
        return "Ready"
    for kind in (ConditionType.DEGRADED, ConditionType.STALLED):
        if find(status.conditions, kind):
            return kind.value
    return "NotReady" if status.conditions else "Unknown"


def request_document(request: ReconcileRequest) -> dict[str, object]:
    return {
        "id": request.id,
        "app": request.app,
        "state": request.state.value,
        "reasons": list(request.reasons),
        "created": rfc3339(request.created),
        "outcome": request.outcome,
        "message": request.message,
        "revision": request.revision,
    }


def plan_document(plan: Plan) -> dict[str, object]:
    from controller.domain.apps.plan import describe

    return {
        "app": plan.app,
        "revision": plan.revision,
        "empty": plan.empty,
        "actions": [{"action": describe(action), "why": action.why} for action in plan.actions],
        "holds": [{"component": h.component, "reason": h.reason, "why": h.why} for h in plan.holds],
    }
