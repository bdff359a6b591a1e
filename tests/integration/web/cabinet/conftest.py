"""One web process over recorded data for each file of tests, and one browser for all of them, in which each test has
windows of its own. It is closed behind the last file of this folder: until then Playwright runs an event loop."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from controller.domain.people.roles import Grant, Role
from controller.domain.storage.box import StorageAccess
from controller.kept_logs import BUILDS
from controller.store.people import PeopleStore
from tests.integration.web.conftest import Web, echo, serving
from tests.support.browser import browser
from tests.support.cabinet import Cabinet, chromium
from tests.support.people import add_person
from tests.support.recorded import EXAMINED, record, record_files
from tests.support.serve_web import objects_address, settings_of, with_web
from tests.support.storage_servers import StorageServer, embedded_server
from tests.support.stores import open_store


@contextmanager
def recorded_platform(state: Path, server: StorageServer) -> Iterator[Web]:
    with_web(state, trust_loopback=False, workers=1)
    with closing(open_store(settings_of(state).database)) as store, echo("first") as component:
        record(store, time.time(), component.endpoint)
        store.boxes.record_access(
            StorageAccess(
                server.url, f"http://{objects_address(state)}", server.access_key, server.secret_key
            )
        )
        with closing(server.objects()) as objects:
            record_files(objects)
        store.heartbeat(time.time() + 3600)  # no daemon runs here
        settings_of(state).health.write_text(json.dumps(EXAMINED))
        (state / "web").mkdir(exist_ok=True)
        kept = settings_of(state).kept_logs / "demo-colors" / "namer" / "20260101000000-first"
        kept.mkdir(parents=True)
        (kept / f"{0:016}.log").write_text("loaded the model\n")
        built = settings_of(state).kept_logs / "demo-colors" / BUILDS / "20260101000000-first"
        built.mkdir(parents=True)
        (built / f"{0:016}.log").write_text("Step 1/1 : FROM base\n")
        people = PeopleStore(settings_of(state).people)
        add_person(people, "boss", Grant("boss", Role.ADMIN))
        add_person(people, "maker", Grant("maker", Role.DEVELOPER, "demo-colors"))
        add_person(people, "guest", Grant("guest", Role.VIEWER, "demo-colors"), password=False)
        with serving(state, store, component) as running:
            yield running


def cabinet_of(platform: Web, program: Browser) -> Cabinet:
    people = PeopleStore(settings_of(platform.state).people)
    return Cabinet("http://{}:{}".format(*platform.address), people, program)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageServer]:
    with embedded_server(tmp_path_factory.mktemp("storage")) as server:
        yield server


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, storage: StorageServer) -> Iterator[Web]:
    with recorded_platform(tmp_path_factory.mktemp("state"), storage) as running:
        yield running


@pytest.fixture(scope="package")
def running_browser() -> Iterator[Browser]:
    if browser() is None:
        pytest.skip("needs Chromium: scripts/test-tools")
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def cabinet(running_browser: Browser, platform: Web) -> Cabinet:
    return cabinet_of(platform, running_browser)


@pytest.fixture(autouse=True)
def quiet(cabinet: Cabinet) -> Iterator[None]:
    """What a console says is a fault of the page."""
    cabinet.complaints()
    yield
    assert cabinet.complaints() == []
