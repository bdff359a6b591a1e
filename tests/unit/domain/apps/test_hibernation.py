"""When a component may be put to sleep."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.domain.apps.hibernation import NEWS_DELAY, sleeps_in
from tests.support.builders import component, route, spec, workload

NOW = 1_000_000.0
NAPS = replace(component(), spec=spec(idle_after=600.0))
AWAKE = route(NAPS, workload())
ASLEEP = replace(AWAKE, upstreams=(), asleep=True)
DEAD = replace(AWAKE, upstreams=())


@pytest.mark.parametrize(
    ("ago", "left"),
    [(0.0, 600.0 + NEWS_DELAY), (600.0, NEWS_DELAY), (600.0 + NEWS_DELAY, 0.0), (10_000.0, 0.0)],
)
def test_sleeps_so_long_after_the_last_call(ago: float, left: float) -> None:
    assert sleeps_in(NAPS, AWAKE, NOW - ago, NOW) == left
    assert sleeps_in(NAPS, ASLEEP, NOW - ago, NOW) == left


@pytest.mark.parametrize(
    "case",
    [
        (component(), AWAKE),
        (NAPS, None),
        (NAPS, DEAD),
        (component(version="v2", spec=NAPS.spec), AWAKE),
    ],
    ids=["not declared", "never been ready", "does not come up", "a new version is wanted"],
)
def test_what_stays_awake_however_long_nobody_calls(case: tuple[object, object]) -> None:
    assert sleeps_in(*case, NOW - 10_000.0, NOW) is None  # type: ignore[arg-type]


def test_what_is_forgotten_stays_as_it_is() -> None:
    assert sleeps_in(NAPS, ASLEEP, None, NOW) == 0.0
    assert sleeps_in(NAPS, AWAKE, None, NOW) is None
