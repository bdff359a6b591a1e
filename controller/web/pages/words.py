"""Conditions in words: how an app stands in one word, what each condition means, and what to do about it.

Pure. Messages of conditions, events and runs are texts with names and places (`Localizable`), and texts of other
programs. A page shows what their reason means and what to do first, and the message below (`Told`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from controller.domain.apps.conditions import Condition, Conditions, ConditionType, find, is_ready
from controller.domain.apps.requests import Outcome, Trigger
from controller.domain.apps.status import AppStatus, BoxStatus, ComponentStatus
from controller.domain.localizable import shortened
from controller.domain.reasons import Reason
from controller.web.pages.advice import ADVICE_ABOUT
from controller.web.pages.languages import N_
from controller.web.pages.reason_meanings import MEANINGS

MESSAGE: Final = 4000  # characters; `prichal status APP` and the interface for programs have more


@dataclass(frozen=True)
class Told:
    """A message with what it means and what to do about it."""

    message: str = ""
    meaning: str = ""
    advice: str = ""

    @classmethod
    def about(cls, reason: Reason, message: str, advice: str = "") -> Told:
        return cls(shortened(message, MESSAGE), MEANINGS.get(reason, ""), advice)


class AppState(StrEnum):
    """How an app stands, the gravest first: what the list can be filtered by."""

    FAILING = "failing"
    WAITING = "waiting"  # for a person
    BUSY = "busy"
    SUSPENDED = "suspended"
    READY = "ready"
    NEW = "new"


STATES: Final[Mapping[AppState, tuple[str, str]]] = {
    AppState.FAILING: (N_("failing"), "bad"),
    AppState.WAITING: (N_("needs approval"), "warn"),
    AppState.BUSY: (N_("reconciling"), "busy"),
    AppState.SUSPENDED: (N_("suspended"), "calm"),
    AppState.READY: (N_("ready"), "good"),
    AppState.NEW: (N_("new"), "calm"),
}

CONDITIONS: Final[Mapping[ConditionType, tuple[str, str]]] = {
    ConditionType.READY: (N_("Ready"), "good"),
    ConditionType.RECONCILING: (N_("Reconciling"), "busy"),
    ConditionType.STALLED: (N_("Stalled until something changes"), "bad"),
    ConditionType.DEGRADED: (N_("Degraded"), "bad"),
    ConditionType.FETCH_FAILED: (N_("Git cannot be reached"), "bad"),
    ConditionType.MANIFEST_INVALID: (N_("The manifests have errors"), "bad"),
    ConditionType.APPLY_FAILED: (N_("The commit could not be applied"), "bad"),
    ConditionType.SUSPENDED: (N_("Suspended"), "calm"),
    ConditionType.ROLLED_BACK: (N_("Rolled back"), "warn"),
    ConditionType.DEPLOY_PENDING: (N_("A new commit waits"), "warn"),
    ConditionType.PRUNE_PENDING: (N_("Waits for an approval"), "warn"),
    ConditionType.WARNING: (N_("Warning"), "warn"),
}
NOT_READY: Final = (N_("Not ready"), "bad")

#: How a pass ended, in the history of an app.
OUTCOMES: Final[Mapping[Outcome, tuple[str, str]]] = {
    Outcome.READY: (N_("Ready"), "good"),
    Outcome.DEGRADED: (N_("Degraded"), "bad"),
    Outcome.FAILED: (N_("Not ready"), "bad"),
    Outcome.WAITING: (N_("Waits"), "warn"),
    Outcome.HELD: (N_("A new commit waits"), "warn"),
}

#: What has asked for a pass.
TRIGGERS: Final[Mapping[Trigger, str]] = {
    Trigger.START: N_("start of the daemon"),
    Trigger.PLATFORM: N_("platform folder"),
    Trigger.POLL: N_("Git poll"),
    Trigger.WEBHOOK: N_("webhook"),
    Trigger.PUSH: N_("push"),
    Trigger.MANUAL: N_("a person"),
    Trigger.ROLLBACK: N_("rollback"),
    Trigger.DRIFT: N_("drift"),
    Trigger.CONTAINER: N_("a container"),
    Trigger.BOX: N_("content of a box"),
    Trigger.IMAGE: N_("a newer image"),
    Trigger.SECRET: N_("a Secret"),
    Trigger.WAKE: N_("a call"),
    Trigger.RETRY: N_("retry"),
}

#: What to do, by the condition.
ADVICE: Final[Mapping[ConditionType, str]] = {
    ConditionType.STALLED: N_(
        "Trying again would not help: push a commit that changes what the message names."
    ),
    ConditionType.DEGRADED: N_("Look at the component that is not ready; its message below says more."),
    ConditionType.FETCH_FAILED: N_(
        "Check the address, the credentials and the branch. It is tried again by itself."
    ),
    ConditionType.MANIFEST_INVALID: N_(
        "Correct the places that the message names and push again. What runs stays as it is until then."
    ),
    ConditionType.APPLY_FAILED: N_("It is tried again by itself; the message says what failed."),
    ConditionType.SUSPENDED: N_("New commits wait until somebody resumes the app."),
    ConditionType.ROLLED_BACK: N_("Push a commit that corrects what was wrong, or resume the app."),
    ConditionType.DEPLOY_PENDING: N_("Look at what the commit would change, and approve it if it is right."),
    ConditionType.PRUNE_PENDING: N_(
        "This commit would remove everything that runs. Approve it if that is meant; push another commit if not."
    ),
}


def advice_for(condition: Condition) -> str:
    """Return what to do about a condition; "" about one that is well."""
    if condition.type is ConditionType.READY and condition.status:
        return ""
    return ADVICE_ABOUT.get(condition.reason) or ADVICE.get(condition.type, "")


def state_of(app: AppStatus) -> AppState:
    kinds = {condition.type for condition in app.conditions}
    if ConditionType.PRUNE_PENDING in kinds or _waits_for_a_person(app.conditions):
        return AppState.WAITING
    if app.suspended or ConditionType.SUSPENDED in kinds:
        return AppState.SUSPENDED
    if ConditionType.RECONCILING in kinds:
        return AppState.BUSY
    if find(app.conditions, ConditionType.READY) is None:
        return AppState.NEW
    return AppState.READY if is_ready(app.conditions) else AppState.FAILING


def _waits_for_a_person(conditions: Conditions) -> bool:
    held = find(conditions, ConditionType.DEPLOY_PENDING)
    return held is not None and held.reason is Reason.AWAITING_APPROVAL


def told_of(conditions: Conditions) -> Told:
    """Return what the condition says that says most: what is wrong comes before what is well."""
    found = _most_telling(conditions)
    return told(found) if found else Told()


def told(condition: Condition) -> Told:
    return Told.about(condition.reason, condition.message, advice_for(condition))


def told_about(part: ComponentStatus | BoxStatus) -> Told:
    """Return what a page says about a component or a box, with what to do about the first thing that is not well."""
    found = told_of(part.conditions)
    if not found.message and isinstance(part, ComponentStatus):
        found = Told.about(part.failure_reason, part.failure)
    return replace(found, advice=next(filter(None, map(advice_for, part.conditions)), ""))


def _most_telling(conditions: Conditions) -> Condition | None:
    ready = find(conditions, ConditionType.READY)
    if ready and not is_ready(conditions) and ready.message:
        return ready
    worst = (c for c in conditions if c.type is not ConditionType.READY and c.message)
    return next(worst, ready)
