"""When a new commit may be applied."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.adapters.cron import CronTicks
from controller.domain.apps.deploy_gate import DeployRules, DeployWindow, hold_commit
from controller.domain.reasons import Reason

COMMIT, OTHER = "a" * 40, "b" * 40
after = CronTicks().after
NIGHTS = DeployWindow("0 22 * * mon-fri", "Europe/Moscow", 6 * 3600.0)
NOON = DeployWindow("0 12 * * *", "UTC", 3600.0)


def at(text: str) -> float:
    """A time in UTC; 2026-11-30 is a Monday."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def held(rules: DeployRules, now: float, approved: str = "") -> Reason:
    found = hold_commit("demo", COMMIT, rules, approved, now, after)
    return found.reason if found else Reason.NONE


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        ("2026-11-30T18:59:59", Reason.OUTSIDE_WINDOW),
        ("2026-11-30T19:00:00", Reason.NONE),  # 22:00 in Moscow
        ("2026-12-01T00:59:59", Reason.NONE),  # past midnight
        ("2026-12-01T01:00:00", Reason.OUTSIDE_WINDOW),
        ("2026-12-05T00:59:00", Reason.NONE),  # Saturday, in the window of Friday
        ("2026-12-05T19:30:00", Reason.OUTSIDE_WINDOW),  # Saturday evening
    ],
)
def test_windows(now: str, reason: Reason) -> None:
    assert held(DeployRules(False, False, (NIGHTS,)), at(now)) is reason


def test_one_open_window_is_enough() -> None:
    rules = DeployRules(False, False, (NIGHTS, NOON))
    assert held(rules, at("2026-12-06T12:30:00")) is Reason.NONE
    assert held(rules, at("2026-12-06T13:30:00")) is Reason.OUTSIDE_WINDOW


def test_what_is_said_of_a_closed_window() -> None:
    found = hold_commit(
        "demo", COMMIT, DeployRules(False, False, (NOON,)), "", at("2026-11-30T10:00:00"), after
    )
    assert found
    assert found.message == (
        "commit aaaaaaaaaaaa waits: its deploy window opens at 2026-11-30T12:00:00.000Z, in 2h; "
        "to apply it now: prichal approve demo"
    )
    assert found.retry_after == 3600.0, "a clock may be set meanwhile"


def test_a_window_that_never_opens_is_said_to() -> None:
    def never(cron: str, timezone: str, moment: float) -> float:
        return math.inf

    found = hold_commit("demo", COMMIT, DeployRules(False, False, (NOON,)), "", 0.0, never)
    assert found
    assert "no deploy window ever opens again" in found.message
    assert found.retry_after == 3600.0


@pytest.mark.parametrize(
    ("rules", "approved", "reason"),
    [
        (DeployRules(False, False), "", Reason.NONE),
        (DeployRules(False, True), "", Reason.AWAITING_APPROVAL),
        (DeployRules(False, True), OTHER, Reason.AWAITING_APPROVAL),
        (DeployRules(False, True), COMMIT, Reason.NONE),
        (DeployRules(False, True, (NOON,)), COMMIT, Reason.NONE),
        (DeployRules(False, False, (NOON,)), COMMIT, Reason.NONE),
        (DeployRules(True, False), COMMIT, Reason.FROZEN),
        (DeployRules(True, True, (NOON,)), COMMIT, Reason.FROZEN),
    ],
)
def test_a_person_opens_what_the_operator_has_not_frozen(
    rules: DeployRules, approved: str, reason: Reason
) -> None:
    assert held(rules, at("2026-11-30T03:00:00"), approved) is reason


@pytest.mark.parametrize(
    ("cron", "timezone", "opens", "closes"),
    [
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-29T01:00:00",
            "2026-03-29T02:00:00",
        ),  # 02:30 is skipped: at 03:00
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00", "2026-10-25T01:30:00"),  # 02:30 is there twice
        (
            "0 2 * * sun",
            "Australia/Lord_Howe",
            "2026-10-03T15:30:00",
            "2026-10-03T16:30:00",
        ),  # half an hour is skipped
        (
            "45 23 31 * *",
            "Asia/Kathmandu",
            "2026-12-31T18:00:00",
            "2026-12-31T19:00:00",
        ),  # into the next year
        ("0 0 29 feb *", "UTC", "2028-02-29T00:00:00", "2028-02-29T01:00:00"),
    ],
)
def test_when_clocks_and_months_change(cron: str, timezone: str, opens: str, closes: str) -> None:
    rules = DeployRules(False, False, (DeployWindow(cron, timezone, 3600.0),))
    assert held(rules, at(opens) - 1) is Reason.OUTSIDE_WINDOW
    assert held(rules, at(opens)) is Reason.NONE
    assert held(rules, at(closes) - 1) is Reason.NONE
    assert held(rules, at(closes)) is Reason.OUTSIDE_WINDOW


CRONS = ("0 22 * * mon-fri", "30 2 * * *", "*/30 * * * *", "59 23 31 * *", "15 */6 1-7 * *", "0 2-3 * * sun")
ZONES = (
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "America/St_Johns",
    "Africa/Casablanca",
    "Antarctica/Troll",
    "UTC",
)


@given(
    st.integers(0, 2 * 365 * 86400), st.integers(1, 48 * 3600), st.sampled_from(CRONS), st.sampled_from(ZONES)
)
def test_a_window_opens_when_it_is_said_to(seconds: int, duration: int, cron: str, timezone: str) -> None:
    rules = DeployRules(False, False, (DeployWindow(cron, timezone, float(duration)),))
    now = at("2026-01-01T00:00:00") + seconds
    found = hold_commit("demo", COMMIT, rules, "", now, after)
    if found:
        opens = after(cron, timezone, now)
        assert hold_commit("demo", COMMIT, rules, "", opens - 1, after)
        assert hold_commit("demo", COMMIT, rules, "", opens, after) is None
