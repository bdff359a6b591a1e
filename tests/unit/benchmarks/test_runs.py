"""The arithmetic of the measurements of runs; they themselves need a machine and minutes."""

from __future__ import annotations

from benchmarks.runs import Moments, in_slots


def test_whoever_starts_takes_the_slot_that_has_been_free_for_longest() -> None:
    starts, ends = [0.0, 0.0, 3.5, 2.25, 6.0], [3.0, 2.0, 5.0, 7.0, 9.0]
    assert in_slots(starts, ends) == [0.25, 0.5, 1.0]


def test_gaps_are_of_the_slots_and_making_of_each_container() -> None:
    moments = Moments(
        {
            "create": {"a": 0.0, "b": 0.5, "c": 3.25, "never started": 9.0},
            "start": {"a": 1.0, "b": 1.0, "c": 3.5},
            "die": {"a": 3.0, "b": 4.0, "c": 5.0},
        }
    )
    assert moments.gaps("die", "start") == [0.5]
    assert moments.making() == [1.0, 0.5, 0.25]
