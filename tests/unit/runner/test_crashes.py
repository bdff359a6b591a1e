"""The daemon dies at any call to the world outside; the next one brings the run to its one right end.

Death is a `BaseException` out of the n-th call that changes anything, before or after it took effect; from then on
every call of any thread fails alike, since a dead process makes none. Calls that only look are not counted: to die
there is to die before the next call that does something.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.domain.keys import DEVELOPER_AREA
from controller.domain.names import ComponentName
from controller.domain.pipelines import Pipeline
from controller.domain.runs import Run, RunInput, RunState
from controller.domain.spec import PipelineVar, Retries
from controller.ports import Job
from controller.runner.deps import Deps
from tests.support.waiting import wait_for
from tests.unit.runner.scene import APP, BOX, BUCKET, Command, Scene, pipeline, stage

ENOUGH = 100  # more calls than any of the runs here makes
LOOKS = frozenset(
    {"active", "get", "pipeline", "expired", "stat", "open", "page", "find", "all", "wait", "logs", "pending"}
)


class Died(BaseException):
    pass


class Lives:
    """Of one daemon. Counted are calls that changed something: a claim that found nothing did not."""

    def __init__(self, left: int, after: bool) -> None:
        self._left = left
        self._after = after
        self._lock = threading.Lock()
        self.over = False

    def call(self, name: str, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if name not in LOOKS and name != "claim" and not self._after:
            self._spend()
        self._check()
        result = inner(*args, **kwargs)
        if name not in LOOKS and self._after and (name != "claim" or result):
            self._spend()
        self._check()
        return result

    def _spend(self) -> None:
        with self._lock:
            self._left -= 1
            self.over = self.over or self._left <= 0

    def _check(self) -> None:
        if self.over:
            raise Died


class Mortal:
    def __init__(self, inner: Any, lives: Lives) -> None:
        self._inner, self._lives = inner, lives

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found
        return lambda *args, **kwargs: self._lives.call(name, found, *args, **kwargs)


class MortalStore:
    def __init__(self, store: Any, lives: Lives) -> None:
        self._store = store
        self.runs, self.boxes = Mortal(store.runs, lives), Mortal(store.boxes, lives)
        self.requests = Mortal(store.requests, lives)

    def changed(self) -> bool:
        return bool(self._store.changed())

    def transaction(self) -> AbstractContextManager[None]:
        found: AbstractContextManager[None] = self._store.transaction()
        return found


class MortalStorage:
    def __init__(self, storage: Any, lives: Lives) -> None:
        self._storage, self._lives = storage, lives

    def objects(self) -> Any:
        return Mortal(self._storage.objects(), self._lives)


def mortal(deps: Deps, lives: Lives) -> Deps:
    world: Any = {
        "store": MortalStore(deps.store, lives),
        "jobs": Mortal(deps.jobs, lives),
        "storage": MortalStorage(deps.storage, lives),
    }
    return replace(deps, **world)


# --- what is run ------------------------------------------------------------------------------------------------

NEXT = ComponentName("next")
TWO_STAGES = pipeline(
    stage("fit", inputs=("data",), outputs=("model",)),
    stage("report", inputs=("model",), outputs=("page",), retries=Retries(limit=1, backoff=0.0)),
    continue_with=NEXT,
)
GIVEN = (RunInput("data", data="g/in.csv"),)


def two_stages(scene: Scene) -> None:
    """One makes what the other takes in, which fails at first. Another pipeline follows."""
    scene.store.runs.publish(APP, (pipeline(stage("push"), name="next"),))
    scene.put("g/in.csv", "a,b")
    scene.commands["fit"] = Command(log=b"fitting\n", files={"model/x": "weights"})
    scene.commands["report"] = Command(act=lambda job: _report(scene, job))


def _report(scene: Scene, job: Job) -> None:
    (scene.outputs_of(job)[0] / "index.html").write_text(f"attempt {job.attempt}")
    command = scene.commands["report"]
    command.code, command.log = int(job.attempt == 1), b"reporting %d\n" % job.attempt


def _fits_two_stages(scene: Scene, run: Run) -> None:
    assert run.state is RunState.SUCCEEDED, run
    assert [a.exit_code for a in run.stage("report").attempts] == [1, 0]
    published = scene.stored(f"runs/{run.id}/page/")
    assert published["index.html"] == b"attempt 2"
    assert json.loads(published[".manifest.json"])["attempt"] == 2
    assert scene.log(run.id, "fit") == b"fitting\n"
    assert [scene.log(run.id, "report", n) for n in (1, 2)] == [b"reporting 1\n", b"reporting 2\n"]
    (follower,) = scene.store.runs.list(APP, NEXT)
    assert follower.origin == run.id


def failing(scene: Scene) -> None:
    scene.put("g/in.csv", "a,b")
    scene.commands["fit"] = Command(code=3, log=b"no\n")


def _fits_failing(scene: Scene, run: Run) -> None:
    assert (run.state, run.reason) == (RunState.FAILED, "ExitCode")
    assert [a.exit_code for a in run.stage("fit").attempts] == [3]
    assert scene.log(run.id, "fit") == b"no\n"
    assert scene.store.runs.list(APP, NEXT) == ()


def canceled(scene: Scene) -> None:
    scene.put("g/in.csv", "a,b")
    scene.commands["fit"] = Command(code=None)


def _fits_canceled(scene: Scene, run: Run) -> None:
    assert (run.state, run.stage("fit").state) == (RunState.CANCELED, RunState.CANCELED)
    assert len(run.stage("fit").attempts) <= 1
    assert scene.stored("runs/") == {}


RELEASE = replace(
    TWO_STAGES, stages=TWO_STAGES.stages[:1], vars=(PipelineVar("model", publish_to=(BOX, "digits/")),)
)


def releasing(scene: Scene) -> None:
    """What the stage makes becomes the module's own data, in place of an older model. Another pipeline follows."""
    two_stages(scene)
    for name in ("x", "old"):
        scene.put(f"digits/{name}", "old", area=DEVELOPER_AREA)


def _fits_releasing(scene: Scene, run: Run) -> None:
    assert run.state is RunState.SUCCEEDED, run
    assert run.released == ("model",)
    pin = scene.deps.models.pin(BUCKET, "digits/")
    assert [found.key for found in pin.objects] == ["developer/digits/x"]
    with scene.objects.open(BUCKET, "developer/digits/x") as pieces:
        assert b"".join(pieces) == b"weights"
    assert scene.store.requests.queued(APP) is not None, "components are told"
    assert len(scene.store.runs.list(APP, NEXT)) == 1


PLAYS = {
    "two stages": (TWO_STAGES, two_stages, _fits_two_stages),
    "failing": (TWO_STAGES, failing, _fits_failing),
    "canceled": (TWO_STAGES, canceled, _fits_canceled),
    "releasing": (RELEASE, releasing, _fits_releasing),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
@pytest.mark.parametrize("play", PLAYS)
def test_whatever_the_call_the_next_daemon_goes_on(tmp_path: Path, play: str, after: bool) -> None:
    of, prepare, check = PLAYS[play]
    for number in itertools.count(1):
        assert number < ENOUGH, "the run makes more calls than ENOUGH"
        scene = Scene(tmp_path / str(number))
        try:
            prepare(scene)
            id, died = _live_and_die(scene, of, number, after, play == "canceled")
            scene.start()
            _check(scene, scene.until(id), check, f"after death at call {number}")
        finally:
            scene.close()
        if not died:
            return


def _live_and_die(scene: Scene, of: Pipeline, number: int, after: bool, cancel: bool) -> tuple[str, bool]:
    """Whether it died, and was not at the end of its work before."""
    lives = Lives(number, after)
    id = scene.submit(of, inputs=GIVEN)
    scene.start(mortal(scene.deps, lives))
    wait_for(lambda: scene.died or lives.over or _is_running(scene, id) or scene.run(id).state.terminal)
    if cancel:
        scene.cancel(id)
    wait_for(lambda: scene.died or (scene.run(id).state.terminal and not scene.jobs.names()))
    died = bool(scene.died)
    scene.stop()
    scene.died.clear()
    return id, died


def _is_running(scene: Scene, id: str) -> bool:
    return scene.run(id).state is RunState.RUNNING


def _check(scene: Scene, run: Run, check: Callable[[Scene, Run], None], when: str) -> None:
    """Right, once, and nothing is left over."""
    assert [step.state.terminal for step in run.history].count(True) == 1, when
    assert len(set(scene.jobs.starts)) == len(scene.jobs.starts), f"run twice {when}"
    for found in run.stages:
        assert [a.number for a in found.attempts] == list(range(1, len(found.attempts) + 1)), when
    check(scene, run)
    wait_for(lambda: scene.let_pass(70.0).jobs.names() == [])
    assert scene.store.boxes.get(APP, BOX) is not None
