"""Passes over apps with pipelines: what can be run is published, what cannot be had is said."""

from __future__ import annotations

import json

import pytest

from controller.adapters.docker import DockerJobs
from controller.daemon.wiring import build_deps
from controller.domain.conditions import ConditionType
from controller.domain.errors import Stalled, Transient
from controller.domain.names import AppName
from controller.domain.routes import ServiceKind
from controller.domain.runs import Run, RunState, new_run
from controller.domain.spec import Overlap, Schedule, Webhook
from controller.domain.steps import Finish, finish
from controller.manifests.reader import API_VERSION
from controller.ports import RunLimits
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


def test_a_schedule_is_published_with_its_pipeline(scene: Scene) -> None:
    scene.connect()
    fields = {"stages": [{"name": "fit", "image": {"existingImageName": "demo:1"}}]}
    scene.push(manifest("ExperimentPipeline", "train", schedule={"cron": "0  3 * * *"}, **fields))
    assert scene.run().name == "Ready"
    (scheduled,) = scene.store.schedules.all(APP)
    assert scheduled.schedule == Schedule("0 3 * * *", "UTC", Overlap.FORBID)
    scene.push(manifest("ExperimentPipeline", "train", **fields))
    scene.run()
    assert scene.store.schedules.all(APP) == ()


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


# --- leaving ----------------------------------------------------------------------------------------------------


def submitted(scene: Scene, id: str) -> Run:
    (found,) = scene.store.runs.pipelines(APP)
    return scene.store.runs.submit(new_run(id, found, scene.clock.now()))


def claimed(scene: Scene) -> Run:
    found = scene.store.runs.claim(RunLimits(10, 10), scene.clock.now())
    assert found
    return found


def ended(scene: Scene, id: str) -> Run:
    run = scene.store.runs.get(APP, id)
    assert run
    saved = scene.store.runs.save(finish(run, Finish(RunState.CANCELED), scene.clock.now()))
    assert saved
    return saved


def test_disconnecting_cancels_runs_and_waits_for_those_that_have_begun(scene: Scene) -> None:
    scene.connect()
    scene.push(pipeline(), api())
    scene.run()
    submitted(scene, "a")
    claimed(scene)
    submitted(scene, "b")
    scene.engine.ensure_network(APP)
    scene.disconnect()
    outcome = scene.run("platform")
    assert (outcome.name, outcome.retry_after) == ("Waiting", 1.0)
    assert scene.store.routes.services(APP) == (), "nobody can start another one"
    assert scene.engine.observe(APP).network
    begun, waiting = scene.store.runs.get(APP, "a"), scene.store.runs.get(APP, "b")
    assert begun
    assert waiting
    assert (begun.state, begun.reason) == (RunState.CANCELING, "AppDisconnected")
    assert (waiting.state, waiting.reason) == (RunState.CANCELED, "AppDisconnected")
    assert waiting.message == "its app was disconnected before it began"
    assert scene.run("retry").name == "Waiting"
    ended(scene, "a")
    assert scene.run("retry").name == "Removed"
    assert not scene.engine.observe(APP).network
    assert scene.store.runs.get(APP, "a"), "kept until its time is over"


def test_runs_of_a_pipeline_that_left_git_go_on(scene: Scene) -> None:
    scene.connect()
    scene.push(pipeline(), manifest("DataBox", "data", s3DefaultStorage={"capacity": "1G"}))
    scene.run()
    scene.engine.ensure_network(APP)
    scene.settle()
    assert scene.engine.observe(APP).network, "the next run needs it again"
    run = submitted(scene, "a")
    scene.push(manifest("DataBox", "data", s3DefaultStorage={"capacity": "1G"}))
    assert scene.run().name == "Ready"
    assert scene.store.runs.pipelines(APP) == ()
    assert scene.store.runs.get(APP, "a") == run
    assert scene.engine.observe(APP).network
    claimed(scene)
    ended(scene, "a")
    assert scene.run("drift").name == "Ready"
    assert not scene.engine.observe(APP).network


def test_an_image_that_a_waiting_run_needs_stays(scene: Scene) -> None:
    scene.connect()
    build: dict[str, object] = {"build": {"context": ".", "dockerfile": "Dockerfile"}}
    scene.push(pipeline(build), Dockerfile="FROM demo:1")
    scene.run()
    run = submitted(scene, "a")
    for number in range(4):
        scene.push(pipeline(build), Dockerfile=f"FROM demo:1\nENV N={number}")
        scene.run()
    assert len(scene.engine.builds) == 5
    present = [tag in scene.engine.images for tag in scene.engine.builds]
    assert present == [True, False, False, True, True]
    assert run.pipeline.stages[0].image in scene.engine.images


def test_a_network_that_others_use_is_no_failure(scene: Scene) -> None:
    def busy(app: AppName) -> None:
        raise Transient("NetworkInUse", "it has active endpoints")

    scene.connect()
    scene.push(ml())
    scene.run()
    scene.disconnect()
    remove = scene.engine.remove_network
    scene.engine.remove_network = busy  # type: ignore[method-assign]
    outcome = scene.run("platform")
    assert (outcome.name, outcome.retry_after) == ("Waiting", 5.0)
    assert scene.types() == [ConditionType.READY]
    scene.engine.remove_network = remove  # type: ignore[method-assign]
    assert scene.run("retry").name == "Removed"


def test_a_suspended_app_keeps_its_runs(scene: Scene) -> None:
    scene.connect()
    scene.push(pipeline())
    scene.run()
    run = submitted(scene, "a")
    scene.store.apps.set_suspended(APP, True)
    assert scene.run().name == "Suspended"
    assert scene.store.runs.get(APP, "a") == run
    assert claimed(scene).id == "a"
