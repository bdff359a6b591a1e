"""Passes over apps with pipelines: what can be run is published, what cannot be had is said."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from controller.adapters.docker import DockerJobs
from controller.daemon.wiring import build_runner_deps
from controller.domain.apps.conditions import ConditionType
from controller.domain.apps.spec import CronSchedule, Limits, Overlap, Webhook
from controller.domain.errors import Stalled, Transient
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.routing.routes import ServiceKind
from controller.domain.runs.run import Run, RunState, new_run
from controller.domain.runs.steps import FinishRun, finish
from controller.manifests.reader import API_VERSION
from controller.ports import RunLimits
from tests.support.fake_engine import image_id
from tests.unit.reconcile.harness import APP, Harness, app, manifest, ml


def pipeline(image: dict[str, object] | None = None, **spec: object) -> str:
    image = image or {"existingImageName": "demo:1"}
    stage = {"name": "fit", "image": image, "outputs": [{"name": "model"}]}
    connected = {"connectedBoxes": [{"name": "results"}]}
    box = manifest("DataBox", "results", s3DefaultStorage={"capacity": "1M"})
    train = manifest(
        "ExperimentPipeline", "train", vars=[{"name": "model"}], stages=[stage], **connected, **spec
    )
    return f"{train}\n---\n{box}"


def api() -> str:
    outputs = [{"name": "model", "description": "what was learned"}]
    return manifest(
        "APIComponent",
        "train-api",
        experimentPipeline={"name": "train"},
        apiSpec={"outputs": outputs},
        restfulApi={"path": "train"},
    )


def test_a_pipeline_and_its_api_are_published(harness: Harness) -> None:
    harness.connect()
    harness.push(pipeline(), api(), manifest("APIComponent", "all", pipelines={}))
    assert harness.run().name == "Ready"
    (found,) = harness.store.runs.pipelines(APP)
    assert (found.name, [stage.name for stage in found.stages]) == ("train", ["fit"])
    assert found.webhook is None
    kinds = [service.kind for service in harness.store.routes.services(APP)]
    assert kinds == [ServiceKind.PIPELINES, ServiceKind.PIPELINE]
    assert [v.name for v in harness.store.routes.services(APP)[1].outputs] == ["model"]
    harness.disconnect()
    assert harness.run("platform").name == "Removed"
    assert harness.store.runs.pipelines(APP) == ()
    assert harness.store.routes.services(APP) == ()


def test_who_is_told_of_the_end_of_its_runs(harness: Harness) -> None:
    harness.connect()
    hook = {"url": "https://example.org/done", "secret": "keys"}
    secret = {
        "apiVersion": API_VERSION,
        "kind": "Secret",
        "metadata": {"name": "keys"},
        "stringData": {"secret": "s"},
    }
    harness.push(pipeline(webhook=hook), json.dumps(secret))
    harness.run()
    (found,) = harness.store.runs.pipelines(APP)
    assert found.webhook == Webhook("keys", "https://example.org/done")


def test_a_schedule_is_published_with_its_pipeline(harness: Harness) -> None:
    harness.connect()
    fields = {"stages": [{"name": "fit", "image": {"existingImageName": "demo:1"}}]}
    harness.push(manifest("ExperimentPipeline", "train", schedule={"cron": "0  3 * * *"}, **fields))
    assert harness.run().name == "Ready"
    (scheduled,) = harness.store.schedules.all(APP)
    assert scheduled.schedule == CronSchedule("0 3 * * *", "UTC", Overlap.FORBID)
    harness.push(manifest("ExperimentPipeline", "train", **fields))
    harness.run()
    assert harness.store.schedules.all(APP) == ()


def test_an_image_is_built_once_and_a_build_that_fails_is_not_tried_again(harness: Harness) -> None:
    harness.connect()
    build: dict[str, object] = {"build": {"context": ".", "dockerfile": "Dockerfile"}}
    harness.engine.build_failures["Dockerfile"] = "RUN false: exit code 1"
    harness.push(pipeline(build), ml(), Dockerfile="FROM demo:1")
    assert harness.run().name == "Failed"
    stalled = harness.condition(ConditionType.STALLED)
    assert stalled is not None
    assert "RUN false" in stalled.message
    assert harness.store.runs.pipelines(APP) == ()
    tried = len(harness.engine.builds)
    harness.settle()
    assert len(harness.engine.builds) == tried
    harness.engine.build_failures.clear()
    assert harness.run("manual").name == "Ready"
    assert len(harness.store.runs.pipelines(APP)) == 1
    harness.settle()
    assert len(harness.engine.builds) <= tried + 1


def test_a_pipeline_whose_image_is_gone_stays_as_it_was(harness: Harness) -> None:
    harness.connect()
    harness.push(pipeline())
    harness.run()
    before = harness.store.runs.pipelines(APP)
    harness.push(pipeline({"existingImageName": "nothing:1"}), ml())
    assert harness.run().name == "Failed"
    assert harness.store.runs.pipelines(APP) == before
    ready = harness.condition(ConditionType.READY)
    assert ready is not None
    assert ready.reason == "ImageNotFound"


def test_an_image_built_here_that_is_gone_is_built_again(harness: Harness) -> None:
    harness.connect()
    harness.push(pipeline({"build": {"context": ".", "dockerfile": "Dockerfile"}}), Dockerfile="FROM demo:1")
    harness.run()
    (tag,) = harness.engine.builds
    harness.engine.images -= {tag, image_id(tag)}
    assert harness.run("drift").name == "Ready"
    assert harness.engine.builds == [tag, tag]
    assert harness.store.runs.pipelines(APP)[0].stages[0].image in harness.engine.images


def test_an_image_of_an_older_commit_is_built_again_from_it(harness: Harness) -> None:
    deps = build_runner_deps(harness.deps, DockerJobs(harness.settings.docker, "prichal"))
    harness.connect()
    build = pipeline({"build": {"context": "."}})
    harness.push(build, Dockerfile="FROM old")
    assert harness.run().name == "Ready"
    (old,) = harness.store.runs.pipelines(APP)
    harness.push(pipeline(), Dockerfile="FROM new")
    assert harness.run().name == "Ready"
    harness.engine.images -= {image for image in harness.engine.images if image != "demo:1"}
    image = deps.rebuild(old, "fit")
    assert image == old.stage("fit").image
    assert image in harness.engine.images
    builds = list(harness.engine.builds)
    assert deps.rebuild(old, "fit") == image
    assert harness.engine.builds == builds, "what is there is not built again"
    with pytest.raises(Stalled):
        deps.rebuild(replace(old, revision="0" * 40), "fit")
    with pytest.raises(Stalled, match="no longer connected"):
        deps.rebuild(replace(old, app=AppName("other")), "fit")


def test_a_run_that_misses_such_an_image_asks_for_a_pass(harness: Harness) -> None:
    deps = build_runner_deps(harness.deps, DockerJobs(harness.settings.docker, "prichal"))
    harness.connect()
    harness.push(pipeline())
    harness.run()
    (train,) = harness.store.runs.pipelines(APP)
    harness.engine.registry_down = True
    with pytest.raises(Transient):
        deps.pull(APP, "registry.example.org/demo@sha256:1")
    assert harness.store.requests.queued(APP) is None
    harness.engine.registry_down = False
    with pytest.raises(Stalled, match="made on this host"):
        deps.pull(APP, image_id("prichal.local/demo/train.fit:1"))
    with pytest.raises(Stalled, match="its manifest does not say how to build it"):
        deps.rebuild(train, "fit")
    queued = harness.store.requests.queued(APP)
    assert queued is not None
    assert queued.reasons == ("drift",)


def test_an_image_loaded_by_hand_that_is_gone_is_told(harness: Harness) -> None:
    harness.connect()
    harness.push(pipeline())
    harness.run()
    harness.engine.images.remove("demo:1")
    assert harness.run("drift").name == "Failed"
    ready = harness.condition(ConditionType.READY)
    assert ready is not None
    assert ready.reason == "ImageNotFound"
    harness.engine.images.add("demo:1")
    harness.clock.advance(2.0)
    assert harness.run("drift").name == "Ready"


def test_what_an_api_lets_callers_leave_out_is_optional(harness: Harness) -> None:
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
    boxes = [{"name": "results"}]
    train = manifest("ExperimentPipeline", "train", vars=variables, stages=[stage], connectedBoxes=boxes)
    train += "\n---\n" + manifest("DataBox", "results", s3DefaultStorage={"capacity": "1M"})
    harness.connect()
    harness.push(train, described(data=True, note=False))
    assert harness.run().name == "Ready"
    assert harness.store.runs.pipelines(APP)[0].optional == ("note",)
    harness.push(train, described(data=True, note=True))
    assert harness.run().name == "Ready"
    assert harness.store.runs.pipelines(APP)[0].optional == ()


# --- leaving ----------------------------------------------------------------------------------------------------


def submitted(harness: Harness, id: str) -> Run:
    (found,) = harness.store.runs.pipelines(APP)
    return harness.store.runs.submit(new_run(id, found, harness.clock.now()))


def claimed(harness: Harness) -> Run:
    found = harness.store.runs.claim(RunLimits(10, 10), harness.clock.now())
    assert found
    return found


def ended(harness: Harness, id: str) -> Run:
    run = harness.store.runs.get(APP, id)
    assert run
    saved = harness.store.runs.save(finish(run, FinishRun(RunState.CANCELED), harness.clock.now()))
    assert saved
    return saved


def test_disconnecting_cancels_runs_and_waits_for_those_that_have_begun(harness: Harness) -> None:
    harness.connect()
    harness.push(pipeline(), api())
    harness.run()
    submitted(harness, "a")
    claimed(harness)
    submitted(harness, "b")
    harness.engine.ensure_network(APP)
    harness.disconnect()
    outcome = harness.run("platform")
    assert (outcome.name, outcome.retry_after) == ("Waiting", 1.0)
    assert harness.store.routes.services(APP) == (), "nobody can start another one"
    assert harness.engine.observe(APP).network
    begun, waiting = harness.store.runs.get(APP, "a"), harness.store.runs.get(APP, "b")
    assert begun
    assert waiting
    assert (begun.state, begun.reason) == (RunState.CANCELING, "AppDisconnected")
    assert (waiting.state, waiting.reason) == (RunState.CANCELED, "AppDisconnected")
    assert waiting.message == "its app was disconnected before it began"
    assert harness.run("retry").name == "Waiting"
    ended(harness, "a")
    assert harness.run("retry").name == "Removed"
    assert not harness.engine.observe(APP).network
    assert harness.store.runs.get(APP, "a"), "kept until its time is over"


def test_runs_of_a_pipeline_that_left_git_go_on(harness: Harness) -> None:
    harness.connect()
    harness.push(pipeline(), manifest("DataBox", "data", s3DefaultStorage={"capacity": "1G"}))
    harness.run()
    harness.engine.ensure_network(APP)
    harness.settle()
    assert harness.engine.observe(APP).network, "the next run needs it again"
    run = submitted(harness, "a")
    harness.push(manifest("DataBox", "data", s3DefaultStorage={"capacity": "1G"}))
    assert harness.run().name == "Ready"
    assert harness.store.runs.pipelines(APP) == ()
    assert harness.store.runs.get(APP, "a") == run
    assert harness.engine.observe(APP).network
    claimed(harness)
    ended(harness, "a")
    assert harness.run("drift").name == "Ready"
    assert not harness.engine.observe(APP).network


def test_an_image_that_a_waiting_run_needs_stays(harness: Harness) -> None:
    harness.connect()
    build: dict[str, object] = {"build": {"context": ".", "dockerfile": "Dockerfile"}}
    harness.push(pipeline(build), Dockerfile="FROM demo:1")
    harness.run()
    run = submitted(harness, "a")
    for number in range(5):
        harness.push(pipeline(build), Dockerfile=f"FROM demo:1\nENV N={number}")
        harness.run()
    assert len(harness.engine.builds) == 6
    present = [tag in harness.engine.images for tag in harness.engine.builds]
    assert present == [True, False, True, True, True, True]  # three for a rollback
    assert run.pipeline.stages[0].image in harness.engine.images


def test_an_image_that_the_repetition_of_a_failed_run_needs_stays(harness: Harness) -> None:
    harness.connect()
    build: dict[str, object] = {"build": {"context": ".", "dockerfile": "Dockerfile"}}
    harness.push(pipeline(build), Dockerfile="FROM demo:1")
    harness.run()
    run = submitted(harness, "a")
    claimed(harness)
    failed = harness.store.runs.get(APP, "a")
    assert failed
    assert harness.store.runs.save(
        finish(failed, FinishRun(RunState.FAILED, Reason.EXIT_CODE), harness.clock.now())
    )
    for number in range(5):
        harness.push(pipeline(build), Dockerfile=f"FROM demo:1\nENV N={number}")
        harness.run()
    assert run.pipeline.stages[0].image in harness.engine.images
    assert len([tag for tag in harness.engine.builds if tag in harness.engine.images]) == 5


def test_what_components_leave_of_the_limits_is_for_stages(harness: Harness) -> None:
    limits = Limits(cpus=4.0, memory=8 * 2**30, containers=5)
    harness.connect(app(limits=limits))
    harness.push(pipeline(), ml(replicas=2, resources={"cpus": 1.5, "memory": "1Gi"}))
    harness.run()
    (found,) = harness.store.runs.pipelines(APP)
    assert found.stage_limits == Limits(cpus=1.0, memory=6 * 2**30, containers=3)
    harness.connect(app(limits=replace(limits, cpus=8.0)))
    harness.run("platform")
    assert harness.store.runs.pipelines(APP)[0].stage_limits.cpus == 5.0


def test_a_network_that_others_use_is_no_failure(harness: Harness) -> None:
    def busy(app: AppName) -> None:
        raise Transient(Reason.NETWORK_IN_USE, "it has active endpoints")

    harness.connect()
    harness.push(ml())
    harness.run()
    harness.disconnect()
    remove = harness.engine.remove_network
    harness.engine.remove_network = busy  # type: ignore[method-assign]
    outcome = harness.run("platform")
    assert (outcome.name, outcome.retry_after) == ("Waiting", 5.0)
    assert harness.types() == [ConditionType.READY]
    harness.engine.remove_network = remove  # type: ignore[method-assign]
    assert harness.run("retry").name == "Removed"


def test_a_suspended_app_keeps_its_runs(harness: Harness) -> None:
    harness.connect()
    harness.push(pipeline())
    harness.run()
    run = submitted(harness, "a")
    harness.store.apps.set_suspended(APP, True)
    assert harness.run().name == "Suspended"
    assert harness.store.runs.get(APP, "a") == run
    assert claimed(harness).id == "a"
