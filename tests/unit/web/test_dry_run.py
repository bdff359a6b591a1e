"""Requests that are only tried: admitted and answered as always, and rolled back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from controller.config import Settings
from controller.domain.apps.status import AppStatus
from controller.domain.names import AppName
from controller.domain.people.roles import Act, Grant, Role
from controller.store import SqliteStore
from controller.web.app import create_app
from controller.web.auth.rules import RULES
from controller.web.context import people_context
from controller.web.dry_run import ROUTES
from controller.web.storage import StorageClient
from tests.support.people import add_person, add_token

DEMO = AppName("demo")


@pytest.fixture
def app(store: SqliteStore, tmp_path: Path, storage: StorageClient) -> Flask:
    (tmp_path / "web").mkdir()
    made = create_app(store, Settings(state=tmp_path), storage)
    store.apps.save(AppStatus(DEMO))
    people = people_context(made).store
    add_person(people, "bob", Grant("bob", Role.DEVELOPER, "demo"), password=False)
    add_person(people, "eve", Grant("eve", Role.VIEWER, "demo"), password=False)
    return made


def ask(app: Flask, who: str, method: str, path: str, body: Any = None) -> Any:
    token = add_token(people_context(app).store, who)
    client = FlaskClient(app, use_cookies=False)
    return client.open(path, method=method, json=body, headers={"Authorization": f"Bearer {token}"})


def test_it_answers_as_the_request_and_changes_nothing(app: Flask, store: SqliteStore) -> None:
    tried = ask(app, "bob", "POST", "/-/dry-run/apps/demo/suspend")
    assert (tried.status_code, tried.json["app"]) == (202, "demo")
    assert not store.apps.status(DEMO).suspended
    assert store.requests.queued(DEMO) is None
    assert people_context(app).store.acts() == ()
    done = ask(app, "bob", "POST", "/-/apps/demo/suspend")
    assert (done.status_code, done.json.keys()) == (202, tried.json.keys())
    assert store.apps.status(DEMO).suspended
    assert [act.act for act in people_context(app).store.acts()] == ["suspend"]


@pytest.mark.parametrize(
    ("who", "method", "path"),
    [
        ("eve", "POST", "/apps/demo/suspend"),
        ("bob", "POST", "/apps/other/suspend"),
        ("bob", "POST", "/apps/demo/rollback"),
        ("bob", "DELETE", "/apps/demo/secrets/KEYS"),
        ("bob", "DELETE", "/apps/demo"),
    ],
)
def test_it_is_refused_as_the_request(app: Flask, who: str, method: str, path: str) -> None:
    tried, done = (ask(app, who, method, f"{prefix}{path}") for prefix in ("/-/dry-run", "/-"))
    assert (tried.status_code, tried.json["detail"]) == (done.status_code, done.json["detail"])
    assert tried.status_code >= 400


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/tokens"),
        ("POST", "/logout"),
        ("GET", "/apps"),
        ("POST", "/me/logout"),
        ("POST", "/dry-run/apps"),
    ],
)
def test_what_cannot_be_tried_is_not_done(app: Flask, method: str, path: str) -> None:
    people = people_context(app).store
    answer = ask(app, "bob", method, f"/-/dry-run{path}", {"label": "ci", "scope": "read", "days": 7})
    assert answer.status_code in (400, 404)
    assert len(people.tokens("bob")) == 1, "the one that asked"


def test_only_requests_that_change_something_can_be_tried() -> None:
    assert set(RULES) >= ROUTES
    assert all(
        RULES[route].told and RULES[route].act in (Act.STEER, Act.CREATE, Act.DELETE) for route in ROUTES
    )
