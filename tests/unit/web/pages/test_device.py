"""Signing in of programs: a program begins, a person confirms in a browser, the program gets a token once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from controller.config import Settings
from controller.domain.people.roles import Grant, Role
from controller.store.device_logins import MOST_EACH
from controller.store.people import MOST_TOKENS, PeopleStore
from controller.web.app import create_app
from controller.web.context import people_context
from controller.web.pages.device import plain_code
from controller.web.storage import StorageClient
from tests.support.fake_objects import FakeObjects
from tests.support.people import Browser, add_person, add_token, hidden
from tests.support.stores import open_store

#: Together they take seconds.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    state: Path = tmp_path_factory.mktemp("state")
    settings = Settings(state=state)
    (state / "web").mkdir()
    with closing(open_store(settings.database)) as store:
        made = create_app(store, settings, StorageClient(store, lambda access: FakeObjects()))
        add_person(people_context(made).store, "anna", Grant("anna", Role.VIEWER))
        yield made


@pytest.fixture
def people(app: Flask) -> PeopleStore:
    store = people_context(app).store
    with store.opened(write=True) as db:
        db.execute("DELETE FROM devices")
        db.execute("DELETE FROM tokens")
    return store


@pytest.fixture
def browser(app: Flask, people: PeopleStore) -> Browser:
    browser = Browser(app)
    assert browser.sign_in("anna").status_code == 303
    return browser


def post(app: Flask, path: str, **fields: str) -> Any:
    return app.test_client().post(path, data=fields, base_url="http://localhost")


def begin(app: Flask, **fields: str) -> dict[str, Any]:
    reply = post(app, "/-/device", **{"label": "prichal on laptop", "scope": "deploy", **fields})
    assert reply.status_code == 200
    begun: dict[str, Any] = reply.json
    return begun


def take(app: Flask, begun: dict[str, Any]) -> Any:
    return post(app, "/-/device/token", secret=begun["secret"])


def answer(browser: Browser, begun: dict[str, Any], what: str = "allow", scope: str = "deploy") -> Any:
    page = browser.open(begun["path"])
    return browser.submit("/-/device/answer", {**hidden(page), "answer": what, "scope": scope})


def test_a_program_gets_a_token_once(app: Flask, browser: Browser, people: PeopleStore) -> None:
    begun = begin(app)
    waiting = take(app, begun)
    assert (waiting.status_code, waiting.json) == (202, {"state": "pending", "interval": 2})
    page = browser.open(begun["path"])
    assert (begun["code"] in page.text, "prichal on laptop" in page.text) == (True, True)
    assert people.tokens() == (), "looking at the page grants nothing"
    assert "signed in" in answer(browser, begun).text
    found = take(app, begun)
    assert (found.status_code, found.json["user"], found.json["scope"]) == (200, "anna", "deploy")
    headers = {"Authorization": f"Bearer {found.json['token']}"}
    assert '"user":"anna"' in app.test_client().get("/-/me", headers=headers).text
    again = take(app, begun)
    assert (again.status_code, again.json["reason"]) == (403, "LoginRefused")
    acts = [(act.who, act.via.split()[0], act.act) for act in people.acts(2)]
    assert acts == [("anna", "device", "token add"), ("anna", "session", "device login")]


def test_the_person_chooses_the_scope(app: Flask, browser: Browser, people: PeopleStore) -> None:
    begun = begin(app, scope="admin")
    answer(browser, begun, scope="read")
    assert take(app, begun).json["scope"] == "read"
    assert answer(browser, begin(app), scope="root").status_code == 400


def test_a_person_may_decline(app: Flask, browser: Browser, people: PeopleStore) -> None:
    begun = begin(app)
    assert "no token" in answer(browser, begun, "deny").text
    found = take(app, begun)
    assert (found.status_code, "declined" in found.json["detail"]) == (403, True)
    assert people.tokens() == ()


def test_it_is_answered_once(app: Flask, browser: Browser, people: PeopleStore) -> None:
    begun = begin(app)
    page = browser.open(begun["path"])
    fields = {**hidden(page), "scope": "deploy"}
    assert browser.submit("/-/device/answer", {**fields, "answer": "deny"}).status_code == 200
    assert browser.submit("/-/device/answer", {**fields, "answer": "allow"}).status_code == 404
    assert take(app, begun).status_code == 403


@pytest.mark.parametrize("code", ["bcdf-ghjk", " BCDF GHJK ", "BCDFGHJK", "bcdf–ghjk"])
def test_a_code_is_typed_in_any_way(code: str) -> None:
    assert plain_code(code) == "BCDFGHJK"


@pytest.mark.parametrize("code", ["BCDF-GHJK", "", "' OR 1=1", "<script>", "é" * 500])
def test_a_code_that_is_not_known(browser: Browser, code: str) -> None:
    page = browser.open(f"/-/device?code={code}")
    assert page.status_code == (404 if code else 200)
    assert "<script>" not in page.text.replace('<script type="module"', "")


def test_names_of_programs_are_text(app: Flask, browser: Browser) -> None:
    page = browser.open(begin(app, label='<b>it\'s "me"</b>')["path"])
    assert "&lt;b&gt;" in page.text
    assert "<b>it" not in page.text


def test_a_code_is_too_old_after_ten_minutes(
    app: Flask, browser: Browser, people: PeopleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = begin(app)
    with people.opened(write=True) as db:
        db.execute("UPDATE devices SET expires = expires - 601")
    assert browser.open(begun["path"]).status_code == 404
    assert take(app, begun).status_code == 403


def test_nobody_else_confirms(app: Flask, browser: Browser, people: PeopleStore) -> None:
    """Without a session there is a sign-in; a token, a form of another session or none confirms nothing."""
    begun = begin(app)
    other = Browser(app)
    assert other.open(begun["path"]).location.startswith("/-/login?next=%2F-%2Fdevice%3Fcode%3D")
    fields = {**hidden(browser.open(begun["path"])), "answer": "allow", "scope": "deploy"}
    for form in ("", "x.y", "0000." + fields["form"].partition(".")[2]):
        assert other.submit("/-/device/answer", {**fields, "form": form}).status_code in (303, 401)
    headers = {"Authorization": f"Bearer {add_token(people, 'anna')}"}
    reply = app.test_client().post("/-/device/answer", json={}, headers=headers, base_url="http://localhost")
    assert reply.status_code == 400
    assert take(app, begun).status_code == 202


def test_a_way_on_which_others_read(app: Flask, people: PeopleStore) -> None:
    for path in ("/-/device", "/-/device/token"):
        reply = app.test_client().post(path, data={"scope": "read"}, base_url="http://models.example.org")
        assert (reply.status_code, "HTTPS" in reply.text) == (403, True)


@pytest.mark.parametrize("fields", [{"scope": "root"}, {"label": "x" * 61}, {"label": "\x1b[2J"}])
def test_what_is_no_program(app: Flask, people: PeopleStore, fields: dict[str, str]) -> None:
    assert post(app, "/-/device", **fields).status_code == 422


def test_few_wait_at_once(app: Flask, people: PeopleStore) -> None:
    for _ in range(MOST_EACH):
        begin(app)
    reply = post(app, "/-/device", scope="read")
    assert (reply.status_code, "Retry-After" in reply.headers) == (429, True)


def test_an_account_that_is_removed_or_full(app: Flask, browser: Browser, people: PeopleStore) -> None:
    begun = begin(app)
    answer(browser, begun)
    for _ in range(MOST_TOKENS):
        add_token(people, "anna")
    found = take(app, begun)
    assert (found.status_code, "revoke unused ones" in found.json["detail"]) == (403, True)


@pytest.mark.parametrize("secret", ["", "x", "x" * 5000, "é"])
def test_secrets_that_are_none(app: Flask, people: PeopleStore, secret: str) -> None:
    assert post(app, "/-/device/token", secret=secret).status_code == 403


def test_nothing_that_opens_anything_is_stored(app: Flask, browser: Browser, people: PeopleStore) -> None:
    begun = begin(app)
    answer(browser, begun)
    with people.opened() as db:
        stored = str([tuple(row) for row in db.execute("SELECT * FROM devices").fetchall()])
    assert begun["secret"] not in stored
    assert plain_code(begun["code"]) not in stored
    assert isinstance(db, sqlite3.Connection)
