"""The filters of the list of runs, as they stand in an address."""

from __future__ import annotations

from datetime import date

import pytest

from controller.domain.runs.run import RunCause, RunFilter, RunState, new_run_id
from controller.web.pages.runs import RunQuery
from controller.web.problems import RequestRefused
from controller.web.query import QueryParameters
from tests.support.runs import TRAIN

NOON = 1_790_078_400.0  # 2026-09-22T12:00:00Z
HOUR = 3600.0


def asked(text: str) -> RunQuery:
    return RunQuery.of(QueryParameters.of(text.encode()))


def test_an_address_is_that_of_the_filters_it_came_from() -> None:
    text = "state=failed&cause=schedule&who=person%3A%D0%B0%D0%BD%D0%BD%D0%B0&from=2026-09-22&to=2026-09-23"
    assert asked(text).address == f"?{text}"
    assert asked("").address == asked("state=&cause=&who=&from=&to=&after=nonsense").address == ""
    assert asked("state=failed&cause=retry&who=%20ann%20").filter(TRAIN) == RunFilter(
        TRAIN, RunState.FAILED, owner="ann", cause=RunCause.RETRY
    )


@pytest.mark.parametrize(
    ("text", "hours", "is_listed"),
    [
        ("from=2026-09-22", -12, True),
        ("from=2026-09-22", -12.1, False),
        ("to=2026-09-22", 11.9, True),
        ("to=2026-09-22", 12, False),
        ("from=2026-09-22&to=2026-09-22", 0, True),
        ("from=2026-09-23&to=2026-09-22", 0, False),
        ("", 0, True),
    ],
)
def test_days_are_whole_days_in_utc(text: str, hours: float, is_listed: bool) -> None:
    wanted, id = asked(text).filter(TRAIN), new_run_id(NOON + hours * HOUR, 5)
    assert (wanted.since <= id and (not wanted.after or id < wanted.after)) is is_listed


def test_the_next_page_is_within_the_days() -> None:
    newest, older = new_run_id(NOON + 100 * HOUR, 0), new_run_id(NOON, 0)
    assert asked(f"to=2026-09-22&after={older}").filter(TRAIN).after == older
    assert asked(f"to=2026-09-22&after={newest}").filter(TRAIN).after < newest


@pytest.mark.parametrize(
    "text",
    ["state=done", "cause=me", "from=yesterday", "to=0001-01-01", "from=9999-12-31", "from=2026-13-01"],
)
def test_what_cannot_be_asked_is_refused(text: str) -> None:
    with pytest.raises(RequestRefused):
        asked(text)


def test_a_day_of_a_query_is_a_date() -> None:
    assert asked("from=2026-09-22").first == date(2026, 9, 22)
