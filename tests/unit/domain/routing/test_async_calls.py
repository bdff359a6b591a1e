from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.names import AppName, ComponentName
from controller.domain.routing.async_calls import (
    ABSENT,
    SMALL,
    CallLimits,
    CallLoad,
    CallState,
    Key,
    absent_for_long,
    absent_since,
    end_of,
    is_call_id,
    next_call,
    pause,
)

LIMITS = CallLimits(
    running=4, running_per_app=3, queued=10, size=1000, size_per_app=500, result=100, keep=3600.0
)


def key(app: str, component: str = "classify") -> Key:
    return AppName(app), ComponentName(component)


def load(waiting: dict[Key, int], running: dict[Key, int] | None = None, **sizes: int) -> CallLoad:
    return CallLoad(waiting, running or {}, {AppName(app): size for app, size in sizes.items()})


SLOTS = {key("a"): 3, key("b"): 3, key("a", "second"): 1}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (load({}), None),
        (load({key("a"): 7}), 7),
        (load({key("a"): 7, key("b"): 9}), 7),  # the oldest one
        (load({key("a"): 7, key("b"): 9}, {key("a"): 1}), 9),  # the app with the fewest
        (load({key("a"): 7, key("a", "second"): 8}, {key("a"): 3}), None),  # the app's share
        (load({key("a"): 7, key("a", "second"): 8}, {key("a", "second"): 1}), 7),  # the component's slots
        (load({key("c"): 7}), None),  # no version of it is in service
        (load({key("b"): 7}, {key("a"): 3, key("b"): 1}), None),  # of all
        (load({key("a"): 7}, a=401), None),  # no room for its result
        (load({key("a"): 7}, a=400), 7),
        (load({key("a"): 7}, {key("a"): 1}, a=301), None),  # nor for those that run
        (load({key("a"): 7}, b=400, c=501), None),  # nor on the host
    ],
)
def test_what_begins_next(found: CallLoad, expected: int | None) -> None:
    assert next_call(found, SLOTS, LIMITS) == expected


@pytest.mark.parametrize(
    ("running", "leaving", "begins"),
    [(1, 0, True), (2, 0, False), (2, 1, True), (2, 2, True), (3, 3, False)],
)
def test_calls_of_an_earlier_version_take_no_slots_but_shares(
    running: int, leaving: int, begins: bool
) -> None:
    found = replace(load({key("b"): 7}, {key("b"): running}), leaving={key("b"): leaving})
    assert (next_call(found, {key("b"): 2}, LIMITS) == 7) is begins


@pytest.mark.parametrize(
    ("free", "takes", "keeps"),
    [(5.0, True, True), (4.9, False, True), (2.5, False, True), (2.4, False, False)],
)
def test_the_reserve_of_the_disk(free: float, takes: bool, keeps: bool) -> None:
    limits = replace(LIMITS, reserve=5.0)
    assert limits.takes_calls(free) is takes
    assert limits.keeps_result(SMALL + 1, free) is keeps
    assert limits.keeps_result(SMALL, free)
    assert LIMITS.takes_calls(0.0)
    assert LIMITS.keeps_result(SMALL + 1, 0.0)


def test_a_component_is_removed_after_some_time_without_a_route() -> None:
    a, b = key("a"), key("b")
    since = absent_since({}, [a, b], {b}, 100.0)
    assert since == {a: 100.0}
    assert absent_for_long(since, 100.0 + ABSENT - 0.1) == ()
    since = absent_since(since, [a, b], {b}, 100.0 + ABSENT)
    assert absent_for_long(since, 100.0 + ABSENT) == (a,)
    assert absent_since(since, [a, b], {a, b}, 200.0) == {}  # it is there again
    assert absent_since(since, [b], {b}, 200.0) == {}  # nothing waits for it any more


_KEYS = st.sampled_from(sorted(SLOTS))


@given(
    st.dictionaries(_KEYS, st.integers(1, 1000)),
    st.dictionaries(_KEYS, st.integers(1, 5)),
    st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 600)),
)
def test_no_bound_is_ever_exceeded(
    waiting: dict[Key, int], running: dict[Key, int], sizes: dict[str, int]
) -> None:
    found = load(waiting, running, **sizes)
    number = next_call(found, SLOTS, LIMITS)
    if number is None:
        return
    chosen = [each for each, first in waiting.items() if first == number]
    assert sum(running.values()) < LIMITS.running
    assert sum(sizes.values()) + (sum(running.values()) + 1) * LIMITS.result <= LIMITS.size
    assert any(running.get(each, 0) < SLOTS[each] for each in chosen)


@pytest.mark.parametrize(
    ("status", "slug", "state", "reason"),
    [
        (200, "", CallState.SUCCEEDED, ""),
        (422, "", CallState.FAILED, "HttpStatus"),
        (500, "", CallState.FAILED, "HttpStatus"),
        (422, "invalid-request", CallState.FAILED, "InvalidRequest"),
        (504, "component-timeout", CallState.FAILED, "ComponentTimeout"),
        (507, "result-too-large", CallState.FAILED, "ResultTooLarge"),
        (502, "component-died", CallState.ERROR, "ComponentDied"),
        (503, "storage-unreachable", CallState.ERROR, "StorageUnreachable"),
    ],
)
def test_how_a_call_ended(status: int, slug: str, state: CallState, reason: str) -> None:
    found = end_of(status, slug, "why")
    assert (found.state, found.reason) == (state, reason)


def test_states_that_are_over() -> None:
    going = {CallState.QUEUED, CallState.RUNNING, CallState.CANCELING}
    assert {state for state in CallState if not state.terminal} == going


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0" * 32, True),
        ("0" * 31, False),
        ("g" * 32, False),
        ("A" * 32, False),
        ("0" * 32 + "\n", False),
        ("", False),
    ],
)
def test_ids(text: str, expected: bool) -> None:
    assert is_call_id(text) is expected


def test_pauses_grow_and_are_bounded() -> None:
    pauses = [pause(attempts) for attempts in (1, 2, 3, 10, 10**6)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 10.0
