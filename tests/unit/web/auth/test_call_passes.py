"""Who may call what with a pass: roles, APIs and passes, each with each."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.config import WebSettings
from controller.domain.names import AppName
from controller.domain.people.accounts import Scope, SessionRecord
from controller.domain.people.roles import Grant, Principal, Role, administrator
from controller.domain.routing.caller_names import PERSON
from controller.domain.routing.passwords import hash_token
from controller.domain.secret import Secret
from controller.store.people import PeopleStore, SessionLimits
from controller.web.auth.authenticate import AuthenticatedCaller
from controller.web.auth.call_passes import (
    ADMIN,
    LIFETIME,
    CallPass,
    CallPasses,
    is_by_pass,
    read_pass,
    without_page,
)
from controller.web.gateway.headers import split
from controller.web.gateway.router import PublishedApi, Router
from tests.support.gateway import make_api, make_route
from tests.support.people import add_person

APIS = {
    "open": make_api("open"),
    "basic": make_api("basic", users=(("ann", "a hash"),)),
    "token": make_api("token", tokens=(("ci", hash_token("t0ken")),)),
    "oidc": make_api("oidc", oidc_issuer="https://id.example.org", oidc_audience="demo"),
}
PEOPLE: dict[str, tuple[Grant, ...]] = {
    "nobody": (),
    "viewer": (Grant("viewer", Role.VIEWER),),
    "guest": (Grant("guest", Role.VIEWER, "demo"),),
    "maker": (Grant("maker", Role.DEVELOPER, "demo"),),
    "other": (Grant("other", Role.DEVELOPER, "other"),),
    "boss": (Grant("boss", Role.ADMIN),),
}
TRIES_OPEN = {"viewer", "guest", "maker", "boss", ADMIN}
TRIES_ALL = {"maker", "boss", ADMIN}
NOW = 1_800_000_000.0


def target(api: str, app: str = "demo") -> PublishedApi:
    return next(iter(Router.build(1, [make_route(APIS[api], app=AppName(app))]).targets.values()))


@dataclass
class Scene:
    people: PeopleStore
    settings: WebSettings
    now: float = NOW

    @property
    def passes(self) -> CallPasses:
        """Each time another worker's."""
        return CallPasses(self.people, self.settings, lambda: self.now)

    def sign_in(self, name: str, number: int = 0) -> str:
        id = f"{name}{number}"
        self.people.begin_session(
            f"secret of {id}",
            SessionRecord(id, name, self.now, self.now, "", ""),
            SessionLimits(self.settings.session_idle, self.settings.session_lifetime),
        )
        return id

    def made(self, name: str, api: str = "open", app: str = "demo") -> str:
        limits = SessionLimits(self.settings.session_idle, self.settings.session_lifetime)
        if name == ADMIN:
            who: Principal | None = administrator("admin token")
        else:
            who = self.people.session_by_id(f"{name}0", limits, self.now)
        assert who is not None
        found = self.passes.make(who, f"{app}/{api}")
        assert found is not None
        assert found[1] == int(self.now + LIFETIME)
        return found[0]

    def admit(
        self, text: str, api: str = "open", app: str = "demo", origin: bytes | None = b"null"
    ) -> str | int:
        """Return the caller's name, or the status of the refusal."""
        found = self.passes.admit(target(api, app), text.encode("latin-1"), origin)
        return found.user if isinstance(found, AuthenticatedCaller) else found.code


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    people = PeopleStore(tmp_path / "people.db")
    found = Scene(people, WebSettings(admin_token=Secret("letmein-token")))
    for name, grants in PEOPLE.items():
        add_person(people, name, *grants, password=False)
        found.sign_in(name)
    return found


@pytest.mark.parametrize("name", [*PEOPLE, ADMIN])
def test_every_role_at_every_api(scene: Scene, name: str) -> None:
    for api in APIS:
        may = name in (TRIES_OPEN if api == "open" else TRIES_ALL)
        assert scene.admit(scene.made(name, api), api) == (f"{PERSON}{name}" if may else 403), api


def test_a_pass_is_for_one_api_of_one_app(scene: Scene) -> None:
    for made, used in product(APIS, APIS):
        assert (scene.admit(scene.made("boss", made), used) == 401) == (made != used)
    for api in APIS:
        assert scene.admit(scene.made("boss", api, "other"), api) == 401
        assert scene.admit(scene.made("boss", api, "demo"), api, "other") == 401


@pytest.mark.parametrize("origin", [None, b"", b"https://models.example.org", b"http://localhost", b"NULL"])
def test_only_a_sandboxed_page_uses_it(scene: Scene, origin: bytes | None) -> None:
    assert scene.admit(scene.made("boss"), origin=origin) == 401


def test_it_ends_after_some_minutes(scene: Scene) -> None:
    text = scene.made("boss")
    scene.now = NOW + LIFETIME - 1
    assert scene.admit(text) == "person:boss"
    scene.now = NOW + LIFETIME
    assert scene.admit(text) == 401
    scene.now = NOW


def test_it_ends_with_its_session(scene: Scene) -> None:
    scene.sign_in("boss", 1)
    who = scene.people.session_by_id("boss1", SessionLimits(1e6, 1e6), NOW)
    assert who is not None
    made = scene.passes.make(who, "demo/open")
    assert made is not None
    assert scene.admit(made[0]) == "person:boss"
    scene.people.end_session("boss1")
    assert scene.admit(made[0]) == 401
    assert scene.passes.make(who, "demo/open") is None


def test_roles_count_at_each_call(scene: Scene) -> None:
    grant = Grant("nobody", Role.DEVELOPER, "demo")
    text = scene.made("nobody", "token")
    assert scene.admit(text, "token") == 403
    scene.people.grant(grant)
    assert scene.admit(text, "token") == "person:nobody"
    scene.people.take_back(grant)
    assert scene.admit(text, "token") == 403


def test_programs_get_none(scene: Scene) -> None:
    who = Principal("maker", PEOPLE["maker"], Scope.ADMIN, "token 1")
    assert scene.passes.make(who, "demo/open") is None


def test_without_an_admin_token_there_is_none_of_its_holder(scene: Scene) -> None:
    text = scene.made(ADMIN)
    closed = Scene(scene.people, WebSettings())
    assert closed.admit(text) == 401
    assert closed.admit(CallPass(ADMIN, "demo/open", int(NOW + 60)).signed("")) == 401


def test_what_was_tampered_with(scene: Scene) -> None:
    genuine = scene.made("maker")
    holder, expires, api, signature = genuine.split(".")
    boss = scene.made("boss").split(".")
    for text in (
        f"boss0.{expires}.{api}.{signature}",
        f"{holder}.{int(expires) + 1}.{api}.{signature}",
        f"{holder}.{expires}.{scene.made('maker', 'token').split('.')[2]}.{signature}",
        f"{holder}.{expires}.{api}.{boss[3]}",
        f"{holder}.{expires}.{api}.",
        f"{holder}.{expires}.{api}",
        f"{holder}.{expires}.{api}.{signature}.x",
        f"{holder}.{expires}.{api}=.{signature}",
        f"missing.{expires}.{api}.{signature}",
        f".{expires}.{api}.{signature}",
        f"{holder}.-1.{api}.{signature}",
        f"{holder}.\xb2.{api}.{signature}",
        f"{holder}.{expires}.%%%.{signature}",
        "",
        "x" * 100_000,
    ):
        assert scene.admit(text) == 401, text[:80]
    assert scene.admit(genuine) == "person:maker"


@given(st.text(max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    read_pass(text)


def test_what_a_component_sees_of_it() -> None:
    sent = [
        (b"origin", b"null"),
        (b"sec-fetch-mode", b"cors"),
        (b"sec-fetch-site", b"cross-site"),
        (b"referer", b"https://models.example.org/-/"),
        (b"x-prichal-pass", b"a.1.b.c"),
        (b"authorization", b"Bearer other"),
        (b"accept", b"*/*"),
    ]
    special, lines = split(sent)
    assert without_page(lines) == [b"accept: */*\r\n"]
    assert special[b"x-prichal-pass"] == b"a.1.b.c"


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({b"origin": b"null", b"x-prichal-pass": b""}, True),
        ({b"origin": b"null", b"access-control-request-headers": b"content-type,X-Prichal-Pass"}, True),
        ({b"origin": b"https://lab.example.org", b"x-prichal-pass": b"x"}, False),
        ({b"origin": b"null"}, False),
        ({b"x-prichal-pass": b"x"}, False),
    ],
)
def test_what_is_shared_with_a_page(headers: dict[bytes, bytes], found: bool) -> None:
    assert is_by_pass(headers.items()) is found
