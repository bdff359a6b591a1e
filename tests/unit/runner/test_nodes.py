"""An engine that places jobs on nodes: it accepts them before they run, refuses some later, and loses nodes."""

from __future__ import annotations

import pytest

from controller.domain.apps.spec import Retries
from controller.domain.runs.run import RunState
from controller.domain.runs.steps import PLATFORM_PAUSES
from controller.ports import JobState
from tests.support.specs import make
from tests.support.waiting import wait_for
from tests.unit.runner.harness import Command, Harness, pipeline, stage
from tests.unit.runner.test_faults import ends, repeat

pytestmark = pytest.mark.slow

FULL = "0/2 nodes have a free GPU"


def until_told(harness: Harness, id: str) -> None:
    found = wait_for(lambda: harness.run(id).stage("fit"), lambda stage: stage.reason == "StartPending")
    assert FULL in found.message


def test_a_lost_node_is_the_platforms_fault(harness: Harness) -> None:
    harness.commands["fit"] = Command(code=None)
    id = harness.submit(pipeline(stage(retries=make(Retries, limit=0))))
    harness.jobs.lose(harness.container().id, "node-2 does not answer")
    harness.commands["fit"] = Command()
    run = repeat(harness, id)
    assert run.state is RunState.SUCCEEDED, "although the manifest allows no repetition"
    assert ends(run) == [("NodeLost", True), ("", False)]
    wait_for(lambda: not harness.jobs.names())


def test_nodes_that_are_always_lost_end_the_run_with_an_error(harness: Harness) -> None:
    harness.jobs.on_start = lambda job, id: harness.jobs.lose(id)
    run = repeat(harness, harness.submit())
    assert (run.state, run.reason) == (RunState.ERROR, "NodeLost")
    assert ends(run) == [("NodeLost", True)] * (1 + len(PLATFORM_PAUSES))


def test_what_is_pending_is_waited_for_and_says_why(harness: Harness) -> None:
    harness.jobs.pends["fit"] = FULL
    id = harness.submit()
    job = harness.container(state=JobState.PENDING)
    until_told(harness, id)
    harness.jobs.admit(job.id)
    run = wait_for(lambda: harness.let_pass().run(id), lambda run: run.state.terminal)
    assert run.state is RunState.SUCCEEDED
    assert ends(run) == [("", False)]
    assert run.stage("fit").reason == ""


def test_the_timeout_of_the_stage_begins_when_it_runs(harness: Harness) -> None:
    harness.jobs.pends["fit"] = FULL
    id = harness.submit(pipeline(stage(timeout=60.0)))
    job = harness.container(state=JobState.PENDING)
    until_told(harness, id)
    for _ in range(8):
        harness.let_pass()
    assert harness.run(id).stage("fit").state is RunState.RUNNING
    harness.jobs.admit(job.id)
    assert wait_for(lambda: harness.let_pass().run(id), lambda run: run.state.terminal).reason == ""


def test_what_is_pending_for_too_long_is_repeated_and_says_why(harness: Harness) -> None:
    harness.stop()
    harness.start(harness.with_settings(start_deadline=30.0))
    harness.jobs.pends["fit"] = FULL
    id = harness.submit()
    wait_for(lambda: harness.let_pass().run(id), lambda run: bool(ends(run)[:1] and ends(run)[0][0]))
    attempt = harness.run(id).stage("fit").attempts[0]
    assert (attempt.reason, attempt.platform) == ("StartPending", True)
    assert FULL in attempt.message
    assert "within 30s" in attempt.message
    wait_for(lambda: harness.jobs.starts[0] in harness.jobs.removals)
    del harness.jobs.pends["fit"]
    assert repeat(harness, id).state is RunState.SUCCEEDED


def test_what_is_refused_later_ends_the_run_and_says_why(harness: Harness) -> None:
    harness.jobs.pends["fit"] = FULL
    id = harness.submit()
    job = harness.container(state=JobState.PENDING)
    until_told(harness, id)
    harness.jobs.refuse(job.id, "no such storage class")
    run = wait_for(lambda: harness.let_pass().run(id), lambda run: run.state.terminal)
    assert (run.state, run.reason) == (RunState.ERROR, "StartRefused")
    assert "no such storage class" in run.message
    assert len(run.stage("fit").attempts) == 1


def test_what_is_pending_can_be_canceled(harness: Harness) -> None:
    harness.jobs.pends["fit"] = FULL
    id = harness.submit()
    harness.container(state=JobState.PENDING)
    until_told(harness, id)
    harness.cancel(id)
    run = wait_for(lambda: harness.let_pass().run(id), lambda run: run.state.terminal)
    assert run.state is RunState.CANCELED
    wait_for(lambda: not harness.jobs.names())


def test_a_daemon_that_restarts_goes_on_waiting(harness: Harness) -> None:
    harness.jobs.pends["fit"] = FULL
    id = harness.submit()
    job = harness.container(state=JobState.PENDING)
    until_told(harness, id)
    harness.stop()
    harness.start()
    harness.jobs.admit(job.id)
    run = wait_for(lambda: harness.let_pass().run(id), lambda run: run.state.terminal)
    assert run.state is RunState.SUCCEEDED
    assert harness.jobs.starts == [job.name], "started once"
