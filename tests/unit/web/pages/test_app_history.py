"""Which entries of a history lead back, and from where."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.domain.apps.history import AppliedRevision
from controller.domain.apps.status import AppStatus, Rollback
from controller.domain.names import AppName
from controller.web.pages.app_history import shown_history

DEMO = AppName("demo")
A, B, C = (letter * 40 for letter in "abc")
AT_C = AppStatus(DEMO, attempted_revision=C)


def entry(id: int, revision: str, outcome: str = "Ready") -> AppliedRevision:
    return AppliedRevision(DEMO, revision, "", "", ("push", "sunrise"), 1.0, 2.0, outcome, "", "", id)


HISTORY = (entry(5, C), entry(4, B, "Failed"), entry(3, A), entry(2, B), entry(1, A))


@pytest.mark.parametrize(
    ("status", "back"),
    [
        (AT_C, [3, 2]),
        (replace(AT_C, rollback=Rollback(A, C, "anna", 1.0)), [2]),
        (replace(AT_C, suspended=True), []),
    ],
)
def test_the_newest_good_entry_of_each_other_revision(status: AppStatus, back: list[int]) -> None:
    found = shown_history(status, HISTORY)
    assert [each.applied.id for each in found if each.leads_back] == back
    assert [each.before for each in found] == [4, 3, 2, 1, 0]
    assert found[0].why == ("push", "sunrise"), "a trigger that this release does not know is shown as it is"


def test_an_app_without_a_history() -> None:
    assert shown_history(AT_C, ()) == []
