"""Who is driven, and when: limits, the disk, the queue, restarts."""

from __future__ import annotations

import threading
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from controller.domain.errors import Transient
from controller.domain.runs import Run, RunState, new_run
from controller.ports import Job, JobState
from controller.runner.runner import Runner
from tests.support.waiting import wait_for
from tests.unit.runner.scene import APP, Command, Scene, pipeline, stage


def running(scene: Scene) -> list[str]:
    return [job.run for job in scene.jobs.all() if job.state is JobState.RUNNING]


def test_no_more_at_once_than_the_limits_allow(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    most: list[int] = []

    def count(job: Job) -> None:
        most.append(len(scene.store.runs.active()))

    scene.commands["fit"] = Command(act=count)
    ids = [scene.submit() for _ in range(20)]
    with scene.running(scene.with_settings(concurrent=3, per_app=100)):
        for id in ids:
            assert scene.until(id).state is RunState.SUCCEEDED
    assert max(most) == 3
    scene.close()


def test_those_that_wait_begin_by_priority_and_age(scene: Scene) -> None:
    scene.commands["fit"] = Command(code=None)
    of = pipeline(concurrency=1)
    first = scene.submit(of)
    scene.container()
    rest = [scene.submit(of, priority=priority) for priority in (0, 5, 0)]
    for id in (first, rest[1], rest[0], rest[2]):
        wait_for(lambda id=id: running(scene) == [id])  # type: ignore[misc]
        scene.jobs.exit(scene.container().id)
        scene.until(id)


def test_a_disk_that_is_nearly_full(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.commands["fit"] = Command(code=None)
    before = scene.submit()
    job = scene.container()
    scene.free = 4.9
    waiting = scene.submit()
    wait_for(lambda: "no new run begins: 4.9 % of the disk are free" in caplog.text)
    scene.jobs.exit(job.id)
    assert scene.until(before).state is RunState.SUCCEEDED, "what runs goes on"
    assert scene.run(waiting).state is RunState.QUEUED
    scene.free = 5.0
    scene.jobs.exit(scene.container().id)
    assert scene.until(waiting).state is RunState.SUCCEEDED


def test_after_a_restart_what_ran_is_gone_on_with(scene: Scene) -> None:
    scene.commands["fit"] = Command(code=None)
    id = scene.submit()
    job = scene.container()
    scene.until(id, RunState.RUNNING)
    scene.jobs.say(job.id, b"before\n")
    wait_for(lambda: scene.log(id) == b"before\n")
    scene.stop()
    assert running(scene) == [id], "stopping the daemon stops no run"
    scene.jobs.say(job.id, b"meanwhile\n")
    scene.start()
    wait_for(lambda: scene.log(id) == b"before\nmeanwhile\n")
    scene.jobs.say(job.id, b"after\n")
    scene.jobs.exit(job.id)
    assert scene.until(id).state is RunState.SUCCEEDED
    assert scene.log(id) == b"before\nmeanwhile\nafter\n"
    assert len(scene.jobs.starts) == 1


class _Noticing(threading.Event):
    """Tells when the runner's own thread has seen that it is to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.noticed = threading.Event()

    def is_set(self) -> bool:
        seen = super().is_set()
        if seen and threading.current_thread().name == "runner":
            self.noticed.set()
        return seen


def test_an_attempt_that_is_overtaken_by_the_daemons_end_is_left_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It has started its container, and is about to follow the log in a thread of its own."""
    scene, stop = Scene(tmp_path), _Noticing()

    def overtaken(job: Job) -> None:
        stop.set()
        assert stop.noticed.wait(10.0)

    scene.commands["fit"] = Command(code=None, act=overtaken)
    id = scene.submit()
    thread = threading.Thread(target=Runner(scene.deps).run, args=(stop,), name="runner")
    thread.start()
    thread.join()
    (attempt,) = scene.run(id).stage("fit").attempts
    assert (attempt.ended, attempt.reason) == (0.0, "")
    assert running(scene) == [id]
    assert "bug" not in caplog.text
    scene.close()


def test_what_ended_meanwhile_is_the_result(scene: Scene) -> None:
    scene.commands["fit"] = Command(code=None)
    id = scene.submit()
    job = scene.container()
    scene.until(id, RunState.RUNNING)
    scene.stop()
    scene.jobs.say(job.id, b"alone\n")
    scene.jobs.exit(job.id, 3)
    scene.start()
    run = scene.until(id)
    assert (run.state, run.stage("fit").attempts[0].exit_code) == (RunState.FAILED, 3)
    assert scene.log(id) == b"alone\n"


def test_a_bug_in_a_drive_leaves_the_run_to_be_driven_anew(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """Here a row that means nothing; then somebody mends it."""
    scene.commands["fit"] = Command(code=None)
    id = scene.submit()
    job = scene.container()
    scene.until(id, RunState.RUNNING)
    run = scene.run(id)
    scene.stop()
    broken = _with_unknown_stage(run)
    assert scene.store.runs.save(broken)
    scene.start()
    wait_for(lambda: "bug in a run" in caplog.text)
    assert running(scene) == [id]
    mended = scene.run(id)
    assert scene.store.runs.save(_like(run, mended.version))
    scene.jobs.exit(job.id)
    run = wait_for(lambda: scene.let_pass().run(id), lambda run: run.state.terminal)
    assert run.state is RunState.SUCCEEDED


def _with_unknown_stage(run: Run) -> Run:
    return type(run)(
        **{**vars(run), "stages": (type(run.stages[0])(**{**vars(run.stages[0]), "name": "x"}),)}
    )


def _like(run: Run, version: int) -> Run:
    return type(run)(**{**vars(run), "version": version})


class Busy:
    """The store's runs, of which some calls fail as if another process held the lock for too long."""

    def __init__(self, runs: Any, every: int) -> None:
        self._runs = runs
        self._every = every
        self._calls = count(1)

    def __getattr__(self, name: str) -> Any:
        if next(self._calls) % self._every == 0:
            raise Transient("StateBusy", "another process has held the state locked")
        return getattr(self._runs, name)


def test_a_state_that_does_not_answer_at_times(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    runs = scene.store.runs
    scene.store.runs = Busy(runs, every=3)
    id = runs.submit(new_run("a" * 19, pipeline(stage(outputs=("model",))), 1.0)).id
    with scene.running():
        wait_for(lambda: (run := runs.get(APP, id)) and run.state is RunState.SUCCEEDED)
    assert len(scene.jobs.starts) == 1
    scene.close()
