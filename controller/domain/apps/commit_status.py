"""Commit statuses: what a forge shows beside the commit of an app. Pure.

`commit_status` derives the status of the attempted commit from an app's conditions, and `untold` decides what of it
the forge is told. The verdict on a commit is about its deployment: once it has succeeded, later trouble of the app
does not change it, unless the app was rolled back because a version failed while it was watched.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from controller.domain.apps.conditions import Conditions, ConditionType, find
from controller.domain.apps.releases import commit_of
from controller.domain.apps.rollout_watch import FailedRollout
from controller.domain.reasons import Reason

MAX_DESCRIPTION: Final = 140  # characters; GitHub takes no more

_FAILURES: Final = (
    ConditionType.MANIFEST_INVALID,
    ConditionType.STALLED,
    ConditionType.APPLY_FAILED,
    ConditionType.DEGRADED,
)


class CommitState(StrEnum):
    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"
    CANCELED = "canceled"  # a newer commit came before there was a verdict


@dataclass(frozen=True)
class CommitStatus:
    """`revision` is the full commit id, `description` one line for people."""

    revision: str
    state: CommitState
    reason: Reason
    description: str

    def says(self, other: CommitStatus) -> bool:
        """Return whether the other status says the same, perhaps in other words."""
        mine, others = (self.revision, self.state, self.reason), (other.revision, other.state, other.reason)
        return mine == others


def commit_status(
    conditions: Conditions, revision: str, failed: FailedRollout | None = None
) -> CommitStatus | None:
    """Return the status of the attempted commit `revision`; None if the conditions say nothing about it. `failed`:
    why the app was rolled back without a person, from a commit that may be older: newer ones may wait."""
    if not revision or find(conditions, ConditionType.SUSPENDED):
        return None
    is_of_images = failed is not None and failed.revision != commit_of(failed.revision)
    if failed and not is_of_images and revision in (failed.revision, commit_of(failed.replaced)):
        return _status(failed.revision, CommitState.FAILURE, Reason.ROLLOUT_FAILED, failed.message)
    about = tuple(c for c in conditions if c.revision in ("", revision))
    if held := find(about, ConditionType.DEPLOY_PENDING):
        return _status(revision, CommitState.PENDING, held.reason, held.message)
    for kind in _FAILURES:
        if failure := find(about, kind):
            return _status(revision, CommitState.FAILURE, failure.reason, failure.message)
    if find(about, ConditionType.RECONCILING):
        return CommitStatus(revision, CommitState.PENDING, Reason.APPLYING, "the commit is being applied")
    ready = find(about, ConditionType.READY)
    if ready is None:
        return None
    if ready.status:
        return CommitStatus(revision, CommitState.SUCCESS, Reason.READY, _line(ready.message))
    return _status(revision, CommitState.PENDING, ready.reason, ready.message)


def untold(told: CommitStatus | None, now: CommitStatus | None) -> tuple[CommitStatus, ...]:
    """Return what the forge is told next, in this order, if it was told `told` last and `now` holds."""
    if now is None or (told and told.says(now)):
        return ()
    if told is None:
        return (now,)
    if told.revision != now.revision:
        return (_dropped(told, now), now) if told.state is CommitState.PENDING else (now,)
    if now.reason is Reason.ROLLOUT_FAILED:  # which is found out after the success
        return (now,)
    if told.state is CommitState.SUCCESS or now.state is CommitState.PENDING:
        return ()  # a commit is pending once, whatever it waits for and however often it is tried
    return (now,)


def _dropped(told: CommitStatus, by: CommitStatus) -> CommitStatus:
    """Return the last word on a commit that will not be applied by itself: nothing reminds of it later."""
    if by.reason is Reason.ROLLOUT_FAILED:
        text = f"the app was rolled back from commit {by.revision[:12]} while this one waited"
        return CommitStatus(told.revision, CommitState.CANCELED, Reason.ROLLED_BACK, text)
    text = f"commit {by.revision[:12]} came before this one was applied"
    return CommitStatus(told.revision, CommitState.CANCELED, Reason.SUPERSEDED, text)


def _status(revision: str, state: CommitState, reason: Reason, message: str) -> CommitStatus:
    return CommitStatus(revision, state, reason, _line(f"{reason}: {message}"))


def _line(text: str) -> str:
    """Return the first line, cut to what all forges take."""
    line = next(iter(text.strip().splitlines()), "")
    return line if len(line) <= MAX_DESCRIPTION else f"{line[: MAX_DESCRIPTION - 1]}…"
