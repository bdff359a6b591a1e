"""Commits that wait for a person or a window, while everything else goes on."""

from __future__ import annotations

import pytest

from controller.domain.apps.conditions import ConditionType, is_ready
from controller.domain.apps.deploy_gate import DeployRules, DeployWindow
from controller.domain.apps.requests import Outcome
from controller.domain.reasons import Reason
from controller.reconcile.next_pass import preview
from tests.unit.reconcile.crashing import ENOUGH, die_at
from tests.unit.reconcile.harness import APP, Harness, api, app, ml

APPROVAL = DeployRules(frozen=False, approval=True)
FROZEN = DeployRules(frozen=True, approval=False)
#: The harness begins on 2023-11-14 at 22:13:20 UTC.
LATER = DeployRules(False, False, (DeployWindow("0 23 * * *", "UTC", 3600.0),))


def serve(harness: Harness, rules: DeployRules) -> tuple[str, str]:
    """A commit is in force, and the next one is held."""
    harness.connect(app())
    first = harness.push(ml(), api())
    harness.run()
    harness.connect(app(deploy=rules))
    second = harness.push(ml(image="demo:2"), api())
    harness.run()
    assert harness.route().revision == first
    return first, second


def approve(harness: Harness, commit: str) -> None:
    harness.store.apps.approve(APP, commit)


@pytest.mark.parametrize(
    ("rules", "reason"),
    [(APPROVAL, "AwaitingApproval"), (FROZEN, "Frozen"), (LATER, "OutsideWindow")],
    ids=["approval", "frozen", "window"],
)
def test_a_held_commit_changes_nothing_and_says_so_once(
    harness: Harness, rules: DeployRules, reason: str
) -> None:
    first, second = serve(harness, rules)
    assert (harness.outcome.name, harness.outcome.revision) == (Outcome.HELD, second)
    status = harness.status()
    assert is_ready(status.conditions)
    assert (status.applied_revision, status.attempted_revision) == (first, second)
    held = harness.condition(ConditionType.DEPLOY_PENDING)
    assert held
    assert (held.reason, held.revision) == (reason, second)
    harness.settle()
    assert harness.events().count(reason) == 1
    assert harness.events().count("NewRevision") == 2


def test_what_is_in_force_is_repaired_meanwhile(harness: Harness) -> None:
    first, _ = serve(harness, FROZEN)
    for workload in harness.running():
        harness.engine.exit(workload.id)
    harness.run("container")
    harness.settle()
    assert [w.revision for w in harness.running()] == [first]
    assert harness.condition(ConditionType.DEPLOY_PENDING)


def test_an_approved_commit_is_applied_and_the_next_one_waits_again(harness: Harness) -> None:
    _, second = serve(harness, APPROVAL)
    approve(harness, second)
    assert harness.run("manual").name is Outcome.READY
    assert harness.route().revision == second
    assert not harness.condition(ConditionType.DEPLOY_PENDING)
    third = harness.push(ml(image="demo:3"), api())
    assert harness.run().name is Outcome.HELD
    assert harness.route().revision == second
    approve(harness, second)
    harness.run("manual")
    assert harness.route().revision == second, "the approval of another commit does not count"
    approve(harness, third)
    harness.run("manual")
    assert harness.route().revision == third


def test_the_first_commit_waits_too(harness: Harness) -> None:
    harness.connect(app(deploy=APPROVAL))
    commit = harness.push(ml(), api())
    assert harness.run().name is Outcome.WAITING
    ready = harness.condition(ConditionType.READY)
    assert ready
    assert (ready.status, ready.reason) == (False, Reason.AWAITING_APPROVAL)
    assert not harness.engine.names()
    approve(harness, commit)
    assert harness.run("manual").name is Outcome.READY


def test_a_window_opens_by_itself(harness: Harness) -> None:
    _, second = serve(harness, LATER)
    assert harness.outcome.retry_after == pytest.approx(46 * 60 + 40, abs=1.0)
    assert harness.retry().name is Outcome.READY
    assert harness.route().revision == second


def test_nobody_approves_what_is_frozen(harness: Harness) -> None:
    first, second = serve(harness, FROZEN)
    approve(harness, second)
    harness.run("manual")
    assert harness.route().revision == first
    harness.connect(app())
    harness.run("platform")
    assert harness.route().revision == second


def test_the_plan_shows_what_the_held_commit_would_do(harness: Harness) -> None:
    _, second = serve(harness, APPROVAL)
    shown = preview(harness.deps, APP)
    assert (shown.plan.revision, shown.revision.commit) == (second, second)
    assert shown.plan.actions
    assert any(warning.startswith("AwaitingApproval: ") for warning in shown.warnings)


def test_going_back_needs_no_approval(harness: Harness) -> None:
    first, second = serve(harness, APPROVAL)
    approve(harness, second)
    harness.run("manual")
    harness.roll_back()
    harness.run("rollback")
    assert harness.route().revision == first
    harness.run("retry")
    third = harness.push(ml(image="demo:3"), api())
    harness.run()
    assert harness.route().revision == first, "the next commit waits where the app was rolled back to"
    approve(harness, third)
    harness.run("manual")
    assert harness.route().revision == third


def test_a_commit_with_errors_waits_like_any_other(harness: Harness) -> None:
    serve(harness, APPROVAL)
    bad = harness.push("kind: MLComponent", api())
    harness.run()
    assert not harness.condition(ConditionType.MANIFEST_INVALID)
    approve(harness, bad)
    harness.run("manual")
    assert harness.condition(ConditionType.MANIFEST_INVALID)
    assert not harness.condition(ConditionType.DEPLOY_PENDING)


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
def test_the_daemon_dies_anywhere_and_applies_no_commit_too_early(harness: Harness, after: bool) -> None:
    first, second = serve(harness, APPROVAL)
    for number in range(1, ENOUGH):
        died = die_at(harness, number, after)
        harness.run("start")
        assert harness.route().revision == first, f"after death at call {number}"
        if not died:
            break
    approve(harness, second)
    harness.run("manual")
    assert harness.route().revision == second
