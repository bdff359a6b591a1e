"""Stages at once: within the limits of their app, and within what the host takes. They wait in order, and none for
what can never be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.config.settings import RunSettings
from controller.domain.apps.spec import Limits, Resources
from controller.domain.runs.run import Run, RunState
from controller.ports import JobState
from tests.support.specs import make
from tests.support.waiting import wait_for
from tests.unit.runner.harness import APP, Command, Harness, pipeline, stage
from tests.unit.runner.test_publishing import again, to
from tests.unit.runner.test_release import box_of

MIB = 2**20


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    made = Harness(tmp_path / "state", RunSettings(concurrent=100, per_app=100, gpus=("0", "1"), stages=5))
    made.start()
    yield made
    made.close()


def wide(harness: Harness, number: int, limits: Limits, **wanted: Any) -> str:
    """A run whose stages do not depend on each other."""
    stages = [stage(f"s{n}", resources=make(Resources, **wanted)) for n in range(number)]
    for each in stages:
        harness.commands[each.name] = Command(code=None)
    of = pipeline(*stages, stage_limits=limits)
    harness.store.runs.publish(APP, (of,))
    return harness.submit(of)


def running(harness: Harness) -> list[str]:
    """Containers, by id."""
    return [job.id for job in harness.jobs.all() if job.state is JobState.RUNNING]


def reasons(run: Run) -> set[str]:
    return {found.reason for found in run.stages if found.state is RunState.QUEUED}


def play(harness: Harness, id: str, most: int, reason: str) -> Run:
    """To the end of the run; never are there more at once."""
    seen = 0
    while not (run := harness.run(id)).state.terminal:
        at_work = running(harness)
        assert len(at_work) <= most
        seen = max(seen, len(at_work))
        left = sum(not found.state.terminal for found in run.stages)
        if at_work and len(at_work) == min(most, left):
            assert reasons(harness.run(id)) <= {reason, ""}
            harness.jobs.exit(at_work[0])
    assert seen == most
    return run


@pytest.mark.parametrize(
    ("limits", "wanted", "most"),
    [
        (Limits(cpus=1.0), {"cpus": 1.0}, 1),
        (Limits(cpus=0.3), {"cpus": 0.1}, 3),
        (Limits(memory=512 * MIB), {"memory": 200 * MIB}, 2),
        (Limits(containers=3), {}, 3),
        (Limits(gpus=1), {"gpus": 1}, 1),
        (Limits(cpus=4.0, memory=512 * MIB, containers=8), {"cpus": 1.0, "memory": 512 * MIB}, 1),
    ],
)
def test_stages_wait_for_the_limits_of_their_app(
    harness: Harness, limits: Limits, wanted: dict[str, Any], most: int
) -> None:
    run = play(harness, wide(harness, 4, limits, **wanted), most, "WaitingForLimits")
    assert run.state is RunState.SUCCEEDED
    assert {found.reason for found in run.stages} == {""}


def test_stages_wait_for_the_host(harness: Harness) -> None:
    assert play(harness, wide(harness, 8, Limits()), 4, "WaitingForSlot").state is RunState.SUCCEEDED


def test_the_limits_hold_over_all_runs_of_the_app_and_over_restarts(harness: Harness) -> None:
    first = wide(harness, 1, Limits(containers=1))
    wait_for(lambda: len(running(harness)) == 1)
    second = wide(harness, 1, Limits(containers=1))
    wait_for(lambda: harness.run(second).stage("s0").reason == "WaitingForLimits")
    harness.restart()
    (one,) = running(harness)
    harness.jobs.exit(one)
    assert harness.until(first).state is RunState.SUCCEEDED
    wait_for(lambda: len(running(harness)) == 1)
    harness.jobs.exit(running(harness)[0])
    assert harness.until(second).state is RunState.SUCCEEDED


def test_a_large_one_is_not_passed_for_ever(harness: Harness) -> None:
    limits = Limits(cpus=2.0)
    small = wide(harness, 1, limits, cpus=1.0)
    wait_for(lambda: len(running(harness)) == 1)
    large = wide(harness, 1, limits, cpus=2.0)
    wait_for(lambda: harness.run(large).stage("s0").reason == "WaitingForLimits")
    late = wide(harness, 1, limits, cpus=1.0)
    wait_for(lambda: harness.run(late).stage("s0").reason == "WaitingForLimits")
    harness.jobs.exit(running(harness)[0])
    assert harness.until(small).state is RunState.SUCCEEDED
    wait_for(lambda: len(running(harness)) == 1)
    assert harness.run(large).stage("s0").active
    harness.jobs.exit(running(harness)[0])
    wait_for(lambda: harness.run(late).stage("s0").active and running(harness))
    harness.jobs.exit(running(harness)[0])
    harness.until(late)


def test_what_can_never_fit_fails_at_once(harness: Harness) -> None:
    run = harness.until(wide(harness, 1, Limits(cpus=0.5), cpus=1.0))
    assert (run.state, run.reason) == (RunState.FAILED, "LimitsInvalid")
    assert "1 of 0.5 CPUs" in run.message


def test_limits_are_those_of_now(harness: Harness) -> None:
    """Not of the commit that the run is of."""
    id = wide(harness, 2, Limits(containers=1))
    wait_for(lambda: "WaitingForLimits" in reasons(harness.run(id)))
    of = harness.store.runs.pipelines(APP)[0]
    harness.store.runs.publish(APP, (replace(of, stage_limits=Limits(containers=2)),))
    wait_for(lambda: len(running(harness)) == 2)
    for each in running(harness):
        harness.jobs.exit(each)
    harness.until(id)


def test_who_only_publishes_waits_for_nobody(harness: Harness) -> None:
    harness.commands["fit"] = Command(files={"model/x": "x" * 2000})
    box_of(harness, capacity=1000)
    failed = harness.finish(pipeline(stage("fit", outputs=("model",))), outputs=to("g"))
    box_of(harness, capacity=10_000)
    wide(harness, 1, Limits(containers=1))
    wait_for(lambda: len(running(harness)) == 1)
    assert again(harness, failed).state is RunState.SUCCEEDED
    harness.jobs.exit(running(harness)[0])
