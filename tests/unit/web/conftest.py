from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Response, request, request_finished

from controller.config import Settings, WebSettings
from controller.domain.secret import Secret
from controller.domain.storage.box import StorageAccess
from controller.store import SqliteStore
from controller.web.storage import StorageClient
from tests.support.fake_objects import FakeObjects
from tests.support.stores import open_store
from tests.support.wire_format import deviations

ACCESS = StorageAccess("http://127.0.0.1:9000", "https://files.example.org", "web", Secret("letmein-storage"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        state=tmp_path,
        web=WebSettings(admin_token=Secret("letmein-token"), max_body=1000, trust_loopback=True),
    )


@pytest.fixture
def store(settings: Settings) -> Iterator[SqliteStore]:
    opened = open_store(settings.database)
    yield opened
    opened.close()


@pytest.fixture
def objects() -> FakeObjects:
    return FakeObjects()


@pytest.fixture
def storage(store: SqliteStore, objects: FakeObjects) -> Iterator[StorageClient]:
    store.boxes.record_access(ACCESS)
    client = StorageClient(store, lambda access: objects)
    yield client
    client.close()


@pytest.fixture(autouse=True)
def answers_have_one_format() -> Iterator[None]:
    """Every JSON that the Flask application answers to any test of this folder, whatever its route is."""
    found: list[str] = []

    def check(_: object, response: Response, **more: object) -> None:
        if response.is_json and not request.path.endswith("/openapi.json"):
            found.extend(f"{request.method} {request.path}: {each}" for each in deviations(response.json))

    with request_finished.connected_to(check):
        yield
    assert found == []
