"""The files API for people, below `/-/apps/<app>/files`: whose area it is, what their pages ask for, and what the audit
tells. Who may is tried for every role in tests/unit/web/auth/test_rules.py."""

from __future__ import annotations

import io
import re
import time
from html import unescape
from typing import Any

import pytest
from flask import Flask

from controller.config import Settings
from controller.domain.apps.status import AppStatus
from controller.domain.names import AppName, ComponentName
from controller.domain.people.roles import Grant, Role
from controller.domain.storage.box import BoxRecord, StoredObject
from controller.domain.storage.keys import DEVELOPER_AREA, parse_path, user_area
from controller.store import SqliteStore
from controller.web.api.files.area import MAX_REMOVED, BoxArea
from controller.web.app import create_app
from controller.web.context import people_context
from controller.web.pages.files import PER_PAGE, FilesPlace
from controller.web.storage import StorageClient
from tests.support.fake_objects import FakeObjects
from tests.support.people import Browser, add_person, add_token, hidden

pytestmark = pytest.mark.slow

APP, BOX, BUCKET = AppName("demo"), ComponentName("data"), "prichal.demo.data"
FILES = "/-/apps/demo/files"
MAKER = user_area("person:maker")


@pytest.fixture
def app(store: SqliteStore, settings: Settings, storage: StorageClient, objects: FakeObjects) -> Flask:
    store.apps.save(AppStatus(APP))
    store.boxes.save(BoxRecord(APP, BOX, BUCKET, 10**9))
    objects.create_bucket(BUCKET)
    (settings.state / "web").mkdir(exist_ok=True)
    made = create_app(store, settings, storage)
    for name, role in (("maker", Role.DEVELOPER), ("other", Role.DEVELOPER), ("guest", Role.VIEWER)):
        add_person(people_context(made).store, name, Grant(name, role, APP))
    return made


@pytest.fixture
def browser(app: Flask) -> Browser:
    found = Browser(app)
    assert found.sign_in("maker").status_code == 303
    return found


def ask(app: Flask, who: str, method: str, path: str, **query: str) -> Any:
    token = add_token(people_context(app).store, who)
    headers = {"Authorization": f"Bearer {token}"}
    return app.test_client().open(FILES + path, method=method, query_string=query, headers=headers)


def given(objects: FakeObjects, *names: str, area: str = MAKER) -> None:
    for name in names:
        objects.put(BUCKET, area + name, io.BytesIO(b"content"), 7)


def keys(objects: FakeObjects) -> list[str]:
    return [found.key for found in objects.page(BUCKET).objects]


def test_everybody_has_an_area_of_their_own(app: Flask, objects: FakeObjects) -> None:
    given(objects, "g/mine")
    given(objects, "g/module", area=DEVELOPER_AREA)
    assert ask(app, "maker", "GET", "/data/g/").json["files"][0]["name"] == "mine"
    assert ask(app, "other", "GET", "/data/g/").json["files"] == []
    assert ask(app, "other", "GET", "/data/g/mine").status_code == 404
    for who in ("maker", "other", "guest"):
        names = [each["name"] for each in ask(app, who, "GET", "/data/g/", area="developer").json["files"]]
        assert names == ["module"]
    assert ask(app, "maker", "GET", "/data/g/", area="users").status_code == 400


@pytest.mark.parametrize("path", ["/none/g/f", "/data/g/../f", "/data/g//f", "/data/%00/f"])
def test_what_is_no_place(app: Flask, path: str) -> None:
    for method in ("GET", "PUT", "POST", "DELETE"):
        assert ask(app, "maker", method, path).status_code in (400, 404)


def test_what_changes_is_told_once(app: Flask, objects: FakeObjects) -> None:
    ask(app, "maker", "PUT", "/data/g/f", size="5")
    upload = ask(app, "maker", "POST", "/data/g/large", uploads="", size="7").json["upload"]
    ask(app, "maker", "PUT", "/data/g/large", upload=upload, part="1")
    objects.put_part(BUCKET, f"{MAKER}g/large", upload, 1, b"content")
    assert ask(app, "maker", "POST", "/data/g/large", upload=upload).status_code == 200
    assert ask(app, "maker", "POST", "/data/g/large", moveTo="g/moved").json["name"] == "g/moved"
    assert ask(app, "maker", "DELETE", "/data/g/moved").status_code == 204
    acts = [(entry.act, entry.detail) for entry in people_context(app).store.acts(20, "maker")]
    assert acts == [
        ("file rm", "data/g/moved"),
        ("file change", "moved data/g/large to g/moved"),
        ("file change", "uploaded data/g/large"),
        ("file upload", "data/g/f"),
    ]


def test_a_link_that_replaces_nothing(app: Flask, objects: FakeObjects) -> None:
    given(objects, "g/there")
    headers = {
        "If-None-Match": "*",
        "Authorization": f"Bearer {add_token(people_context(app).store, 'maker')}",
    }
    client = app.test_client()
    assert client.put(f"{FILES}/data/g/there?size=1", headers=headers).status_code == 412
    assert client.post(f"{FILES}/data/g/there?uploads&size=1", headers=headers).status_code == 412
    assert client.put(f"{FILES}/data/g/new?size=1", headers=headers).status_code == 200


def test_forms_delete_and_move(browser: Browser, objects: FakeObjects) -> None:
    given(objects, "g/a", "g/b", "g/in/c", "g/kept", "h/kept")
    form = hidden(browser.open(f"{FILES}/data/g/"))["form"]
    fields: Any = {"form": form, "name": ["a", "in/", "gone", "b"]}
    reply = browser.submit(f"{FILES}/data/g/", fields)
    assert (reply.status_code, reply.location) == (303, f"{FILES}/data/g/")
    assert keys(objects) == [f"{MAKER}g/kept", f"{MAKER}h/kept"]
    for to, status in (("h/kept", 409), ("alone", 400), ("g/kept", 409), ("a/../b", 400), ("g/kept/x", 409)):
        assert browser.submit(f"{FILES}/data/g/kept", {"form": form, "to": to}).status_code == status
    reply = browser.submit(f"{FILES}/data/g/kept", {"form": form, "to": "new/имя"})
    assert reply.location == f"{FILES}/data/new/%D0%B8%D0%BC%D1%8F"
    assert keys(objects) == [f"{MAKER}h/kept", f"{MAKER}new/имя"]


class Replaced(FakeObjects):
    """Somebody uploads another file of the same name right after each copy."""

    def copy(self, bucket: str, found: StoredObject, key: str, into: str = "") -> StoredObject:
        copied = super().copy(bucket, found, key, into)
        self.put(bucket, found.key, io.BytesIO(b"newer"), 5)
        return copied


def test_what_replaces_a_file_that_is_moved_stays(store: SqliteStore, storage: StorageClient) -> None:
    """And the space that was kept for it, too, until it is counted."""
    record, objects, now = BoxRecord(APP, BOX, BUCKET, 10**9), Replaced(), time.time()
    store.boxes.save(record)
    objects.create_bucket(BUCKET)
    given(objects, "g/a")
    area = BoxArea(store, storage, objects, record, MAKER, 60.0, now)
    area.allow(parse_path("g/a"), 5)
    area.move(parse_path("g/a"), parse_path("g/b"))
    assert [objects.page(BUCKET).objects[at].size for at in (0, 1)] == [5, 7]
    assert [each.key for each in store.boxes.pending(BUCKET)] == [f"{MAKER}g/a", f"{MAKER}g/b"]


def test_a_form_deletes_no_more_than_one_request_may(browser: Browser, objects: FakeObjects) -> None:
    """However many folders are chosen."""
    given(objects, *(f"g/a/{number}" for number in range(MAX_REMOVED)), "g/b/1", "g/c")
    form = hidden(browser.open(f"{FILES}/data/g/"))["form"]
    fields: Any = {"form": form, "name": ["a/", "b/", "c"]}
    browser.submit(f"{FILES}/data/g/", fields)
    assert keys(objects) == [f"{MAKER}g/b/1", f"{MAKER}g/c"]
    reply = browser.submit(f"{FILES}/data/g/", fields)
    assert (reply.status_code, keys(objects)) == (303, [])


@pytest.mark.parametrize("name", ["", "../h/kept", "in//", "/", "x/../../h/"])
def test_a_form_deletes_nothing_outside_of_its_folder(
    browser: Browser, objects: FakeObjects, name: str
) -> None:
    given(objects, "g/kept", "h/kept")
    form = hidden(browser.open(f"{FILES}/data/g/"))["form"]
    reply = browser.submit(f"{FILES}/data/g/", {"form": form, "name": name})
    assert reply.status_code == (400 if name else 303)
    assert keys(objects) == [f"{MAKER}g/kept", f"{MAKER}h/kept"]


def test_a_viewer_gets_no_forms(app: Flask, objects: FakeObjects) -> None:
    given(objects, "g/module", area=DEVELOPER_AREA)
    guest = Browser(app)
    guest.sign_in("guest")
    for path in ("/data/g/", "/data/g/module"):
        text = guest.open(f"{FILES}{path}?area=developer").text
        assert "module" in text
        assert [
            part for part in ("checkbox", 'type="file"', f'method="post" action="{FILES}') if part in text
        ] == []


def test_the_storage_is_down(browser: Browser, objects: FakeObjects) -> None:
    given(objects, "g/f")
    objects.down = True
    page = browser.open(f"{FILES}/data/g/")
    assert (page.status_code, "Files cannot be reached at the moment" in page.text) == (503, True)
    assert browser.open(f"{FILES}/data/g/f").status_code == 503
    assert "data" in browser.open(FILES).text


def test_unfinished_uploads_are_shown_until_they_are_complete(
    app: Flask, browser: Browser, objects: FakeObjects
) -> None:
    upload = ask(app, "maker", "POST", "/data/g/in/large", uploads="", size="7").json["upload"]
    objects.put_part(BUCKET, f"{MAKER}g/in/large", upload, 1, b"con")
    assert (
        f'data-unfinished="{upload}" data-path="g/in/large" data-size="7"'
        in browser.open(f"{FILES}/data/g/").text
    )
    assert "data-unfinished" not in browser.open(f"{FILES}/data/h/").text
    objects.put_part(BUCKET, f"{MAKER}g/in/large", upload, 1, b"content")
    assert ask(app, "maker", "POST", "/data/g/in/large", upload=upload).status_code == 200
    assert "data-unfinished" not in browser.open(f"{FILES}/data/g/").text


@pytest.mark.parametrize("name", ["a b", "100%", "%41", "a?b#c&d", "«имя»", "+"])
def test_addresses_lead_to_what_they_are_of(browser: Browser, objects: FakeObjects, name: str) -> None:
    given(objects, f"{name}/{name}")
    record = BoxRecord(APP, BOX, BUCKET, 1)
    place = FilesPlace(APP, record, parse_path(""), MAKER)
    assert browser.open(place.at(f"{name}/").address()).status_code == 200
    assert browser.open(place.at(f"{name}/{name}").address()).status_code == 200
    assert [each.name for each in place.at(f"{name}/{name}/x").above] == [name, name]


def test_a_hundred_thousand_files_are_pages_of_one_listing_each(
    browser: Browser, objects: FakeObjects
) -> None:
    found = objects.server.buckets[BUCKET]
    for number in range(100_000):
        key = f"{MAKER}g/{number:06}"
        found[key] = StoredObject(key, 1, "0", 1.0), b"x"
    shown, path = [], f"{FILES}/data/g/"
    for _ in range(3):
        before = objects.requests
        page = browser.open(path)
        assert page.status_code == 200
        assert objects.requests - before <= 2, "the list, and unfinished uploads"
        assert len(page.data) < 300_000
        shown += re.findall(r'data-key="file-(\d+)"', page.text)
        path = unescape(re.findall(r'rel="next" href="([^"]+)"', page.text)[0])
    assert shown == [f"{number:06}" for number in range(3 * PER_PAGE)]
    beginning = browser.open(f"{FILES}/data/g/?prefix=0999")
    assert re.findall(r'data-key="file-(\d+)"', beginning.text) == [
        f"{number:06}" for number in range(99_900, 100_000)
    ]
