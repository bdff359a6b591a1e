"""Very many runs of one pipeline, for tests and measurements of their pages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from controller.domain.names import AppName
from controller.domain.runs.run import Run, RunCause, RunState, id_time, new_run_id
from tests.support.recorded import runs

APP: Final = AppName("old-forecast")
NEWEST: Final = new_run_id(1_790_000_000.0, 0)
PERSONS: Final = 200


def many_runs(now: float, count: int) -> Iterator[Run]:
    """Runs a minute apart, of which a third have failed and one in 500 was started by the schedule."""
    (_, failed), ends = runs(now), (RunState.FAILED, RunState.SUCCEEDED, RunState.SUCCEEDED)
    failed = replace(failed, app=APP, pipeline=replace(failed.pipeline, app=APP))
    for number in range(count):
        at = id_time(NEWEST) - 60.0 * number
        yield replace(
            failed,
            id=new_run_id(at, number),
            created=at,
            state=ends[number % len(ends)],
            cause=RunCause.SCHEDULE if number % 500 == 1 else RunCause.API,
            user=f"person:p{number % PERSONS}",
        )
