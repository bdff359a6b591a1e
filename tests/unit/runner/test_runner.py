"""Who is driven, and when: limits, the disk, the queue, restarts."""

from __future__ import annotations

import threading
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from controller.domain.apps.spec import Resources
from controller.domain.errors import Transient
from controller.domain.reasons import Reason
from controller.domain.runs.run import RunState, new_run
from controller.ports import Job, JobState
from controller.runner.runner import Runner
from tests.support.specs import make
from tests.support.waiting import wait_for
from tests.unit.runner.harness import APP, Command, Harness, pipeline, stage


def running(harness: Harness) -> list[str]:
    return [job.run for job in harness.jobs.all() if job.state is JobState.RUNNING]


def test_no_more_at_once_than_the_limits_allow(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    most: list[int] = []

    def count(job: Job) -> None:
        most.append(len(harness.store.runs.active()))

    harness.commands["fit"] = Command(act=count)
    ids = [harness.submit() for _ in range(20)]
    with harness.running(harness.with_settings(concurrent=3, per_app=100)):
        for id in ids:
            assert harness.until(id).state is RunState.SUCCEEDED
    assert max(most) == 3
    harness.close()


def test_those_that_wait_begin_by_priority_and_age(harness: Harness) -> None:
    harness.commands["fit"] = Command(code=None)
    of = pipeline(concurrency=1)
    first = harness.submit(of)
    harness.container()
    rest = [harness.submit(of, priority=priority) for priority in (0, 5, 0)]
    for id in (first, rest[1], rest[0], rest[2]):
        wait_for(lambda id=id: running(harness) == [id])  # type: ignore[misc]
        harness.jobs.exit(harness.container().id)
        harness.until(id)


def test_a_disk_that_is_nearly_full(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    harness.commands["fit"] = Command(code=None)
    before = harness.submit()
    job = harness.container()
    harness.free = 4.9
    waiting = harness.submit()
    wait_for(lambda: "no new runs begin: 4.9 % of the disk are free" in caplog.text)
    harness.jobs.exit(job.id)
    assert harness.until(before).state is RunState.SUCCEEDED, "what runs goes on"
    assert harness.run(waiting).state is RunState.QUEUED
    harness.free = 5.0
    harness.jobs.exit(harness.container().id)
    assert harness.until(waiting).state is RunState.SUCCEEDED


def test_after_a_restart_what_ran_is_gone_on_with(harness: Harness) -> None:
    harness.commands["fit"] = Command(code=None)
    id = harness.submit()
    job = harness.container()
    harness.until(id, RunState.RUNNING)
    harness.jobs.say(job.id, b"before\n")
    wait_for(lambda: harness.log(id) == b"before\n")
    harness.stop()
    assert running(harness) == [id], "stopping the daemon stops no run"
    harness.jobs.say(job.id, b"meanwhile\n")
    harness.start()
    wait_for(lambda: harness.log(id) == b"before\nmeanwhile\n")
    harness.jobs.say(job.id, b"after\n")
    harness.jobs.exit(job.id)
    assert harness.until(id).state is RunState.SUCCEEDED
    assert harness.log(id) == b"before\nmeanwhile\nafter\n"
    assert len(harness.jobs.starts) == 1


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
    harness, stop = Harness(tmp_path), _Noticing()

    def overtaken(job: Job) -> None:
        stop.set()
        assert stop.noticed.wait(10.0)

    harness.commands["fit"] = Command(code=None, act=overtaken)
    id = harness.submit()
    thread = threading.Thread(target=Runner(harness.deps).run, args=(stop,), name="runner")
    thread.start()
    thread.join()
    (attempt,) = harness.run(id).stage("fit").attempts
    assert (attempt.ended, attempt.reason) == (0.0, "")
    assert running(harness) == [id]
    assert "bug" not in caplog.text
    harness.close()


def test_what_ended_meanwhile_is_the_result(harness: Harness) -> None:
    harness.commands["fit"] = Command(code=None)
    id = harness.submit()
    job = harness.container()
    harness.until(id, RunState.RUNNING)
    harness.stop()
    harness.jobs.say(job.id, b"alone\n")
    harness.jobs.exit(job.id, 3)
    harness.start()
    run = harness.until(id)
    assert (run.state, run.stage("fit").attempts[0].exit_code) == (RunState.FAILED, 3)
    assert harness.log(id) == b"alone\n"


def test_a_bug_in_a_drive_leaves_the_run_to_be_driven_anew(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    """The settings are invalid at first, and are then corrected."""
    harness.stop()
    broken = harness.with_settings(gpus=None)
    harness.start(broken)
    id = harness.submit(pipeline(stage("fit", resources=make(Resources, gpus=1))))
    wait_for(lambda: "bug in a run" in caplog.text)
    assert harness.run(id).state is RunState.STARTING
    object.__setattr__(broken.settings.runs, "gpus", ("gpu-0",))
    run = wait_for(lambda: harness.let_pass().run(id), lambda run: run.state.terminal)
    assert run.state is RunState.SUCCEEDED


class Busy:
    """The store's runs, of which some calls fail as if another process held the lock for too long."""

    def __init__(self, runs: Any, every: int) -> None:
        self._runs = runs
        self._every = every
        self._calls = count(1)

    def __getattr__(self, name: str) -> Any:
        if next(self._calls) % self._every == 0:
            raise Transient(Reason.STATE_BUSY, "another process has held the state locked")
        return getattr(self._runs, name)


def test_a_state_that_does_not_answer_at_times(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    runs = harness.store.runs
    harness.store.runs = Busy(runs, every=3)
    id = runs.submit(new_run("a" * 19, pipeline(stage(outputs=("model",))), 1.0)).id
    with harness.running():
        wait_for(lambda: (run := runs.get(APP, id)) and run.state is RunState.SUCCEEDED)
    assert len(harness.jobs.starts) == 1
    harness.close()
