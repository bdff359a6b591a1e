"""Stages that ask for GPUs: they wait in line, and keep what they got whatever becomes of the daemon."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.config.settings import RunSettings
from controller.domain.gpus import WAITING
from controller.domain.runs import Run, RunState
from controller.domain.spec import Resources
from controller.ports import JobState
from tests.support.waiting import wait_for
from tests.unit.runner.scene import Command, Scene, pipeline, stage


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path / "state", RunSettings(concurrent=100, per_app=100, gpus=("0", "GPU-b")))
    made.commands["fit"] = Command(code=None)
    made.start()
    yield made
    made.close()


def submit(scene: Scene, gpus: int) -> str:
    return scene.submit(pipeline(stage(resources=Resources(gpus=gpus))))


def running(scene: Scene) -> dict[str, tuple[str, ...]]:
    """The GPUs of each run that has a container at work."""
    up = {job.name: job.run for job in scene.jobs.all() if job.state is JobState.RUNNING}
    return {up[job.name]: job.gpus for job in scene.jobs.made if job.name in up}


def end(scene: Scene, id: str) -> Run:
    (job,) = [job for job in scene.jobs.all() if job.run == id and job.state is JobState.RUNNING]
    scene.jobs.exit(job.id)
    return scene.until(id)


def until_waiting(scene: Scene, id: str) -> Run:
    return wait_for(lambda: scene.run(id), lambda run: run.stage("fit").reason == WAITING)


def test_one_waits_until_there_are_enough(scene: Scene) -> None:
    first = submit(scene, 1)
    wait_for(lambda: running(scene) == {first: ("0",)})
    big = submit(scene, 2)
    waiting = until_waiting(scene, big).stage("fit")
    assert (waiting.state, waiting.attempts) == (RunState.QUEUED, ())
    small = submit(scene, 1)
    until_waiting(scene, small)
    other = scene.submit(pipeline(stage("cpu")))
    assert scene.until(other).state is RunState.SUCCEEDED, "who needs none waits for nobody"
    assert end(scene, first).state is RunState.SUCCEEDED
    wait_for(lambda: running(scene) == {big: ("0", "GPU-b")})
    assert scene.run(small).stage("fit").attempts == ()
    end(scene, big)
    wait_for(lambda: running(scene) == {small: ("0",)})
    end(scene, small)


def test_leases_outlive_the_daemon(scene: Scene) -> None:
    first = submit(scene, 1)
    wait_for(lambda: running(scene))
    second = submit(scene, 2)
    until_waiting(scene, second)
    scene.restart()
    third = submit(scene, 1)
    until_waiting(scene, third)
    assert running(scene) == {first: ("0",)}, "it was adopted, and still has it"
    end(scene, first)
    wait_for(lambda: running(scene) == {second: ("0", "GPU-b")})
    end(scene, second)
    wait_for(lambda: third in running(scene))
    end(scene, third)


def test_many_at_once_share_none(scene: Scene) -> None:
    left = {submit(scene, 1 + number % 2) for number in range(12)}
    while left:
        at_work = wait_for(lambda: running(scene))
        lent = [gpu for gpus in at_work.values() for gpu in gpus]
        assert len(lent) == len(set(lent)), at_work
        id = min(at_work)
        assert end(scene, id).state is RunState.SUCCEEDED
        left.remove(id)


def test_who_is_canceled_while_waiting_leaves_the_line(scene: Scene) -> None:
    first = submit(scene, 1)
    wait_for(lambda: running(scene))
    big, small = submit(scene, 2), submit(scene, 1)
    until_waiting(scene, big)
    scene.cancel(big)
    assert scene.until(big).state is RunState.CANCELED
    wait_for(lambda: running(scene) == {first: ("0",), small: ("GPU-b",)})
    end(scene, first)
    end(scene, small)


def test_a_host_that_lends_fewer_says_so_at_once(scene: Scene) -> None:
    run = scene.until(submit(scene, 3))
    assert (run.state, run.reason) == (RunState.FAILED, "NoGpu")
    assert "this host lends 2 to runs" in run.message
    scene.stop()
    none = replace(scene.deps, settings=replace(scene.settings, runs=RunSettings()))
    with scene.running(none):
        run = scene.until(submit(scene, 1))
    assert (run.state, run.reason) == (RunState.FAILED, "NoGpu")
    assert "none to runs" in run.message
