"""Runs that daemons die over: what is played, and how it has to end. In threads of a test each death is an exception
(`test_crashes`), in processes of their own a real one (`tests/integration/runner/test_deaths.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from controller.domain.keys import DEVELOPER_AREA
from controller.domain.names import ComponentName
from controller.domain.pipelines import Pipeline
from controller.domain.runs import Run, RunInput, RunState, retry_of
from controller.domain.spec import PipelineVar, Retries
from controller.ports import Job
from tests.support.waiting import wait_for
from tests.unit.runner.scene import APP, BOX, BUCKET, Command, Scene, pipeline, stage

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


LEFT_AND_RIGHT = pipeline(
    stage("left", outputs=("a",)), stage("right", outputs=("b",)), stage("join", inputs=("a", "b"))
)


def _fits_side_by_side(scene: Scene, run: Run) -> None:
    assert run.state is RunState.SUCCEEDED, run
    assert [len(found.attempts) for found in run.stages] == [1, 1, 1]
    assert all(
        run.stage(name).history[-1].at <= run.stage("join").history[1].at for name in ("left", "right")
    )


def _submit_again(scene: Scene) -> str:
    """The repetition of a run that has failed in its second stage."""
    two_stages(scene)
    scene.commands["report"] = Command(code=1)
    with scene.running():
        before = scene.finish(replace(TWO_STAGES, continue_with=None), inputs=GIVEN)
    assert before.state is RunState.FAILED
    scene.commands["report"] = Command(files={"page/index.html": "at last"})
    return scene.store.runs.submit(retry_of(before, f"f{before.id[1:]}", scene.clock.now())).id


def _fits_repeated(scene: Scene, run: Run) -> None:
    assert run.state is RunState.SUCCEEDED, run
    assert (run.stage("fit").attempts, run.stage("fit").reused_from) == ((), run.origin)
    assert [attempt.exit_code for attempt in run.stage("report").attempts] == [0]
    assert scene.stored(f"runs/{run.id}/page/")["index.html"] == b"at last"
    assert sum(".fit." in name for name in scene.jobs.starts) == 1


def _stubborn(scene: Scene) -> None:
    scene.commands["fit"] = Command(code=None)


def _fits_too_slow(scene: Scene, run: Run) -> None:
    assert (run.state, run.reason) == (RunState.FAILED, "Timeout")
    assert len(run.stage("fit").attempts) == 1
    assert scene.jobs.stops


class Outage:
    """In place of `down`: over after so many refused calls."""

    def __init__(self, refusals: int) -> None:
        self._left = refusals

    def __bool__(self) -> bool:
        self._left -= 1
        return self._left >= 0


def _storage_away(scene: Scene) -> None:
    def leave(job: Job) -> None:
        scene.storage.down = Outage(refusals=1)  # type: ignore[assignment]

    scene.commands["fit"] = Command(files={"model/x": "x"}, act=leave)


def _fits_storage_away(scene: Scene, run: Run) -> None:
    assert (run.state, run.stage("fit").reason) == (RunState.SUCCEEDED, "")
    assert len(run.stage("fit").attempts) == 1
    assert scene.stored(f"runs/{run.id}/model/")["x"] == b"x"


@dataclass(frozen=True)
class Play:
    """`submit` prepares all and gives the run; `cancel`: a person does so once it runs."""

    submit: Callable[[Scene], str]
    fits: Callable[[Scene, Run], None]
    cancel: bool = False


def _play(
    of: Pipeline, prepare: Callable[[Scene], None], fits: Callable[[Scene, Run], None], **rest: bool
) -> Play:
    def submit(scene: Scene) -> str:
        prepare(scene)
        return scene.submit(of, inputs=GIVEN)

    return Play(submit, fits, **rest)


PLAYS = {
    "two stages": _play(TWO_STAGES, two_stages, _fits_two_stages),
    "side by side": _play(LEFT_AND_RIGHT, lambda scene: None, _fits_side_by_side),
    "failing": _play(TWO_STAGES, failing, _fits_failing),
    "too slow": _play(pipeline(stage(timeout=0.0)), _stubborn, _fits_too_slow),
    "canceled": _play(TWO_STAGES, canceled, _fits_canceled, cancel=True),
    "repeated": Play(_submit_again, _fits_repeated),
    "storage away": _play(pipeline(stage(outputs=("model",))), _storage_away, _fits_storage_away),
    "releasing": _play(RELEASE, releasing, _fits_releasing),
}


def check(scene: Scene, run: Run, play: Play, when: str) -> None:
    """Right, once, and nothing is left over."""
    assert [step.state.terminal for step in run.history].count(True) == 1, when
    assert len(set(scene.jobs.starts)) == len(scene.jobs.starts), f"run twice {when}"
    for found in run.stages:
        assert [a.number for a in found.attempts] == list(range(1, len(found.attempts) + 1)), when
    play.fits(scene, run)
    wait_for(lambda: scene.let_pass(70.0).jobs.names() == [])
    assert scene.store.boxes.get(APP, BOX) is not None
