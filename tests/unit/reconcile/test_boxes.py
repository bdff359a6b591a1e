"""Passes over apps with boxes: on a real store, with a storage as the test sets it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from controller.adapters.docker import DockerJobs
from controller.adapters.no_storage import NoStorage
from controller.config.settings import StorageSettings
from controller.daemon.wiring import build_deps
from controller.domain.conditions import ConditionType
from controller.domain.names import ComponentName
from controller.domain.pipelines import Pipeline
from controller.domain.runs import cancel, new_run
from controller.domain.storage import BoxRecord, BoxState
from controller.reconcile.passes import preview
from tests.support.fake_objects import FakeObjects, FakeStorage
from tests.unit.reconcile.scene import APP, Scene, manifest, ml, secret

DATA = ComponentName("data")
BUCKET = "prichal.demo.data"


def box(name: str = "data", capacity: str = "1G", **spec: object) -> str:
    return manifest("DataBox", name, s3DefaultStorage={"capacity": capacity}, **spec)


def files(**spec: object) -> str:
    return manifest("APIComponent", "files-api", files=spec or {})


class DiesAfterTheFirstLook(FakeStorage):
    looks = 0

    def objects(self) -> FakeObjects:
        self.looks += 1
        self.down = self.looks == 2
        return super().objects()


def record(scene: Scene, name: str = "data") -> BoxRecord:
    found = scene.store.boxes.get(APP, ComponentName(name))
    assert found is not None
    return found


def reasons(scene: Scene) -> list[str]:
    return [event.reason for event in scene.store.events.list(APP, limit=1000)]


def test_a_box_and_its_files_api(scene: Scene) -> None:
    scene.connect()
    scene.push(box(), files(developers=["anna"]))
    assert scene.run().name == "Ready"
    assert scene.storage.objects().buckets() == {BUCKET}
    assert record(scene).state is BoxState.BOUND
    (service,) = scene.store.routes.services(APP)
    assert (service.api.path, service.developers) == ("files", ("anna",))
    assert scene.store.boxes.access() == scene.storage.access()
    (status,) = scene.store.apps.status(APP).boxes
    assert status.conditions[0].message == "0 bytes of 1 GB in 0 files"
    assert scene.run().name == "Ready"
    assert preview(scene.house, APP).empty


def test_an_app_without_boxes_never_asks_the_storage(scene: Scene) -> None:
    scene.storage.down = True
    scene.connect()
    scene.push(ml())
    assert scene.run().name == "Ready"
    assert scene.store.boxes.access() is None


def test_a_storage_that_is_down_is_waited_for(scene: Scene) -> None:
    scene.storage.down = True
    scene.connect()
    scene.push(ml(), box(), files())
    outcome = scene.run()
    assert outcome.name == "Degraded"
    assert outcome.retry_after == 5.0
    assert scene.engine.observe(APP).workloads, "what needs no storage runs"
    degraded = scene.condition(ConditionType.DEGRADED)
    assert degraded is not None
    assert degraded.reason == "StorageUnreachable"
    scene.storage.down = False
    assert scene.run("retry").name == "Ready"
    assert scene.storage.objects().buckets() == {BUCKET}


def test_the_storage_fails_while_the_bucket_is_made(scene: Scene) -> None:
    scene.storage = DiesAfterTheFirstLook()
    scene.house = replace(scene.house, storage=scene.storage)
    scene.connect()
    scene.push(box())
    assert scene.run_unchecked().name == "Failed"
    assert record(scene).bucket == BUCKET, "known before it is made"
    scene.storage.down = False
    assert scene.run("retry").name == "Ready"
    assert scene.storage.objects().buckets() == {BUCKET}


def test_data_stays_when_its_box_goes_and_when_the_app_goes(scene: Scene) -> None:
    scene.connect()
    scene.push(box(reclaimPolicy="Delete"), box("other"))
    scene.run()
    scene.push(box(reclaimPolicy="Delete"))
    scene.run()
    assert record(scene, "other").state is BoxState.KEPT
    scene.disconnect()
    assert scene.run("platform").name == "Removed"
    assert record(scene).state is BoxState.KEPT, "disconnecting is no deletion"
    assert scene.storage.objects().buckets() == {BUCKET, "prichal.demo.other"}
    assert reasons(scene).count("DataKept") == 2
    scene.connect()
    scene.push(box(), box("other"))
    assert scene.run().name == "Ready"
    assert {record(scene).state, record(scene, "other").state} == {BoxState.BOUND}


def test_data_goes_where_the_manifest_said_so(scene: Scene) -> None:
    scene.connect()
    scene.push(box(reclaimPolicy="Delete"), ml())
    scene.run()
    scene.push(ml())
    scene.run()
    assert scene.storage.objects().buckets() == frozenset()
    assert scene.store.boxes.of(APP) == ()
    assert "DataRemoved" in reasons(scene)


def test_a_person_deletes_kept_data_of_an_app_that_is_gone(scene: Scene) -> None:
    scene.connect()
    scene.push(box())
    scene.run()
    scene.disconnect()
    scene.run("platform")
    scene.store.boxes.save(replace(record(scene), state=BoxState.DOOMED))
    scene.storage.down = True
    assert scene.run("manual").name == "Waiting"
    scene.storage.down = False
    assert scene.run("retry").name == "Removed"
    assert scene.storage.objects().buckets() == frozenset()
    assert scene.store.boxes.all() == ()


def test_an_api_without_its_secret_is_not_published_and_said(scene: Scene) -> None:
    auth = {"basic": {"credentials": "people"}}
    scene.connect(secrets=[secret("people", anna="password-of-anna")])
    scene.push(box(), manifest("APIComponent", "files-api", files={}, restfulApi={"auth": auth}))
    assert scene.run().name == "Ready"
    assert [service.api.name for service in scene.store.routes.services(APP)] == ["files-api"]


def test_with_a_way_to_the_storage_a_component_gets_an_account(tmp_path: Path) -> None:
    scene = Scene(tmp_path, storage=StorageSettings(container_url="http://172.17.0.1:9000"))
    scene.connect()
    scene.push(ml(connectedBoxes=[{"name": "data"}]), box(), box("secret-plans"))
    assert scene.run().name == "Ready"
    (name,) = accounts(scene)
    env = environment(scene)
    assert env["UNIP_S3_ACCESS_KEY"] == name
    assert env["UNIP_BOX_DATA"] == BUCKET
    assert "UNIP_BOX_SECRET_PLANS" not in env
    assert accounts(scene)[name] == {BUCKET}
    scene.push(ml(connectedBoxes=[{"name": "data"}, {"name": "secret-plans"}]), box(), box("secret-plans"))
    assert scene.run().name == "Ready"
    assert scene.settle().name == "Ready"
    (newer,) = accounts(scene)
    assert newer != name
    assert accounts(scene)[newer] == {BUCKET, "prichal.demo.secret-plans"}


def test_a_pipeline_gets_an_account_whose_keys_its_stages_find(tmp_path: Path) -> None:
    scene = Scene(tmp_path, storage=StorageSettings(container_url="http://172.17.0.1:9000"))
    scene.connect()
    scene.push(train("data"), box(), box("secret-plans"))
    assert scene.run().name == "Ready"
    assert scene.settle().name == "Ready"
    (name,) = accounts(scene)
    assert accounts(scene)[name] == {BUCKET}
    (older,) = scene.store.runs.pipelines(APP)
    env = stage_env(scene, older)
    (stored,) = (a for a in scene.storage.server.accounts.values() if a.name == name)
    assert env == {
        "UNIP_S3_ENDPOINT": "http://172.17.0.1:9000",
        "UNIP_S3_REGION": "us-east-1",
        "UNIP_S3_ACCESS_KEY": name,
        "UNIP_S3_SECRET_KEY": stored.secret.reveal(),
        "UNIP_BOX_DATA": BUCKET,
    }
    scene.store.runs.submit(new_run("a", older, scene.clock.now()))
    scene.push(train("data", "secret-plans"), box(), box("secret-plans"))
    assert scene.run().name == "Ready"
    assert len(accounts(scene)) == 2, "a run that waits was made for the older one"
    assert stage_env(scene, older) == env
    (run,) = scene.store.runs.unfinished(APP)
    scene.store.runs.save(cancel(run, scene.clock.now()))
    assert scene.run("drift").name == "Ready"
    (newer,) = accounts(scene)
    assert newer == stage_env(scene, scene.store.runs.pipelines(APP)[0])["UNIP_S3_ACCESS_KEY"] != name
    assert env["UNIP_S3_SECRET_KEY"].encode() not in scene.all_stored()


def test_an_account_that_the_storage_has_lost_is_made_again(tmp_path: Path) -> None:
    scene = Scene(tmp_path, storage=StorageSettings(container_url="http://172.17.0.1:9000"))
    scene.connect()
    scene.push(train("data"), box())
    scene.run()
    before = accounts(scene)
    scene.storage.server.accounts.clear()
    scene.run("drift")
    assert accounts(scene) == before


def test_accounts_go_with_their_app(tmp_path: Path) -> None:
    scene = Scene(tmp_path, storage=StorageSettings(container_url="http://172.17.0.1:9000"))
    scene.connect()
    scene.push(train("data"), ml(connectedBoxes=[{"name": "data"}]), box())
    scene.run()
    assert len(accounts(scene)) == 2
    scene.disconnect()
    assert scene.run("platform").name == "Removed"
    assert accounts(scene) == {}


def test_without_a_way_to_the_storage_stages_find_nothing_of_it(scene: Scene) -> None:
    scene.connect()
    scene.push(train("data"), box())
    scene.run()
    assert stage_env(scene, scene.store.runs.pipelines(APP)[0]) == {}
    assert accounts(scene) == {}


def train(*boxes: str) -> str:
    stage = {"name": "fit", "image": {"existingImageName": "demo:1"}}
    links = [{"name": name} for name in boxes]
    return manifest("ExperimentPipeline", "train", connectedBoxes=links, vars=[], stages=[stage])


def stage_env(scene: Scene, pipeline: Pipeline) -> dict[str, str]:
    deps = build_deps(scene.house, DockerJobs(scene.settings.docker, "prichal"))
    return {name: value.reveal() for name, value in deps.storage_env(pipeline).items()}


def accounts(scene: Scene) -> dict[str, set[str]]:
    """Of components: name and buckets."""
    found = scene.storage.server.accounts.values()
    return {a.name: {grant.bucket for grant in a.grants} for a in found if a.name.startswith("prichal.demo.")}


def environment(scene: Scene) -> dict[str, str]:
    assert scene.engine.last_started is not None
    return {name: value.reveal() for name, value in scene.engine.last_started.env}


def test_a_platform_without_storage(scene: Scene) -> None:
    scene.house = replace(scene.house, storage=NoStorage())
    scene.connect()
    scene.push(box(), ml())
    outcome = scene.run()
    assert outcome.name == "Degraded"
    degraded = scene.condition(ConditionType.DEGRADED)
    assert degraded is not None
    assert degraded.reason == "StorageDisabled"
    assert "storage.backend" in degraded.message
