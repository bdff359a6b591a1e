"""docs/reference/status.md describes every reason that the code gives, with what follows from it, and no other."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import pytest

from controller.domain.apps.conditions import ConditionType
from controller.domain.apps.status import AppStatus, state_word
from controller.domain.reasons import Reason
from tests.support.pages import ROOT
from tests.support.reasons import reasons

PAGE = (ROOT / "docs" / "reference" / "status.md").read_text()
given = cache(
    reasons
)  # reading the source takes longer than all tests here, so it is not done for a selection
ROW = re.compile(r"^\| (`\w+`(?:, `\w+`)*) \| (retried|waits|stalled|state|event) \|", re.MULTILINE)
DESCRIBED = {reason: row[2] for row in ROW.finditer(PAGE) for reason in re.findall(r"`(\w+)`", row[1])}
#: The page of runs describes the reasons that only runs and stages have.
OF_RUNS = set(re.findall(r"`(\w+)`", (ROOT / "docs" / "reference" / "runs.md").read_text()))


@pytest.mark.parametrize("reason", sorted(set(filter(None, Reason)) - set(ConditionType) - OF_RUNS))
def test_every_reason_is_described(reason: str) -> None:
    assert reason in DESCRIBED, f"add {reason} to docs/reference/status.md"


def test_no_reason_is_described_twice() -> None:
    rows = [reason for row in ROW.finditer(PAGE) for reason in re.findall(r"`(\w+)`", row[1])]
    assert [reason for reason, count in Counter(rows).items() if count > 1] == []


def test_no_table_follows_another_without_a_sentence() -> None:
    """Two tables in a row mean that a merge kept both of them."""
    assert not re.search(r"^\|.*\n(?!\||\n|$)", PAGE, re.MULTILINE)


@pytest.mark.parametrize("reason", sorted(DESCRIBED))
def test_no_reason_is_invented(reason: str) -> None:
    assert reason in given()


@pytest.mark.parametrize("reason", sorted(DESCRIBED))
def test_what_follows_is_what_the_error_says(reason: str) -> None:
    """A reason that no error has promises no retry."""
    assert DESCRIBED[reason] in {*(given()[Reason(reason)] or {"event"}), "state"}


def test_every_condition_is_described() -> None:
    for kind in ConditionType:
        assert re.search(rf"^\| `{kind}` \| ", PAGE, re.MULTILINE)


def test_known_reasons_are_found() -> None:
    """Of each way in which an error gets its reason, one: should the reader of the source miss a way, this fails."""
    assert given()[Reason.SECRET_MISSING] == {"stalled"}  # raised
    assert given()[Reason.ENGINE_UNREACHABLE] == {"retried"}  # from a table of the engine's errors
    assert given()[Reason.AUTHENTICATION_FAILED] == {"stalled"}  # from a table of Git's errors
    assert given()[Reason.STATE_BUSY] == {"retried"}  # from a table of SQLite's errors
    assert given()[Reason.CLONE_DAMAGED] == {"retried"}  # a class of its own
    assert given()[Reason.MANIFEST_INVALID] == {"stalled"}
    assert given()[Reason.REPOSITORY_EMPTY] == {"waits"}


def test_the_words_for_states_are_described() -> None:
    assert state_word(AppStatus(app="a")) in PAGE  # type: ignore[arg-type]
