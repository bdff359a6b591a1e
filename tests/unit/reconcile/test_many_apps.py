"""A pass costs the same however many apps there are: nothing in it looks at all of them. What is counted is work, calls
of our own functions, since the time says more about the machine."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

import pytest

import controller
from controller.domain.apps.requests import Outcome
from controller.domain.names import AppName

from .harness import Harness, api, app, ml

OURS = str(Path(controller.__file__).parent)


def calls_in_a_pass(folder: Path, count: int) -> int:
    """Return the calls in a pass of one of `count` apps, in which nothing changes."""
    folder.mkdir()
    harness = Harness(folder)
    names = [AppName(f"app-{number:04}") for number in range(count)]
    harness.connect(*map(app, names))
    harness.push(ml(), api())
    for _ in range(2):
        for name in names:
            harness.run_unchecked(app=name)
    harness.settle(names[-1])
    harness.clock.advance(7200)  # whatever is done now and then is due
    calls = 0

    def count_calls(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_filename.startswith(OURS)

    sys.setprofile(count_calls)
    try:
        outcome = harness.run_unchecked(app=names[-1])
    finally:
        sys.setprofile(None)
    assert outcome.name is Outcome.READY
    harness.store.close()
    return calls


@pytest.mark.slow
@pytest.mark.parametrize("count", [10, 40])
def test_a_pass_does_not_depend_on_the_number_of_apps(tmp_path: Path, count: int) -> None:
    alone = calls_in_a_pass(tmp_path / "alone", 1)
    among = calls_in_a_pass(tmp_path / "among", count)
    assert alone > 100
    assert among <= 1.02 * alone
