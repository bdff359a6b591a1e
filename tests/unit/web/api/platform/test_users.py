"""Administrators make accounts, give roles and take them away, as programs and with forms."""

from __future__ import annotations

import time
from typing import Any

import pytest
from flask import Flask

from controller.config import Settings
from controller.domain.people.openid import GroupRole, Identity, SignedInPerson
from controller.domain.people.roles import Grant, Role
from controller.store import SqliteStore
from controller.store.people import PeopleStore
from controller.web.app import create_app
from controller.web.context import people_context
from controller.web.storage import StorageClient
from tests.support.people import Browser, add_person, add_token, hidden

#: Together they take seconds.
pytestmark = pytest.mark.slow


@pytest.fixture
def app(store: SqliteStore, settings: Settings, storage: StorageClient) -> Flask:
    (settings.state / "web").mkdir(exist_ok=True)
    found = create_app(store, settings, storage)
    add_person(people_context(found).store, "boss", Grant("boss", Role.ADMIN))
    return found


@pytest.fixture
def people(app: Flask) -> PeopleStore:
    return people_context(app).store


def ask(app: Flask, people: PeopleStore, method: str, path: str, /, **asked: Any) -> Any:
    headers = {"Authorization": f"Bearer {add_token(people, 'boss')}"}
    return app.test_client().open(path, method=method, headers=headers, json=asked or None)


def test_an_account_from_its_link_to_its_end(app: Flask, people: PeopleStore) -> None:
    made = ask(app, people, "POST", "/-/users", name="ann")
    assert made.status_code == 201
    code = made.json["link"].partition("code=")[2]
    assert people_context(app).sign_in.link_user(code) == "ann"
    given = ask(app, people, "POST", "/-/users/ann/roles", role="developer", app="demo")
    assert (given.json["user"], given.json["role"], given.json["app"]) == ("ann", "developer", "demo")
    (ann, boss) = ask(app, people, "GET", "/-/users").json["users"]
    assert (ann["name"], ann["hasPassword"]) == ("ann", False)
    assert [(each["role"], each["app"]) for each in ann["roles"]] == [("developer", "demo")]
    assert [(each["role"], each["app"]) for each in boss["roles"]] == [("admin", None)]
    again = ask(app, people, "POST", "/-/users/ann/link")
    assert again.json["link"] != made.json["link"]
    assert people_context(app).sign_in.link_user(code) is None, "an earlier link ends"
    taken = ask(app, people, "POST", "/-/users/ann/roles/revoke", role="developer", app="demo")
    assert taken.status_code == 200
    assert ask(app, people, "POST", "/-/users/ann/remove").json == {"removed": "ann"}
    assert [each.name for each in people.accounts()] == ["boss"]
    told = [(entry.act, entry.subject) for entry in reversed(people.acts())]
    assert told == [
        ("user add", "ann"),
        ("role add", "ann"),
        ("user passwd", "ann"),
        ("role rm", "ann"),
        ("user rm", "ann"),
    ]


@pytest.mark.parametrize(
    ("path", "asked", "status"),
    [
        ("/-/users", {"name": "boss"}, 422),
        ("/-/users", {"name": "<b>"}, 422),
        ("/-/users", {"name": ""}, 422),
        ("/-/users", {"name": 3}, 422),
        ("/-/users", {"name": "x" * 1000}, 422),
        ("/-/users", {"name": "ann", "more": 1}, 422),
        ("/-/users/nobody/link", {"x": 1}, 404),
        ("/-/users/nobody/remove", {"x": 1}, 404),
        ("/-/users/nobody/roles", {"role": "viewer"}, 404),
        ("/-/users/boss/roles", {"role": "king"}, 422),
        ("/-/users/boss/roles", {"role": "developer"}, 422),
        ("/-/users/boss/roles", {"role": "viewer", "app": "../x"}, 422),
        ("/-/users/boss/roles/revoke", {"role": "viewer"}, 404),
        ("/-/users/boss/roles/revoke", {"role": "admin"}, 422),
        ("/-/users/boss/remove", {"x": 1}, 422),
    ],
)
def test_what_is_refused(
    app: Flask, people: PeopleStore, path: str, asked: dict[str, Any], status: int
) -> None:
    before = (people.accounts(), people.grants(time.time()))
    assert ask(app, people, "POST", path, **asked).status_code == status
    assert (people.accounts(), people.grants(time.time())) == before


def test_with_forms(app: Flask, people: PeopleStore) -> None:
    browser = Browser(app)
    browser.sign_in("boss")
    form = {"form": hidden(browser.open("/-/users"))["form"]}
    page = browser.submit("/-/users", {**form, "name": "ann", "admin": "1"})
    assert 'id="link"' in page.text
    assert Grant("ann", Role.ADMIN) in people.grants(time.time())
    reply = browser.submit("/-/users/ann/remove", form)
    assert (reply.status_code, reply.location) == (303, "/-/users")
    assert browser.submit("/-/users/ann/remove", {"form": "wrong"}).status_code in (303, 401)
    assert [each.name for each in people.accounts()] == ["boss"]


def test_roles_by_groups_are_shown_with_the_group_and_stay(app: Flask, people: PeopleStore) -> None:
    person = SignedInPerson(Identity("https://login.example", "4711"), "ann", frozenset(("staff", "lab")))
    rules = (GroupRole("staff", Role.VIEWER), GroupRole("lab", Role.DEVELOPER, "pu-lab-*"))
    people.admit(person, rules, time.time(), time.time() + 3600)
    people.grant(Grant("ann", Role.DEVELOPER, "demo"))
    browser = Browser(app)
    browser.sign_in("boss")
    text = browser.open("/-/users").text
    row = text.partition('<th scope="row">ann</th>')[2].partition("</tr>")[0]
    assert "by the group staff" in row
    assert "by the group lab" in row
    assert row.count("×") == 1, "only what was given to the account is taken away here"
    refused = ask(app, people, "POST", "/-/users/ann/roles/revoke", role="viewer")
    assert refused.status_code == 404
    assert "by the group staff: take them out of it, or change people.oidc" in refused.json["detail"]
    assert len(people.grants(time.time(), "ann")) == 3


def test_a_role_for_apps_by_the_beginning_of_their_names(app: Flask, people: PeopleStore) -> None:
    asked = {"role": "developer", "app": "pu-lab-*"}
    add_person(people, "ann")
    assert ask(app, people, "POST", "/-/users/ann/roles", **asked).status_code == 200
    assert people.grants(time.time(), "ann") == (Grant("ann", Role.DEVELOPER, "pu-lab-*"),)
    assert ask(app, people, "POST", "/-/users/ann/roles/revoke", **asked).status_code == 200
    assert people.grants(time.time(), "ann") == ()
