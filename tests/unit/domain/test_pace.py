"""Looks take at most a tenth of the time."""

from __future__ import annotations

import pytest

from controller.domain.pace import pause_after


@pytest.mark.parametrize(
    ("took", "shortest", "pause"), [(0.01, 1.0, 1.0), (0.1, 1.0, 1.0), (3.0, 1.0, 30.0), (2.0, 0.0, 20.0)]
)
def test_the_pause_follows_how_long_a_look_takes(took: float, shortest: float, pause: float) -> None:
    assert pause_after(took, shortest) == pause
