"""docs/reference/status.md describes every reason that the code gives, with what follows from it, and no other."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from controller.domain.apps.conditions import ConditionType
from controller.domain.apps.status import AppStatus, state_word
from controller.domain.reasons import Reason
from tests.support.pages import ROOT
from tests.support.reasons import reasons

PAGE = (ROOT / "docs" / "reference" / "status.md").read_text()
GIVEN = reasons()
ROW = re.compile(r"^\| (`\w+`(?:, `\w+`)*) \| (retried|waits|stalled|state|event) \|", re.MULTILINE)
DESCRIBED = {reason: row[2] for row in ROW.finditer(PAGE) for reason in re.findall(r"`(\w+)`", row[1])}
#: The page of runs describes the reasons that only runs and stages have.
OF_RUNS = set(re.findall(r"`(\w+)`", (ROOT / "docs" / "reference" / "runs.md").read_text()))


@pytest.mark.parametrize("reason", sorted(GIVEN.keys() - set(ConditionType) - OF_RUNS))
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
    assert reason in GIVEN


@pytest.mark.parametrize("reason", sorted(reason for reason in DESCRIBED if GIVEN.get(Reason(reason))))
def test_what_follows_is_what_the_error_says(reason: str) -> None:
    assert DESCRIBED[reason] in {*GIVEN[Reason(reason)], "state"}


@pytest.mark.parametrize("reason", sorted(reason for reason in DESCRIBED if not GIVEN.get(Reason(reason))))
def test_what_is_no_error_promises_no_retry(reason: str) -> None:
    assert DESCRIBED[reason] in ("state", "event")


def test_every_condition_is_described() -> None:
    for kind in ConditionType:
        assert re.search(rf"^\| `{kind}` \| ", PAGE, re.MULTILINE)


def test_known_reasons_are_found() -> None:
    """Of each way in which an error gets its reason, one: should the reader of the source miss a way, this fails."""
    assert GIVEN[Reason.SECRET_MISSING] == {"stalled"}  # raised
    assert GIVEN[Reason.ENGINE_UNREACHABLE] == {"retried"}  # from a table of the engine's errors
    assert GIVEN[Reason.AUTHENTICATION_FAILED] == {"stalled"}  # from a table of Git's errors
    assert GIVEN[Reason.STATE_BUSY] == {"retried"}  # from a table of SQLite's errors
    assert GIVEN[Reason.CLONE_DAMAGED] == {"retried"}  # a class of its own
    assert GIVEN[Reason.MANIFEST_INVALID] == {"stalled"}
    assert GIVEN[Reason.REPOSITORY_EMPTY] == {"waits"}


def test_the_words_for_states_are_described() -> None:
    assert state_word(AppStatus(app="a")) in PAGE  # type: ignore[arg-type]
