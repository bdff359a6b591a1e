"""How often the log of a container is looked at while it writes, and what reading may cost."""

from __future__ import annotations

import pytest

from controller.adapters.docker.job_tap import FRUITLESS, REST, SHORTEST, TOGETHER, PollPace, least_pause


def paced(looks: int, most: float) -> float:
    least = 0.0
    for _ in range(looks):
        least = least_pause(least, most, backlog=False)
    return least


@pytest.mark.parametrize("most", [TOGETHER, FRUITLESS])
def test_what_a_busy_container_writes_is_told_together(most: float) -> None:
    assert paced(1, most) <= SHORTEST, "at first there is no telling"
    assert paced(50, most) == most


def test_a_container_that_waits_to_get_rid_of_its_output_is_not_kept_waiting() -> None:
    assert least_pause(TOGETHER, TOGETHER, backlog=True) == 0.0


def test_who_has_worked_rests() -> None:
    times = iter([100.0, 101.0, 101.0, 90.0])
    pace = PollPace(lambda: next(times))
    assert pace.rest_due() == REST
    assert pace.rest_due() == 0.0
    assert pace.rest_due() == 0.0, "another thread's clock is no reason to rest"
