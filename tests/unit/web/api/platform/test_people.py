"""Sessions, tokens and the audit below `/-/`, for programs and in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from controller.config import Settings, WebSettings
from controller.domain.apps.history import AppliedRevision
from controller.domain.apps.status import AppStatus
from controller.domain.names import AppName
from controller.domain.people.accounts import Scope
from controller.domain.people.roles import Grant, Role
from controller.domain.secret import Secret
from controller.store import SqliteStore
from controller.store.people import PeopleStore
from controller.web.app import create_app
from controller.web.context import people_context
from controller.web.storage import StorageClient
from tests.support.people import Browser, add_person, add_token, hidden

#: Together they take seconds.
pytestmark = pytest.mark.slow

ADMIN = "letmein-token"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "web").mkdir()
    return Settings(state=tmp_path, web=WebSettings(admin_token=Secret(ADMIN)))


@pytest.fixture
def app(store: SqliteStore, settings: Settings, storage: StorageClient) -> Flask:
    made = create_app(store, settings, storage)
    store.apps.save(AppStatus(AppName("demo")))
    people = people_context(made).store
    add_person(people, "ann", Grant("ann", Role.ADMIN))
    add_person(people, "bob", Grant("bob", Role.DEVELOPER, "demo"))
    return made


@pytest.fixture
def people(app: Flask) -> PeopleStore:
    return people_context(app).store


def ask(app: Flask, token: str, method: str, path: str, body: Any = None) -> Any:
    client = FlaskClient(app, use_cookies=False)
    return client.open(path, method=method, json=body, headers={"Authorization": f"Bearer {token}"})


def test_a_token_is_shown_once(app: Flask, people: PeopleStore) -> None:
    mine = add_token(people, "bob")
    made = ask(app, mine, "POST", "/-/tokens", {"label": "ci ", "scope": "deploy", "days": 7})
    assert made.status_code == 201
    secret, id = made.json["token"], made.json["id"]
    listed = ask(app, mine, "GET", "/-/tokens")
    assert secret not in listed.text
    assert [each["scope"] for each in listed.json["tokens"]] == ["admin", "deploy"]
    assert ask(app, secret, "POST", "/-/apps/demo/reconcile").status_code == 202
    assert ask(app, mine, "POST", f"/-/tokens/{id}/revoke").json == {"revoked": id}
    assert ask(app, secret, "POST", "/-/apps/demo/reconcile").status_code == 401
    told = [(entry.who, entry.act, entry.subject) for entry in reversed(people.acts())]
    assert told == [
        ("bob", "token add", f"token {id}"),
        ("bob", "reconcile", "demo"),
        ("bob", "token revoke", f"token {id}"),
    ]
    assert people.acts()[1].via == f"token {id}"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"scope": "root"}, 422),
        ({"scope": []}, 422),
        ({"days": 0}, 422),
        ({"days": 367}, 422),
        ({"days": True}, 422),
        ({"days": "7"}, 422),
        ({"label": "x" * 61}, 422),
        ({"label": "a\nb"}, 422),
        ({"label": 1}, 422),
        ({"user": "ann"}, 422),
        ([], 422),
        (None, 415),
    ],
    ids=repr,
)
def test_what_cannot_be_asked_for(app: Flask, people: PeopleStore, body: Any, status: int) -> None:
    token = add_token(people, "bob")
    assert ask(app, token, "POST", "/-/tokens", body).status_code == status
    assert len(people.tokens()) == 1


def test_what_belongs_to_others(app: Flask, people: PeopleStore) -> None:
    anns, bobs = add_token(people, "ann"), add_token(people, "bob")
    Browser(app).sign_in("ann")
    (session,) = ask(app, anns, "GET", "/-/sessions").json["sessions"]
    (token,) = ask(app, anns, "GET", "/-/tokens").json["tokens"]
    assert ask(app, bobs, "GET", "/-/sessions").json == {"sessions": []}
    assert ask(app, bobs, "POST", f"/-/sessions/{session['id']}/revoke").status_code == 404
    assert ask(app, bobs, "POST", f"/-/tokens/{token['id']}/revoke").status_code == 404
    for path in ("/-/sessions", "/-/tokens"):
        assert ask(app, bobs, "GET", f"{path}?all=1").status_code == 403
    assert len(ask(app, anns, "GET", "/-/tokens?all=1").json["tokens"]) == 2
    (other,) = people.tokens("bob")
    assert ask(app, anns, "POST", f"/-/tokens/{other.id}/revoke").status_code == 200
    assert ask(app, bobs, "GET", "/-/apps").status_code == 401


def test_the_admin_token_has_no_tokens_of_its_own(app: Flask, people: PeopleStore) -> None:
    add_token(people, "bob")
    assert ask(app, ADMIN, "POST", "/-/tokens", {"scope": "read"}).status_code == 403
    assert len(ask(app, ADMIN, "GET", "/-/tokens").json["tokens"]) == 1
    assert ask(app, ADMIN, "POST", "/-/apps/demo/suspend").status_code == 202
    assert [(entry.who, entry.act) for entry in people.acts()] == [("admin token", "suspend")]


def test_refused_acts_are_not_told_as_done(app: Flask, people: PeopleStore) -> None:
    token = add_token(people, "bob", Scope.READ)
    assert ask(app, token, "POST", "/-/apps/demo/suspend").status_code == 403
    assert ask(app, token, "POST", "/-/apps/other/suspend").status_code == 404
    assert people.acts() == ()


def test_the_audit_is_for_administrators(app: Flask, people: PeopleStore) -> None:
    anns, bobs = add_token(people, "ann"), add_token(people, "bob")
    ask(app, bobs, "POST", "/-/apps/demo/suspend")
    ask(app, bobs, "POST", "/-/apps/demo/resume")
    ask(app, anns, "POST", "/-/apps/demo/reconcile")
    acts = ask(app, anns, "GET", "/-/audit?who=bob&limit=1").json["acts"]
    assert [(each["who"], each["act"], each["subject"]) for each in acts] == [("bob", "resume", "demo")]
    assert ask(app, bobs, "GET", "/-/audit").status_code == 403
    assert ask(app, anns, "GET", "/-/audit?limit=x").status_code == 400


def test_who_rolled_back_is_in_the_audit(app: Flask, people: PeopleStore, store: SqliteStore) -> None:
    demo = AppName("demo")
    store.apps.save(AppStatus(demo, attempted_revision="b" * 40))
    for revision in "ab":
        entry = AppliedRevision(demo, revision * 40, "", "", (), 1.0, 2.0, "Ready", "", "")
        store.history.add(entry, [])
    bobs = add_token(people, "bob")
    assert ask(app, bobs, "POST", "/-/apps/demo/rollback", {"revision": 7}).status_code == 400
    assert (
        ask(app, bobs, "POST", "/-/apps/demo/rollback", {"revision": "ffff"}).json["reason"]
        == "UnknownRevision"
    )
    refused = ask(app, bobs, "POST", "/-/apps/demo/rollback", {"revision": "bbbb"})
    assert (refused.status_code, refused.json["reason"]) == (409, "RollbackRefused")
    assert people.acts() == ()
    assert ask(app, bobs, "POST", "/-/apps/demo/rollback").status_code == 202
    (act,) = people.acts()
    assert (act.who, act.act, act.subject, act.detail) == ("bob", "rollback", "demo", f"to {'a' * 12}")
    rollback = store.apps.status(demo).rollback
    assert rollback is not None
    assert (rollback.revision, rollback.by) == ("a" * 40, "bob")


def test_in_a_browser(app: Flask, people: PeopleStore) -> None:
    ann, other = Browser(app), Browser(app)
    ann.sign_in("ann")
    other.sign_in("ann")
    form = {"form": hidden(ann.open("/-/tokens"))["form"]}
    page = ann.submit("/-/tokens", {**form, "label": '<b>"Ноут"</b>', "scope": "deploy", "days": "5"})
    assert page.status_code == 200
    assert "&lt;b&gt;&#34;Ноут&#34;&lt;/b&gt;" in page.text
    secret = page.text.partition('<code id="secret">')[2].partition("<")[0]
    assert ask(app, secret, "GET", "/-/apps").status_code == 200
    assert secret not in ann.open("/-/tokens").text
    (token,) = people.tokens("ann")
    assert ann.submit(f"/-/tokens/{token.id}/revoke", form).location == "/-/tokens"
    assert ask(app, secret, "GET", "/-/apps").status_code == 401
    (session,) = (each["id"] for each in sessions(app, people) if each["id"] not in form["form"])
    assert ann.submit(f"/-/sessions/{session}/revoke", form).location == "/-/sessions"
    assert other.open("/-/apps").status_code == 303
    assert "session revoke" in ann.open("/-/audit").text
    assert ann.submit("/-/tokens", {**form, "days": "9" * 5000}).status_code == 422


def sessions(app: Flask, people: PeopleStore) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(app, add_token(people, "ann"), "GET", "/-/sessions").json["sessions"]
    return found


def test_a_person_steers_by_a_form(app: Flask, store: SqliteStore) -> None:
    bob = Browser(app)
    bob.sign_in("bob")
    form = {"form": hidden(bob.open("/-/sessions"))["form"]}
    reply = bob.submit("/-/apps/demo/suspend", form)
    assert (reply.status_code, reply.location) == (303, "/-/apps/demo")
    assert store.apps.status(AppName("demo")).suspended
    assert bob.submit("/-/apps/other/suspend", form).status_code == 404


def test_a_role_that_is_taken_away_counts_at_once(app: Flask, people: PeopleStore) -> None:
    bob = Browser(app)
    bob.sign_in("bob")
    assert bob.open("/-/apps/demo").status_code == 200
    people.take_back(Grant("bob", Role.DEVELOPER, "demo"))
    assert bob.open("/-/apps/demo").status_code == 404
    people.remove("bob")
    assert bob.open("/-/apps").status_code == 303
