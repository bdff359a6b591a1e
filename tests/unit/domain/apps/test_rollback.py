"""Which revision a rollback leads to, and which one is believed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.domain.apps.conditions import Condition, ConditionType
from controller.domain.apps.history import AppliedRevision
from controller.domain.apps.rollback import decide_rollback, earlier_images, entry_of, holding, is_credible
from controller.domain.apps.status import AppStatus, Rollback
from controller.domain.errors import Stalled
from controller.domain.names import AppName
from controller.domain.reasons import Reason

DEMO = AppName("demo")
A, B, C, D = (letter * 40 for letter in "abcd")
AT_C = AppStatus(DEMO, attempted_revision=C, applied_revision=C)


def entry(id: int, revision: str, outcome: str = "Ready") -> AppliedRevision:
    return AppliedRevision(DEMO, revision, "", "", (), 1.0, 2.0, outcome, "", "", id)


HISTORY = (entry(4, C), entry(3, B, "Degraded"), entry(2, A), entry(1, D))


def decided(status: AppStatus = AT_C, wanted: str | None = None) -> str:
    return decide_rollback(status, HISTORY, wanted, "anna", 5.0).revision


def test_the_newest_one_before_that_was_ready() -> None:
    assert decide_rollback(AT_C, HISTORY, None, "anna", 5.0) == Rollback(A, C, "anna", 5.0)
    failed = (entry(5, C, "Failed"), entry(4, B), entry(3, A))
    assert decide_rollback(AT_C, failed, None, "anna", 5.0).revision == B


@pytest.mark.parametrize(("wanted", "revision"), [("bbbb", B), (B, B), ("3", B), ("1", D), ("dddd", D)])
def test_the_one_that_is_named_whatever_became_of_it(wanted: str, revision: str) -> None:
    assert decided(wanted=wanted) == revision


@pytest.mark.parametrize(
    ("wanted", "reason", "told"),
    [
        ("ffff", Reason.UNKNOWN_REVISION, "no revision 'ffff'"),
        ("bbb", Reason.UNKNOWN_REVISION, "no revision 'bbb'"),
        ("9", Reason.UNKNOWN_REVISION, "no revision '9'"),
        ("", Reason.UNKNOWN_REVISION, "no revision ''"),
        ("cccc", Reason.ROLLBACK_REFUSED, "name an earlier one"),
        ("4", Reason.ROLLBACK_REFUSED, "name an earlier one"),
    ],
)
def test_what_cannot_be_gone_back_to(wanted: str, reason: Reason, told: str) -> None:
    with pytest.raises(Stalled, match=told) as error:
        decided(wanted=wanted)
    assert error.value.reason == reason


def test_the_beginning_of_several_revisions() -> None:
    near = "aaaab" + "0" * 35
    history = (*HISTORY, entry(0, near))
    with pytest.raises(Stalled, match=f"beginning of {A[:12]}, {near[:12]}") as error:
        decide_rollback(AT_C, history, "aaaa", "anna", 5.0)
    assert error.value.reason == Reason.UNKNOWN_REVISION
    assert decide_rollback(AT_C, history, "aaaab", "anna", 5.0).revision == near


def test_nothing_to_go_back_to() -> None:
    for status, history in ((AT_C, ()), (AppStatus(DEMO), HISTORY)):
        with pytest.raises(Stalled, match="nothing was applied"):
            decide_rollback(status, history, None, "anna", 5.0)
    with pytest.raises(Stalled, match="no revision of demo before cccccccccccc was ready"):
        decide_rollback(AT_C, (entry(1, C), entry(0, B, "Failed")), None, "anna", 5.0)


@pytest.mark.parametrize("by_manifest", [False, True])
def test_a_suspended_app_is_not_changed(by_manifest: bool) -> None:
    condition = Condition(ConditionType.SUSPENDED, True, Reason.SUSPENDED, "")
    suspended = replace(AT_C, suspended=not by_manifest, conditions=(condition,) if by_manifest else ())
    with pytest.raises(Stalled, match="prichal resume demo") as error:
        decided(suspended)
    assert error.value.reason == Reason.ROLLBACK_REFUSED


def test_twice_and_two_people_at_once() -> None:
    """The second one asks for the same as the first one, and does not go back further."""
    first = decide_rollback(AT_C, HISTORY, None, "anna", 5.0)
    rolled = replace(AT_C, rollback=first)
    assert decide_rollback(rolled, HISTORY, None, "bob", 6.0) == first
    assert decide_rollback(rolled, HISTORY, "dddd", "bob", 6.0) == Rollback(D, C, "bob", 6.0)
    with pytest.raises(Stalled, match="go on to it with: prichal resume demo"):
        decided(rolled, "cccc")


def test_only_what_was_applied_is_believed() -> None:
    """Other processes write rollbacks: one to a commit that was never applied is not verified."""
    forged = replace(AT_C, rollback=Rollback("e" * 40, C, "mallory", 5.0))
    assert not is_credible(forged, HISTORY)
    assert is_credible(replace(AT_C, rollback=Rollback(A, C, "anna", 5.0)), HISTORY)
    held = replace(forged, desired_revision="e" * 40)
    assert is_credible(held, ()), "the history was lost, but the daemon holds this revision already"


def test_the_entry_with_the_images_of_a_revision() -> None:
    entries = (entry(3, A, "Degraded"), entry(2, A), entry(1, B, "Failed"))
    assert (entry_of(entries, A), entry_of(entries, B), entry_of(entries, C)) == (
        entries[1],
        entries[2],
        None,
    )


def test_images_of_earlier_revisions() -> None:
    def with_images(revision: str, outcome: str, *images: str) -> AppliedRevision:
        pins = tuple((image, f"build {image}") for image in images)
        return replace(entry(1, revision, outcome), pins=pins)

    history = (
        with_images(C, "Ready", "c"),
        with_images(B, "Degraded", "half"),
        with_images(B, "Ready", "b", "both"),
        with_images(A, "Ready", "both", "a"),
        with_images(D, "Failed", "d"),
    )
    assert earlier_images(history, C, 3) == {"b": B, "both": B, "a": A}
    assert earlier_images(history, B, 1) == {"c": C}
    assert earlier_images(history, C, 0) == {}


def test_the_condition_says_who_and_until_when() -> None:
    condition = holding(DEMO, Rollback(A, C, "anna", 0.0), is_there=True)
    assert condition.message == (
        "revision aaaaaaaaaaaa is held since 1970-01-01T00:00:00.000Z, by anna; "
        "a new commit or `prichal resume demo` goes on"
    )
    assert (condition.type, condition.reason, condition.revision) == ("RolledBack", "RolledBack", A)
