"""Ticks of cron expressions: golden tables where clocks change, an oracle that looks at every minute, and agreement
with what manifests may have."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim, CronSimError
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from controller.adapters.cron import CronTicks
from controller.domain.cron import is_cron

TICKS = CronTicks()


def local(cron: str, zone: str, begin: str, count: int) -> list[str]:
    """The first ticks after a moment of UTC, as clocks there show them, with the offset."""
    moment = datetime.fromisoformat(f"{begin}+00:00").timestamp()
    found = []
    for _ in range(count):
        moment = TICKS.after(cron, zone, moment)
        found.append(f"{datetime.fromtimestamp(moment, ZoneInfo(zone)):%d %H:%M %z}")
    return found


SPRING, AUTUMN = "2026-03-28T12:00", "2026-10-24T12:00"  # the days before, in Europe

CHANGES = {
    # 02:00 to 03:00 is left out: a time of day comes right after, once
    "left out": ("30 2 * * *", "Europe/Berlin", SPRING, ["29 03:00 +0200", "30 02:30 +0200"]),
    "left out, twice": ("0,30 2 * * *", "Europe/Berlin", SPRING, ["29 03:00 +0200", "30 02:00 +0200"]),
    "left out, and then": ("30 2,3 * * *", "Europe/Berlin", SPRING, ["29 03:00 +0200", "29 03:30 +0200"]),
    "left out, by the hour": ("15 0-23/2 * * *", "Europe/Berlin", "2026-03-29T00:00",
                              ["29 03:00 +0200", "29 04:15 +0200"]),
    "left out, wall": ("0 */2 * * *", "Europe/Berlin", "2026-03-28T22:30", ["29 00:00 +0100", "29 04:00 +0200"]),
    "left out, minutes": ("*/30 1-3 * * *", "Europe/Berlin", "2026-03-29T00:00",
                          ["29 01:30 +0100", "29 03:00 +0200", "29 03:30 +0200", "30 01:00 +0200"]),
    # 02:00 to 03:00 comes twice
    "repeated": ("30 2 * * *", "Europe/Berlin", AUTUMN, ["25 02:30 +0200", "26 02:30 +0100"]),
    "repeated, after the first": ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:45", ["26 02:30 +0100"]),
    "repeated, in the second": ("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10", ["26 02:30 +0100"]),
    "repeated, wall": ("30 * * * *", "Europe/Berlin", "2026-10-25T00:00",
                       ["25 02:30 +0200", "25 02:30 +0100", "25 03:30 +0100"]),
    "repeated, minutes": ("*/30 2 * * *", "Europe/Berlin", AUTUMN,
                          ["25 02:00 +0200", "25 02:30 +0200", "25 02:00 +0100", "25 02:30 +0100", "26 02:00 +0100"]),
    # Lord Howe Island changes by half an hour: 02:00 to 02:30 is left out, 01:30 to 02:00 comes twice
    "half an hour left out": ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00",
                              ["04 02:30 +1100", "05 02:15 +1100"]),
    "half an hour left out, wall": ("*/15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00",
                                    ["04 02:30 +1100", "04 02:45 +1100", "05 02:00 +1100"]),
    "half an hour left out, later": ("*/20 5 * * *", "Australia/Lord_Howe", "2026-10-03T12:00",
                                     ["04 05:00 +1100", "04 05:20 +1100", "04 05:40 +1100"]),
    "half an hour repeated": ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00",
                              ["05 01:45 +1100", "06 01:45 +1030"]),
    "half an hour repeated, wall": ("45 * * * *", "Australia/Lord_Howe", "2026-04-04T14:30",
                                    ["05 01:45 +1100", "05 01:45 +1030", "05 02:45 +1030"]),
    "half an hour repeated, later": ("*/20 5 * * *", "Australia/Lord_Howe", "2026-04-04T12:00",
                                     ["05 05:00 +1030", "05 05:20 +1030"]),
    # clocks that change at midnight: the day begins at 01:00
    "midnight left out": ("0 0 * * *", "Asia/Beirut", "2026-03-28T12:00", ["29 01:00 +0300", "30 00:00 +0300"]),
    "midnight left out, wall": ("*/30 0 * * *", "Asia/Beirut", "2026-03-28T12:00", ["30 00:00 +0300"]),
    "midnight left out, of a Sunday": ("*/30 0 * * sun", "Asia/Beirut", "2026-03-28T12:00",
                                       ["05 00:00 +0300", "05 00:30 +0300"]),
    # a whole day was left out
    "a day left out": ("0 12 30 12 *", "Pacific/Apia", "2011-12-29T12:00", ["31 00:00 +1400", "30 12:00 +1400"]),
    "no change": ("0 3 * * *", "Europe/Moscow", SPRING, ["29 03:00 +0300", "30 03:00 +0300"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_when_clocks_change(name: str) -> None:
    cron, zone, begin, expected = CHANGES[name]
    assert local(cron, zone, begin, len(expected)) == expected


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 0 29 2 *", "2028-02-29"),
        ("0 0 13 * fri", "2026-01-02"),  # both days restricted: either suffices
        ("0 0 */13 * fri", "2026-02-27"),  # one begins with a star: both are needed
        ("0 0 29 2 */7", "2032-02-29"),
    ],
)
def test_days(cron: str, expected: str) -> None:
    begin = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()
    assert f"{datetime.fromtimestamp(TICKS.after(cron, 'UTC', begin), UTC):%Y-%m-%d}" == expected


# --- an oracle ----------------------------------------------------------------------------------------------------

ZONES = (
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "Asia/Beirut",
    "America/Havana",
    "Africa/Casablanca",
    "Asia/Kolkata",
)


def numbers(low: int, high: int) -> st.SearchStrategy[str]:
    one = st.integers(low, high)
    spans = st.tuples(one, one).filter(lambda pair: pair[0] < pair[1])
    steps = st.integers(1, high)
    part = st.one_of(
        one.map(str),
        spans.map(lambda pair: f"{pair[0]}-{pair[1]}"),
        st.tuples(spans, steps).map(lambda each: f"{each[0][0]}-{each[0][1]}/{each[1]}"),
        st.tuples(one, steps).map(lambda each: f"{each[0]}/{each[1]}"),
        steps.map(lambda step: f"*/{step}"),
    )
    return st.one_of(st.just("*"), part, st.lists(part, min_size=2, max_size=3).map(",".join))


CRONS = st.tuples(
    numbers(0, 59), numbers(0, 23), numbers(1, 31), numbers(1, 12), numbers(0, 7) | st.sampled_from(("mon", "SUN-wed"))
).map(" ".join)  # fmt: skip
FREQUENT = st.tuples(numbers(0, 59), numbers(0, 23), st.just("*"), st.just("*"), numbers(0, 7)).map(" ".join)
NEAR_CHANGES = [
    datetime.fromisoformat(f"{day}T00:00+00:00").timestamp()
    for day in ("2026-03-28", "2026-10-24", "2026-10-03", "2026-04-04", "2026-03-07", "2026-10-31", "2026-02-14",
                "2026-03-21")
]  # fmt: skip
MOMENTS = st.builds(
    lambda day, seconds: day + seconds, st.sampled_from(NEAR_CHANGES), st.floats(0, 2 * 86400, width=32)
)


HOURS = 6


def fitting(cron: str, moment: float, zone: ZoneInfo) -> list[float]:
    """Of the minutes after a moment, those at which clocks show a time that fits; by the library's calendar, without
    its way through changes."""
    first = math.floor(moment / 60) * 60 + 60
    shown = {
        m: datetime.fromtimestamp(m, zone).replace(tzinfo=None)
        for m in range(first, first + HOURS * 3600, 60)
    }
    begin, end = min(shown.values()) - timedelta(seconds=1), max(shown.values())
    times = set(takewhile(lambda time: time <= end, CronSim(cron, begin)))
    return [m for m, time in shown.items() if time in times]


@settings(deadline=None, max_examples=50)
@given(FREQUENT, st.sampled_from(ZONES), MOMENTS)
def test_on_the_wall_every_minute_that_fits_is_a_tick(cron: str, zone: str, moment: float) -> None:
    minute, hour, *_ = cron.split()
    assume(minute.startswith("*") or hour.startswith("*"))
    tick = TICKS.after(cron, zone, moment)
    expected = fitting(cron, moment, ZoneInfo(zone))
    assert tick == expected[0] if expected else tick >= moment + HOURS * 3600


@settings(deadline=None, max_examples=50)
@given(FREQUENT, st.sampled_from(ZONES), MOMENTS, st.floats(0, 1))
def test_from_anywhere_the_same_ticks(cron: str, zone: str, moment: float, part: float) -> None:
    """The next tick is the same one from anywhere before it."""
    tick = TICKS.after(cron, zone, moment)
    assert tick > moment
    between = moment + (tick - moment) * part
    assume(between < tick)
    assert TICKS.after(cron, zone, between) == tick


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(FREQUENT, st.sampled_from(ZONES), MOMENTS)
def test_a_time_of_day_comes_once_a_day(cron: str, zone: str, moment: float) -> None:
    """However clocks change, no day has a time twice."""
    minute, hour, *_ = cron.split()
    assume(not minute.startswith("*") and not hour.startswith("*"))
    ticks, shown = [moment], set()
    for _ in range(20):
        ticks.append(TICKS.after(cron, zone, ticks[-1]))
        shown.add(f"{datetime.fromtimestamp(ticks[-1], ZoneInfo(zone)):%F %H:%M}")
    assert ticks == sorted(set(ticks))
    assert len(shown) == 20


# --- and the manifests --------------------------------------------------------------------------------------------

TEXTS = st.lists(
    st.text("0123456789*/-,LW#?jansuefbmorP ", max_size=6) | numbers(0, 61), min_size=4, max_size=6
).map(" ".join)


@settings(deadline=None, max_examples=50)
@given(CRONS | TEXTS)
@example("0 0 30 2 *")
@example("0 0 31 4,6 *")
@example("0 0 31 4 */2")
@example("0 0 31 2 mon")
def test_what_manifests_may_have_has_ticks(cron: str) -> None:
    """The library knows more (seconds, `L`, `W`, `#`), and refuses nothing of what we take."""
    if is_cron(cron):
        assert TICKS.after(" ".join(cron.split()), "UTC", 1.8e9) < math.inf


@settings(deadline=None, max_examples=50)
@given(CRONS)
def test_what_the_library_takes_of_the_plain_ones_manifests_may_have(cron: str) -> None:
    try:
        found = next(CronSim(cron, datetime(2026, 1, 1)), None)
    except CronSimError:
        assert not is_cron(cron)
    else:
        assert is_cron(cron) or found is None
