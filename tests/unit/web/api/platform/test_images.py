"""What is kept on the engine, over HTTP: who may ask, what is written down, and what is refused."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from controller.config import Settings
from controller.daemon.images import ImageWorker
from controller.domain.apps.status import AppStatus
from controller.domain.names import AppName
from controller.domain.people.accounts import Scope
from controller.domain.people.roles import Grant, Role
from controller.store import SqliteStore
from controller.store.image_lists import MOST_WAITING
from controller.web.app import create_app
from controller.web.context import people_context
from controller.web.storage import StorageClient
from tests.support.image_lists import ListedImages, kept
from tests.support.people import add_person, make_token

PRUNE = "/-/images/prune"
ID = "f" * 32


@pytest.fixture
def app(store: SqliteStore, storage: StorageClient, tmp_path: Path) -> Flask:
    (tmp_path / "web").mkdir()
    made = create_app(store, Settings(state=tmp_path), storage)
    store.apps.save(AppStatus(AppName("demo")))
    for name, role in (("boss", Role.ADMIN), ("watcher", Role.VIEWER)):
        add_person(people_context(made).store, name, Grant(name, role))
    return made


def ask(
    app: Flask, path: str, method: str = "GET", who: str = "boss", scope: Scope = Scope.ADMIN, **more: Any
) -> Any:
    token, _ = make_token(people_context(app).store, who, scope)
    headers = {"Authorization": f"Bearer {token}", "X-Prichal": "1"}
    return app.test_client().open(path, method=method, headers=headers, **more)


def test_what_is_asked_for_is_found_by_its_id(app: Flask, store: SqliteStore) -> None:
    engine = ListedImages(kept("demo"), kept("gone"))
    worker = ImageWorker(store, engine, Settings(), time.time, lambda: ())
    asked = ask(app, "/-/images?app=gone").json
    place = f"/-/images/{asked['id']}"
    assert asked == ask(app, place).json == {"id": asked["id"], "state": "pending", "daemon": False}
    assert worker.work()
    found = ask(app, place).json
    assert (found["state"], found["removed"], [each["app"] for each in found["images"]]) == (
        "done",
        1,
        ["gone"],
    )
    assert len(engine.images) == 2
    begun = ask(app, PRUNE, "POST", json={"app": "gone"})
    assert (begun.status_code, begun.json["state"]) == (202, "pending")
    assert worker.work()
    assert [each.app for each in engine.images] == ["demo"]
    assert ask(app, f"/-/images/{ID}").json["state"] == "pending", "as for one that is done soon"


def test_the_audit_has_removals_alone(app: Flask) -> None:
    ask(app, "/-/images")
    ask(app, PRUNE, "POST")
    ask(app, PRUNE, "POST", json={"app": "gone"})
    assert ask(app, PRUNE, "POST", json={"app": "../x"}).status_code == 422
    acts = [(each.who, each.act, each.subject) for each in people_context(app).store.acts(5)]
    assert acts == [("boss", "image prune", "gone"), ("boss", "image prune", "")]


@pytest.mark.parametrize("given", [["demo"], {"app": 7}, {"app": ["demo"]}, "demo", {"App": "demo"}])
def test_bodies_that_name_no_app(app: Flask, store: SqliteStore, given: object) -> None:
    assert ask(app, PRUNE, "POST", json=given).status_code == 400
    assert ask(app, PRUNE, "POST", data=json.dumps(given)).status_code == 415
    assert ask(app, f"{PRUNE}?app=demo", "POST").status_code == 415
    assert ask(app, f"{PRUNE}?app=demo", "POST", json={}).status_code == 400
    assert store.image_lists.begin() is None, "nothing is removed of all apps in its place"


def test_those_who_administer_alone(app: Flask, store: SqliteStore) -> None:
    for who, scope in (("watcher", Scope.ADMIN), ("boss", Scope.READ), ("boss", Scope.DEPLOY)):
        for path, method in (("/-/images", "GET"), (f"/-/images/{ID}", "GET"), (PRUNE, "POST")):
            assert ask(app, path, method, who, scope).status_code == 403, (who, scope, path)
    assert store.image_lists.begin() is None


def test_a_dry_run_is_refused(app: Flask, store: SqliteStore) -> None:
    assert ask(app, "/-/dry-run/images/prune", "POST").status_code == 400
    assert store.image_lists.begin() is None


def test_a_full_queue(app: Flask, store: SqliteStore) -> None:
    for number in range(MOST_WAITING):
        store.image_lists.ask(f"app-{number}")
    full = ask(app, PRUNE, "POST")
    assert (full.status_code, full.headers["Retry-After"]) == (429, "10")
