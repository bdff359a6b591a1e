"""Keys in camelCase and times in RFC 3339 with milliseconds, in all that the platform answers and sends.

`conftest.py` checks each JSON answer that any test of this folder gets. Here are the descriptions, what does not pass
Flask, and every route for administrators, found in the application's own table of routes.
"""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from controller.config import Settings
from controller.domain.apps.conditions import Condition, ConditionType
from controller.domain.apps.requests import Trigger
from controller.domain.apps.status import AppStatus, BoxStatus, ComponentStatus, Event, EventType
from controller.domain.names import ComponentName
from controller.domain.reasons import Reason
from controller.domain.runs.run import Run, RunState, new_run
from controller.domain.runs.webhooks import payload
from controller.domain.units import rfc3339
from controller.store import SqliteStore
from controller.web.api.files.openapi import document as files_document
from controller.web.api.platform.deliveries import event_document
from controller.web.api.runs.documents import run_document
from controller.web.api.runs.openapi import of_all, of_one
from controller.web.api.runs.submission import RunInterface
from controller.web.app import create_app
from controller.web.storage import StorageClient
from tests.support.gateway import APP, make_route
from tests.support.runs import make_pipeline
from tests.support.wire_format import deviations, schema_deviations

NOW = 1_769_860_800.123
CLASSIFY = ComponentName("classify")
EVENT = Event(APP, EventType.NORMAL, Reason.STARTED, "it runs", CLASSIFY, at=NOW)
READY = (Condition(ConditionType.READY, True, Reason.APPLIED, "all is well", NOW, "718e2b0"),)


def ended_run() -> Run:
    run = new_run("19c0a7f3e2d5b1f04a6", make_pipeline(), NOW, "ann")
    for stage in run.stages:
        run = run.with_stage(
            stage.begin(NOW + 1).end_attempt(NOW + 2, exit_code=1).to(RunState.FAILED, NOW + 2)
        )
    return run.to(RunState.FAILED, NOW + 3, Reason.EXIT_CODE, "it ended with 1")


@pytest.fixture
def application(store: SqliteStore, settings: Settings, storage: StorageClient) -> Flask:
    component = ComponentStatus(CLASSIFY, "MLComponent", conditions=READY, restarts=(NOW, NOW + 0.5))
    box = BoxStatus(ComponentName("data"), "b-1", 10**9, 5, 1, READY)
    store.apps.save(AppStatus(APP, conditions=READY, components=(component,), boxes=(box,)))
    store.events.add([EVENT])
    store.routes.switch(make_route())
    store.requests.enqueue(APP, Trigger.MANUAL)
    store.runs.submit(ended_run())
    store.heartbeat(NOW)
    return create_app(store, settings, storage)


def admin_paths(application: Flask) -> list[str]:
    rules = [rule for rule in application.url_map.iter_rules() if rule.rule.startswith("/-/")]
    asked = [rule.rule for rule in rules if "GET" in (rule.methods or ()) and "<path" not in rule.rule]
    return [rule.replace("<name>", APP) for rule in asked]


def test_every_route_for_administrators(application: Flask) -> None:
    client, walked = application.test_client(), []
    for path in admin_paths(application):
        answer = client.get(path)
        if answer.is_json:
            walked.append(path)
            assert list(deviations(answer.json)) == [], path
    assert {"/-/status", "/-/apps", f"/-/apps/{APP}", f"/-/apps/{APP}/events", "/-/readyz"} <= set(walked)


def test_the_times_of_an_app(application: Flask) -> None:
    client = application.test_client()
    at = rfc3339(NOW)
    assert client.get("/-/status").get_json()["heartbeat"] == at == "2026-01-31T12:00:00.123Z"
    (event,) = client.get(f"/-/apps/{APP}/events").get_json()["events"]
    assert event["at"] == at
    app = client.get(f"/-/apps/{APP}").get_json()
    assert app["conditions"][0]["since"] == at
    assert app["components"][0]["restarts"] == [at, rfc3339(NOW + 0.5)]
    assert app["queued"]["notBefore"].endswith("Z")


def test_what_is_sent_at_the_end_of_a_run_and_streamed() -> None:
    run = ended_run()
    for document in (payload(run), run_document(run, "/demo/train"), event_document(EVENT)):
        assert list(deviations(document)) == []


@pytest.mark.parametrize(
    "description",
    [
        files_document("/demo/files", ["data"]),
        of_one("/demo/train", "train", RunInterface((), ())),
        of_all("/demo/pipelines", ["train"]),
    ],
    ids=["files", "pipeline", "pipelines"],
)
def test_the_descriptions(description: dict[str, Any]) -> None:
    assert list(schema_deviations(description)) == []


@pytest.mark.parametrize(
    "document",
    [
        {"part_size": 1},
        {"Name": "x"},
        {"since": 1_769_860_800},
        {"since": "2026-01-31T12:00:00Z"},
        {"since": "2026-01-31T12:00:00.123+00:00"},
        {"runs": [{"other": 1_769_860_800.123}]},
        {"other": "2026-01-31 12:00:00"},
        {"restarts": ["2026-01-31T12:00:00.123Z", 1.0]},
    ],
)
def test_the_check_finds(document: object) -> None:
    assert len(list(deviations(document))) == 1


def test_the_check_leaves_alone_what_others_have_chosen() -> None:
    given = {
        "presigned_get_url": "x",
        "inputs": [{"data": {"any_key": 1_769_860_800.5}}],
        "images": {"a/b:1": "sha256:1"},
    }
    assert list(deviations(given)) == []


def test_the_check_of_descriptions_finds() -> None:
    properties = {
        "part_size": {"type": "integer"},
        "since": {"type": "number"},
        "data": {"properties": {"a_b": {}}},
    }
    assert len(list(schema_deviations({"properties": properties}))) == 2
