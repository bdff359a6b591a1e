"""A person cancels: in every state, twice, and just when it is over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from controller.domain.apps.spec import Retries
from controller.domain.reasons import Reason
from controller.domain.runs.run import Run, RunInput, RunState, cancel
from controller.ports import JobState
from tests.support.specs import make
from tests.support.waiting import wait_for
from tests.unit.runner.harness import Command, Harness, pipeline, stage


def check_canceled(run: Run) -> None:
    assert (run.state, run.reason) == (RunState.CANCELED, "Canceled")
    assert all(found.state in (RunState.CANCELED, RunState.SUCCEEDED) for found in run.stages)
    assert [step.state for step in run.history].count(RunState.CANCELED) == 1


def test_in_the_queue(harness: Harness) -> None:
    harness.commands["fit"] = Command(code=None)
    of = pipeline(concurrency=1)
    first, second = harness.submit(of), harness.submit(of)
    harness.container()
    check_canceled(harness.cancel(second))
    harness.jobs.exit(harness.container().id)
    assert harness.until(first).state is RunState.SUCCEEDED
    check_canceled(harness.run(second))
    assert [job.run for job in harness.jobs.made] == [first]


def test_while_it_runs(harness: Harness) -> None:
    harness.commands["left"] = harness.commands["right"] = Command(code=None, log=b"so far\n")
    id = harness.submit(
        pipeline(stage("left", outputs=("x",)), stage("right"), stage("after", inputs=("x",)))
    )
    wait_for(lambda: sum(j.run == id and j.state is JobState.RUNNING for j in harness.jobs.all()) == 2)
    harness.cancel(id)
    run = harness.until(id)
    check_canceled(run)
    assert {found.name: found.reason for found in run.stages} == {
        "left": "Canceled",
        "right": "Canceled",
        "after": "NotRun",
    }
    assert run.stage("left").attempts[-1].exit_code == 143
    assert harness.log(id, "left") == b"so far\n"
    wait_for(lambda: not [name for name in harness.jobs.names() if id in name])


def test_for_another_reason(harness: Harness) -> None:
    harness.commands["fit"] = Command(code=None)
    id = harness.submit()
    harness.container()
    harness.until_stage(id, "fit", RunState.RUNNING)
    gone = (Reason.APP_DISCONNECTED, "its app was disconnected")
    while not harness.store.runs.save(cancel(harness.run(id), harness.clock.now(), *gone)):
        pass
    run = harness.until(id)
    assert (run.state, run.reason, run.message) == (RunState.CANCELED, *gone)
    fit = run.stage("fit")
    assert (fit.reason, fit.message) == gone
    assert (fit.attempts[-1].reason, fit.attempts[-1].message) == gone


def test_twice(harness: Harness) -> None:
    harness.commands["fit"] = Command(code=None)
    id = harness.submit()
    harness.container()
    assert harness.cancel(id).state is RunState.CANCELING
    assert harness.cancel(id).state in (RunState.CANCELING, RunState.CANCELED)
    run = harness.until(id)
    check_canceled(run)
    assert harness.cancel(id) == run
    assert len(harness.jobs.stops) == 1


def test_before_its_container_is_made(harness: Harness) -> None:
    """While an engine that is away is waited for."""
    harness.jobs.down = True
    id = harness.submit()
    harness.until_stage(id, "fit", RunState.STARTING)
    harness.cancel(id)
    harness.until(id, RunState.CANCELING)
    harness.jobs.down = False
    check_canceled(harness.until(id))
    assert harness.jobs.starts == []


def test_while_inputs_are_brought(harness: Harness) -> None:
    harness.put("g/in.csv", b"x")
    sent = threading.Event()

    def pieces(content: bytes) -> Iterator[bytes]:  # there is no end to it
        while True:
            yield content
            sent.set()

    harness.objects._pieces = pieces  # type: ignore[method-assign]
    id = harness.submit(pipeline(stage(inputs=("data",))), inputs=[RunInput("data", data="g/in.csv")])
    assert sent.wait(30)
    harness.cancel(id)
    check_canceled(harness.until(id))
    assert harness.jobs.made == []


def test_while_it_is_published(harness: Harness) -> None:
    gate, original = Gate(), harness.objects.put

    def put(bucket: str, key: str, *rest: object) -> object:
        if not key.endswith("made.txt"):
            gate.pass_through()
        return original(bucket, key, *rest)  # type: ignore[arg-type]

    harness.objects.put = put  # type: ignore[assignment,method-assign]
    harness.commands["fit"] = Command(files={f"model/{number:03}": "x" for number in range(500)})
    id = harness.submit(pipeline(stage(outputs=("model",))))
    gate.reached.wait(30)
    harness.cancel(id)
    harness.until(id, RunState.CANCELING)

    def one_more() -> Run:  # what the runner has heard of, no test can see
        gate.once()
        return harness.run(id)

    check_canceled(wait_for(one_more, lambda run: run.state.terminal))
    assert not [name for name in harness.stored() if name.endswith(".manifest.json")]
    gate.open.set()


def test_between_two_attempts(harness: Harness) -> None:
    harness.commands["fit"] = Command(code=1)
    id = harness.submit(pipeline(stage(retries=make(Retries, limit=5, backoff=3600.0))))
    wait_for(lambda: harness.run(id).stage("fit").not_before)
    harness.cancel(id)
    run = harness.until(id)
    check_canceled(run)
    assert len(run.stage("fit").attempts) == 1


def test_while_nobody_is_there(harness: Harness) -> None:
    harness.commands["fit"] = Command(code=None)
    id = harness.submit()
    harness.container()
    harness.until(id, RunState.RUNNING)
    harness.stop()
    harness.cancel(id)
    harness.start()
    check_canceled(harness.until(id))
    assert len(harness.jobs.stops) == 1


def test_too_late(harness: Harness) -> None:
    """The container has ended before anybody could stop it: what it has made counts."""
    harness.commands["fit"] = Command(code=None)
    id = harness.submit()
    job = harness.container()
    harness.until(id, RunState.RUNNING)
    harness.stop()
    harness.jobs.exit(job.id)
    harness.cancel(id)
    harness.start()
    run = harness.until(id)
    assert run.state is RunState.SUCCEEDED
    assert harness.jobs.stops == []


@pytest.mark.parametrize("delay", range(0, 60, 4))
def test_racing_completion(harness: Harness, delay: int) -> None:
    """All that is written is consistent, no matter which side is first."""
    harness.commands["fit"] = Command(code=None, files={"model/x": "x"})
    id = harness.submit(pipeline(stage(outputs=("model",))))
    job = harness.container()
    harness.until(id, RunState.RUNNING)
    threads = [threading.Thread(target=_later, args=(delay, lambda: _exit(harness, job.id)))]
    threads.append(threading.Thread(target=_later, args=(30, lambda: harness.cancel(id))))
    for thread in threads:
        thread.start()
    run = harness.until(id)
    for thread in threads:
        thread.join()
    published = any(name.endswith(".manifest.json") for name in harness.stored())
    if run.state is RunState.SUCCEEDED:
        assert published
        assert run.stage("fit").state is RunState.SUCCEEDED
    else:
        check_canceled(run)
        assert not published
    assert harness.run(id).state is run.state, "what is over stays as it is"


def _exit(harness: Harness, id: str) -> None:
    with suppress(KeyError):  # canceled, stopped and removed by now
        harness.jobs.exit(id)


def _later(delay: int, act: Callable[[], object]) -> None:
    """After so much work of the processor, not after a time."""
    for _ in range(delay * 20_000):
        pass
    act()


class Gate:
    """A point where a thread stops until it is released."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()
        self._passes = threading.Semaphore(0)

    def once(self) -> None:
        self._passes.release()

    def pass_through(self) -> None:
        self.reached.set()
        while not self.open.is_set() and not self._passes.acquire(timeout=0.02):
            pass
