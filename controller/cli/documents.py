"""What `-o json` prints beyond the documents that the HTTP API has too (`controller.web.platform.documents`), and the
one word for an app's state. Field names are a promise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.domain.conditions import ConditionType, find, is_ready
from controller.domain.status import AppStatus, Request

if TYPE_CHECKING:
    from controller.domain.plan import Plan


def state_word(status: AppStatus) -> str:
    """Suspended | Reconciling | Ready | Degraded | Stalled | NotReady | Unknown: the first that holds."""
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


def request_document(request: Request) -> dict[str, object]:
    return {
        "id": request.id,
        "app": request.app,
        "state": request.state.value,
        "reasons": list(request.reasons),
        "created": request.created,
        "outcome": request.outcome,
        "message": request.message,
        "revision": request.revision,
    }


def plan_document(plan: Plan) -> dict[str, object]:
    from controller.domain.plan import describe

    return {
        "app": plan.app,
        "revision": plan.revision,
        "empty": plan.empty,
        "actions": [{"action": describe(action), "why": action.why} for action in plan.actions],
        "holds": [{"component": h.component, "reason": h.reason, "why": h.why} for h in plan.holds],
    }
