from __future__ import annotations

import time

from controller.adapters.clock import SystemClock
from controller.ports import Clock
from tests.support.clock import FakeClock


def test_now_is_unix_time() -> None:
    before = time.time()
    assert before <= SystemClock().now() <= time.time()


def test_sleeping_takes_at_least_its_time() -> None:
    clock: Clock = SystemClock()
    before = time.monotonic()
    clock.sleep(0.001)
    assert time.monotonic() - before >= 0.001


def test_the_fake_sleeps_in_no_time() -> None:
    clock = FakeClock(100.0)
    clock.sleep(3600.0)
    clock.advance(1.0)
    assert (clock.now(), clock.slept) == (3701.0, [3600.0])
