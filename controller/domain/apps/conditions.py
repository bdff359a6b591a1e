"""Conditions: the status of an app or component as a set of typed statements. `Ready` is always there, the others
only while true. A condition's `since` moves only when its status or reason changes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from controller.domain.reasons import Reason
from controller.domain.text import bounded


class ConditionType(StrEnum):
    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    DEGRADED = "Degraded"
    FETCH_FAILED = "FetchFailed"
    MANIFEST_INVALID = "ManifestInvalid"
    APPLY_FAILED = "ApplyFailed"
    SUSPENDED = "Suspended"
    ROLLED_BACK = "RolledBack"
    DEPLOY_PENDING = "DeployPending"
    PRUNE_PENDING = "PrunePending"
    WARNING = "Warning"


@dataclass(frozen=True)
class Condition:
    type: ConditionType
    status: bool
    reason: Reason
    message: str
    since: float = 0.0  # Unix seconds
    revision: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", bounded(self.message))


Conditions = tuple[Condition, ...]


def merge(before: Conditions, now: Iterable[Condition], at: float) -> Conditions:
    """Return the conditions that hold now, sorted by type; unchanged ones keep their `since`."""
    old = {c.type: c for c in before}
    merged = []
    for condition in now:
        previous = old.get(condition.type)
        same = previous and (previous.status, previous.reason) == (condition.status, condition.reason)
        merged.append(replace(condition, since=previous.since if previous and same else at))
    return tuple(sorted(merged, key=lambda c: list(ConditionType).index(c.type)))


def find(conditions: Conditions, kind: ConditionType) -> Condition | None:
    return next((c for c in conditions if c.type == kind), None)


def is_ready(conditions: Conditions) -> bool:
    ready = find(conditions, ConditionType.READY)
    return ready is not None and ready.status
