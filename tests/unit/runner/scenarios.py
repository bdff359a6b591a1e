"""Runs that daemons die over: what is played, and how it has to end. In threads of a test each death is an exception
(`test_crashes`), in processes of their own a real one (`tests/integration/runner/test_deaths.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from controller.domain.apps.spec import PipelineVar, Retries
from controller.domain.names import ComponentName
from controller.domain.runs.pipeline import Pipeline
from controller.domain.runs.run import Run, RunFilter, RunInput, RunState, retry_of
from controller.domain.storage.keys import DEVELOPER_AREA
from controller.ports import Job
from tests.support.specs import make
from tests.support.waiting import wait_for
from tests.unit.runner.harness import APP, BOX, BUCKET, Command, Harness, pipeline, stage

NEXT = ComponentName("next")
TWO_STAGES = pipeline(
    stage("fit", inputs=("data",), outputs=("model",)),
    stage("report", inputs=("model",), outputs=("page",), retries=make(Retries, limit=1, backoff=0.0)),
    continue_with=NEXT,
)
GIVEN = (RunInput("data", data="g/in.csv"),)


def two_stages(harness: Harness) -> None:
    """One makes what the other takes in, which fails at first. Another pipeline follows."""
    harness.store.runs.publish(APP, (pipeline(stage("push"), name="next"),))
    harness.put("g/in.csv", "a,b")
    harness.commands["fit"] = Command(log=b"fitting\n", files={"model/x": "weights"})
    harness.commands["report"] = Command(act=lambda job: _report(harness, job))


def _report(harness: Harness, job: Job) -> None:
    (harness.outputs_of(job)[0] / "index.html").write_text(f"attempt {job.attempt}")
    command = harness.commands["report"]
    command.code, command.log = int(job.attempt == 1), b"reporting %d\n" % job.attempt


def _fits_two_stages(harness: Harness, run: Run) -> None:
    assert run.state is RunState.SUCCEEDED, run
    assert [a.exit_code for a in run.stage("report").attempts] == [1, 0]
    published = harness.stored(f"runs/{run.id}/page/")
    assert published["index.html"] == b"attempt 2"
    assert json.loads(published[".manifest.json"])["attempt"] == 2
    assert harness.log(run.id, "fit") == b"fitting\n"
    assert [harness.log(run.id, "report", n) for n in (1, 2)] == [b"reporting 1\n", b"reporting 2\n"]
    (follower,) = harness.store.runs.list(APP, RunFilter(NEXT))
    assert follower.origin == run.id


def failing(harness: Harness) -> None:
    harness.put("g/in.csv", "a,b")
    harness.commands["fit"] = Command(code=3, log=b"no\n")


def _fits_failing(harness: Harness, run: Run) -> None:
    assert (run.state, run.reason) == (RunState.FAILED, "ExitCode")
    assert [a.exit_code for a in run.stage("fit").attempts] == [3]
    assert harness.log(run.id, "fit") == b"no\n"
    assert harness.store.runs.list(APP, RunFilter(NEXT)) == ()


def canceled(harness: Harness) -> None:
    harness.put("g/in.csv", "a,b")
    harness.commands["fit"] = Command(code=None)


def _fits_canceled(harness: Harness, run: Run) -> None:
    assert (run.state, run.stage("fit").state) == (RunState.CANCELED, RunState.CANCELED)
    assert len(run.stage("fit").attempts) <= 1
    assert harness.stored("runs/") == {}


RELEASE = replace(
    TWO_STAGES, stages=TWO_STAGES.stages[:1], vars=(PipelineVar("model", publish_to=(BOX, "digits/")),)
)


def releasing(harness: Harness) -> None:
    """What the stage makes becomes the module's own data, in place of an older model. Another pipeline follows."""
    two_stages(harness)
    for name in ("x", "old"):
        harness.put(f"digits/{name}", "old", area=DEVELOPER_AREA)


def _fits_releasing(harness: Harness, run: Run) -> None:
    assert run.state is RunState.SUCCEEDED, run
    assert run.released == ("model",)
    pin = harness.deps.models.pin(BUCKET, "digits/")
    assert [found.key for found in pin.objects] == ["developer/digits/x"]
    with harness.objects.open(BUCKET, "developer/digits/x") as pieces:
        assert b"".join(pieces) == b"weights"
    assert harness.store.requests.queued(APP) is not None, "components are told"
    assert len(harness.store.runs.list(APP, RunFilter(NEXT))) == 1


LEFT_AND_RIGHT = pipeline(
    stage("left", outputs=("a",)), stage("right", outputs=("b",)), stage("join", inputs=("a", "b"))
)


def _fits_side_by_side(harness: Harness, run: Run) -> None:
    assert run.state is RunState.SUCCEEDED, run
    assert [len(found.attempts) for found in run.stages] == [1, 1, 1]
    assert all(
        run.stage(name).history[-1].at <= run.stage("join").history[1].at for name in ("left", "right")
    )


def _submit_again(harness: Harness) -> str:
    """The repetition of a run that has failed in its second stage."""
    two_stages(harness)
    harness.commands["report"] = Command(code=1)
    with harness.running():
        before = harness.finish(replace(TWO_STAGES, continue_with=None), inputs=GIVEN)
    assert before.state is RunState.FAILED
    harness.commands["report"] = Command(files={"page/index.html": "at last"})
    return harness.store.runs.submit(retry_of(before, f"f{before.id[1:]}", harness.clock.now())).id


def _fits_repeated(harness: Harness, run: Run) -> None:
    assert run.state is RunState.SUCCEEDED, run
    assert (run.stage("fit").attempts, run.stage("fit").reused_from) == ((), run.origin)
    assert [attempt.exit_code for attempt in run.stage("report").attempts] == [0]
    assert harness.stored(f"runs/{run.id}/page/")["index.html"] == b"at last"
    assert sum(".fit." in name for name in harness.jobs.starts) == 1


def _submit_unpublished(harness: Harness) -> str:
    """The repetition of a run whose output had no room."""
    harness.commands["fit"] = Command(files={"model/x": "x" * 2000})
    (box,) = harness.store.boxes.all()
    harness.store.boxes.save(replace(box, capacity=1000))
    with harness.running():
        before = harness.finish(pipeline(stage(outputs=("model",))))
    assert before.reason == "StorageFull"
    harness.store.boxes.save(box)
    return harness.store.runs.submit(retry_of(before, f"f{before.id[1:]}", harness.clock.now())).id


def _fits_unpublished(harness: Harness, run: Run) -> None:
    assert run.state is RunState.SUCCEEDED, run
    assert [attempt.exit_code for attempt in run.stage("fit").attempts] == [None]
    assert harness.stored(f"runs/{run.origin}/model/")["x"] == b"x" * 2000
    assert len(harness.jobs.starts) == 1


def _stubborn(harness: Harness) -> None:
    harness.commands["fit"] = Command(code=None)


def _fits_too_slow(harness: Harness, run: Run) -> None:
    assert (run.state, run.reason) == (RunState.FAILED, "Timeout")
    assert len(run.stage("fit").attempts) == 1
    assert harness.jobs.stops


class Outage:
    """In place of `down`: over after so many refused calls."""

    def __init__(self, refusals: int) -> None:
        self._left = refusals

    def __bool__(self) -> bool:
        self._left -= 1
        return self._left >= 0


def _storage_away(harness: Harness) -> None:
    def leave(job: Job) -> None:
        harness.storage.down = Outage(refusals=1)  # type: ignore[assignment]

    harness.commands["fit"] = Command(files={"model/x": "x"}, act=leave)


def _fits_storage_away(harness: Harness, run: Run) -> None:
    assert (run.state, run.stage("fit").reason) == (RunState.SUCCEEDED, "")
    assert len(run.stage("fit").attempts) == 1
    assert harness.stored(f"runs/{run.id}/model/")["x"] == b"x"


@dataclass(frozen=True)
class Scenario:
    """`submit` prepares all and gives the run; `cancel`: a person does so once it runs."""

    submit: Callable[[Harness], str]
    fits: Callable[[Harness, Run], None]
    cancel: bool = False


def _play(
    of: Pipeline, prepare: Callable[[Harness], None], fits: Callable[[Harness, Run], None], **rest: bool
) -> Scenario:
    def submit(harness: Harness) -> str:
        prepare(harness)
        return harness.submit(of, inputs=GIVEN)

    return Scenario(submit, fits, **rest)


SCENARIOS = {
    "two stages": _play(TWO_STAGES, two_stages, _fits_two_stages),
    "side by side": _play(LEFT_AND_RIGHT, lambda harness: None, _fits_side_by_side),
    "failing": _play(TWO_STAGES, failing, _fits_failing),
    "too slow": _play(pipeline(stage(timeout=1e-9)), _stubborn, _fits_too_slow),
    "canceled": _play(TWO_STAGES, canceled, _fits_canceled, cancel=True),
    "repeated": Scenario(_submit_again, _fits_repeated),
    "publishing repeated": Scenario(_submit_unpublished, _fits_unpublished),
    "storage away": _play(pipeline(stage(outputs=("model",))), _storage_away, _fits_storage_away),
    "releasing": _play(RELEASE, releasing, _fits_releasing),
}


def check(harness: Harness, run: Run, play: Scenario, when: str) -> None:
    """Right, once, and nothing is left over."""
    assert [step.state.terminal for step in run.history].count(True) == 1, when
    assert len(set(harness.jobs.starts)) == len(harness.jobs.starts), f"run twice {when}"
    for found in run.stages:
        assert [a.number for a in found.attempts] == list(range(1, len(found.attempts) + 1)), when
    play.fits(harness, run)
    wait_for(lambda: harness.let_pass(70.0).jobs.names() == [])
    assert harness.store.boxes.get(APP, BOX) is not None
