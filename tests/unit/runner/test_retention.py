"""What is thrown away, and what is not yet."""

from __future__ import annotations

import os

import pytest

from controller.domain.names import AppName
from controller.domain.runs import RunState
from controller.domain.spec import Retries
from controller.ports import Job
from controller.runner.retention import SWEEP_GRACE, Sweep, forget_expired
from tests.support.waiting import wait_for
from tests.unit.runner.scene import APP, IMAGE, Command, Scene, pipeline, stage

DAY = 86400.0


def test_runs_are_forgotten_by_their_outcome(scene: Scene) -> None:
    good = scene.finish()
    scene.commands["fit"] = Command(code=1)
    bad = scene.finish()
    scene.stop()
    scene.clock.advance(7 * DAY - 1.0)
    forget_expired(scene.deps, lambda: False)
    assert len(scene.store.runs.list(APP)) == 2
    scene.clock.advance(1.0)
    forget_expired(scene.deps, lambda: False)
    assert [run.id for run in scene.store.runs.list(APP)] == [bad.id]
    assert scene.store.runs.is_gone(APP, good.id)
    assert os.listdir(scene.settings.run_files) == [bad.id]
    scene.clock.advance(23 * DAY)
    forget_expired(scene.deps, lambda: False)
    assert scene.store.runs.list(APP) == ()
    assert os.listdir(scene.settings.run_files) == []


def test_what_is_under_way_is_never_forgotten(scene: Scene) -> None:
    scene.commands["fit"] = Command(code=None)
    running, queued = scene.submit(pipeline(concurrency=1)), scene.submit(pipeline(concurrency=1))
    scene.container()
    scene.clock.advance(1000 * DAY)
    forget_expired(scene.deps, lambda: False)
    assert {run.id for run in scene.store.runs.list(APP)} == {running, queued}


def test_the_runner_does_it_by_itself(scene: Scene) -> None:
    scene.finish()
    scene.clock.advance(8 * DAY)
    wait_for(lambda: not scene.store.runs.list(APP))


def test_of_a_failed_run_stays_what_a_repetition_needs(scene: Scene) -> None:
    scene.commands["report"] = Command(code=1, log=b"no\n")
    report = stage("report", inputs=("model",), outputs=("page",), retries=Retries(limit=1, backoff=0.0))
    run = scene.finish(pipeline(stage("fit", outputs=("model",)), report))
    folder = scene.settings.run_files / run.id
    wait_for(lambda: sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["fit.1"])
    assert (folder / "fit.1" / "out" / "model" / "made.txt").read_text() == "fit"
    assert scene.log(run.id, "report", 2) == b"no\n"


# --- sweeping ---------------------------------------------------------------------------------------------------


def stray(scene: Scene, run: str = "b" * 19, attempt: int = 1, start: bool = False) -> str:
    """A container that nobody waits for; its name."""
    name = f"prichal.demo.{run}.fit.{attempt}"
    made = scene.jobs.create(Job(name, AppName("demo"), run, "fit", attempt, IMAGE))
    if start:
        scene.commands["fit"] = Command(code=None)
        scene.jobs.start(made.id)
    return name


@pytest.mark.parametrize("start", [False, True], ids=["made", "running"])
def test_containers_without_a_run_are_removed_after_a_while(scene: Scene, start: bool) -> None:
    scene.stop()
    sweep, name = Sweep(scene.deps), stray(scene, start=start)
    sweep.turn()
    scene.clock.advance(SWEEP_GRACE - 1.0)
    sweep.turn()
    assert scene.jobs.names() == [name]
    scene.clock.advance(1.0)
    sweep.turn()
    assert scene.jobs.names() == []
    assert scene.jobs.stops == [name] * start


def test_the_container_of_an_attempt_under_way_stays(scene: Scene) -> None:
    scene.commands["fit"] = Command(code=None)
    id = scene.submit()
    job = scene.container()
    scene.until(id, RunState.RUNNING)
    other = stray(scene, id, attempt=2)
    sweep = Sweep(scene.deps)
    for _ in range(3):
        sweep.turn()
        scene.clock.advance(SWEEP_GRACE)
    assert scene.jobs.names() == [job.name]
    assert other in scene.jobs.removals


def test_a_clock_that_jumps_does_not_shorten_the_while(scene: Scene) -> None:
    scene.stop()
    sweep, name = Sweep(scene.deps), stray(scene)
    sweep.turn()
    scene.clock.jump(DAY)
    sweep.turn()
    assert scene.jobs.names() == [name]


def test_foreign_containers_are_never_touched(scene: Scene) -> None:
    scene.stop()
    scene.jobs.take_name("prichal.demo.something")
    sweep = Sweep(scene.deps)
    for _ in range(3):
        sweep.turn()
        scene.clock.advance(SWEEP_GRACE)
    assert scene.jobs.names() == ["prichal.demo.something"]
