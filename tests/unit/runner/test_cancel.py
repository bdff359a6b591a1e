"""A person cancels: in every state, twice, and just when it is over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from controller.domain.runs import Run, RunInput, RunState, cancel
from controller.domain.spec import Retries
from controller.ports import JobState
from tests.support.waiting import wait_for
from tests.unit.runner.scene import Command, Scene, pipeline, stage


def check_canceled(run: Run) -> None:
    assert (run.state, run.reason) == (RunState.CANCELED, "Canceled")
    assert all(found.state in (RunState.CANCELED, RunState.SUCCEEDED) for found in run.stages)
    assert [step.state for step in run.history].count(RunState.CANCELED) == 1


def test_in_the_queue(scene: Scene) -> None:
    scene.commands["fit"] = Command(code=None)
    of = pipeline(concurrency=1)
    first, second = scene.submit(of), scene.submit(of)
    scene.container()
    check_canceled(scene.cancel(second))
    scene.jobs.exit(scene.container().id)
    assert scene.until(first).state is RunState.SUCCEEDED
    check_canceled(scene.run(second))
    assert [job.run for job in scene.jobs.made] == [first]


def test_while_it_runs(scene: Scene) -> None:
    scene.commands["left"] = scene.commands["right"] = Command(code=None, log=b"so far\n")
    id = scene.submit(pipeline(stage("left", outputs=("x",)), stage("right"), stage("after", inputs=("x",))))
    wait_for(lambda: sum(j.run == id and j.state is JobState.RUNNING for j in scene.jobs.all()) == 2)
    scene.cancel(id)
    run = scene.until(id)
    check_canceled(run)
    assert {found.name: found.reason for found in run.stages} == {
        "left": "Canceled",
        "right": "Canceled",
        "after": "NotRun",
    }
    assert run.stage("left").attempts[-1].exit_code == 143
    assert scene.log(id, "left") == b"so far\n"
    wait_for(lambda: not [name for name in scene.jobs.names() if id in name])


def test_for_another_reason(scene: Scene) -> None:
    scene.commands["fit"] = Command(code=None)
    id = scene.submit()
    scene.container()
    scene.until_stage(id, "fit", RunState.RUNNING)
    gone = ("AppDisconnected", "its app was disconnected")
    while not scene.store.runs.save(cancel(scene.run(id), scene.clock.now(), *gone)):
        pass
    run = scene.until(id)
    assert (run.state, run.reason, run.message) == (RunState.CANCELED, *gone)
    fit = run.stage("fit")
    assert (fit.reason, fit.message) == gone
    assert (fit.attempts[-1].reason, fit.attempts[-1].message) == gone


def test_twice(scene: Scene) -> None:
    scene.commands["fit"] = Command(code=None)
    id = scene.submit()
    scene.container()
    assert scene.cancel(id).state is RunState.CANCELING
    assert scene.cancel(id).state in (RunState.CANCELING, RunState.CANCELED)
    run = scene.until(id)
    check_canceled(run)
    assert scene.cancel(id) == run
    assert len(scene.jobs.stops) == 1


def test_before_its_container_is_made(scene: Scene) -> None:
    """While an engine that is away is waited for."""
    scene.jobs.down = True
    id = scene.submit()
    scene.until_stage(id, "fit", RunState.STARTING)
    scene.cancel(id)
    scene.until(id, RunState.CANCELING)
    scene.jobs.down = False
    check_canceled(scene.until(id))
    assert scene.jobs.starts == []


def test_while_inputs_are_brought(scene: Scene) -> None:
    scene.put("g/in.csv", b"x")
    sent = threading.Event()

    def pieces(content: bytes) -> Iterator[bytes]:  # there is no end to it
        while True:
            yield content
            sent.set()

    scene.objects._pieces = pieces  # type: ignore[method-assign]
    id = scene.submit(pipeline(stage(inputs=("data",))), inputs=[RunInput("data", data="g/in.csv")])
    assert sent.wait(30)
    scene.cancel(id)
    check_canceled(scene.until(id))
    assert scene.jobs.made == []


def test_while_it_is_published(scene: Scene) -> None:
    gate, original = Gate(), scene.objects.put

    def put(bucket: str, key: str, *rest: object) -> object:
        if not key.endswith("made.txt"):
            gate.pass_through()
        return original(bucket, key, *rest)  # type: ignore[arg-type]

    scene.objects.put = put  # type: ignore[assignment,method-assign]
    scene.commands["fit"] = Command(files={f"model/{number:03}": "x" for number in range(500)})
    id = scene.submit(pipeline(stage(outputs=("model",))))
    gate.reached.wait(30)
    scene.cancel(id)
    scene.until(id, RunState.CANCELING)

    def one_more() -> Run:  # what the runner has heard of, no test can see
        gate.once()
        return scene.run(id)

    check_canceled(wait_for(one_more, lambda run: run.state.terminal))
    assert not [name for name in scene.stored() if name.endswith(".manifest.json")]
    gate.open.set()


def test_between_two_attempts(scene: Scene) -> None:
    scene.commands["fit"] = Command(code=1)
    id = scene.submit(pipeline(stage(retries=Retries(limit=5, backoff=3600.0))))
    wait_for(lambda: scene.run(id).stage("fit").not_before)
    scene.cancel(id)
    run = scene.until(id)
    check_canceled(run)
    assert len(run.stage("fit").attempts) == 1


def test_while_nobody_is_there(scene: Scene) -> None:
    scene.commands["fit"] = Command(code=None)
    id = scene.submit()
    scene.container()
    scene.until(id, RunState.RUNNING)
    scene.stop()
    scene.cancel(id)
    scene.start()
    check_canceled(scene.until(id))
    assert len(scene.jobs.stops) == 1


def test_too_late(scene: Scene) -> None:
    """The container has ended before anybody could stop it: what it has made counts."""
    scene.commands["fit"] = Command(code=None)
    id = scene.submit()
    job = scene.container()
    scene.until(id, RunState.RUNNING)
    scene.stop()
    scene.jobs.exit(job.id)
    scene.cancel(id)
    scene.start()
    run = scene.until(id)
    assert run.state is RunState.SUCCEEDED
    assert scene.jobs.stops == []


@pytest.mark.parametrize("delay", range(0, 60, 4))
def test_racing_completion(scene: Scene, delay: int) -> None:
    """Whoever is first, all that is written fits together."""
    scene.commands["fit"] = Command(code=None, files={"model/x": "x"})
    id = scene.submit(pipeline(stage(outputs=("model",))))
    job = scene.container()
    scene.until(id, RunState.RUNNING)
    threads = [threading.Thread(target=_later, args=(delay, lambda: scene.jobs.exit(job.id)))]
    threads.append(threading.Thread(target=_later, args=(30, lambda: scene.cancel(id))))
    for thread in threads:
        thread.start()
    run = scene.until(id)
    for thread in threads:
        thread.join()
    published = any(name.endswith(".manifest.json") for name in scene.stored())
    if run.state is RunState.SUCCEEDED:
        assert published
        assert run.stage("fit").state is RunState.SUCCEEDED
    else:
        check_canceled(run)
        assert not published
    assert scene.run(id).state is run.state, "what is over stays as it is"


def _later(delay: int, act: Callable[[], object]) -> None:
    """After so much work of the processor, not after a time."""
    for _ in range(delay * 20_000):
        pass
    act()


class Gate:
    """Where somebody stops until he is let through."""

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
