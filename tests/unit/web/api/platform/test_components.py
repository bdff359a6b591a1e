"""Series of a component over HTTP."""

from __future__ import annotations

import time
from typing import Any

import pytest
from flask.testing import FlaskClient

from controller.config import Settings
from controller.domain.apps.observed import WorkloadState
from controller.domain.apps.samples import Sample
from controller.domain.apps.status import AppStatus, ComponentStatus, ReplicaExit, ReplicaStatus
from controller.domain.names import AppName, ComponentName
from controller.domain.routing.routes import ServiceKind
from controller.store import SqliteStore
from controller.store.people import PeopleStore
from controller.web.app import create_app
from controller.web.storage import StorageClient
from tests.support.gateway import make_api, make_route, make_service

DEMO, MODEL = AppName("demo"), ComponentName("model")
PATH = "/-/apps/demo/components/model/series"


@pytest.fixture
def client(store: SqliteStore, settings: Settings, storage: StorageClient) -> FlaskClient:
    settings.people.parent.mkdir()
    made = create_app(store, settings, storage).test_client()
    made.environ_base["HTTP_AUTHORIZATION"] = "Bearer letmein-token"
    return made


@pytest.fixture
def known(store: SqliteStore) -> SqliteStore:
    components = (
        ComponentStatus(MODEL, "MLComponent"),
        ComponentStatus(ComponentName("train"), "ExperimentPipeline"),
    )
    store.apps.save(AppStatus(DEMO, components=components))
    return store


def document(client: FlaskClient, path: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(path).get_json()
    return found


def test_an_empty_series(client: FlaskClient, known: SqliteStore) -> None:
    found = document(client, PATH)
    assert (found["app"], found["component"], found["step"]) == (DEMO, MODEL, 10)
    assert {len(values) for values in found["values"].values()} == {360}
    assert {value for values in found["values"].values() for value in values} == {None}


def test_values_have_units(client: FlaskClient, known: SqliteStore) -> None:
    buckets = (0, 0, 0, 20, *[0] * 12)
    sample = Sample(10, requests=20, failed=5, cpu=1.5, memory=2**20, restarted=1, buckets=buckets)
    known.series.add(time.time() - 60, {(DEMO, MODEL): sample})
    found = document(client, f"{PATH}?window=5m")
    shown = {
        name: next((value for value in values if value is not None), None)
        for name, values in found["values"].items()
    }
    assert shown == {
        "requests": 2.0,
        "refused": None,
        "failed": 0.5,
        "p50": 0.0075,
        "p99": 0.00995,
        "inFlight": None,
        "cpu": 1.5,
        "memory": 1048580.0,
        "gpu": None,
        "gpuMemory": None,
        "callsRunning": None,
        "callsQueued": None,
        "callsOverdue": None,
        "workerRestarts": 1.0,
    }
    assert found["start"].endswith("Z")


def test_windows(client: FlaskClient, known: SqliteStore) -> None:
    for window, step, count in (("10s", 10, 1), ("1h", 10, 360), ("2h", 60, 120), ("1d", 60, 1440)):
        found = document(client, f"{PATH}?window={window}")
        assert (found["step"], len(found["values"]["cpu"])) == (step, count)
    for window in ("", "9s", "25h", "abc", "-1", "1h1h", "9999999d", "%00", "1h&window=1h"):
        reply = client.get(f"{PATH}?window={window}")
        assert (reply.status_code, reply.mimetype) == (400, "application/problem+json"), window
        assert "window" in reply.get_json()["detail"]


def test_components_that_take_no_calls(client: FlaskClient, known: SqliteStore) -> None:
    for component in ("train", "missing", "%D1%8F", "a%22%3Cb%3E"):
        assert client.get(f"/-/apps/demo/components/{component}/series").status_code == 404


def test_versions_and_replicas(client: FlaskClient, store: SqliteStore) -> None:
    new = ReplicaStatus("p.demo.model.b.0", 0, "1:bbbb", "c2", WorkloadState.RUNNING, 1_800_000_000.0)
    old = ReplicaStatus(
        "p.demo.model.a.0", 0, "1:aaaa", "c1", WorkloadState.STOPPED, 1_700_000_000.0, "why", ("GPU-a",)
    )
    exit = ReplicaExit(old.name, old.version, 1_800_000_001.5, 137, True)
    status = ComponentStatus(MODEL, "MLComponent", fingerprint="1:bbbb", replicas=(old, new), last_exit=exit)
    store.apps.save(AppStatus(DEMO, components=(status,)))
    found = document(client, "/-/apps/demo/components/model")
    assert (found["app"], found["name"]) == (DEMO, MODEL)
    assert [each["serving"] for each in found["replicas"]] == [False, True]
    assert found["replicas"][0] == {
        "name": old.name,
        "number": 0,
        "version": "1:aaaa",
        "revision": "c1",
        "serving": False,
        "state": "stopped",
        "since": "2023-11-14T22:13:20.000Z",
        "detail": "why",
        "gpus": ["GPU-a"],
    }
    assert found["lastExit"] == {
        "name": old.name,
        "version": "1:aaaa",
        "at": "2027-01-15T08:00:01.500Z",
        "code": 137,
        "outOfMemory": True,
    }
    assert found in [{"app": DEMO, **each} for each in document(client, "/-/apps/demo")["components"]]


def test_a_pass_is_made_for_a_published_path(client: FlaskClient, known: SqliteStore) -> None:
    apis = (make_api("image"), make_api("hidden", published=False))
    known.routes.switch(make_route(*apis, component=MODEL))
    known.routes.switch(make_route(make_api("of-another"), component=ComponentName("another")))
    known.routes.publish(DEMO, (make_service("files"), make_service("runs", ServiceKind.PIPELINES)))
    place = "/-/apps/demo/components/model/passes"
    for path, status in (
        ("image", 201),
        ("files", 201),
        ("hidden", 404),
        ("of-another", 404),
        ("runs", 404),
        ("", 404),
        (1, 400),
        (None, 400),
    ):
        assert client.post(place, json={"path": path}).status_code == status, path
    made = client.post(place, json={"path": "image"}).get_json()
    assert sorted(made) == ["api", "expires", "pass"]
    assert made["api"] == "/demo/image"
    for body in ("[]", "{}", "nonsense", '"image"'):
        assert client.post(place, data=body, content_type="application/json").status_code == 400
    assert client.post(place, data="path=image", content_type="text/plain").status_code == 400


def test_a_pass_is_in_the_audit(client: FlaskClient, known: SqliteStore, settings: Settings) -> None:
    known.routes.switch(make_route(make_api("image"), component=MODEL))
    client.post("/-/apps/demo/components/model/passes", json={"path": "image"})
    client.post("/-/apps/demo/components/model/passes", json={"path": "other"})
    acts = PeopleStore(settings.people).acts()
    assert [(each.act, each.subject, each.detail) for each in acts] == [("try", "demo/image", "")]
    assert "pass" not in str(acts)
