"""The status of a commit: the verdict from the conditions of an app, and when it is news."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.domain.apps.commit_status import (
    MAX_DESCRIPTION,
    CommitState,
    CommitStatus,
    commit_status,
    untold,
)
from controller.domain.apps.conditions import Condition, ConditionType
from controller.domain.apps.rollout_watch import FailedRollout
from controller.domain.reasons import Reason

A, B = "a" * 40, "b" * 40
T, S = ConditionType, CommitState


def condition(
    kind: ConditionType, status: bool = True, reason: Reason = Reason.READY, text: str = "text", of: str = A
) -> Condition:
    return Condition(kind, status, reason, text, revision=of)


READY = condition(T.READY)
NOT_READY = condition(T.READY, False, Reason.BUILD_FAILED, "step 3")
WAITING = condition(T.READY, False, Reason.AWAITING_MODEL, "no model")
APPLYING = condition(T.RECONCILING, reason=Reason.APPLYING)
BUILD = condition(T.STALLED, reason=Reason.BUILD_FAILED, text="step 3\nmore")
INVALID = condition(T.MANIFEST_INVALID, reason=Reason.MANIFEST_INVALID)
UNASKED = condition(T.READY, False, Reason.PRUNE_PENDING, "ask")


@pytest.mark.parametrize(
    ("conditions", "state", "description"),
    [
        ((READY,), S.SUCCESS, "text"),
        ((READY, condition(T.WARNING)), S.SUCCESS, "text"),
        ((NOT_READY, APPLYING), S.PENDING, "the commit is being applied"),
        ((WAITING,), S.PENDING, "AwaitingModel: no model"),
        ((NOT_READY, BUILD), S.FAILURE, "BuildFailed: step 3"),
        ((NOT_READY, condition(T.APPLY_FAILED, reason=Reason.PULL_TIMEOUT)), S.FAILURE, "PullTimeout: text"),
        ((NOT_READY, condition(T.DEGRADED, reason=Reason.NOT_READY)), S.FAILURE, "NotReady: text"),
        ((READY, INVALID), S.FAILURE, "ManifestInvalid: text"),
        ((UNASKED, condition(T.PRUNE_PENDING)), S.PENDING, "PrunePending: ask"),
        # of the commit before
        ((condition(T.READY, of=B), APPLYING), S.PENDING, "the commit is being applied"),
        ((READY, condition(T.DEGRADED, of=B)), S.SUCCESS, "text"),
    ],
)  # fmt: skip
def test_the_verdict(conditions: tuple[Condition, ...], state: CommitState, description: str) -> None:
    found = commit_status(conditions, A)
    assert found is not None
    assert (found.revision, found.state, found.description) == (A, state, description)


@pytest.mark.parametrize(
    ("conditions", "revision"),
    [
        ((), A),
        ((READY,), ""),
        ((condition(T.READY, of=B),), A),
        ((condition(T.READY, of=B), condition(T.FETCH_FAILED, of=B)), A),
        ((READY, condition(T.SUSPENDED)), A),
    ],
)
def test_what_says_nothing_about_the_commit(conditions: tuple[Condition, ...], revision: str) -> None:
    assert commit_status(conditions, revision) is None


def test_a_version_that_was_given_up_fails_its_commit_and_no_other() -> None:
    failed = FailedRollout(A, "classify: it failed 5 of 9 calls")
    found = commit_status((condition(T.READY, of=B),), A, failed)
    assert found
    assert (found.state, found.description) == (S.FAILURE, "RolloutFailed: classify: it failed 5 of 9 calls")
    waits = commit_status((condition(T.DEPLOY_PENDING, of=B),), B, replace(failed, replaced=B))
    assert waits == found, "a newer commit that waited is not what failed"
    newer = commit_status((condition(T.READY, of=B),), B, failed)
    assert newer
    assert newer.state is S.SUCCESS


def test_a_description_fits_every_forge() -> None:
    found = commit_status((condition(T.STALLED, text="ж" * 1000),), A)
    assert found is not None
    assert len(found.description) == MAX_DESCRIPTION
    assert found.description.endswith("ж…")


def said(state: str, of: str = A, reason: Reason = Reason.READY, text: str = "") -> CommitStatus:
    return CommitStatus(of, CommitState(state), reason, text)


@pytest.mark.parametrize(
    ("told", "now", "news"),
    [
        (None, None, []),
        (None, said("pending"), ["pending"]),
        (said("pending"), None, []),
        (said("pending"), said("success"), ["success"]),
        (said("pending"), said("pending", reason=Reason.AWAITING_MODEL), []),
        (said("failure"), said("failure", text="other words"), []),
        (said("failure"), said("failure", reason=Reason.TIMEOUT), ["failure"]),
        (said("failure"), said("pending"), []),
        (said("failure"), said("success"), ["success"]),
        (said("success"), said("failure"), []),
        (said("success"), said("failure", reason=Reason.ROLLOUT_FAILED), ["failure"]),
        (said("failure", reason=Reason.ROLLOUT_FAILED), said("failure", reason=Reason.ROLLOUT_FAILED), []),
        (said("failure", reason=Reason.ROLLOUT_FAILED), said("success"), ["success"]),
        (said("success"), said("pending", of=B), ["pending"]),
        (said("failure"), said("success", of=B), ["success"]),
        (said("pending"), said("pending", of=B), ["canceled", "pending"]),
        (said("pending"), said("failure", of=B, reason=Reason.ROLLOUT_FAILED), ["canceled", "failure"]),
        (said("success"), said("failure", of=B, reason=Reason.ROLLOUT_FAILED), ["failure"]),
    ],
)
def test_what_is_news(told: CommitStatus | None, now: CommitStatus | None, news: list[str]) -> None:
    found = untold(told, now)
    assert [status.state for status in found] == news
    if news:
        assert now is not None
        assert found[-1] == now


def test_a_commit_that_was_overtaken_is_not_left_pending() -> None:
    left, _ = untold(said("pending"), said("pending", of=B))
    assert (left.revision, left.reason) == (A, Reason.SUPERSEDED)
    assert left.description == "commit bbbbbbbbbbbb came before this one was applied"
