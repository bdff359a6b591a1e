"""Schedules: which tick is due and what becomes of it, whatever clocks do and however long nobody looked."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.apps.spec import CronSchedule, Overlap
from controller.domain.names import AppName, ComponentName
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import Run, new_run
from controller.domain.runs.schedules import (
    After,
    Checkpoint,
    ScheduleState,
    Skip,
    Start,
    check_ticks,
    decide,
)
from tests.support.specs import make

HOURLY = make(CronSchedule, "0 * * * *")
HOUR = 3600.0


def hourly(moment: float) -> float:
    return math.floor(moment / HOUR) * HOUR + HOUR


def at(ticks: Iterable[float]) -> After:
    """Ticks at just these moments."""
    listed = sorted(ticks)

    def after(moment: float) -> float:
        place = bisect_right(listed, moment)
        return listed[place] if place < len(listed) else math.inf

    return after


def scheduled(mark: Checkpoint | None, schedule: CronSchedule = HOURLY) -> ScheduleState:
    return ScheduleState(AppName("demo"), ComponentName("train"), schedule, mark)


def mark(last: float, schedule: CronSchedule = HOURLY) -> Checkpoint:
    return Checkpoint(schedule.cron, schedule.timezone, last, hourly(last))


def run(id: str = "a1") -> Run:
    pipeline = make(
        Pipeline, AppName("demo"), ComponentName("train"), "c0ffee", (make(Stage, "fit", "image:1"),)
    )
    return new_run(id, pipeline, 1.0, cause="schedule", public=True)


def test_a_new_schedule_begins_now() -> None:
    assert check_ticks(scheduled(None), 5 * HOUR + 1, hourly) == (mark(5 * HOUR + 1), None)
    assert check_ticks(scheduled(None), 5 * HOUR, hourly) == (mark(5 * HOUR), None), (
        "its first tick is the next one"
    )


@pytest.mark.parametrize(
    "other", [make(CronSchedule, "1 * * * *"), make(CronSchedule, "0 * * * *", "Europe/Berlin")]
)
def test_a_changed_schedule_begins_now(other: CronSchedule) -> None:
    now = 9 * HOUR + 1
    assert check_ticks(scheduled(mark(HOUR, other)), now, hourly) == (mark(now), None)


def test_another_overlap_rule_is_no_other_schedule() -> None:
    allowing = CronSchedule(HOURLY.cron, HOURLY.timezone, Overlap.ALLOW)
    assert check_ticks(scheduled(mark(HOUR), allowing), 2 * HOUR, hourly)[1] == 2 * HOUR


def test_a_tick_is_due_from_its_moment_on() -> None:
    before = mark(HOUR)
    assert check_ticks(scheduled(before), 2 * HOUR - 0.001, hourly) == (before, None)
    assert check_ticks(scheduled(before), 2 * HOUR, hourly) == (mark(2 * HOUR), 2 * HOUR)


def test_of_those_missed_the_newest_is_made_up_for() -> None:
    after, due = check_ticks(scheduled(mark(HOUR)), 99.5 * HOUR, hourly)
    assert (after, due) == (mark(99 * HOUR), 99 * HOUR)
    assert check_ticks(scheduled(after), 99.5 * HOUR, hourly) == (after, None)


def test_a_year_of_minutes_is_made_up_for_at_once() -> None:
    asked = []

    def minutely(moment: float) -> float:
        asked.append(moment)
        return math.floor(moment / 60) * 60 + 60

    year = 365 * 86400.0
    before = Checkpoint(HOURLY.cron, HOURLY.timezone, 0.0, 60.0)
    assert check_ticks(scheduled(before), year + 1, minutely)[1] == year
    assert len(asked) < 100


def test_a_clock_set_back_stalls_nothing() -> None:
    """What has been run is kept elsewhere: here the schedule begins again."""
    after, due = check_ticks(scheduled(mark(1000 * HOUR)), 10.5 * HOUR, hourly)
    assert (after, due) == (mark(10.5 * HOUR), None)
    assert check_ticks(scheduled(after), 11 * HOUR, hourly)[1] == 11 * HOUR


def test_no_tick_will_come() -> None:
    after, due = check_ticks(scheduled(Checkpoint(HOURLY.cron, HOURLY.timezone, 1.0, 2.0)), 3.0, at([2.0]))
    assert (after.next, due) == (math.inf, 2.0)
    assert check_ticks(scheduled(after), 1e12, at([2.0])) == (after, None)


def test_overlap() -> None:
    one, two = run("a1"), run("a2")
    for overlap in Overlap:
        assert decide(overlap, ()) == Start()
    assert decide(Overlap.ALLOW, (one, two)) == Start()
    assert decide(Overlap.FORBID, (one, two)) == Skip(one)
    assert decide(Overlap.REPLACE, (one, two)) == Start((one, two))


# --- properties -----------------------------------------------------------------------------------------------------

MOMENTS = st.integers(0, 10_000).map(float)


@given(st.sets(MOMENTS, min_size=1), MOMENTS, st.lists(MOMENTS, min_size=1))
def test_one_run_for_all_that_was_missed_between_two_looks(
    ticks: set[float], begin: float, looks: list[float]
) -> None:
    """Time goes on: every look that finds ticks since the one before starts just the newest, and none comes twice."""
    after, now = at(ticks), begin
    found, _ = check_ticks(scheduled(None), begin, after)
    for following in sorted(each for each in looks if each >= begin):
        missed = [tick for tick in ticks if now < tick <= following]
        moved, due = check_ticks(scheduled(found), following, after)
        assert due == max(missed, default=None)
        assert moved.at >= found.at
        assert moved.next == after(following)
        found, now = moved, following


@given(st.sets(MOMENTS, min_size=1), st.lists(MOMENTS, min_size=1))
def test_whatever_clocks_do(ticks: set[float], looks: list[float]) -> None:
    """They jump at every look. A tick is run once, none that lies in the future, none from before the schedule began;
    and after a look no tick that is still to come is passed over."""
    after, run = at(ticks), set[float]()
    found, _ = check_ticks(scheduled(None), looks[0], after)
    for now in looks[1:]:
        moved, due = check_ticks(scheduled(found), now, after)
        if due is not None and due not in run:  # as the store sees to
            assert found.at < due <= now
            run.add(due)
        assert moved.at <= now
        assert moved.next == after(now), "the next one is awaited, wherever the clock stands"
        assert check_ticks(scheduled(moved), now, after) == (moved, None), "looking twice does nothing"
        found = moved
