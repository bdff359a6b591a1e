"""Previews: what the next pass over an app would do, as people see it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from controller.domain.apps.plan import Plan, describe
from controller.domain.names import AppName, is_dns_label
from controller.domain.secret import Secret, scrub
from controller.domain.text import excerpt

MOST_LINES: Final = 1000  # actions, and as many holds
MOST_WHY: Final = 2000  # characters
MOST_TEXT: Final = 65_536
_ID: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class AskedPreview:
    id: str
    app: AppName

    @property
    def is_valid(self) -> bool:
        """Return False if no process of ours has asked for it."""
        return bool(_ID.fullmatch(self.id)) and is_dns_label(self.app)


@dataclass(frozen=True)
class PlannedAction:
    action: str
    why: str


@dataclass(frozen=True)
class PlannedHold:
    component: str | None
    reason: str
    why: str


@dataclass(frozen=True)
class PlanPreview:
    """`problem` and `message` say why there is no plan; it may succeed later if it `is_transient`. `warnings` say what
    else holds, for example that the newest commit is invalid, so that the plan is for an earlier one."""

    id: str
    app: AppName
    revision: str = ""
    subject: str = ""
    author: str = ""
    empty: bool = True
    actions: tuple[PlannedAction, ...] = ()
    holds: tuple[PlannedHold, ...] = ()
    text: str = ""
    warnings: tuple[str, ...] = ()
    problem: str = ""
    message: str = ""
    is_transient: bool = False


def preview_of(
    id: str, plan: Plan, subject: str, author: str, warnings: Iterable[str], hidden: tuple[Secret, ...]
) -> PlanPreview:
    """Return a plan as a preview, within bounds and without secrets."""

    def told(text: str) -> str:
        return excerpt(scrub(text, hidden), MOST_WHY)

    return PlanPreview(
        id,
        plan.app,
        plan.revision,
        told(subject),
        told(author),
        plan.empty,
        tuple(PlannedAction(told(describe(each)), told(each.why)) for each in plan.actions[:MOST_LINES]),
        tuple(PlannedHold(h.component, h.reason, told(h.why)) for h in plan.holds[:MOST_LINES]),
        excerpt(scrub(plan.render(), hidden), MOST_TEXT),
        tuple(told(each) for each in warnings),
    )
