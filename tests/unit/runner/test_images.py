"""Images of runs that are repeated: kept while they are needed, within bounds, and told at once when they are gone."""

from __future__ import annotations

from typing import Any

import pytest

from controller.domain.errors import Stalled, Transient
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import RunOutput, RunState, images_to_repeat, new_run
from controller.ports import Job
from tests.support.specs import make
from tests.unit.runner.harness import APP, Command, Harness, pipeline
from tests.unit.runner.test_faults import repeat
from tests.unit.runner.test_publishing import again
from tests.unit.runner.test_release import box_of

TWO = pipeline(
    make(Stage, "fit", "sha256:fit", outputs=("model",)),
    make(Stage, "tell", "sha256:tell", inputs=("model",)),
)


def gone(app: AppName, reference: str) -> Any:
    raise Stalled(
        Reason.IMAGE_NOT_FOUND, f"cannot pull image {reference}: it was made on this host, but was removed"
    )


@pytest.fixture
def harness(harness: Harness) -> Harness:
    """Images that were built here cannot be had from anywhere."""
    harness.jobs.images |= {"sha256:fit", "sha256:tell"}
    harness.restart(pull=gone)
    return harness


@pytest.mark.parametrize("stage", ["fit", "tell"])
def test_an_image_that_cannot_be_had_is_told_before_anything_is_run(harness: Harness, stage: str) -> None:
    harness.jobs.images.discard(f"sha256:{stage}")
    run = harness.finish(TWO)
    assert (run.state, run.reason) == (RunState.FAILED, "ImagePull")
    assert f"the image of stage '{stage}', of commit c0ffee" in run.message
    assert "cannot be built again (there is no commit to build it from)" in run.message
    assert "load it again, or start a new run" in run.message
    assert harness.jobs.starts == []
    assert [len(found.attempts) for found in run.stages] == [1, 0]


@pytest.mark.parametrize("same", [True, False], ids=["the same image", "another image"])
@pytest.mark.parametrize("gone", [("fit",), ("tell",), ("fit", "tell")], ids="-".join)
def test_an_image_is_built_again_from_the_commit_of_the_run(
    harness: Harness, gone: set[str], same: bool
) -> None:
    built: list[str] = []

    def rebuild(of: Pipeline, stage: str) -> str:
        assert of.revision == TWO.revision
        built.append(stage)
        image = f"sha256:{stage}" if same else f"sha256:new-{stage}"
        harness.jobs.images.add(image)
        return image

    harness.restart(rebuild=rebuild)
    harness.jobs.images -= {f"sha256:{stage}" for stage in gone}
    run = harness.finish(TWO)
    assert run.state is RunState.SUCCEEDED
    assert sorted(built) == sorted(gone), "once each, before the first stage"
    used = [stage.image for stage in run.pipeline.stages]
    assert used == [f"sha256:{'new-' * (s in gone and not same)}{s}" for s in ("fit", "tell")]
    assert [job.image for job in harness.jobs.made] == used


def test_an_image_that_goes_after_the_look_is_built_again(harness: Harness) -> None:
    def rebuild(of: Pipeline, stage: str) -> str:
        harness.jobs.images.add("sha256:new")
        return "sha256:new"

    def act(job: Job) -> None:
        harness.jobs.images.discard("sha256:tell")

    harness.restart(rebuild=rebuild)
    harness.commands["fit"] = Command(files={"model/x": "x"}, act=act)
    assert harness.finish(TWO).state is RunState.SUCCEEDED
    assert [job.image for job in harness.jobs.made] == ["sha256:fit", "sha256:new"]


def test_a_build_that_fails_for_now_is_tried_again(harness: Harness) -> None:
    errors = 2 * [Transient(Reason.REGISTRY_UNREACHABLE, "no answer from the base image's registry")]

    def rebuild(of: Pipeline, stage: str) -> str:
        if errors:
            raise errors.pop()
        harness.jobs.images.add("sha256:fit")
        return "sha256:fit"

    harness.restart(rebuild=rebuild)
    harness.jobs.images.discard("sha256:fit")
    run = repeat(harness, harness.submit(TWO))
    assert (run.state, len(run.stage("fit").attempts)) == (RunState.SUCCEEDED, 2)


def test_a_repetition_needs_no_image_for_what_was_made(harness: Harness) -> None:
    harness.commands["tell"] = Command(code=1)
    failed = harness.finish(TWO)
    harness.jobs.images.discard("sha256:fit")
    del harness.commands["tell"]
    assert again(harness, failed).state is RunState.SUCCEEDED


def test_nor_for_what_is_only_to_be_published(harness: Harness) -> None:
    of = pipeline(TWO.stages[0])
    harness.commands["fit"] = Command(files={"model/x": "x" * 2000})
    box_of(harness, capacity=1000)
    failed = harness.finish(of, outputs=(RunOutput("model", "g/"),))
    box_of(harness, capacity=10_000)
    harness.jobs.images.clear()
    assert again(harness, failed).state is RunState.SUCCEEDED


def test_images_that_repetitions_need() -> None:
    """Of stages that are left to do, the first runs first, within the bound."""
    runs = []
    for number in range(20):
        of = pipeline(make(Stage, "fit", f"fit:{number}"), make(Stage, "tell", f"tell:{number // 2}"))
        run = new_run(f"{number:019x}", of, 1.0)
        fit = run.stage("fit").begin(1.0).to(RunState.RUNNING, 1.0).to(RunState.SUCCEEDED, 1.0)
        runs.append(run.with_stage(fit))
    assert images_to_repeat(runs, 3) == {"tell:0", "tell:1", "tell:2"}
    assert len(images_to_repeat(runs, 100)) == 10
    assert images_to_repeat([], 3) == frozenset()


def test_runs_that_can_be_repeated(harness: Harness) -> None:
    good = harness.finish(TWO)
    harness.commands["fit"] = Command(code=1)
    bad = [harness.finish(TWO).id for _ in range(3)]
    found = harness.store.runs.ended_badly(APP, 2)
    assert [run.id for run in found] == [bad[2], bad[1]]
    assert good.id not in {run.id for run in harness.store.runs.ended_badly(APP, 100)}
    assert harness.store.runs.ended_badly(AppName("other"), 9) == ()
