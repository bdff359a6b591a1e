"""Plans for pipelines: what can be run, and what is brought here for it."""

from __future__ import annotations

from dataclasses import replace

from controller.domain.apps.desired import BuildInput, DesiredApp, DesiredPipeline, DesiredStage, Unresolved
from controller.domain.apps.observed import ImageOrigin, ImagePin, ObservedApp
from controller.domain.apps.pauses import PlannerPolicy
from controller.domain.apps.plan import Plan
from controller.domain.apps.planner import plan_app
from controller.domain.apps.spec import BuildImage, ComponentKind
from controller.domain.apps.status import AppStatus, ComponentStatus
from controller.domain.names import ComponentName
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Pipeline, Stage
from tests.support.builders import APP, COMMIT, component, desired, observed
from tests.support.specs import make

TRAIN, FIT = ComponentName("train"), ComponentName("train.fit")


def declared(image: str = "fit@sha256:1", present: bool = True, build: bool = False) -> DesiredPipeline:
    pin = ImagePin(image, ImageOrigin.BUILD if build else ImageOrigin.REGISTRY, present)
    source = BuildInput(COMMIT, make(BuildImage, ".")) if build else None
    return DesiredPipeline(published(image), (DesiredStage(FIT, pin, source),))


def published(image: str = "fit@sha256:1") -> Pipeline:
    return make(Pipeline, APP, TRAIN, COMMIT, (make(Stage, "fit", image, outputs=("model",)),))


def there(*pipelines: Pipeline) -> ObservedApp:
    return replace(observed(network=False), pipelines=pipelines)


def lines(wanted: DesiredApp, found: ObservedApp, *memories: ComponentStatus) -> list[str]:
    made: Plan = plan_app(wanted, found, (), AppStatus(APP, components=memories), PlannerPolicy(), now=0.0)
    return [line.strip() for line in made.render().splitlines()[1:]]


def test_a_pipeline_is_published_when_its_images_are_here() -> None:
    assert lines(desired(pipelines=(declared(),)), there()) == ["publish train  # new: train"]
    assert lines(desired(pipelines=(declared(),)), there(published())) == ["nothing to do"]


def test_what_is_to_be_pulled_comes_first() -> None:
    assert lines(desired(pipelines=(declared(present=False),)), there()) == [
        "pull image fit@sha256:1  # the engine does not have it",
        "publish train  # new: train",
    ]


def test_an_image_that_was_removed_is_brought_again() -> None:
    assert lines(desired(pipelines=(declared(present=False),)), there(published())) == [
        "pull image fit@sha256:1  # the engine does not have it"
    ]


def test_a_build_comes_alone_and_the_version_before_can_be_run_meanwhile() -> None:
    wanted = desired(pipelines=(declared("new", present=False, build=True),))
    assert lines(wanted, there(published("old"))) == [
        "build image new  # this content has not been built here"
    ]


def test_a_build_that_failed_is_not_tried_again() -> None:
    wanted = desired(pipelines=(declared("new", present=False, build=True),))
    memory = ComponentStatus(
        FIT, ComponentKind.EXPERIMENT_PIPELINE, failed_fingerprint="new", failure="RUN false: 1"
    )
    assert lines(wanted, there(published("old")), memory) == [
        "hold ExperimentPipeline train.fit: Failed  # RUN false: 1"
    ]


def test_what_left_git_cannot_be_run_any_more() -> None:
    assert lines(desired(component()), there(published()))[-1] == "publish no pipeline  # gone: train"
    kept = desired(component(), prune=False)
    assert "publish" not in "\n".join(lines(kept, there(published())))


def test_what_cannot_be_resolved_stays_as_it_was() -> None:
    missing = Unresolved(
        TRAIN, Reason.IMAGE_NOT_FOUND, "no such image", kind=ComponentKind.EXPERIMENT_PIPELINE
    )
    assert lines(desired(unresolved=(missing,)), there(published())) == [
        "hold ExperimentPipeline train: ImageNotFound  # no such image"
    ]
