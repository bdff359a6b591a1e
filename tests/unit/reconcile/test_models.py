"""Models of components: pinned, followed, brought here, and none of it in the way of what serves."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.models import ModelCache
from controller.adapters.staging import StagingFolders
from controller.domain.apps.conditions import Condition, ConditionType, find
from controller.domain.apps.desired import ModelMount
from controller.domain.apps.status import EventType
from controller.domain.names import ComponentName, bucket_name
from controller.domain.runs.file_index import index_head, unfinished
from controller.domain.storage.box import ModelPin, StoredObject
from controller.reconcile.next_pass import preview
from tests.unit.reconcile.harness import APP, Harness, app, manifest, ml

BUCKET = bucket_name("prichal", APP, ComponentName("weights"))
PATH = "resnet/model.onnx"
Nothing = Callable[[], object]
Meddle = Callable[[ModelPin], object]


def with_model(name: str = "classify", follow: bool = False, path: str = PATH, **spec: Any) -> str:
    service = {
        "inference": "app:predict",
        "modelBox": "weights",
        "modelPath": path,
        **({"followModel": True} if follow else {}),
    }
    return ml(name, mlService=service, **spec)


def box() -> str:
    return manifest("DataBox", "weights", s3DefaultStorage={})


def upload(harness: Harness, content: bytes, path: str = PATH) -> StoredObject:
    objects = harness.storage.objects()
    objects.create_bucket(BUCKET)
    return objects.put(BUCKET, f"developer/{path}", io.BytesIO(content), len(content))


def deployed(harness: Harness, follow: bool = False, **spec: Any) -> str:
    """The first version serves with the model `one`."""
    harness.connect()
    upload(harness, b"one")
    commit = harness.push(with_model(follow=follow, **spec), box())
    assert harness.run().name == "Ready"
    return commit


def place(harness: Harness, mount: ModelMount) -> Path:
    return StagingFolders.of(harness.settings).path(mount.volume) / mount.name


def mounted(harness: Harness, component: str = "classify") -> set[bytes]:
    """What the running containers of the component find as their model."""
    mounts = [harness.engine.mount(w.id) for w in harness.running(component)]
    return {place(harness, mount).read_bytes() for mount in mounts if mount}


def told(harness: Harness, kind: ConditionType, component: str = "classify") -> Condition | None:
    status = harness.status().component(ComponentName(component))
    assert status is not None
    return find(status.conditions, kind)


def cached(harness: Harness) -> set[bytes]:
    return {path.read_bytes() for path in harness.settings.models.rglob("*") if path.is_file()}


class Meddled(ModelCache):
    """Others do something while a model is looked for, or right before or after the first time that one is staged."""

    def __init__(self, harness: Harness, look: Nothing, before: Meddle, after: Meddle) -> None:
        super().__init__(harness.settings.models, harness.storage, capacity=100)
        self._look = look
        self._meddling = [(before, after)]

    def pin(self, bucket: str, path: str) -> ModelPin:
        self._look()
        return super().pin(bucket, path)

    def stage(self, pin: ModelPin, check: Callable[[], None] = lambda: None) -> None:
        before, after = self._meddling.pop() if self._meddling else (nothing, nothing)
        before(pin)
        super().stage(pin, check)
        after(pin)


def nothing(*_: object) -> None:
    pass


def meddle(
    harness: Harness, look: Nothing = nothing, before: Meddle = nothing, after: Meddle = nothing
) -> None:
    harness.deps = replace(harness.deps, models=Meddled(harness, look, before, after))


# --- the first version ------------------------------------------------------------------------------------------


def test_the_model_is_brought_before_the_start(harness: Harness) -> None:
    deployed(harness)
    assert mounted(harness) == {b"one"}
    plan = harness.status().plan
    assert plan.index("stage model model.onnx@") < plan.index("start ")
    assert harness.events().index("Staging") < harness.events().index("Started")
    status = harness.status().component(ComponentName("classify"))
    assert status is not None
    assert harness.models.has(status.model)


def test_idle_passes_do_nothing_write_nothing_and_tell_nothing(harness: Harness) -> None:
    deployed(harness, follow=True)
    status, events, starts = harness.status(), harness.events(), list(harness.engine.starts)
    assert harness.settle().name == "Ready"
    assert (harness.status(), harness.events(), harness.engine.starts) == (status, events, starts)


def test_components_share_a_model(harness: Harness) -> None:
    harness.connect()
    upload(harness, b"one")
    harness.push(with_model("a", replicas=2), with_model("b"), box())
    assert harness.run().name == "Ready"
    assert mounted(harness, "a") == mounted(harness, "b") == {b"one"}
    assert len(list(harness.settings.models.iterdir())) == 1


def test_a_component_waits_for_its_model_and_its_neighbour_does_not(harness: Harness) -> None:
    harness.connect()
    harness.push(with_model(), ml("modest"), box())
    assert harness.run().name != "Ready"
    assert harness.running("modest")
    assert not harness.running()
    assert told(harness, ConditionType.STALLED) is None
    ready = told(harness, ConditionType.READY)
    assert ready is not None
    assert ready.reason == "AwaitingModel"
    assert "'weights'" in ready.message
    assert f"prichal file put --area developer FILE demo:weights/{PATH}" in ready.message
    assert harness.outcome.name == "Waiting"
    told_of = [e for e in harness.store.events.list(APP, limit=100) if e.reason == "AwaitingModel"]
    assert [e.type for e in told_of] == [EventType.NORMAL], "once, and not as a warning"

    upload(harness, b"one")
    assert harness.run("drift").name == "Ready"
    assert mounted(harness) == {b"one"}


def test_a_storage_that_is_down_is_tried_again_and_holds_nobody_else_up(harness: Harness) -> None:
    harness.connect()
    upload(harness, b"one")
    harness.storage.down = True
    harness.push(with_model(), ml("modest"), box())
    outcome = harness.run()
    assert outcome.retry_after is not None
    assert harness.running("modest")
    assert not harness.running()
    harness.storage.down = False
    assert harness.retry().name == "Ready"


def test_a_model_replaced_while_it_is_fetched_is_fetched_anew(harness: Harness) -> None:
    harness.connect()
    upload(harness, b"one")
    harness.push(with_model(), box())
    meddle(harness, before=lambda pin: upload(harness, b"two"))
    outcome = harness.run()
    assert outcome.retry_after is not None
    assert "replaced" in outcome.message
    assert PATH in outcome.message
    assert harness.retry().name == "Ready"
    assert mounted(harness) == {b"two"}


# --- a newer content --------------------------------------------------------------------------------------------


def test_a_newer_content_is_told_and_not_taken(harness: Harness) -> None:
    deployed(harness)
    upload(harness, b"two")
    assert harness.run("drift").name == "Ready"
    assert mounted(harness) == {b"one"}
    for warning in (told(harness, ConditionType.WARNING), harness.condition(ConditionType.WARNING)):
        assert warning is not None
        assert "prichal reconcile" in warning.message
    assert told(harness, ConditionType.WARNING).reason == "NewerModelAvailable"  # type: ignore[union-attr]
    harness.settle()
    assert harness.events().count("NewerModelAvailable") == 1

    upload(harness, b"one")
    harness.run("drift")
    assert told(harness, ConditionType.WARNING) is None
    assert harness.condition(ConditionType.WARNING) is None


@pytest.mark.parametrize("reason", ["manual", "next commit"])
def test_a_newer_content_comes_with_the_next_commit_or_when_a_person_asks(
    harness: Harness, reason: str
) -> None:
    deployed(harness)
    upload(harness, b"two")
    harness.run("drift")
    if reason == "next commit":
        harness.push(with_model(), box(), README="about")
    assert harness.run(reason).name == "Ready"
    assert mounted(harness) == {b"two"}
    assert told(harness, ConditionType.WARNING) is None
    assert len(harness.running()) == 1


def test_a_follower_rolls_over_to_a_newer_content_without_a_moment_of_silence(harness: Harness) -> None:
    deployed(harness, follow=True)
    (old,) = harness.running()
    upload(harness, b"two")
    assert preview(harness.deps, APP).plan.render().count("stage model") == 1
    answered: list[bool] = []
    harness.prober.on_probe = lambda asked: answered.append(
        harness.route().upstreams[0] in {w.endpoint for w in harness.running()}
    )
    assert harness.run("drift").name == "Ready"
    assert mounted(harness) == {b"two"}
    assert all(answered)
    assert old not in harness.running()
    assert told(harness, ConditionType.WARNING) is None
    assert harness.settle().name == "Ready"
    assert len(harness.engine.starts) == 2


def test_a_follower_whose_newer_model_fails_goes_on_with_the_old_one(harness: Harness) -> None:
    deployed(harness, follow=True)
    (old,) = harness.running()
    upload(harness, b"broken")
    harness.prober.on_probe = lambda asked: (
        harness.engine.exit(asked.id, 3) if mount_of(harness, asked.id) == b"broken" else None
    )
    assert harness.run("drift").name == "Degraded"
    assert harness.running() == [old]
    starts = list(harness.engine.starts)
    assert harness.settle().name == "Degraded"
    assert harness.engine.starts == starts

    harness.engine.vanish(old.id)  # the old content is what it is healed with
    assert harness.run("drift").name == "Degraded"
    assert mounted(harness) == {b"one"}

    upload(harness, b"two")
    assert harness.run("drift").name == "Ready"
    assert mounted(harness) == {b"two"}


def mount_of(harness: Harness, workload_id: str) -> bytes:
    mount = harness.engine.mount(workload_id)
    assert mount is not None
    return place(harness, mount).read_bytes()


FOLDER = PATH.rpartition("/")[0]


def publish(harness: Harness, content: bytes, complete: bool = True) -> None:
    """As a run does it, or has begun to."""
    head = index_head("19c0a7f3e2d5b1f04a6", "fit", 1)
    upload(harness, unfinished(head).encode(), f"{FOLDER}/.manifest.json")
    upload(harness, content)
    if complete:
        name = PATH.rpartition("/")[2]
        files = f'[{{"name": "{name}", "size": {len(content)}, "sha256": ""}}]'
        upload(harness, f'{head}, "files": {files}}}'.encode(), f"{FOLDER}/.manifest.json")


def test_a_follower_takes_what_a_run_publishes_once_it_is_whole(harness: Harness) -> None:
    harness.connect()
    publish(harness, b"one")
    harness.push(with_model(follow=True, path=f"{FOLDER}/"), with_model("other", path=PATH), box())
    assert harness.run().name == "Ready"
    publish(harness, b"two", complete=False)
    assert harness.run("box").name == "Ready"
    assert in_service(harness) == {b"one"}
    warning = told(harness, ConditionType.WARNING)
    assert warning is not None
    assert warning.reason == "ModelIncomplete"
    others = told(harness, ConditionType.WARNING, "other")
    assert others is not None
    assert others.reason == "NewerModelAvailable", "its neighbours are looked after"

    publish(harness, b"two")
    assert harness.run("box").name == "Ready"
    assert in_service(harness) == {b"two"}
    assert told(harness, ConditionType.WARNING) is None


def in_service(harness: Harness) -> set[bytes]:
    """The one file of the folders that are mounted."""
    mounts = [harness.engine.mount(w.id) for w in harness.running()]
    return {next(place(harness, mount).iterdir()).read_bytes() for mount in mounts if mount}


def test_a_component_waits_until_its_model_is_whole(harness: Harness) -> None:
    harness.connect()
    publish(harness, b"one", complete=False)
    harness.push(with_model(path=f"{FOLDER}/"), box())
    assert harness.run().retry_after is not None
    assert not harness.running()
    publish(harness, b"one")
    assert harness.retry().name == "Ready"
    assert in_service(harness) == {b"one"}


def test_a_model_that_left_the_box_serves_on(harness: Harness) -> None:
    deployed(harness, follow=True)
    harness.storage.objects().remove(BUCKET, [f"developer/{PATH}"])
    (old,) = harness.running()
    harness.engine.vanish(old.id)
    assert harness.run("drift").name == "Ready"
    assert mounted(harness) == {b"one"}
    warning = told(harness, ConditionType.WARNING)
    assert warning is not None
    assert warning.reason == "ModelMissing"


# --- healing without a storage ----------------------------------------------------------------------------------


def test_healing_needs_no_storage(harness: Harness) -> None:
    deployed(harness, follow=True)
    (old,) = harness.running()
    harness.storage.down = True
    harness.engine.vanish(old.id)
    harness.run("drift")
    assert mounted(harness) == {b"one"}
    assert harness.route().upstreams == tuple(w.endpoint for w in harness.running())


def test_healing_comes_before_the_look_at_the_box(harness: Harness) -> None:
    """A storage that hangs blocks its callers for half a minute."""
    deployed(harness)
    harness.engine.vanish(harness.running()[0].id)
    healed: list[int] = []
    meddle(harness, look=lambda: healed.append(len(harness.running())))
    harness.run("drift")
    assert healed == [1]


def test_a_new_version_waits_for_the_storage_and_the_old_one_serves(harness: Harness) -> None:
    deployed(harness)
    (old,) = harness.running()
    harness.storage.down = True
    harness.push(with_model(image="demo:2"), box())
    outcome = harness.run()
    assert (outcome.name, harness.running()) == ("Degraded", [old])
    assert outcome.retry_after is not None
    harness.engine.vanish(old.id)
    harness.run("retry")
    assert mounted(harness) == {b"one"}
    harness.storage.down = False
    assert harness.retry().name == "Ready"
    assert len(harness.running()) == 1


def test_a_new_version_without_its_model_leaves_the_old_one_in_service(harness: Harness) -> None:
    deployed(harness)
    (old,) = harness.running()
    harness.push(with_model(path="vgg/model.onnx"), box())
    outcome = harness.run()
    assert (outcome.name, outcome.retry_after) == ("Degraded", None)
    assert harness.running() == [old]
    degraded = told(harness, ConditionType.DEGRADED)
    assert degraded is not None
    assert "vgg/model.onnx" in degraded.message


# --- the cache --------------------------------------------------------------------------------------------------


def test_a_cache_that_was_cleared_by_hand_is_filled_again(harness: Harness) -> None:
    deployed(harness)
    shutil.rmtree(harness.settings.models)
    assert harness.run("drift").name == "Ready"
    assert cached(harness) == set()  # what runs has what it needs
    harness.engine.vanish(harness.running()[0].id)
    assert harness.run("drift").name == "Ready"
    assert mounted(harness) == {b"one"}


def test_a_content_that_is_nowhere_any_more_is_not_exchanged_silently(harness: Harness) -> None:
    deployed(harness)
    upload(harness, b"two")
    shutil.rmtree(harness.settings.models)
    (old,) = harness.running()
    harness.run("drift")
    assert harness.running() == [old]
    stalled = told(harness, ConditionType.STALLED)
    assert stalled is not None
    assert stalled.reason == "ModelMissing"
    assert harness.run("manual").name == "Ready"
    assert mounted(harness) == {b"two"}


def test_a_model_that_vanishes_just_before_the_start_is_brought_again(harness: Harness) -> None:
    harness.connect()
    upload(harness, b"one")
    harness.push(with_model(), box())
    meddle(
        harness, after=lambda pin: shutil.rmtree(harness.settings.models / pin.digest)
    )  # as if another pass pruned in that very moment
    assert harness.run().retry_after is not None
    assert harness.retry().name == "Ready"
    assert mounted(harness) == {b"one"}


def test_old_contents_go_beyond_the_size_of_the_cache_and_those_in_use_stay(harness: Harness) -> None:
    deployed(harness, follow=True)
    for content in (b"2" * 60, b"3" * 60, b"4" * 60):
        upload(harness, content)
        assert harness.run("drift").name == "Ready"
    assert cached(harness) == {b"4" * 60}
    other = "other"
    harness.connect(app(), app(other))
    harness.push(ml())
    harness.run("manual", app=app(other).name)
    assert cached(harness) == {b"4" * 60}


def test_the_model_of_one_that_sleeps_stays(harness: Harness) -> None:
    hibernates: dict[str, Any] = {"hibernation": {"idleAfter": "10m"}}
    deployed(harness, **hibernates)
    upload(harness, b"x" * 99, "other/model.onnx")
    harness.clock.advance(3600.0)
    assert harness.run("drift").name == "Ready"
    assert not harness.running()
    harness.push(with_model(**hibernates), with_model("big", path="other/model.onnx"), box())
    harness.run()
    assert b"one" in cached(harness)
    assert b"x" * 99 in cached(harness)


def test_disconnecting_gives_the_models_up(harness: Harness) -> None:
    deployed(harness, follow=True)
    upload(harness, b"2" * 101)
    assert harness.run("drift").name == "Ready"
    assert cached(harness) == {b"2" * 101}
    harness.disconnect()
    assert harness.run("platform").name == "Removed"
    assert cached(harness) == set()


# --- what makes a model -----------------------------------------------------------------------------------------


def maker(name: str, path: str, box: str = "weights") -> str:
    stage = {"name": "fit", "image": {"existingImageName": "demo:1"}, "outputs": [{"name": "model"}]}
    variable = {"name": "model", "publishTo": {"box": box, "path": path}}
    boxes = [{"name": "weights", "default": True}, {"name": "others"}]
    return manifest("ExperimentPipeline", name, connectedBoxes=boxes, vars=[variable], stages=[stage])


def runs_of(pipeline: str, path: str) -> str:
    spec = {"experimentPipeline": {"name": pipeline}, "restfulApi": {"path": path}, "apiSpec": {}}
    return manifest("APIComponent", f"{path}-api", published=True, **spec)


UPLOAD = f"upload it with `prichal file put --area developer FILE demo:weights/{PATH}`"


@pytest.mark.parametrize(
    ("manifests", "how"),
    [
        ((), UPLOAD),
        ((maker("train", "resnet/"),), f"run the pipeline train, which creates it; or {UPLOAD}"),
        (
            (maker("train", "resnet/"), runs_of("train", "training")),
            f"run the pipeline train, which creates it: `prichal run start demo/training`; or {UPLOAD}",
        ),
        ((maker("train", "resnet2/"),), UPLOAD),
        ((maker("train", "resnet/model/"),), UPLOAD),
        ((maker("train", "resnet/", box="others"),), UPLOAD),
        (
            (maker("train", "net/"), maker("tune", "resnet/")),
            f"run the pipeline tune, which creates it; or {UPLOAD}",
        ),
        ((maker("train", "net/"), runs_of("train", "training")), UPLOAD),
    ],
)
def test_who_waits_for_a_first_model_says_what_makes_it(
    harness: Harness, manifests: tuple[str, ...], how: str
) -> None:
    harness.connect()
    others = manifest("DataBox", "others", s3DefaultStorage={})
    harness.push(with_model(), box(), others, *manifests)
    assert harness.run().name == "Waiting"
    ready = told(harness, ConditionType.READY)
    assert ready is not None
    assert ready.message == f"it waits for its first model, '{PATH}' in the box 'weights': {how}"
    upload(harness, b"one")
    harness.clock.advance(1000.0)
    assert harness.run("manual").name == "Ready"
