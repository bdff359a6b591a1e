"""What notifications are about: alerts, which last as long as something is wrong, and notices, which happen once.

`alerts_of_app`, `alerts_of_usage`, `alerts_of_checks` and `alerts_of_backups` derive the alerts from what is stored, so
none is lost with a process; a notice is stored in the transaction that makes it true.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from controller.domain.apps.conditions import Conditions, ConditionType, find
from controller.domain.apps.status import Event
from controller.domain.apps.usage import Usage
from controller.domain.backups import BackupRecord, problem_of
from controller.domain.names import PLATFORM, AppName
from controller.domain.notifications.spec import NotificationSpec, Severity
from controller.domain.reasons import Reason
from controller.domain.runs.run import Run, RunState
from controller.domain.text import excerpt, matches_glob

MAX_TEXT: Final = 700  # characters of a message
_NEWEST: Final = 40  # characters of a revision that are kept


class AlertType(StrEnum):
    """The types of alerts and notices. Those of conditions have their names."""

    DEGRADED = "Degraded"
    STALLED = "Stalled"
    MANIFEST_INVALID = "ManifestInvalid"
    APPLY_FAILED = "ApplyFailed"
    FETCH_FAILED = "FetchFailed"
    PRUNE_PENDING = "PrunePending"
    DEPLOY_PENDING = "DeployPending"
    NOT_READY = "NotReady"
    WARNING = "Warning"
    NEARLY_FULL = "NearlyFull"
    CHECK_FAILED = "CheckFailed"
    BACKUP_FAILED = Reason.BACKUP_FAILED.value
    BACKUP_OVERDUE = Reason.BACKUP_OVERDUE.value
    RUN_FAILED = "RunFailed"
    EVENT = "Event"
    TEST = "Test"


SEVERITIES: Final[Mapping[AlertType, Severity]] = {
    AlertType.DEGRADED: Severity.ERROR,
    AlertType.STALLED: Severity.ERROR,
    AlertType.MANIFEST_INVALID: Severity.ERROR,
    AlertType.APPLY_FAILED: Severity.ERROR,
    AlertType.FETCH_FAILED: Severity.WARNING,
    AlertType.PRUNE_PENDING: Severity.WARNING,
    AlertType.DEPLOY_PENDING: Severity.INFO,
    AlertType.NOT_READY: Severity.WARNING,
    AlertType.WARNING: Severity.INFO,
    AlertType.NEARLY_FULL: Severity.WARNING,
    AlertType.CHECK_FAILED: Severity.ERROR,
    AlertType.BACKUP_FAILED: Severity.ERROR,
    AlertType.BACKUP_OVERDUE: Severity.ERROR,
    AlertType.RUN_FAILED: Severity.ERROR,
    AlertType.EVENT: Severity.INFO,
    AlertType.TEST: Severity.INFO,
}
#: Those of reasons that differ: an approval waits for a person, a window and the end of a freeze wait for none.
REASON_SEVERITIES: Final[Mapping[tuple[AlertType, str], Severity]] = {
    (AlertType.DEPLOY_PENDING, Reason.AWAITING_APPROVAL): Severity.WARNING,
}
#: Events that are told as notices; all others are in the history alone.
EVENT_SEVERITIES: Final[Mapping[Reason, Severity]] = {
    Reason.APPLIED: Severity.INFO,
    Reason.READY: Severity.INFO,
    Reason.ROLLED_BACK: Severity.INFO,
    Reason.ROLLBACK_ENDED: Severity.INFO,
    Reason.APP_CREATED: Severity.INFO,
    Reason.APP_DELETED: Severity.INFO,
    Reason.DISCONNECTED: Severity.INFO,
    Reason.RESTARTED: Severity.ERROR,
    Reason.ROW_UNREADABLE: Severity.ERROR,
    Reason.STATE_SET_ASIDE: Severity.ERROR,
    Reason.WEBHOOK_GIVEN_UP: Severity.WARNING,
    Reason.COMMIT_STATUS_FAILED: Severity.WARNING,
}
_CONDITIONS: Final = tuple(each for each in ConditionType if each.value in frozenset(AlertType))
_PROBLEMS: Final = frozenset(_CONDITIONS) - {ConditionType.WARNING, ConditionType.DEPLOY_PENDING}
#: Checks of `prichal doctor` whose findings are alerts of their own.
_TOLD_ELSEWHERE: Final = frozenset({"shares", "platform folder", "state", "backup"})

#: What identifies an alert while it lasts.
AlertKey = tuple[str, str, str]


@dataclass(frozen=True)
class Alert:
    """`subject` is what it is about within the app: a resource, a check; "" for the app as a whole."""

    app: AppName
    type: AlertType
    reason: str
    severity: Severity
    message: str
    subject: str = ""
    revision: str = ""

    @property
    def key(self) -> AlertKey:
        return self.app, self.type, self.subject


@dataclass(frozen=True)
class Notice:
    """Something that has happened. `subject` is a component, `run` the id of a run."""

    app: AppName
    type: AlertType
    reason: str
    severity: Severity
    message: str
    at: float
    subject: str = ""
    revision: str = ""
    run: str = ""


def alerts_of_app(app: AppName, conditions: Conditions) -> Iterator[Alert]:
    """Return what is wrong with an app, or with the platform folder."""
    found = {kind: condition for kind in _CONDITIONS if (condition := find(conditions, kind))}
    for kind, condition in found.items():
        if condition.status:
            type = AlertType(kind)
            yield _alert(app, type, condition.reason, condition.message, revision=condition.revision)
    ready = find(conditions, ConditionType.READY)
    told = not _PROBLEMS.isdisjoint(found) or find(conditions, ConditionType.SUSPENDED)
    under_way = find(conditions, ConditionType.RECONCILING)
    if ready and not ready.status and not told and not under_way:
        yield _alert(app, AlertType.NOT_READY, ready.reason, ready.message, revision=ready.revision)


def alerts_of_usage(usage: Iterable[Usage]) -> Iterator[Alert]:
    """Return which bounds are nearly reached."""
    for use in usage:
        if use.is_nearly_full:
            text = f"{use.resource}: {use.told(use.used)} of {use.told(use.bound)} are used"
            yield _alert(use.app, AlertType.NEARLY_FULL, AlertType.NEARLY_FULL, text, use.resource)


def alerts_of_checks(failed: Iterable[tuple[str, str]]) -> Iterator[Alert]:
    """Return the findings of `prichal doctor`, given as name and detail of each check that has failed."""
    for name, detail in failed:
        if name not in _TOLD_ELSEWHERE:
            text = f"{name}: {detail}"
            yield _alert(PLATFORM, AlertType.CHECK_FAILED, AlertType.CHECK_FAILED, text, name)


def alerts_of_backups(record: BackupRecord, alert_after: float, now: float) -> Iterator[Alert]:
    """Return that the last attempt to make a backup has failed, and that the last good one is too old."""
    if record.failure:
        text = f"no backup was made: {record.failure.message}"
        yield _alert(PLATFORM, AlertType.BACKUP_FAILED, record.failure.reason, text, "backup")
    if problem := problem_of(record, alert_after, now):
        yield _alert(PLATFORM, AlertType.BACKUP_OVERDUE, Reason.BACKUP_OVERDUE, problem, "backup")


def _alert(
    app: AppName, type: AlertType, reason: str, message: str, subject: str = "", revision: str = ""
) -> Alert:
    text = excerpt(message, MAX_TEXT)
    severity = REASON_SEVERITIES.get((type, reason), SEVERITIES[type])
    return Alert(app, type, str(reason), severity, text, subject, revision[:_NEWEST])


def notice_of_event(event: Event, at: float) -> Notice | None:
    """Return the notice of an event; None if it is for the history alone."""
    severity = EVENT_SEVERITIES.get(event.reason)
    if severity is None:
        return None
    return Notice(
        app=event.app,
        type=AlertType.EVENT,
        reason=str(event.reason),
        severity=severity,
        message=excerpt(event.message, MAX_TEXT),
        at=at,
        subject=event.component or "",
        revision=event.revision[:_NEWEST],
    )


def notice_of_run(run: Run) -> Notice | None:
    """Return the notice of a run that is over; None if it has not failed."""
    if run.state is not RunState.FAILED:
        return None
    return Notice(
        app=run.app,
        type=AlertType.RUN_FAILED,
        reason=str(run.reason) or AlertType.RUN_FAILED,
        severity=SEVERITIES[AlertType.RUN_FAILED],
        message=excerpt(f"run {run.id} of {run.name} failed: {run.message}".removesuffix(": "), MAX_TEXT),
        at=run.ended or run.created,
        subject=run.name,
        revision=run.pipeline.revision[:_NEWEST],
        run=run.id,
    )


def wants(spec: NotificationSpec, what: Alert | Notice) -> bool:
    """Return whether a Notification is about this."""
    if what.severity.rank < spec.severity.rank:
        return False
    names = {str(what.type), what.reason}
    if spec.reasons and names.isdisjoint(spec.reasons):
        return False
    if not names.isdisjoint(spec.except_reasons):
        return False
    return not spec.apps or any(matches_glob(pattern, what.app) for pattern in spec.apps)
