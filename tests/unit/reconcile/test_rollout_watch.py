"""A version that takes over and then fails: the app goes back by itself, whatever else happens meanwhile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.domain.apps.conditions import ConditionType
from controller.domain.apps.requests import Trigger
from controller.domain.apps.samples import BUCKETS, RequestCounts
from controller.domain.reasons import Reason
from tests.unit.reconcile.crashing import ENOUGH, die_at
from tests.unit.reconcile.harness import APP, Harness, api, ml
from tests.unit.reconcile.test_rollback import messages

ROLLOUT = {"watch": "2m", "maxErrors": "5%"}


class Callers:
    """What callers were answered so far, as the gateway counts it."""

    def __init__(self) -> None:
        self.codes = {200: 1000, 500: 20}

    def counts(self) -> dict[str, RequestCounts]:
        return {f"{APP}/image": RequestCounts(dict(self.codes), (0,) * (len(BUCKETS) + 1))}


def count(harness: Harness) -> Callers:
    made = Callers()
    harness.deps = replace(harness.deps, request_counts=made.counts)
    return made


@pytest.fixture
def callers(harness: Harness) -> Callers:
    return count(harness)


def version(number: int, **rollout: Any) -> tuple[str, str]:
    return ml(image=f"demo:{number}", rollout={**ROLLOUT, **rollout}), api()


def take_over(harness: Harness, **rollout: Any) -> tuple[str, str]:
    """The second version has just taken over from the first one."""
    harness.connect()
    first = harness.push(*version(1, **rollout))
    harness.run()
    harness.clock.advance(600.0)
    second = harness.push(*version(2, **rollout))
    harness.run()
    harness.retry()  # late counts are those of the first version
    assert harness.route().revision == second
    return first, second


def watched(harness: Harness) -> bool:
    return any(component.watch for component in harness.status().components)


def asked(harness: Harness) -> bool:
    queued = harness.store.requests.queued(APP)
    return queued is not None and Trigger.ROLLBACK in queued.reasons


def test_a_version_that_fails_its_calls_is_rolled_back(harness: Harness, callers: Callers) -> None:
    first, _ = take_over(harness)
    callers.codes[500] += 5
    callers.codes[200] += 10
    harness.retry()
    assert asked(harness)
    harness.run("rollback")
    assert harness.route().revision == first
    (told,) = messages(harness, Reason.ROLLOUT_FAILED)
    assert told.endswith(
        f" failed 5 of 15 calls within 12s of taking over, and 5% may fail: going back to {first[:12]}"
    )
    held = harness.condition(ConditionType.ROLLED_BACK)
    assert held
    assert f"revision {first[:12]} is held since " in held.message
    assert ", by prichal; a new commit or `prichal resume demo` goes on. classify: version " in held.message
    assert not watched(harness), "what is held is not watched"
    harness.settle()
    assert harness.route().revision == first
    assert len(messages(harness, Reason.ROLLOUT_FAILED)) == 1


def test_the_next_commit_goes_on_and_is_watched_again(harness: Harness, callers: Callers) -> None:
    first, _ = take_over(harness)
    callers.codes[500] += 100
    harness.retry()
    harness.run("rollback")
    harness.run("retry")
    third = harness.push(*version(3))
    harness.run()
    assert harness.route().revision == third
    assert not harness.condition(ConditionType.ROLLED_BACK)
    assert harness.status().failed_rollout is None
    assert watched(harness)
    harness.retry()
    callers.codes[500] += 100
    harness.retry()
    harness.run("rollback")
    assert harness.route().revision == first


def test_failures_that_are_written_down_late_are_not_the_new_version_s(
    harness: Harness, callers: Callers
) -> None:
    """The first version failed until the second one, which repairs it, took over."""
    harness.connect()
    harness.push(*version(1))
    harness.run()
    harness.clock.advance(600.0)
    second = harness.push(*version(2))
    harness.run()
    callers.codes[500] += 100
    for _ in range(5):
        harness.retry()
        callers.codes[200] += 10
    assert watched(harness)
    assert not asked(harness)
    assert harness.route().revision == second


def test_a_good_version_stays_and_may_fail_later(harness: Harness, callers: Callers) -> None:
    _, second = take_over(harness)
    looks = 0
    while watched(harness):
        callers.codes[200] += 100
        callers.codes[500] += 1
        looks += 1
        harness.retry()
    assert 10 <= looks <= 14
    callers.codes[500] += 10_000
    harness.settle()
    assert harness.route().revision == second
    assert not asked(harness)


def test_a_version_that_keeps_ending_is_rolled_back(harness: Harness, callers: Callers) -> None:
    first, _ = take_over(harness)
    for _ in range(10):
        if asked(harness):
            break
        for workload in harness.running():
            harness.engine.exit(workload.id)
        harness.run("container")
        harness.clock.advance(8.0)
        harness.run("retry")
    harness.run("rollback")
    assert harness.route().revision == first
    assert "ended 3 times within " in messages(harness, Reason.ROLLOUT_FAILED)[0]


def test_without_a_watch_nothing_happens(harness: Harness, callers: Callers) -> None:
    harness.connect()
    for number in (1, 2):
        harness.push(ml(image=f"demo:{number}"), api())
        harness.run()
    callers.codes[500] += 10_000
    harness.settle()
    assert not asked(harness)
    assert not watched(harness)


def test_the_first_version_has_nothing_before_it(harness: Harness, callers: Callers) -> None:
    harness.connect()
    harness.push(*version(1))
    harness.run()
    callers.codes[500] += 100
    harness.settle()
    assert not watched(harness)
    assert not asked(harness)


def test_two_versions_soon_after_each_other_go_back_before_both(harness: Harness, callers: Callers) -> None:
    first, _ = take_over(harness)
    third = harness.push(*version(3))
    harness.run()
    assert harness.route().revision == third
    harness.retry()
    callers.codes[500] += 100
    harness.retry()
    harness.run("rollback")
    assert harness.route().revision == first


def test_the_watch_ends_where_a_person_has_rolled_back(harness: Harness, callers: Callers) -> None:
    first, _ = take_over(harness)
    harness.roll_back()
    harness.run("rollback")
    callers.codes[500] += 100
    harness.settle()
    assert harness.route().revision == first
    assert not messages(harness, Reason.ROLLOUT_FAILED)
    held = harness.condition(ConditionType.ROLLED_BACK)
    assert held
    assert ", by anna; " in held.message


def test_a_daemon_that_starts_again_goes_on_watching(harness: Harness, callers: Callers) -> None:
    take_over(harness)
    before = harness.status().component(harness.route().component)
    harness.run("drift")
    after = harness.status().component(harness.route().component)
    assert before
    assert after
    assert before.watch == after.watch is not None


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
def test_the_daemon_dies_anywhere_on_the_way_back(tmp_path: Path, after: bool) -> None:
    for number in range(1, ENOUGH):
        harness = Harness(tmp_path / str(number))
        try:
            callers = count(harness)
            first, second = take_over(harness)
            callers.codes[500] += 100
            harness.clock.advance(10.0)
            died = die_at(harness, number, after)
            for _ in range(4):
                harness.run("retry")
            assert harness.route().revision == first, f"after death at call {number}"
            failed = harness.status().failed_rollout
            assert failed
            assert failed.revision == second
        finally:
            harness.store.close()
        if not died:
            return
    pytest.fail("the pass makes more calls than ENOUGH")
