"""Secrets of an app over HTTP: names, keys and fingerprints, never values; changes for those who may steer it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from controller.config import Settings, WebSettings
from controller.domain.apps.owned_secrets import MAX_WAITING
from controller.domain.apps.status import AppStatus
from controller.domain.names import AppName
from controller.domain.people.accounts import Scope
from controller.domain.people.roles import Grant, Role
from controller.domain.secret import Secret
from controller.encryption import SecretKeys
from controller.store import SqliteStore
from controller.store.people import PeopleStore
from controller.web.app import create_app
from controller.web.context import people_context
from controller.web.storage import StorageClient
from tests.support.people import add_person, add_token

#: Together they take seconds.
pytestmark = pytest.mark.slow

DEMO = AppName("demo")
SECRETS = "/-/apps/demo/secrets"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "web").mkdir()
    return Settings(state=tmp_path, web=WebSettings(admin_token=Secret("letmein-token")))


@pytest.fixture
def app(store: SqliteStore, settings: Settings, storage: StorageClient) -> Flask:
    made = create_app(store, settings, storage)
    store.secrets.unlock(SecretKeys(b"k" * 32))
    for name in ("demo", "other"):
        store.apps.save(AppStatus(AppName(name)))
    add_person(people_context(made).store, "bob", Grant("bob", Role.DEVELOPER, "demo"))
    return made


@pytest.fixture
def people(app: Flask) -> PeopleStore:
    return people_context(app).store


@pytest.fixture
def bob(people: PeopleStore) -> str:
    return add_token(people, "bob", Scope.DEPLOY)


def ask(app: Flask, token: str, method: str, path: str, body: Any = None) -> Any:
    client = FlaskClient(app, use_cookies=False)
    return client.open(path, method=method, json=body, headers={"Authorization": f"Bearer {token}"})


def put(app: Flask, token: str, path: str = f"{SECRETS}/keys", /, **values: str) -> Any:
    return ask(app, token, "PUT", path, {"values": values})


def apply(store: SqliteStore) -> dict[str, dict[str, str]]:
    with store.transaction():  # before which the daemon takes in what others ask for
        pass
    return {s.name: {key: value.reveal() for key, value in s.values} for s in store.secrets.of(DEMO).readable}


def test_what_is_set_is_listed_and_never_shown(
    app: Flask, store: SqliteStore, bob: str, people: PeopleStore
) -> None:
    reply = put(app, bob, TOKEN="hunter2-horse", PEM="-----BEGIN\nключ\n-----END\n")
    assert reply.status_code == 202
    made = reply.json["change"]
    assert (made["state"], made["secret"], made["by"]) == ("waiting", "keys", "bob")
    waiting = ask(app, bob, "GET", SECRETS).json
    assert waiting["secrets"] == []
    assert [(each["id"], each["state"]) for each in waiting["changes"]] == [(made["id"], "waiting")]
    assert apply(store) == {"keys": {"PEM": "-----BEGIN\nключ\n-----END\n", "TOKEN": "hunter2-horse"}}
    shown = ask(app, bob, "GET", SECRETS)
    (found,) = shown.json["secrets"]
    assert (found["name"], [key["name"] for key in found["keys"]]) == ("keys", ["PEM", "TOKEN"])
    assert {key["by"] for key in found["keys"]} == {"bob"}
    assert all(len(key["fingerprint"]) == 16 for key in found["keys"])
    (change,) = shown.json["changes"]
    assert (change["state"], change["message"]) == ("applied", "the Secret 'keys': set TOKEN, PEM (by bob)")
    assert store.requests.get(change["request"]) is not None
    assert "hunter2" not in shown.text + reply.text
    (entry,) = people.acts()
    assert (entry.who, entry.act, entry.subject, entry.detail) == (
        "bob",
        "secret set",
        "demo/keys",
        "TOKEN, PEM",
    )


def test_keys_and_secrets_are_removed(app: Flask, store: SqliteStore, bob: str, people: PeopleStore) -> None:
    put(app, bob, A="1", B="2", **{"a/b@c": "3"})
    assert ask(app, bob, "DELETE", f"{SECRETS}/keys?key=A&key=a/b@c").status_code == 202
    assert apply(store) == {"keys": {"B": "2"}}
    assert ask(app, bob, "DELETE", f"{SECRETS}/keys").status_code == 202
    assert apply(store) == {}
    assert [entry.act for entry in people.acts()] == ["secret rm", "secret rm", "secret set"]


def test_a_mistyped_parameter_does_not_remove_the_whole_secret(
    app: Flask, store: SqliteStore, bob: str
) -> None:
    put(app, bob, A="1")
    for query in ("?keys=A", "?key", "?key=", "?Key=A", "?key=A&x=1"):
        assert ask(app, bob, "DELETE", f"{SECRETS}/keys{query}").status_code == 422
    assert apply(store) == {"keys": {"A": "1"}}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (None, 415),
        ([], 422),
        ({}, 422),
        ({"values": {}}, 422),
        ({"values": {"A": None}}, 422),
        ({"values": {"A": 1}}, 422),
        ({"values": ["A"]}, 422),
        ({"values": {"A": ""}}, 422),
        ({"values": {"A": "a\0b"}}, 422),
        ({"values": {"A B": "x"}}, 422),
        ({"values": {"A": "x" * 100_001}}, 422),
        ({"values": {"A": "x"}, "by": "ann"}, 422),
    ],
    ids=lambda each: str(each)[:40],
)
def test_what_cannot_be_set(app: Flask, store: SqliteStore, bob: str, body: Any, status: int) -> None:
    assert ask(app, bob, "PUT", f"{SECRETS}/keys", body).status_code == status
    assert store.secrets.changes(DEMO) == ()


@pytest.mark.parametrize("content", [b'{"values": {"A": "hunter2', b'{"values": {"A": "\xff"}}', b"[" * 9999])
def test_a_body_that_is_no_json_is_not_quoted(app: Flask, bob: str, content: bytes) -> None:
    headers = {"Authorization": f"Bearer {bob}", "Content-Type": "application/json"}
    reply = FlaskClient(app).put(f"{SECRETS}/keys", data=content, headers=headers)
    assert (reply.status_code, "hunter2" in reply.text) == (400, False)


@pytest.mark.parametrize("name", ["Keys", "a%2Fb", "%D0%BA", "x" * 64, "%3Cscript%3E"])
def test_names_are_checked(app: Flask, bob: str, name: str) -> None:
    assert put(app, bob, f"{SECRETS}/{name}", A="x").status_code in (404, 422)


def test_a_backlog_is_bounded(app: Flask, bob: str) -> None:
    assert all(put(app, bob, A=str(number)).status_code == 202 for number in range(MAX_WAITING))
    full = put(app, bob, A="x")
    assert (full.status_code, full.json["type"]) == (429, "urn:prichal:problem:queue-full")


def test_what_a_token_is_for(app: Flask, people: PeopleStore, bob: str) -> None:
    reader = add_token(people, "bob", Scope.READ)
    assert ask(app, reader, "GET", SECRETS).status_code == put(app, reader, A="x").status_code == 403
    for path in ("/-/apps/other/secrets", "/-/apps/missing/secrets"):
        assert (
            ask(app, bob, "GET", path).status_code == put(app, bob, f"{path}/keys", A="x").status_code == 404
        )
    platform = "/-/apps/@platform/secrets"
    assert ask(app, "letmein-token", "GET", platform).json["secrets"] == []
    assert put(app, "letmein-token", f"{platform}/keys", A="x").status_code == 422


def test_who_has_no_account_is_named_by_how_they_came(app: Flask, store: SqliteStore) -> None:
    put(app, "letmein-token", A="x")
    apply(store)
    assert [key.by for key in store.secrets.listed(DEMO)] == ["admin token"]


def test_before_the_first_start_of_the_daemon(
    store: SqliteStore, settings: Settings, storage: StorageClient
) -> None:
    made = create_app(store, settings, storage)
    store.apps.save(AppStatus(DEMO))
    reply = put(made, "letmein-token", A="hunter2")
    assert reply.status_code == 503
    assert "hunter2" not in json.dumps(reply.json)


# --- age keys ------------------------------------------------------------------------------------------------------

AGE_KEYS = "/-/apps/demo/age-keys"


def test_the_age_key_is_listed_and_replaced(
    app: Flask, store: SqliteStore, bob: str, people: PeopleStore
) -> None:
    store.age_keys.ensure(DEMO)
    [first] = ask(app, bob, "GET", SECRETS).json["ageKeys"]
    reply = ask(app, bob, "POST", AGE_KEYS, {"action": "rotate"})
    assert reply.status_code == 202
    assert reply.json["change"]["state"] == "waiting"
    apply(store)
    second, kept = ask(app, bob, "GET", SECRETS).json["ageKeys"]
    assert kept == first
    assert second["by"] == "bob"
    assert ask(app, bob, "POST", AGE_KEYS, {"action": "retire"}).status_code == 202
    apply(store)
    assert ask(app, bob, "GET", SECRETS).json["ageKeys"] == [second]
    assert [(e.act, e.subject, e.detail) for e in people.acts()] == [
        ("secret key", "demo", "retire"),
        ("secret key", "demo", "rotate"),
    ]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (None, 415),
        ([], 422),
        ({}, 422),
        ({"action": "delete"}, 422),
        ({"action": ["rotate"]}, 422),
        ({"action": "rotate", "by": "ann"}, 422),
        ({"action": "rotate", "force": True}, 422),
        ({"action": "retire", "force": "yes"}, 422),
    ],
    ids=str,
)
def test_other_changes_of_age_keys(app: Flask, store: SqliteStore, bob: str, body: Any, status: int) -> None:
    assert ask(app, bob, "POST", AGE_KEYS, body).status_code == status
    assert store.secrets.changes(DEMO) == ()
