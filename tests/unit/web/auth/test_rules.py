"""Every route below `/-/` has a rule, and every rule holds for every role: the tests are made from the routes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from controller.config import Settings
from controller.domain.apps.status import AppStatus
from controller.domain.names import AppName
from controller.domain.people.accounts import Scope
from controller.domain.people.roles import Act, Grant, Role
from controller.store import SqliteStore, open_store
from controller.store.people import PeopleStore
from controller.web.api.platform import live
from controller.web.app import create_app
from controller.web.auth.rules import RULES, rule_of
from controller.web.context import people_context
from controller.web.storage import StorageClient
from tests.support.fake_objects import FakeObjects
from tests.support.people import WINDOW, Browser, add_person, add_token, make_token

OWN, OTHER = "demo", "other"
PEOPLE: dict[str, tuple[Grant, ...]] = {
    "nobody": (),
    "viewer": (Grant("viewer", Role.VIEWER),),
    "guest": (Grant("guest", Role.VIEWER, OWN),),
    "maker": (Grant("maker", Role.DEVELOPER, OWN),),
    "boss": (Grant("boss", Role.ADMIN),),
}
#: The status of a refusal by role, for the app `demo` and for another one; a route that lets somebody in answers with
#: whatever it says. 401 is for a caller who has proved nothing.
REFUSED = {
    Act.PUBLIC: {},
    Act.SIGNED: {},
    Act.LIST: {"": 401},
    Act.OWN: {"": 401},
    Act.WATCH: {"": 401, "nobody": 403, "guest": 403, "maker": 403},
    Act.ADMINISTER: {"": 401, "nobody": 403, "viewer": 403, "guest": 403, "maker": 403},
    (Act.SEE, OWN): {"": 401, "nobody": 404},
    (Act.SEE, OTHER): {"": 401, "nobody": 404, "guest": 404, "maker": 404},
    (Act.STEER, OWN): {"": 401, "nobody": 404, "viewer": 403, "guest": 403},
    (Act.STEER, OTHER): {"": 401, "nobody": 404, "viewer": 403, "guest": 404, "maker": 404},
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    state: Path = tmp_path_factory.mktemp("state")
    settings = Settings(state=state)
    (state / "web").mkdir()
    store = open_store(settings.database)
    storage = StorageClient(store, lambda access: FakeObjects())
    for name in (OWN, OTHER):
        store.apps.save(AppStatus(AppName(name)))
    people = PeopleStore(settings.people)
    for name, grants in PEOPLE.items():
        add_person(people, name, *grants)
    yield create_app(store, settings, storage)
    storage.close()
    store.close()


@pytest.fixture(scope="module")
def tokens(app: Flask) -> dict[str, str]:
    return {name: add_token(people_context(app).store, name) for name in PEOPLE}


def routes(app: Flask) -> list[tuple[str, str]]:
    """Method and route of all that the platform answers itself, but for services, which the gateway admits."""
    found = [
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        if not rule.rule.startswith(("/files", "/pipeline", "/static"))
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
    ]
    return [*found, *(("GET", route) for route in live.ROUTES)]


def test_every_route_has_a_rule(app: Flask) -> None:
    assert [route for route in routes(app) if route not in RULES] == []


def test_every_rule_has_a_route(app: Flask) -> None:
    assert set(RULES) == set(routes(app))


def test_all_that_changes_something_is_told(app: Flask) -> None:
    for (method, route), rule in RULES.items():
        assert (rule.told != "") == (method != "GET" and not rule.act.is_open), route


def test_other_methods_of_a_route() -> None:
    assert rule_of("HEAD", "/-/apps") == rule_of("GET", "/-/apps")
    assert rule_of("OPTIONS", "/-/tokens") == rule_of("GET", "/-/tokens")
    assert rule_of("DELETE", "/-/tokens") is None
    assert rule_of("GET", "/-/unknown") is None


def test_a_route_without_a_rule_is_refused(
    store: SqliteStore, settings: Settings, storage: StorageClient
) -> None:
    made = create_app(store, settings, storage)
    made.get("/-/forgotten")(lambda: "secret")
    reply = made.test_client().get("/-/forgotten", headers={"Authorization": "Bearer letmein-token"})
    assert (reply.status_code, b"secret" in reply.data) == (404, False)


def paths(route: str) -> list[tuple[str, str]]:
    """The paths of a route with the app that each is about."""
    if "<name>" in route:
        return [(route.replace("<name>", name), name) for name in (OWN, OTHER)]
    return [(route.replace("<id>", "0").replace("<repository>", "r").replace("<delivery>", "1"), "")]


FLASK_RULES = [key for key in RULES if key[1] != "/-/hooks/<repository>/<delivery>"]


@pytest.mark.parametrize(("method", "route"), FLASK_RULES, ids=" ".join)
def test_every_role_at_every_route(app: Flask, tokens: dict[str, str], method: str, route: str) -> None:
    act = RULES[method, route].act
    for path, about in paths(route):
        refused = REFUSED[(act, about) if act in (Act.SEE, Act.STEER) else act]
        for name in ("", *PEOPLE):
            headers = {"Authorization": f"Bearer {tokens[name]}"} if name else {}
            reply = app.test_client().open(path, method=method, headers=headers)
            if name in refused:
                assert reply.status_code == refused[name], (name, path)
            else:
                assert reply.status_code not in (401, 403) or act.is_open, (name, path)
                assert reply.status_code != 404 or route.endswith(("/revoke", "<repository>")), (name, path)


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for _, route in FLASK_RULES for path, _ in paths(route)])
def test_a_session_opens_the_same(app: Flask, tokens: dict[str, str], path: str) -> None:
    """What is read, in a browser's window."""
    browser = Browser(app)
    assert browser.sign_in("maker").status_code == 303
    headers = {"Authorization": f"Bearer {tokens['maker']}", **WINDOW}
    assert browser.open(path).status_code == app.test_client().get(path, headers=headers).status_code


def test_an_app_that_is_hidden_looks_like_one_that_is_not_there(app: Flask, tokens: dict[str, str]) -> None:
    def answer(name: str, path: str, method: str = "GET") -> Any:
        reply = app.test_client().open(
            path, method=method, headers={"Authorization": f"Bearer {tokens['maker']}", "X-Request-ID": "r"}
        )
        return reply.status_code, reply.get_data(as_text=True).replace(name, "NAME")

    for way, method in (("", "GET"), ("/events", "GET"), ("/suspend", "POST"), ("/approve", "POST")):
        hidden = answer(OTHER, f"/-/apps/{OTHER}{way}", method)
        assert hidden == answer("missing", f"/-/apps/missing{way}", method)
        assert hidden[0] == 404


def test_lists_have_what_may_be_seen(app: Flask, tokens: dict[str, str]) -> None:
    def shown(name: str, path: str) -> Any:
        return app.test_client().get(path, headers={"Authorization": f"Bearer {tokens[name]}"})

    def apps(name: str, path: str = "/-/apps") -> list[str]:
        return [each["app"] for each in shown(name, path).json["apps"]]

    assert apps("boss") == apps("viewer") == [OWN, OTHER]
    assert apps("maker") == apps("guest") == apps("maker", "/-/status") == [OWN]
    assert apps("nobody") == []
    assert OTHER not in shown("maker", "/-/").text
    assert shown("maker", "/-/status").json["checks"] == {}
    assert shown("viewer", "/-/status").json["checks"] != {}


@pytest.mark.parametrize(
    ("scope", "path", "method", "status"),
    [
        (Scope.READ, "/-/apps/demo", "GET", 200),
        (Scope.READ, "/-/apps/demo/reconcile", "POST", 403),
        (Scope.DEPLOY, "/-/apps/demo/reconcile", "POST", 202),
        (Scope.DEPLOY, "/-/apps/other/reconcile", "POST", 404),
        (Scope.DEPLOY, "/-/tokens", "GET", 403),
        (Scope.DEPLOY, "/-/tokens", "POST", 403),
        (Scope.ADMIN, "/-/tokens", "GET", 200),
        (Scope.ADMIN, "/-/audit", "GET", 403),  # no more than the person may
    ],
)
def test_what_a_token_is_for(app: Flask, scope: Scope, path: str, method: str, status: int) -> None:
    token = add_token(people_context(app).store, "maker", scope)
    reply = app.test_client().open(path, method=method, headers={"Authorization": f"Bearer {token}"})
    assert reply.status_code == status


def test_tokens_that_are_no_longer_good(app: Flask) -> None:
    people = people_context(app).store
    (revoked, id), expired = make_token(people, "boss"), add_token(people, "boss", days=-1)
    assert people.revoke_token(id) is not None
    for token in (revoked, expired, "prichal_", "", "x" * 5000, "\xe9"):
        reply = app.test_client().get("/-/apps", headers={"Authorization": f"Bearer {token}"})
        assert reply.status_code == 401
