"""Credentials that are wrong, over, revoked, or somebody else's, at every route: each is answered like none at all. The
routes are those of the table of rules, so a new one is tried without a test of its own."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from controller.config import OpenIdIssuer, Settings, SignInSettings
from controller.domain.apps.status import AppStatus, ComponentStatus
from controller.domain.names import AppName
from controller.domain.people.accounts import SessionRecord
from controller.domain.people.roles import Act, Grant, Role
from controller.store.people import PeopleStore, SessionLimits, digest_of
from controller.web.app import create_app
from controller.web.auth.attempts import BY_ADDRESS, BY_NAME
from controller.web.auth.people import SESSION
from controller.web.auth.rules import RULES
from controller.web.auth.sign_in import SignIn
from controller.web.context import people_context
from controller.web.problems import ProblemKind, RequestRefused
from controller.web.storage import StorageClient
from tests.support.fake_objects import FakeObjects
from tests.support.people import WINDOW, add_person, add_token, make_token
from tests.support.stores import open_store
from tests.unit.web.auth.test_rules import FLASK_RULES, MODEL, OTHER, OWN, PEOPLE, paths

LIMITS = SessionLimits(idle=12 * 3600.0, lifetime=7 * 86400.0)
DAY = 86400.0
Headers = dict[str, str]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    state: Path = tmp_path_factory.mktemp("state")
    issuer = OpenIdIssuer("nowhere", "http://127.0.0.1:1", "prichal")
    settings = Settings(state=state, sign_in=SignInSettings(oidc=(issuer,)))
    (state / "web").mkdir()
    store = open_store(settings.database)
    storage = StorageClient(store, lambda access: FakeObjects())
    for name in (OWN, OTHER):
        store.apps.save(AppStatus(AppName(name), components=(ComponentStatus(MODEL, "MLComponent"),)))
    people = PeopleStore(settings.people)
    for name, grants in PEOPLE.items():
        add_person(people, name, *grants, password=False)
    yield create_app(store, settings, storage)
    storage.close()
    store.close()


def gone(people: PeopleStore) -> str:
    """The name of an administrator whose account is removed once their credential was made."""
    name = f"gone-{time.monotonic_ns()}"
    add_person(people, name, Grant(name, Role.ADMIN), password=False)
    return name


def bearer(token: str) -> Headers:
    return {"Authorization": f"Bearer {token}"}


def cookie(secret: str) -> Headers:
    return {**WINDOW, "Cookie": f"{SESSION}={secret}"}


def session(
    people: PeopleStore, user: str = "boss", created: float = 0.0, seen: float = 0.0
) -> tuple[str, str]:
    """Return the cookie and the id of a session that began and was used so many seconds ago."""
    now, id = time.time(), f"{time.monotonic_ns()}"
    record = SessionRecord(id, user, now - created, now - seen, "192.0.2.1", "Firefox")
    people.begin_session(f"secret-{id}", record, LIMITS)
    return f"secret-{id}", id


def of_removed(people: PeopleStore, make: Callable[[str], Headers]) -> Headers:
    name = gone(people)
    headers = make(name)
    people.remove(name)
    return headers


def revoked_token(people: PeopleStore) -> Headers:
    secret, id = make_token(people, "boss")
    people.revoke_token(id)
    return bearer(secret)


def ended_session(people: PeopleStore) -> Headers:
    secret, id = session(people)
    people.end_session(id)
    return cookie(secret)


def session_of_former_password(people: PeopleStore) -> Headers:
    secret, _ = session(people)
    people.set_hash("boss", "another hash")
    return cookie(secret)


def released(people: PeopleStore, make: Callable[[str], Headers]) -> Headers:
    name = f"moved-{time.monotonic_ns()}"
    people.add(name, time.time(), "https://id.example.org")
    people.grant(Grant(name, Role.ADMIN))
    headers = make(name)
    people.release(name)
    return headers


CREDENTIALS: dict[str, Callable[[PeopleStore], Headers]] = {
    "a token of nobody": lambda _: bearer("prichal_" + "x" * 43),
    "an empty token": lambda _: bearer(""),
    "a huge token": lambda _: bearer("x" * 5000),
    "a token that is no ASCII": lambda _: bearer("prichal_\xe9"),
    "an expired token": lambda people: bearer(add_token(people, "boss", days=-1)),
    "a revoked token": revoked_token,
    "a token of a removed account": lambda people: of_removed(people, lambda n: bearer(add_token(people, n))),
    "a token of a released account": lambda people: released(people, lambda n: bearer(add_token(people, n))),
    "the id of a token": lambda people: bearer(make_token(people, "boss")[1]),
    "the digest of a token": lambda people: bearer(digest_of(add_token(people, "boss"))),
    "a token as a password": lambda people: {
        "Authorization": "Basic " + base64.b64encode(f"boss:{add_token(people, 'boss')}".encode()).decode()
    },
    "a token as a cookie": lambda people: cookie(add_token(people, "boss")),
    "a session of nobody": lambda _: cookie("x" * 43),
    "a session that was not used": lambda people: cookie(session(people, seen=13 * 3600.0)[0]),
    "a session that is too old": lambda people: cookie(session(people, created=8 * DAY)[0]),
    "a session of the future": lambda people: cookie(session(people, created=-DAY, seen=-DAY)[0]),
    "an ended session": ended_session,
    "a session of a former password": session_of_former_password,
    "a session of a removed account": lambda people: of_removed(
        people, lambda n: cookie(session(people, n)[0])
    ),
    "a session of a released account": lambda people: released(
        people, lambda n: cookie(session(people, n)[0])
    ),
    "the id of a session": lambda people: cookie(session(people)[1]),
    "a session as a token": lambda people: bearer(session(people)[0]),
    "two sessions": lambda people: {
        **WINDOW,
        "Cookie": f"{SESSION}={session(people)[0]}; {SESSION}={session(people)[0]}",
    },
    "a session from a script": lambda people: {
        **cookie(session(people)[0]),
        "Sec-Fetch-Mode": "cors",
        "Sec-Fetch-Dest": "empty",
    },
}
CLOSED = [
    (method, path)
    for method, route in FLASK_RULES
    if not RULES[method, route].act.is_open
    for path, _ in paths(route)
]


def ask(app: Flask, method: str, path: str, headers: Headers) -> Any:
    return FlaskClient(app, use_cookies=False).open(
        path, method=method, headers=headers, environ_overrides={"REMOTE_ADDR": "192.0.2.7"}
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", CREDENTIALS)
def test_at_every_route(app: Flask, name: str) -> None:
    headers = CREDENTIALS[name](people_context(app).store)
    is_window = headers.get("Sec-Fetch-Mode") == "navigate"
    for method, path in CLOSED:
        reply = ask(app, method, path, headers)
        if is_window and method == "GET":
            assert (reply.status_code, reply.location.partition("?")[0]) == (303, "/-/login"), path
        else:
            assert reply.status_code == 401, (method, path)


def test_there_are_routes_of_all_kinds() -> None:
    assert {method for method, _ in CLOSED} >= {"GET", "POST"}
    assert len(CLOSED) > 20


@pytest.mark.parametrize("name", [name for name in PEOPLE if name != "boss"])
def test_what_belongs_to_others_stays(app: Flask, name: str) -> None:
    """At every route that names a session or token, by people of every role but administrators."""
    people = people_context(app).store
    secret, token = make_token(people, "boss")
    _, id = session(people)
    mine = bearer(add_token(people, name))
    routes = [route for (_, route), rule in RULES.items() if rule.act is Act.OWN and "<id>" in route]
    assert routes
    for route in routes:
        for each in (token, id):
            assert ask(app, "POST", route.replace("<id>", each), mine).status_code == 404
    assert people.by_token(secret, time.time()) is not None
    assert people.session_by_id(id, LIMITS, time.time()) is not None
    admin = bearer(add_token(people, "boss"))
    assert ask(app, "POST", f"/-/sessions/{id}/revoke", admin).status_code == 200
    assert ask(app, "POST", f"/-/tokens/{token}/revoke", admin).status_code == 200


# --- brute force --------------------------------------------------------------------------------------------------


def guess(sign_in: SignIn, address: str, name: str, password: str = "wrong") -> str | None:
    """Return the name that signs in, "" for a refusal before the password was looked at, None for a wrong one."""
    try:
        return sign_in.by_password(address, name, password)
    except RequestRefused as refused:
        assert refused.problem.kind is ProblemKind.ATTEMPTS
        assert refused.problem.retry_after > 0
        return ""


@pytest.fixture
def sign_in(app: Flask) -> SignIn:
    """With passwords that are quick to check."""
    people = people_context(app).store
    people.set_hash("boss", "right")
    return SignIn(people, LIMITS, check=lambda stored, password: stored == password)


def test_passwords_of_one_name(sign_in: SignIn) -> None:
    found = [guess(sign_in, "192.0.2.1", "boss") for _ in range(100)]
    assert found == [None] * BY_NAME.burst + [""] * (100 - BY_NAME.burst)
    assert guess(sign_in, "192.0.2.1", "boss", "right") == ""
    assert guess(sign_in, "198.51.100.1", "boss", "right") == "boss"  # nobody is locked out elsewhere


def test_one_password_with_all_names(sign_in: SignIn) -> None:
    found = [guess(sign_in, "192.0.2.1", f"name-{number}") for number in range(200)]
    assert found.count(None) == BY_ADDRESS.burst
    assert found[BY_ADDRESS.burst :] == [""] * (200 - BY_ADDRESS.burst)


def test_addresses_of_one_network_count_as_one(sign_in: SignIn) -> None:
    found = [guess(sign_in, f"2001:db8::{number:x}", "boss") for number in range(1, 100)]
    assert found.count(None) == BY_NAME.burst


def test_guessed_tokens_lock_nobody_out(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    good = bearer(add_token(people_context(app).store, "maker"))
    for number in range(100):
        assert ask(app, "GET", "/-/me", bearer(f"prichal_{number:043}")).status_code == 401
    assert ask(app, "GET", "/-/me", good).status_code == 200
    told = [record for record in caplog.records if record.name == "prichal.auth"]
    assert len(told) == 100  # each has its line for fail2ban, without the token
    assert "prichal_0" not in caplog.text
