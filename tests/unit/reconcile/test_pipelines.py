"""Passes over apps with pipelines: what can be run is published, what cannot be had is said."""

from __future__ import annotations

import json

import pytest

from controller.adapters.docker import DockerJobs
from controller.daemon.wiring import build_deps
from controller.domain.conditions import ConditionType
from controller.domain.errors import Stalled, Transient
from controller.domain.routes import ServiceKind
from controller.domain.spec import Webhook
from controller.manifests.reader import API_VERSION
from tests.support.fake_engine import image_id
from tests.unit.reconcile.scene import APP, Scene, manifest, ml


def pipeline(image: dict[str, object] | None = None, **spec: object) -> str:
    image = image or {"existingImageName": "demo:1"}
    stage = {"name": "fit", "image": image, "outputs": [{"name": "model"}]}
    return manifest("ExperimentPipeline", "train", vars=[{"name": "model"}], stages=[stage], **spec)


def api() -> str:
    outputs = [{"name": "model", "description": "what was learned"}]
    return manifest(
        "APIComponent",
        "train-api",
        experimentPipeline={"name": "train"},
        apiSpec={"outputs": outputs},
        restfulApi={"path": "train"},
    )


def test_a_pipeline_and_its_api_are_published(scene: Scene) -> None:
    scene.connect()
    scene.push(pipeline(), api(), manifest("APIComponent", "all", pipelines={}))
    assert scene.run().name == "Ready"
    (found,) = scene.store.runs.pipelines(APP)
    assert (found.name, [stage.name for stage in found.stages]) == ("train", ["fit"])
    assert found.webhook is None
    kinds = [service.kind for service in scene.store.routes.services(APP)]
    assert kinds == [ServiceKind.PIPELINES, ServiceKind.PIPELINE]
    assert [v.name for v in scene.store.routes.services(APP)[1].outputs] == ["model"]
    scene.disconnect()
    assert scene.run("platform").name == "Removed"
    assert scene.store.runs.pipelines(APP) == ()
    assert scene.store.routes.services(APP) == ()


def test_who_is_told_of_the_end_of_its_runs(scene: Scene) -> None:
    scene.connect()
    hook = {"url": "https://example.org/done", "secret": "keys"}
    secret = {
        "apiVersion": API_VERSION,
        "kind": "Secret",
        "metadata": {"name": "keys"},
        "stringData": {"secret": "s"},
    }
    scene.push(pipeline(webhook=hook), json.dumps(secret))
    scene.run()
    (found,) = scene.store.runs.pipelines(APP)
    assert found.webhook == Webhook("keys", "https://example.org/done")


def test_an_image_is_built_once_and_a_build_that_fails_is_not_tried_again(scene: Scene) -> None:
    scene.connect()
    build: dict[str, object] = {"build": {"context": ".", "dockerfile": "Dockerfile"}}
    scene.engine.build_failures["Dockerfile"] = "RUN false: exit code 1"
    scene.push(pipeline(build), ml(), Dockerfile="FROM demo:1")
    assert scene.run().name == "Failed"
    stalled = scene.condition(ConditionType.STALLED)
    assert stalled is not None
    assert "RUN false" in stalled.message
    assert scene.store.runs.pipelines(APP) == ()
    tried = len(scene.engine.builds)
    scene.settle()
    assert len(scene.engine.builds) == tried
    scene.engine.build_failures.clear()
    assert scene.run("manual").name == "Ready"
    assert len(scene.store.runs.pipelines(APP)) == 1
    scene.settle()
    assert len(scene.engine.builds) <= tried + 1


def test_a_pipeline_whose_image_is_gone_stays_as_it_was(scene: Scene) -> None:
    scene.connect()
    scene.push(pipeline())
    scene.run()
    before = scene.store.runs.pipelines(APP)
    scene.push(pipeline({"existingImageName": "nothing:1"}), ml())
    assert scene.run().name == "Failed"
    assert scene.store.runs.pipelines(APP) == before
    ready = scene.condition(ConditionType.READY)
    assert ready is not None
    assert ready.reason == "ImageNotFound"


def test_an_image_built_here_that_is_gone_is_built_again(scene: Scene) -> None:
    scene.connect()
    scene.push(pipeline({"build": {"context": ".", "dockerfile": "Dockerfile"}}), Dockerfile="FROM demo:1")
    scene.run()
    (tag,) = scene.engine.builds
    scene.engine.images -= {tag, image_id(tag)}
    assert scene.run("drift").name == "Ready"
    assert scene.engine.builds == [tag, tag]
    assert scene.store.runs.pipelines(APP)[0].stages[0].image in scene.engine.images


def test_a_run_that_misses_such_an_image_asks_for_a_pass(scene: Scene) -> None:
    deps = build_deps(scene.house, DockerJobs(scene.settings.docker, "prichal"))
    scene.engine.registry_down = True
    with pytest.raises(Transient):
        deps.pull(APP, "registry.example.org/demo@sha256:1")
    assert scene.store.requests.queued(APP) is None
    scene.engine.registry_down = False
    with pytest.raises(Stalled, match="made on this host"):
        deps.pull(APP, image_id("prichal.local/demo/train.fit:1"))
    queued = scene.store.requests.queued(APP)
    assert queued is not None
    assert queued.reasons == ("drift",)


def test_an_image_loaded_by_hand_that_is_gone_is_told(scene: Scene) -> None:
    scene.connect()
    scene.push(pipeline())
    scene.run()
    scene.engine.images.remove("demo:1")
    assert scene.run("drift").name == "Failed"
    ready = scene.condition(ConditionType.READY)
    assert ready is not None
    assert ready.reason == "ImageNotFound"
    scene.engine.images.add("demo:1")
    assert scene.run("drift").name == "Ready"


def test_what_an_api_lets_callers_leave_out_is_optional(scene: Scene) -> None:
    def described(**required: bool) -> str:
        inputs = [
            {"name": name, "required": needed, "type": {"datatypes": ["str"]}}
            for name, needed in required.items()
        ]
        outputs = [{"name": "model"}]
        return manifest(
            "APIComponent",
            "train-api",
            experimentPipeline={"name": "train"},
            apiSpec={"inputs": inputs, "outputs": outputs},
            restfulApi={"path": "train"},
        )

    variables = [{"name": name} for name in ("data", "note", "model")]
    stage = {
        "name": "fit",
        "image": {"existingImageName": "demo:1"},
        "inputs": variables[:2],
        "outputs": variables[2:],
    }
    train = manifest("ExperimentPipeline", "train", vars=variables, stages=[stage])
    scene.connect()
    scene.push(train, described(data=True, note=False))
    assert scene.run().name == "Ready"
    assert scene.store.runs.pipelines(APP)[0].optional == ("note",)
    scene.push(train, described(data=True, note=True))
    assert scene.run().name == "Ready"
    assert scene.store.runs.pipelines(APP)[0].optional == ()
