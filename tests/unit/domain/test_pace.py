"""Looks take at most a tenth of the time, and a flood of changes costs few looks."""

from __future__ import annotations

import pytest

from controller.domain.pace import FIRST_PAUSE, LONGEST_PAUSE, next_pause, pause_after


@pytest.mark.parametrize(
    ("took", "shortest", "pause"), [(0.01, 1.0, 1.0), (0.1, 1.0, 1.0), (3.0, 1.0, 30.0), (2.0, 0.0, 20.0)]
)
def test_the_pause_follows_how_long_a_look_takes(took: float, shortest: float, pause: float) -> None:
    assert pause_after(took, shortest) == pause


def test_a_few_changes_are_looked_at_soon_and_a_flood_seldom() -> None:
    pauses = [next_pause(0.0, 0.0)]
    for _ in range(6):
        pauses.append(next_pause(pauses[-1], 0.0))
    assert pauses == [0.001, 0.002, 0.004, 0.008, 0.01, 0.01, 0.01]
    assert next_pause(pauses[-1], LONGEST_PAUSE / 2) == LONGEST_PAUSE
    assert next_pause(pauses[-1], LONGEST_PAUSE) == FIRST_PAUSE
