"""What is thrown away, and what is not yet."""

from __future__ import annotations

import os

import pytest

from controller.domain.apps.spec import Resources, Retries
from controller.domain.names import AppName
from controller.domain.runs.run import RunState
from controller.ports import Job
from controller.runner.retention import SWEEP_GRACE, ContainerSweep, forget_expired
from tests.support.specs import make
from tests.support.waiting import wait_for
from tests.unit.runner.harness import APP, IMAGE, Command, Harness, pipeline, stage

DAY = 86400.0


def test_runs_are_forgotten_by_their_outcome(harness: Harness) -> None:
    good = harness.finish()
    harness.commands["fit"] = Command(code=1)
    bad = harness.finish()
    harness.stop()
    harness.clock.advance(7 * DAY - 1.0)
    forget_expired(harness.deps, lambda: False)
    assert len(harness.store.runs.list(APP)) == 2
    harness.clock.advance(1.0)
    forget_expired(harness.deps, lambda: False)
    assert [run.id for run in harness.store.runs.list(APP)] == [bad.id]
    assert harness.store.runs.is_gone(APP, good.id)
    assert os.listdir(harness.settings.run_files) == [bad.id]
    harness.clock.advance(23 * DAY)
    forget_expired(harness.deps, lambda: False)
    assert harness.store.runs.list(APP) == ()
    assert os.listdir(harness.settings.run_files) == []


def test_what_is_under_way_is_never_forgotten(harness: Harness) -> None:
    harness.commands["fit"] = Command(code=None)
    running, queued = harness.submit(pipeline(concurrency=1)), harness.submit(pipeline(concurrency=1))
    harness.container()
    harness.clock.advance(1000 * DAY)
    forget_expired(harness.deps, lambda: False)
    assert {run.id for run in harness.store.runs.list(APP)} == {running, queued}


def test_the_runner_does_it_by_itself(harness: Harness) -> None:
    harness.finish()
    harness.clock.advance(8 * DAY)
    wait_for(lambda: not harness.store.runs.list(APP))


def test_of_a_failed_run_stays_what_a_repetition_needs(harness: Harness) -> None:
    harness.commands["report"] = Command(code=1, log=b"no\n")
    report = stage(
        "report", inputs=("model",), outputs=("page",), retries=make(Retries, limit=1, backoff=0.0)
    )
    run = harness.finish(pipeline(stage("fit", outputs=("model",)), report))
    folder = harness.settings.run_files / run.id
    wait_for(lambda: sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["fit.1"])
    assert (folder / "fit.1" / "out" / "model" / "made.txt").read_text() == "fit"
    assert harness.log(run.id, "report", 2) == b"no\n"


# --- sweeping ---------------------------------------------------------------------------------------------------


def stray(harness: Harness, run: str = "b" * 19, attempt: int = 1, start: bool = False) -> str:
    """A container that nobody waits for; its name."""
    name = f"prichal.demo.{run}.fit.{attempt}"
    limits = make(Resources)
    job = Job(name, AppName("demo"), run, "fit", attempt, IMAGE, resources=limits, read_only_root=False)
    made = harness.jobs.create(job)
    if start:
        harness.commands["fit"] = Command(code=None)
        harness.jobs.start(made.id)
    return name


@pytest.mark.parametrize("start", [False, True], ids=["made", "running"])
def test_containers_without_a_run_are_removed_after_a_while(harness: Harness, start: bool) -> None:
    harness.stop()
    sweep, name = ContainerSweep(harness.deps), stray(harness, start=start)
    sweep.run_once()
    harness.clock.advance(SWEEP_GRACE - 1.0)
    sweep.run_once()
    assert harness.jobs.names() == [name]
    harness.clock.advance(1.0)
    sweep.run_once()
    assert harness.jobs.names() == []
    assert harness.jobs.stops == [name] * start


def test_the_container_of_an_attempt_under_way_stays(harness: Harness) -> None:
    harness.commands["fit"] = Command(code=None)
    id = harness.submit()
    job = harness.container()
    harness.until(id, RunState.RUNNING)
    other = stray(harness, id, attempt=2)
    sweep = ContainerSweep(harness.deps)
    for _ in range(3):
        sweep.run_once()
        harness.clock.advance(SWEEP_GRACE)
    assert harness.jobs.names() == [job.name]
    assert other in harness.jobs.removals


def test_a_clock_that_jumps_does_not_shorten_the_while(harness: Harness) -> None:
    harness.stop()
    sweep, name = ContainerSweep(harness.deps), stray(harness)
    sweep.run_once()
    harness.clock.jump(DAY)
    sweep.run_once()
    assert harness.jobs.names() == [name]


def test_foreign_containers_are_never_touched(harness: Harness) -> None:
    harness.stop()
    harness.jobs.take_name("prichal.demo.something")
    sweep = ContainerSweep(harness.deps)
    for _ in range(3):
        sweep.run_once()
        harness.clock.advance(SWEEP_GRACE)
    assert harness.jobs.names() == ["prichal.demo.something"]
