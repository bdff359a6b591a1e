"""Passes over apps with boxes: on a real store, with a storage as the test sets it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from controller.adapters.docker import DockerJobs
from controller.adapters.no_storage import NoStorage
from controller.config.settings import StorageSettings
from controller.daemon.wiring import build_runner_deps
from controller.domain.apps.conditions import ConditionType
from controller.domain.names import ComponentName
from controller.domain.runs.pipeline import Pipeline
from controller.domain.runs.run import cancel, new_run
from controller.domain.secret import Secret
from controller.domain.storage.accounts import component_secret, web_account
from controller.domain.storage.box import AccountGrant, BoxRecord, BoxState, StorageAccount
from controller.reconcile.next_pass import preview
from tests.support.fake_objects import FakeObjects, FakeStorage
from tests.unit.reconcile.harness import APP, Harness, manifest, ml, secret

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


def record(harness: Harness, name: str = "data") -> BoxRecord:
    found = harness.store.boxes.get(APP, ComponentName(name))
    assert found is not None
    return found


def reasons(harness: Harness) -> list[str]:
    return [event.reason for event in harness.store.events.list(APP, limit=1000)]


def test_a_box_and_its_files_api(harness: Harness) -> None:
    harness.connect()
    harness.push(box(), files(developers=["anna"]))
    assert harness.run().name == "Ready"
    assert harness.storage.objects().buckets() == {BUCKET}
    assert record(harness).state is BoxState.BOUND
    (service,) = harness.store.routes.services(APP)
    assert (service.api.path, service.developers) == ("files", ("anna",))
    assert harness.store.boxes.access() == harness.storage.access()
    (status,) = harness.store.apps.status(APP).boxes
    assert status.conditions[0].message == "0 bytes of 1 GB in 0 files"
    assert harness.run().name == "Ready"
    assert preview(harness.deps, APP).plan.empty


def test_an_app_without_boxes_never_asks_the_storage(harness: Harness) -> None:
    harness.storage.down = True
    harness.connect()
    harness.push(ml())
    assert harness.run().name == "Ready"
    assert harness.store.boxes.access() is None


def test_a_storage_that_is_down_is_waited_for(harness: Harness) -> None:
    harness.storage.down = True
    harness.connect()
    harness.push(ml(), box(), files())
    outcome = harness.run()
    assert outcome.name == "Degraded"
    assert outcome.retry_after == 5.0
    assert harness.engine.observe(APP).workloads, "what needs no storage runs"
    degraded = harness.condition(ConditionType.DEGRADED)
    assert degraded is not None
    assert degraded.reason == "StorageUnreachable"
    harness.storage.down = False
    assert harness.run("retry").name == "Ready"
    assert harness.storage.objects().buckets() == {BUCKET}


def test_the_storage_fails_while_the_bucket_is_made(harness: Harness) -> None:
    harness.storage = DiesAfterTheFirstLook()
    harness.deps = replace(harness.deps, storage=harness.storage)
    harness.connect()
    harness.push(box())
    assert harness.run_unchecked().name == "Degraded"
    assert record(harness).bucket == BUCKET, "known before it is made"
    harness.storage.down = False
    assert harness.retry().name == "Ready"
    assert harness.storage.objects().buckets() == {BUCKET}


def test_data_stays_when_its_box_goes_and_when_the_app_goes(harness: Harness) -> None:
    harness.connect()
    harness.push(box(reclaimPolicy="Delete"), box("other"))
    harness.run()
    harness.push(box(reclaimPolicy="Delete"))
    harness.run()
    assert record(harness, "other").state is BoxState.KEPT
    harness.disconnect()
    assert harness.run("platform").name == "Removed"
    assert record(harness).state is BoxState.KEPT, "disconnecting is no deletion"
    assert harness.storage.objects().buckets() == {BUCKET, "prichal.demo.other"}
    assert reasons(harness).count("DataKept") == 2
    harness.connect()
    harness.push(box(), box("other"))
    assert harness.run().name == "Ready"
    assert {record(harness).state, record(harness, "other").state} == {BoxState.BOUND}


def test_data_goes_where_the_manifest_said_so(harness: Harness) -> None:
    harness.connect()
    harness.push(box(reclaimPolicy="Delete"), ml())
    harness.run()
    harness.push(ml())
    harness.run()
    assert harness.storage.objects().buckets() == frozenset()
    assert harness.store.boxes.of(APP) == ()
    assert "DataRemoved" in reasons(harness)


def test_a_person_deletes_kept_data_of_an_app_that_is_gone(harness: Harness) -> None:
    harness.connect()
    harness.push(box())
    harness.run()
    harness.disconnect()
    harness.run("platform")
    harness.store.boxes.save(replace(record(harness), state=BoxState.DELETING))
    harness.storage.down = True
    assert harness.run("manual").name == "Waiting"
    harness.storage.down = False
    assert harness.run("retry").name == "Removed"
    assert harness.storage.objects().buckets() == frozenset()
    assert harness.store.boxes.all() == ()


def test_an_api_without_its_secret_is_not_published_and_said(harness: Harness) -> None:
    auth = {"basic": {"credentials": "people"}}
    harness.connect(secrets=[secret("people", anna="password-of-anna")])
    harness.push(box(), manifest("APIComponent", "files-api", files={}, restfulApi={"auth": auth}))
    assert harness.run().name == "Ready"
    assert [service.api.name for service in harness.store.routes.services(APP)] == ["files-api"]


def test_with_a_way_to_the_storage_a_component_gets_an_account(tmp_path: Path) -> None:
    harness = Harness(tmp_path, storage=StorageSettings(container_url="http://172.17.0.1:9000"))
    harness.connect()
    harness.push(ml(connectedBoxes=[{"name": "data"}]), box(), box("secret-plans"))
    assert harness.run().name == "Ready"
    (name,) = accounts(harness)
    env = environment(harness)
    assert env["UNIP_S3_ACCESS_KEY"] == name
    assert env["UNIP_BOX_DATA"] == BUCKET
    assert "UNIP_BOX_SECRET_PLANS" not in env
    assert accounts(harness)[name] == {BUCKET}
    harness.push(ml(connectedBoxes=[{"name": "data"}, {"name": "secret-plans"}]), box(), box("secret-plans"))
    assert harness.run().name == "Ready"
    assert harness.settle().name == "Ready"
    (newer,) = accounts(harness)
    assert newer != name
    assert accounts(harness)[newer] == {BUCKET, "prichal.demo.secret-plans"}


def test_a_pipeline_gets_an_account_whose_keys_its_stages_find(tmp_path: Path) -> None:
    harness = Harness(tmp_path, storage=StorageSettings(container_url="http://172.17.0.1:9000"))
    harness.connect()
    harness.push(train("data"), box(), box("secret-plans"))
    assert harness.run().name == "Ready"
    assert harness.settle().name == "Ready"
    (name,) = accounts(harness)
    assert accounts(harness)[name] == {BUCKET}
    (older,) = harness.store.runs.pipelines(APP)
    env = stage_env(harness, older)
    assert env == {
        "UNIP_S3_ENDPOINT": "http://172.17.0.1:9000",
        "UNIP_S3_REGION": "us-east-1",
        "UNIP_S3_ACCESS_KEY": name,
        "UNIP_S3_SECRET_KEY": component_secret(
            web_account(harness.deps.key, "prichal").secret, name
        ).reveal(),
        "UNIP_BOX_DATA": BUCKET,
    }
    harness.store.runs.submit(new_run("a", older, harness.clock.now()))
    harness.push(train("data", "secret-plans"), box(), box("secret-plans"))
    assert harness.run().name == "Ready"
    assert len(accounts(harness)) == 2, "a run that waits was made for the older one"
    assert stage_env(harness, older) == env
    (run,) = harness.store.runs.unfinished(APP)
    harness.store.runs.save(cancel(run, harness.clock.now()))
    assert harness.run("drift").name == "Ready"
    (newer,) = accounts(harness)
    assert newer == stage_env(harness, harness.store.runs.pipelines(APP)[0])["UNIP_S3_ACCESS_KEY"] != name
    assert env["UNIP_S3_SECRET_KEY"].encode() not in harness.all_stored()


def test_the_storage_itself_knows_no_account_of_a_component(tmp_path: Path) -> None:
    """Keys that a container finds are good at the object proxy alone. Accounts that releases of before made are
    removed."""
    harness = Harness(tmp_path, storage=StorageSettings(container_url="http://172.17.0.1:9000"))
    old = StorageAccount("prichal.demo.0123456789ab", Secret("a-secret-of-before"), (AccountGrant(BUCKET),))
    harness.storage.admin().ensure_account(old)  # type: ignore[union-attr]
    harness.connect()
    harness.push(train("data"), ml(connectedBoxes=[{"name": "data"}]), box())
    assert harness.run().name == "Ready"
    assert harness.settle().name == "Ready"
    assert not [name for name in harness.storage.server.accounts if name.startswith("prichal.demo.")]
    assert len(accounts(harness)) == 2


def test_an_account_that_the_state_has_lost_is_made_again(tmp_path: Path) -> None:
    harness = Harness(tmp_path, storage=StorageSettings(container_url="http://172.17.0.1:9000"))
    harness.connect()
    harness.push(train("data"), box())
    harness.run()
    before = accounts(harness)
    for name in before:
        harness.store.boxes.grant(name, ())
    assert accounts(harness) == {}
    harness.run("drift")
    assert accounts(harness) == before


def test_accounts_go_with_their_app(tmp_path: Path) -> None:
    harness = Harness(tmp_path, storage=StorageSettings(container_url="http://172.17.0.1:9000"))
    harness.connect()
    harness.push(train("data"), ml(connectedBoxes=[{"name": "data"}]), box())
    harness.run()
    assert len(accounts(harness)) == 2
    harness.disconnect()
    assert harness.run("platform").name == "Removed"
    assert accounts(harness) == {}


def test_without_a_way_to_the_storage_stages_find_nothing_of_it(harness: Harness) -> None:
    harness.connect()
    harness.push(train("data"), box())
    harness.run()
    assert stage_env(harness, harness.store.runs.pipelines(APP)[0]) == {}
    assert accounts(harness) == {}


def train(*boxes: str) -> str:
    stage = {"name": "fit", "image": {"existingImageName": "demo:1"}}
    links = [{"name": name} for name in boxes]
    return manifest("ExperimentPipeline", "train", connectedBoxes=links, vars=[], stages=[stage])


def stage_env(harness: Harness, pipeline: Pipeline) -> dict[str, str]:
    deps = build_runner_deps(harness.deps, DockerJobs(harness.settings.docker, "prichal"))
    return {name: value.reveal() for name, value in deps.storage_env(pipeline).items()}


def accounts(harness: Harness) -> dict[str, set[str]]:
    """Of components: name and buckets."""
    boxes = harness.store.boxes
    return {name: set(boxes.grants(name)) for name in boxes.accounts("prichal.demo.")}


def environment(harness: Harness) -> dict[str, str]:
    assert harness.engine.last_started is not None
    return {name: value.reveal() for name, value in harness.engine.last_started.env}


def test_a_platform_without_storage(harness: Harness) -> None:
    harness.deps = replace(harness.deps, storage=NoStorage())
    harness.connect()
    harness.push(box(), ml())
    outcome = harness.run()
    assert outcome.name == "Degraded"
    degraded = harness.condition(ConditionType.DEGRADED)
    assert degraded is not None
    assert degraded.reason == "StorageDisabled"
    assert "storage.backend" in degraded.message
