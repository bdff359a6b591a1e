"""Models of components: pinned, followed, brought here, and none of it in the way of what serves."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from controller.adapters.models import ModelCache
from controller.domain.conditions import Condition, ConditionType, find
from controller.domain.groups import manifest_head, unfinished
from controller.domain.names import ComponentName, bucket_name
from controller.domain.storage import ModelPin, StoredObject
from controller.reconcile.passes import preview
from tests.unit.reconcile.scene import APP, Scene, app, manifest, ml

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


def upload(scene: Scene, content: bytes, path: str = PATH) -> StoredObject:
    objects = scene.storage.objects()
    objects.create_bucket(BUCKET)
    return objects.put(BUCKET, f"developer/{path}", io.BytesIO(content), len(content))


def deployed(scene: Scene, follow: bool = False, **spec: Any) -> str:
    """The first version serves with the model `one`."""
    scene.connect()
    upload(scene, b"one")
    commit = scene.push(with_model(follow=follow, **spec), box())
    assert scene.run().name == "Ready"
    return commit


def mounted(scene: Scene, component: str = "classify") -> set[bytes]:
    """What the running containers of the component find as their model."""
    mounts = [scene.engine.mount(w.id) for w in scene.running(component)]
    return {(mount.folder / mount.name).read_bytes() for mount in mounts if mount}


def told(scene: Scene, kind: ConditionType, component: str = "classify") -> Condition | None:
    status = scene.status().component(ComponentName(component))
    assert status is not None
    return find(status.conditions, kind)


def cached(scene: Scene) -> set[bytes]:
    return {path.read_bytes() for path in scene.settings.models.rglob("*") if path.is_file()}


class Meddled(ModelCache):
    """Others do something while a model is looked for, or right before or after the first time that one is staged."""

    def __init__(self, scene: Scene, look: Nothing, before: Meddle, after: Meddle) -> None:
        super().__init__(scene.settings.models, scene.storage, capacity=100)
        self._look = look
        self._meddling = [(before, after)]

    def pin(self, bucket: str, path: str) -> ModelPin:
        self._look()
        return super().pin(bucket, path)

    def stage(self, pin: ModelPin) -> None:
        before, after = self._meddling.pop() if self._meddling else (nothing, nothing)
        before(pin)
        super().stage(pin)
        after(pin)


def nothing(*_: object) -> None:
    pass


def meddle(scene: Scene, look: Nothing = nothing, before: Meddle = nothing, after: Meddle = nothing) -> None:
    scene.house = replace(scene.house, models=Meddled(scene, look, before, after))


# --- the first version ------------------------------------------------------------------------------------------


def test_the_model_is_brought_before_the_start(scene: Scene) -> None:
    deployed(scene)
    assert mounted(scene) == {b"one"}
    plan = scene.status().plan
    assert plan.index("stage model model.onnx@") < plan.index("start ")
    assert scene.events().index("Staging") < scene.events().index("Started")
    status = scene.status().component(ComponentName("classify"))
    assert status is not None
    assert scene.models.has(status.model)


def test_idle_passes_do_nothing_write_nothing_and_tell_nothing(scene: Scene) -> None:
    deployed(scene, follow=True)
    status, events, starts = scene.status(), scene.events(), list(scene.engine.starts)
    assert scene.settle().name == "Ready"
    assert (scene.status(), scene.events(), scene.engine.starts) == (status, events, starts)


def test_components_share_a_model(scene: Scene) -> None:
    scene.connect()
    upload(scene, b"one")
    scene.push(with_model("a", replicas=2), with_model("b"), box())
    assert scene.run().name == "Ready"
    assert mounted(scene, "a") == mounted(scene, "b") == {b"one"}
    assert len(list(scene.settings.models.iterdir())) == 1


def test_a_component_waits_for_its_model_and_its_neighbour_does_not(scene: Scene) -> None:
    scene.connect()
    scene.push(with_model(), ml("modest"), box())
    assert scene.run().name != "Ready"
    assert scene.running("modest")
    assert not scene.running()
    stalled = told(scene, ConditionType.STALLED)
    assert stalled is not None
    assert stalled.reason == "ModelMissing"
    assert "'weights'" in stalled.message
    assert PATH in stalled.message

    upload(scene, b"one")
    assert scene.run("drift").name == "Ready"
    assert mounted(scene) == {b"one"}


def test_a_storage_that_is_down_is_tried_again_and_holds_nobody_else_up(scene: Scene) -> None:
    scene.connect()
    upload(scene, b"one")
    scene.storage.down = True
    scene.push(with_model(), ml("modest"), box())
    outcome = scene.run()
    assert outcome.retry_after is not None
    assert scene.running("modest")
    assert not scene.running()
    scene.storage.down = False
    assert scene.run("retry").name == "Ready"


def test_a_model_replaced_while_it_is_fetched_is_fetched_anew(scene: Scene) -> None:
    scene.connect()
    upload(scene, b"one")
    scene.push(with_model(), box())
    meddle(scene, before=lambda pin: upload(scene, b"two"))
    outcome = scene.run()
    assert outcome.retry_after is not None
    assert "replaced" in outcome.message
    assert PATH in outcome.message
    assert scene.run("retry").name == "Ready"
    assert mounted(scene) == {b"two"}


# --- a newer content --------------------------------------------------------------------------------------------


def test_a_newer_content_is_told_and_not_taken(scene: Scene) -> None:
    deployed(scene)
    upload(scene, b"two")
    assert scene.run("drift").name == "Ready"
    assert mounted(scene) == {b"one"}
    for warning in (told(scene, ConditionType.WARNING), scene.condition(ConditionType.WARNING)):
        assert warning is not None
        assert "prichal reconcile" in warning.message
    assert told(scene, ConditionType.WARNING).reason == "NewerModelAvailable"  # type: ignore[union-attr]
    scene.settle()
    assert scene.events().count("NewerModelAvailable") == 1

    upload(scene, b"one")
    scene.run("drift")
    assert told(scene, ConditionType.WARNING) is None
    assert scene.condition(ConditionType.WARNING) is None


@pytest.mark.parametrize("reason", ["manual", "next commit"])
def test_a_newer_content_comes_with_the_next_commit_or_when_a_person_asks(scene: Scene, reason: str) -> None:
    deployed(scene)
    upload(scene, b"two")
    scene.run("drift")
    if reason == "next commit":
        scene.push(with_model(), box(), README="about")
    assert scene.run(reason).name == "Ready"
    assert mounted(scene) == {b"two"}
    assert told(scene, ConditionType.WARNING) is None
    assert len(scene.running()) == 1


def test_a_follower_rolls_over_to_a_newer_content_without_a_moment_of_silence(scene: Scene) -> None:
    deployed(scene, follow=True)
    (old,) = scene.running()
    upload(scene, b"two")
    assert preview(scene.house, APP).render().count("stage model") == 1
    answered: list[bool] = []
    scene.prober.on_probe = lambda asked: answered.append(
        scene.route().upstreams[0] in {w.endpoint for w in scene.running()}
    )
    assert scene.run("drift").name == "Ready"
    assert mounted(scene) == {b"two"}
    assert all(answered)
    assert old not in scene.running()
    assert told(scene, ConditionType.WARNING) is None
    assert scene.settle().name == "Ready"
    assert len(scene.engine.starts) == 2


def test_a_follower_whose_newer_model_fails_goes_on_with_the_old_one(scene: Scene) -> None:
    deployed(scene, follow=True)
    (old,) = scene.running()
    upload(scene, b"broken")
    scene.prober.on_probe = lambda asked: (
        scene.engine.exit(asked.id, 3) if mount_of(scene, asked.id) == b"broken" else None
    )
    assert scene.run("drift").name == "Degraded"
    assert scene.running() == [old]
    starts = list(scene.engine.starts)
    assert scene.settle().name == "Degraded"
    assert scene.engine.starts == starts

    scene.engine.vanish(old.id)  # the old content is what it is healed with
    assert scene.run("drift").name == "Degraded"
    assert mounted(scene) == {b"one"}

    upload(scene, b"two")
    assert scene.run("drift").name == "Ready"
    assert mounted(scene) == {b"two"}


def mount_of(scene: Scene, workload_id: str) -> bytes:
    mount = scene.engine.mount(workload_id)
    assert mount is not None
    return (mount.folder / mount.name).read_bytes()


FOLDER = PATH.rpartition("/")[0]


def publish(scene: Scene, content: bytes, complete: bool = True) -> None:
    """As a run does it, or has begun to."""
    head = manifest_head("19c0a7f3e2d5b1f04a6", "fit", 1)
    upload(scene, unfinished(head).encode(), f"{FOLDER}/.manifest.json")
    upload(scene, content)
    if complete:
        name = PATH.rpartition("/")[2]
        files = f'[{{"name": "{name}", "size": {len(content)}, "sha256": ""}}]'
        upload(scene, f'{head}, "files": {files}}}'.encode(), f"{FOLDER}/.manifest.json")


def test_a_follower_takes_what_a_run_publishes_once_it_is_whole(scene: Scene) -> None:
    scene.connect()
    publish(scene, b"one")
    scene.push(with_model(follow=True, path=f"{FOLDER}/"), with_model("other", path=PATH), box())
    assert scene.run().name == "Ready"
    publish(scene, b"two", complete=False)
    assert scene.run("box").name == "Ready"
    assert in_service(scene) == {b"one"}
    warning = told(scene, ConditionType.WARNING)
    assert warning is not None
    assert warning.reason == "ModelIncomplete"
    others = told(scene, ConditionType.WARNING, "other")
    assert others is not None
    assert others.reason == "NewerModelAvailable", "its neighbours are looked after"

    publish(scene, b"two")
    assert scene.run("box").name == "Ready"
    assert in_service(scene) == {b"two"}
    assert told(scene, ConditionType.WARNING) is None


def in_service(scene: Scene) -> set[bytes]:
    """The one file of the folders that are mounted."""
    mounts = [scene.engine.mount(w.id) for w in scene.running()]
    return {next((mount.folder / mount.name).iterdir()).read_bytes() for mount in mounts if mount}


def test_a_component_waits_until_its_model_is_whole(scene: Scene) -> None:
    scene.connect()
    publish(scene, b"one", complete=False)
    scene.push(with_model(path=f"{FOLDER}/"), box())
    assert scene.run().retry_after is not None
    assert not scene.running()
    publish(scene, b"one")
    assert scene.run("retry").name == "Ready"
    assert in_service(scene) == {b"one"}


def test_a_model_that_left_the_box_serves_on(scene: Scene) -> None:
    deployed(scene, follow=True)
    scene.storage.objects().remove(BUCKET, [f"developer/{PATH}"])
    (old,) = scene.running()
    scene.engine.vanish(old.id)
    assert scene.run("drift").name == "Ready"
    assert mounted(scene) == {b"one"}
    warning = told(scene, ConditionType.WARNING)
    assert warning is not None
    assert warning.reason == "ModelMissing"


# --- healing without a storage ----------------------------------------------------------------------------------


def test_healing_needs_no_storage(scene: Scene) -> None:
    deployed(scene, follow=True)
    (old,) = scene.running()
    scene.storage.down = True
    scene.engine.vanish(old.id)
    scene.run("drift")
    assert mounted(scene) == {b"one"}
    assert scene.route().upstreams == tuple(w.endpoint for w in scene.running())


def test_healing_comes_before_the_look_at_the_box(scene: Scene) -> None:
    """A storage that hangs holds whoever asks for half a minute."""
    deployed(scene)
    scene.engine.vanish(scene.running()[0].id)
    healed: list[int] = []
    meddle(scene, look=lambda: healed.append(len(scene.running())))
    scene.run("drift")
    assert healed == [1]


def test_a_new_version_waits_for_the_storage_and_the_old_one_serves(scene: Scene) -> None:
    deployed(scene)
    (old,) = scene.running()
    scene.storage.down = True
    scene.push(with_model(image="demo:2"), box())
    outcome = scene.run()
    assert (outcome.name, scene.running()) == ("Degraded", [old])
    assert outcome.retry_after is not None
    scene.engine.vanish(old.id)
    scene.run("retry")
    assert mounted(scene) == {b"one"}
    scene.storage.down = False
    assert scene.run("retry").name == "Ready"
    assert len(scene.running()) == 1


def test_a_new_version_without_its_model_leaves_the_old_one_in_service(scene: Scene) -> None:
    deployed(scene)
    (old,) = scene.running()
    scene.push(with_model(path="vgg/model.onnx"), box())
    outcome = scene.run()
    assert (outcome.name, outcome.retry_after) == ("Degraded", None)
    assert scene.running() == [old]
    degraded = told(scene, ConditionType.DEGRADED)
    assert degraded is not None
    assert "vgg/model.onnx" in degraded.message


# --- the cache --------------------------------------------------------------------------------------------------


def test_a_cache_that_was_cleared_by_hand_is_filled_again(scene: Scene) -> None:
    deployed(scene)
    shutil.rmtree(scene.settings.models)
    assert scene.run("drift").name == "Ready"
    assert cached(scene) == set()  # what runs has what it needs
    scene.engine.vanish(scene.running()[0].id)
    assert scene.run("drift").name == "Ready"
    assert mounted(scene) == {b"one"}


def test_a_content_that_is_nowhere_any_more_is_not_exchanged_silently(scene: Scene) -> None:
    deployed(scene)
    upload(scene, b"two")
    shutil.rmtree(scene.settings.models)
    (old,) = scene.running()
    scene.run("drift")
    assert scene.running() == [old]
    stalled = told(scene, ConditionType.STALLED)
    assert stalled is not None
    assert stalled.reason == "ModelMissing"
    assert scene.run("manual").name == "Ready"
    assert mounted(scene) == {b"two"}


def test_a_model_that_vanishes_just_before_the_start_is_brought_again(scene: Scene) -> None:
    scene.connect()
    upload(scene, b"one")
    scene.push(with_model(), box())
    meddle(
        scene, after=lambda pin: shutil.rmtree(pin.folder)
    )  # as if another pass pruned in that very moment
    assert scene.run().retry_after is not None
    assert scene.run("retry").name == "Ready"
    assert mounted(scene) == {b"one"}


def test_old_contents_go_beyond_the_size_of_the_cache_and_those_in_use_stay(scene: Scene) -> None:
    deployed(scene, follow=True)
    for content in (b"2" * 60, b"3" * 60, b"4" * 60):
        upload(scene, content)
        assert scene.run("drift").name == "Ready"
    assert cached(scene) == {b"4" * 60}
    other = "other"
    scene.connect(app(), app(other))
    scene.push(ml())
    scene.run("manual", app=app(other).name)
    assert cached(scene) == {b"4" * 60}


def test_the_model_of_one_that_sleeps_stays(scene: Scene) -> None:
    hibernates: dict[str, Any] = {"hibernation": {"idleAfter": "10m"}}
    deployed(scene, **hibernates)
    upload(scene, b"x" * 99, "other/model.onnx")
    scene.clock.advance(3600.0)
    assert scene.run("drift").name == "Ready"
    assert not scene.running()
    scene.push(with_model(**hibernates), with_model("big", path="other/model.onnx"), box())
    scene.run()
    assert b"one" in cached(scene)
    assert b"x" * 99 in cached(scene)


def test_disconnecting_gives_the_models_up(scene: Scene) -> None:
    deployed(scene, follow=True)
    upload(scene, b"2" * 101)
    assert scene.run("drift").name == "Ready"
    assert cached(scene) == {b"2" * 101}
    scene.disconnect()
    assert scene.run("platform").name == "Removed"
    assert cached(scene) == set()
