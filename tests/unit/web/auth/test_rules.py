"""Every route below `/-/` has a rule, and every rule holds for every role: the tests are made from the routes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from controller.config import OpenIdIssuer, Settings, SignInSettings
from controller.domain.apps.status import AppStatus, ComponentStatus
from controller.domain.names import AppName, ComponentName
from controller.domain.people.accounts import Scope
from controller.domain.people.roles import OF_APP, Act, Grant, Role
from controller.domain.runs.run import new_run, new_run_id
from controller.domain.storage.box import BoxRecord
from controller.store import SqliteStore
from controller.store.people import PeopleStore
from controller.web.api.platform import live
from controller.web.app import create_app
from controller.web.auth.rules import RULES, rule_of
from controller.web.auth.sign_in import SharedAttempts
from controller.web.context import people_context
from controller.web.git import requests as git
from controller.web.pages.static_files import digest
from controller.web.storage import StorageClient
from tests.support.fake_objects import FakeObjects
from tests.support.people import WINDOW, Browser, add_person, add_token, make_token
from tests.support.runs import TRAIN, make_pipeline
from tests.support.stores import open_store

OWN, OTHER = "demo", "other"
MODEL = ComponentName("model")
BOX = ComponentName("data")
#: A run of each app.
RUNS = {"demo": new_run_id(1.0, 1), "other": new_run_id(1.0, 2)}
PEOPLE: dict[str, tuple[Grant, ...]] = {
    "nobody": (),
    "viewer": (Grant("viewer", Role.VIEWER),),
    "guest": (Grant("guest", Role.VIEWER, OWN),),
    "maker": (Grant("maker", Role.DEVELOPER, OWN),),
    "creator": (Grant("creator", Role.CREATOR),),
    "boss": (Grant("boss", Role.ADMIN),),
}
#: The status of a refusal by role, for the app `demo` and for another one; a route that lets somebody in answers with
#: whatever it says. 401 is for a caller who has proved nothing.
REFUSED = {
    Act.PUBLIC: {},
    Act.SIGNED: {},
    Act.LIST: {"": 401},
    Act.SELF: {"": 401},
    Act.OWN: {"": 401},
    Act.WATCH: {"": 401, "nobody": 403, "guest": 403, "maker": 403, "creator": 403},
    Act.ADMINISTER: {"": 401, "nobody": 403, "viewer": 403, "guest": 403, "maker": 403, "creator": 403},
    Act.CREATE: {"": 401, "nobody": 403, "viewer": 403, "guest": 403, "maker": 403},
    (Act.SEE, OWN): {"": 401, "nobody": 404, "creator": 404},
    (Act.SEE, OTHER): {"": 401, "nobody": 404, "creator": 404, "guest": 404, "maker": 404},
    (Act.STEER, OWN): {"": 401, "nobody": 404, "creator": 404, "viewer": 403, "guest": 403},
    (Act.STEER, OTHER): {"": 401, "nobody": 404, "creator": 404, "viewer": 403, "guest": 404, "maker": 404},
}
REFUSED |= {(Act.DELETE, app): REFUSED[Act.STEER, app] for app in (OWN, OTHER)}


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
        pipeline = make_pipeline(app=AppName(name))
        store.runs.publish(pipeline.app, (pipeline,))
        store.runs.submit(new_run(RUNS[name], pipeline, 1.0))
        store.boxes.save(BoxRecord(AppName(name), BOX, f"prichal.{name}.{BOX}", 10**9))
    people = PeopleStore(settings.people)
    for name, grants in PEOPLE.items():
        add_person(people, name, *grants)
    yield create_app(store, settings, storage)
    storage.close()
    store.close()


@pytest.fixture(autouse=True)
def none_signed_in_before(app: Flask) -> None:
    """Sign-ins are limited in number for an address, and here all come from one."""
    people_context(app).sign_in.attempts = SharedAttempts()


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
    return [*found, *(("GET", route) for route in live.ROUTES), *git.ROUTES]


def test_every_route_has_a_rule(app: Flask) -> None:
    assert [route for route in routes(app) if route not in RULES] == []


def test_every_rule_has_a_route(app: Flask) -> None:
    assert set(RULES) == set(routes(app))


def test_all_that_changes_something_is_told(app: Flask) -> None:
    for (method, route), rule in RULES.items():
        changes = method != "GET" and not rule.act.is_open and not route.endswith("/git-upload-pack")
        assert (rule.told != "") == changes, route


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


#: What stands in a route for a part of it.
VALUES = {
    "<template>": "function",
    "<id>": "0",
    "<issuer>": "nowhere",
    "<repository>": "r",
    "<delivery>": "1",
    "<language>": "ru",
    "<version>": digest(),
    "<file>": "main.js",
}


#: And of an app.
PARTS = {"<component>": MODEL, "<pipeline>": TRAIN, "<stage>": "fit", "<path:target>": f"{BOX}/folder/"}


def paths(route: str) -> list[tuple[str, str]]:
    """The paths of a route with the app that each is about."""
    route = route.replace("<int:request>", "1")
    if "<name>" in route:
        for part, value in PARTS.items():
            route = route.replace(part, value)
        return [(route.replace("<name>", name).replace("<id>", RUNS[name]), name) for name in (OWN, OTHER)]
    for part, value in VALUES.items():
        route = route.replace(part, value)
    return [(route, "")]


LIVE_ALONE = (
    "/-/hooks/<repository>/<delivery>",
    "/-/apps/<name>/logs",
    "/-/apps/<name>/components/<component>/logs",
    "/-/apps/<name>/plan",
)
FLASK_RULES = [key for key in RULES if key[1] not in LIVE_ALONE and key not in git.ROUTES]


@pytest.mark.parametrize(("method", "route"), FLASK_RULES, ids=" ".join)
def test_every_role_at_every_route(app: Flask, tokens: dict[str, str], method: str, route: str) -> None:
    act = RULES[method, route].act
    for path, about in paths(route):
        refused = REFUSED[(act, about) if act in OF_APP else act]
        for name in ("", *PEOPLE):
            ends_itself = route == "/-/me/logout" and name
            token = add_token(people_context(app).store, name) if ends_itself else tokens.get(name)
            headers = {"Authorization": f"Bearer {token}"} if name else {}
            reply = app.test_client().open(path, method=method, headers=headers)
            if name in refused:
                assert reply.status_code == refused[name], (name, path)
            else:
                assert reply.status_code not in (401, 403) or act.is_open, (name, path)
                missing = re.search("<id>|<notification>|<preview>", route) or route.endswith(
                    ("<repository>", "<int:request>", "/diff", "/rollback")
                )
                assert reply.status_code != 404 or missing, (name, path)


def test_a_route_is_a_page_if_its_rule_says_so(app: Flask, tokens: dict[str, str]) -> None:
    """Pages are looked at by axe, so none may be forgotten."""
    headers = {"Authorization": f"Bearer {tokens['boss']}", "Accept": "text/html"}
    for (method, route), rule in RULES.items():
        if method != "GET" or route == "/-/hooks/<repository>/<delivery>":
            continue
        reply = app.test_client().get(paths(route)[0][0], headers=headers)
        if reply.status_code == 200:
            assert rule.is_page == reply.content_type.startswith("text/html"), route


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


#: What may stand in place of a part of a path, percent-encoded.
PARTS_OF_STRANGERS = ("%2e%2e", "%00", "%ff%1b%5b31m%0d%0a", "x" * 3000, "9" * 400)
QUERIES_OF_STRANGERS = (
    "limit=99999999999999999999&after=-1",
    "after=9223372036854775808&from=%00&to=%ff&q=%00",
    "next=//evil&state=%1b&since=9e999&until=nan&lang=%00&key=%00&who=%ff",
)
BODIES_OF_STRANGERS = (
    ("application/json", b""),
    ("application/json", b"null"),
    ("application/json", b"[" * 100_000),
    (
        "application/json",
        b'{"name": "\\ud800", "label": {}, "scope": [], "days": 1e400, "role": 1, "keep": "\\u0000"}',
    ),
    (
        "application/json",
        b'{"user": "\\ud800", "app": "\\ud800", "template": "\\u0000", "limits": {"cpus": NaN}}',
    ),
    ("application/json", b'{"values": {"\\ud800": "\\u0000"}, "revision": {}, "password": "\\ud800"}'),
    (
        "application/x-www-form-urlencoded",
        b"form=%00&code=%ff&user=%ff&password=%00&key=%00&value=%ff&secret=%00",
    ),
    ("multipart/form-data", b"--"),
    ("text/plain", b"\xff"),
)


@pytest.mark.parametrize(("method", "route"), FLASK_RULES, ids=" ".join)
def test_nothing_that_strangers_send_is_a_fault_of_the_platform(
    app: Flask, tokens: dict[str, str], method: str, route: str
) -> None:
    """Sent as an administrator, so that it is looked at."""
    plain = re.sub("<[^>]*>", "demo", route)
    asked: list[tuple[str, str, bytes]] = [(f"{plain}?{query}", "", b"") for query in QUERIES_OF_STRANGERS]
    if method != "GET":
        asked += [(plain, kind, body) for kind, body in BODIES_OF_STRANGERS]
    for place in re.findall("<[^>]*>", route):
        asked += [
            (re.sub("<[^>]*>", "demo", route.replace(place, part, 1)), "", b"") for part in PARTS_OF_STRANGERS
        ]
    headers = {"Authorization": f"Bearer {tokens['boss']}", "X-Prichal": "1"}
    for path, kind, body in asked:
        reply = app.test_client().open(
            path, method=method, headers=headers, data=body, content_type=kind or None
        )
        assert reply.status_code != 500, (path[:100], kind, body[:100])
