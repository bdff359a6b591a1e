"""Stages that ask for GPUs: they wait in line, and keep what they got whatever becomes of the daemon."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.config.settings import RunSettings
from controller.domain.apps.spec import Resources
from controller.domain.names import AppName, ComponentName
from controller.domain.runs.gpus import ASKED_WITHIN, WAITING, GpuRequest, Lease
from controller.domain.runs.run import Run, RunState
from controller.ports import JobState
from tests.support.specs import make
from tests.support.waiting import wait_for
from tests.unit.runner.harness import Command, Harness, pipeline, stage


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    made = Harness(tmp_path / "state", RunSettings(concurrent=100, per_app=100, gpus=("0", "GPU-b")))
    made.commands["fit"] = Command(code=None)
    made.start()
    yield made
    made.close()


def submit(harness: Harness, gpus: int) -> str:
    return harness.submit(pipeline(stage(resources=make(Resources, gpus=gpus))))


def running(harness: Harness) -> dict[str, tuple[str, ...]]:
    """The GPUs of each run that has a container at work."""
    up = {job.name: job.run for job in harness.jobs.all() if job.state is JobState.RUNNING}
    return {up[job.name]: job.gpus for job in harness.jobs.made if job.name in up}


def end(harness: Harness, id: str) -> Run:
    (job,) = [job for job in harness.jobs.all() if job.run == id and job.state is JobState.RUNNING]
    harness.jobs.exit(job.id)
    return harness.until(id)


def until_waiting(harness: Harness, id: str) -> Run:
    return wait_for(lambda: harness.run(id), lambda run: run.stage("fit").reason == WAITING)


def test_one_waits_until_there_are_enough(harness: Harness) -> None:
    first = submit(harness, 1)
    wait_for(lambda: running(harness) == {first: ("0",)})
    big = submit(harness, 2)
    waiting = until_waiting(harness, big).stage("fit")
    assert (waiting.state, waiting.attempts) == (RunState.QUEUED, ())
    small = submit(harness, 1)
    until_waiting(harness, small)
    other = harness.submit(pipeline(stage("cpu")))
    assert harness.until(other).state is RunState.SUCCEEDED, "who needs none waits for nobody"
    assert end(harness, first).state is RunState.SUCCEEDED
    wait_for(lambda: running(harness) == {big: ("0", "GPU-b")})
    assert harness.run(small).stage("fit").attempts == ()
    end(harness, big)
    wait_for(lambda: running(harness) == {small: ("0",)})
    end(harness, small)


def test_leases_outlive_the_daemon(harness: Harness) -> None:
    first = submit(harness, 1)
    wait_for(lambda: running(harness))
    second = submit(harness, 2)
    until_waiting(harness, second)
    harness.restart()
    third = submit(harness, 1)
    until_waiting(harness, third)
    assert running(harness) == {first: ("0",)}, "it was adopted, and still has it"
    end(harness, first)
    wait_for(lambda: running(harness) == {second: ("0", "GPU-b")})
    end(harness, second)
    wait_for(lambda: third in running(harness))
    end(harness, third)


def test_many_at_once_share_none(harness: Harness) -> None:
    left = {submit(harness, 1 + number % 2) for number in range(12)}
    while left:
        at_work = wait_for(lambda: running(harness))
        lent = [gpu for gpus in at_work.values() for gpu in gpus]
        assert len(lent) == len(set(lent)), at_work
        id = min(at_work)
        assert end(harness, id).state is RunState.SUCCEEDED
        left.remove(id)


def test_who_is_canceled_while_waiting_leaves_the_line(harness: Harness) -> None:
    first = submit(harness, 1)
    wait_for(lambda: running(harness))
    big, small = submit(harness, 2), submit(harness, 1)
    until_waiting(harness, big)
    harness.cancel(big)
    assert harness.until(big).state is RunState.CANCELED
    wait_for(lambda: running(harness) == {first: ("0",), small: ("GPU-b",)})
    end(harness, first)
    end(harness, small)


def test_a_host_that_lends_fewer_says_so_at_once(harness: Harness) -> None:
    run = harness.until(submit(harness, 3))
    assert (run.state, run.reason) == (RunState.FAILED, "NoGpu")
    assert "this host lends 2" in run.message
    harness.stop()
    none = replace(harness.deps, settings=replace(harness.settings, runs=RunSettings()))
    with harness.running(none):
        run = harness.until(submit(harness, 1))
    assert (run.state, run.reason) == (RunState.FAILED, "NoGpu")
    assert "this host lends none" in run.message


def test_what_a_component_has_is_lent_to_no_stage(harness: Harness) -> None:
    lease = Lease("prichal.demo.web.1.0", AppName("demo"), ComponentName("web"), ("0",))
    harness.store.gpus.save(lease)
    big, small = submit(harness, 2), submit(harness, 1)
    wait_for(lambda: running(harness) == {small: ("GPU-b",)})
    until_waiting(harness, big)
    assert "components have 1 of them" in harness.run(big).stage("fit").message
    end(harness, small)
    harness.store.gpus.release(lease.workload)
    wait_for(lambda: running(harness) == {big: ("0", "GPU-b")})
    end(harness, big)


def test_what_a_component_waits_for_goes_to_no_stage(harness: Harness) -> None:
    first = submit(harness, 1)
    wait_for(lambda: running(harness) == {first: ("0",)})
    now, app = harness.deps.clock.now(), AppName("demo")
    harness.store.gpus.ask(app, [GpuRequest(ComponentName("web"), 2)], now)
    second = submit(harness, 1)
    until_waiting(harness, second)
    harness.store.gpus.ask(app, (), now)
    wait_for(lambda: running(harness) == {first: ("0",), second: ("GPU-b",)})
    end(harness, first)
    end(harness, second)


def test_a_request_that_nobody_renews_is_in_no_ones_way(harness: Harness) -> None:
    long_ago = harness.deps.clock.now() - 2 * ASKED_WITHIN
    harness.store.gpus.ask(AppName("demo"), [GpuRequest(ComponentName("web"), 2)], long_ago)
    only = submit(harness, 1)
    wait_for(lambda: running(harness) == {only: ("0",)})
    end(harness, only)
