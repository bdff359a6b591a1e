"""What the scripts of each page may ask for and change, as the token of the page says. All else that a page changes is
a form."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask import Flask

from controller.config import Settings
from controller.domain.apps.status import AppStatus
from controller.domain.names import AppName, ComponentName
from controller.domain.people.roles import Grant, Role
from controller.domain.runs.run import new_run, new_run_id
from controller.domain.storage.box import BoxRecord
from controller.store import SqliteStore
from controller.web.app import create_app
from controller.web.auth.page_tokens import read_token
from controller.web.context import people_context
from controller.web.storage import StorageClient
from tests.support.gateway import APP
from tests.support.people import Browser, add_person
from tests.support.runs import make_pipeline

#: Together they take seconds.
pytestmark = pytest.mark.slow

PLACE = f"/-/apps/{APP}"
NOW = 1_790_078_400.0
RUN = new_run_id(NOW, 5)
_TOKEN = re.compile(r'<meta name="prichal-page" content="([^"]*)">')


@pytest.fixture
def app(store: SqliteStore, storage: StorageClient, tmp_path: Path) -> Flask:
    (tmp_path / "web").mkdir()
    found = create_app(store, Settings(state=tmp_path), storage)
    store.apps.save(AppStatus(APP))
    store.boxes.save(BoxRecord(APP, ComponentName("data"), "bucket", 10**9))
    store.runs.publish(APP, (make_pipeline(),))
    store.runs.submit(new_run(RUN, make_pipeline(), NOW))
    people = people_context(found).store
    add_person(people, "boss", Grant("boss", Role.ADMIN))
    add_person(people, "eva", Grant("eva", Role.VIEWER, AppName(APP)))
    return found


@pytest.mark.parametrize(
    ("path", "reads", "writes"),
    [
        (PLACE, PLACE, ""),
        (f"{PLACE}/secrets", f"{PLACE}/secrets", ""),
        (f"{PLACE}/files/data/", f"{PLACE}/files", f"{PLACE}/files"),
        (f"{PLACE}/pipelines/train", PLACE, f"{PLACE}/files"),
        (f"{PLACE}/pipelines/train/runs/{RUN}", PLACE, ""),
    ],
)
def test_scripts_change_files_alone(app: Flask, path: str, reads: str, writes: str) -> None:
    for name, changes in (("boss", writes), ("eva", "")):
        if name == "eva" and path.endswith("/secrets"):
            continue  # it is for those who may steer
        browser = Browser(app)
        browser.sign_in(name)
        page = browser.open(path)
        found = _TOKEN.search(page.text)
        assert found is not None, page.text
        token = read_token(found[1])
        assert token is not None
        assert (token.path, token.writes) == (reads, changes), name
