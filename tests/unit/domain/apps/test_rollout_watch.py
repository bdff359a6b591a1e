"""When a version that has taken over is given up, and what is gone back to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.apps.rollout_watch import (
    LEAST_FAILED,
    MOST_RESTARTS,
    SETTLE,
    RolloutWatch,
    counts_of,
    fault_of,
    is_over,
    next_look,
    watch_of,
)
from controller.domain.apps.samples import BUCKETS, NO_REQUESTS, RequestCounts
from controller.domain.apps.spec import Rollout, Strategy
from controller.domain.names import AppName, ComponentName
from controller.domain.routing.routes import Api, Route

NOW = 1_700_000_000.0
ROLLOUT = Rollout(Strategy.BLUE_GREEN, 30.0, max_errors=0.05, watch=120.0)
WATCH = RolloutWatch("new", NOW, "a1", requests=1000, failed=10)


def counts(ok: int = 0, failed: int = 0, *, refused: int = 0, broken: int = 0) -> RequestCounts:
    codes = {200: ok, 500: failed, 422: refused, 0: broken}
    return RequestCounts(codes, (0,) * (len(BUCKETS) + 1))


def route(fingerprint: str = "new", revision: str = "b2", *paths: str) -> Route:
    apis = tuple(Api(path, ComponentName(f"{path}-api"), published=True) for path in paths)
    return Route(AppName("demo"), ComponentName("classify"), fingerprint, revision, ("10.0.0.2:8002",), apis)


@pytest.mark.parametrize(
    ("answered", "why"),
    [
        (counts(990, 10), ""),
        (counts(1000, 12), ""),  # two failures say nothing
        (counts(990, 13), "version new failed 3 of 3 calls within 1m of taking over, and 5% may fail"),
        (counts(1047, 13), ""),  # 3 of 60 are just 5 %
        (counts(1046, 13), "version new failed 3 of 59 calls"),
        (counts(990, 10, refused=500), ""),  # callers' own mistakes
        (counts(990, 10, broken=3), "version new failed 3 of 3 calls"),
        (counts(0, 0), ""),
        (counts(5, 4), "version new failed 4 of 9 calls"),  # the counting process was started again
    ],
)
def test_calls(answered: RequestCounts, why: str) -> None:
    found = fault_of(WATCH, ROLLOUT, answered, (), NOW + 60.0)
    assert found.startswith(why) if why else found == ""


def begun(pending: int = 0) -> RolloutWatch:
    """A watch that has just begun."""
    found = watch_of(None, route(), "old", "a1", replace(counts(990, 10), in_flight=pending), NOW)
    assert found
    return found


def settled(watch: RolloutWatch, late: RequestCounts) -> RolloutWatch:
    found = watch_of(watch, route(), "new", "b2", late, NOW + SETTLE)
    assert found
    return found


@pytest.mark.parametrize(("pending", "is_fault"), [(0, True), (5, True), (7, True), (8, False), (100, False)])
def test_calls_that_the_version_before_had_under_way_may_all_fail(pending: int, is_fault: bool) -> None:
    """It may be the reason for the new one that its calls fail."""
    watch = settled(begun(pending), counts(990, 10))
    assert bool(fault_of(watch, ROLLOUT, counts(1000, 20), (), NOW + 60.0)) is is_fault


def test_what_is_written_down_late_is_of_the_version_before() -> None:
    watch = begun(pending=8)
    assert next_look(watch, ROLLOUT, NOW) == SETTLE
    assert not fault_of(watch, ROLLOUT, counts(990, 500), (), NOW + 1.0)
    assert fault_of(watch, ROLLOUT, counts(), [NOW + 0.5] * MOST_RESTARTS, NOW + 1.0)
    assert watch_of(watch, route(), "new", "b2", counts(990, 500), NOW + SETTLE / 2) == watch
    found = settled(watch, counts(990, 15))
    assert (found.since, found.failed, found.pending, found.settled) == (NOW, 15, 3, True)
    assert not fault_of(found, ROLLOUT, counts(990, 20), (), NOW + 60.0)
    assert fault_of(found, ROLLOUT, counts(990, 21), (), NOW + 60.0)
    assert settled(found, counts(0, 999)) == found


def test_no_failure_at_all_may_be_allowed_and_every_one() -> None:
    strict, blind = replace(ROLLOUT, max_errors=0.0), replace(ROLLOUT, max_errors=1.0)
    assert fault_of(WATCH, strict, counts(10**6, 13), (), NOW + 1.0)
    assert not fault_of(WATCH, blind, counts(0, 10**6), (), NOW + 1.0)


def test_crashes_count_since_the_version_took_over() -> None:
    earlier = [NOW - 1.0] * 10
    later = [NOW + at for at in range(1, MOST_RESTARTS + 1)]
    assert not fault_of(WATCH, ROLLOUT, counts(1000, 10), earlier + later[:-1], NOW + 10.0)
    found = fault_of(WATCH, ROLLOUT, counts(1000, 10), earlier + later, NOW + 10.0)
    assert found == "version new ended 3 times within 10s of taking over"


@pytest.mark.parametrize(
    ("served", "revision", "back"),
    [
        ("old", "a1", "a1"),
        ("", "a1", None),  # the first version has nothing before it
        ("old", "", None),  # no revision was ever applied as a whole
        ("new", "a1", None),  # nothing took over
        ("old", "b2", None),  # the same commit: a Secret has changed, or the platform
    ],
)
def test_what_is_gone_back_to(served: str, revision: str, back: str | None) -> None:
    found = watch_of(None, route(), served, revision, counts(7, 2), NOW)
    assert (found.revision if found else None) == back
    if found:
        assert (found.version, found.since, found.requests, found.failed) == ("new", NOW, 9, 2)


def test_a_version_that_is_watched_goes_on_being_watched() -> None:
    assert watch_of(WATCH, route(), "new", "b2", counts(5000), NOW + 9.0) == WATCH


def test_a_version_that_follows_one_that_is_not_proven_goes_back_to_what_was_before_both() -> None:
    found = watch_of(WATCH, route("newer", "c3"), "new", "b2", counts(), NOW + 9.0)
    assert found
    assert (found.version, found.revision) == ("newer", "a1")


def test_a_version_that_came_back_to_the_proven_revision_is_not_watched() -> None:
    assert watch_of(WATCH, route("old", "a1"), "new", "b2", counts(), NOW + 9.0) is None


@pytest.mark.parametrize(
    ("passed", "over"), [(0.0, False), (119.9, False), (120.0, True), (1e9, True), (-1.0, True)]
)
def test_the_end_of_a_watch(passed: float, over: bool) -> None:
    assert is_over(WATCH, ROLLOUT, NOW + passed) is over


def test_who_no_longer_wants_it_is_not_watched() -> None:
    assert is_over(WATCH, replace(ROLLOUT, watch=None), NOW)


def test_calls_over_all_paths_of_the_component_count() -> None:
    by_api = {"demo/image": counts(1, 2), "demo/text": counts(3, 4), "other/image": counts(100, 100)}
    assert counts_of(route("new", "b2", "image", "text"), by_api).codes[500] == 6
    assert counts_of(route("new", "b2"), by_api) == NO_REQUESTS


seconds = st.floats(0.001, 1e6)


@given(watch=seconds, passed=seconds)
def test_looks_come_soon_and_often_and_one_at_the_end(watch: float, passed: float) -> None:
    rollout = replace(ROLLOUT, watch=watch)
    left = watch - passed
    pause = next_look(WATCH, rollout, NOW + passed)
    assert 0.0 <= pause <= 10.0
    assert pause <= max(left + 1e-3, 0.0)
    assert pause >= min(1.0, max(left - 1e-3, 0.0))


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.floats(0.0, 1.0))
def test_a_share_decides_and_never_fewer_than_three(ok: int, failed: int, share: float) -> None:
    watch = replace(WATCH, requests=0, failed=0)
    found = fault_of(watch, replace(ROLLOUT, max_errors=share), counts(ok, failed), (), NOW + 1.0)
    assert bool(found) == (failed >= LEAST_FAILED and failed > share * (ok + failed))
