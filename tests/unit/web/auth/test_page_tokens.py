"""Tokens of pages: what they open, for whom, how long; and that nothing else counts beside them."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from controller.config import WebSettings
from controller.domain.people.accounts import SessionRecord
from controller.domain.people.roles import Grant, Role, administrator
from controller.domain.secret import Secret
from controller.store.people import PeopleStore, SessionLimits
from controller.web.auth.admin import ClientInfo
from controller.web.auth.page_tokens import HEADER, LIFETIME, PageToken, is_genuine, read_token
from controller.web.auth.people import SESSION, Callers

PATH = "/-/apps/demo"
SETTINGS = WebSettings(admin_token=Secret("letmein-token"), trust_loopback=True)
NOW = 1_900_000_000.0


@pytest.fixture
def people(tmp_path: Path) -> PeopleStore:
    store = PeopleStore(tmp_path / "people.db")
    store.add("ann", NOW)
    store.grant(Grant("ann", Role.DEVELOPER, "demo"))
    store.begin_session("cookie", SessionRecord("s1", "ann", NOW, NOW, "", ""), SessionLimits(3600.0, 7200.0))
    return store


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def callers(people: PeopleStore, clock: Clock) -> Callers:
    return Callers(people, SETTINGS, clock)


def script(token: str, path: str = PATH, method: str = "GET", **more: str) -> ClientInfo:
    """What a script in a sandboxed page sends."""
    headers = {HEADER: token, "origin": "null", "sec-fetch-mode": "cors", "host": "localhost:8000", **more}
    return ClientInfo(method, "127.0.0.1", headers, "http", path)


def token_of(callers: Callers, people: PeopleStore, path: str = PATH, writes: str = "") -> str:
    ann = people.session("cookie", callers.limits, NOW)
    assert ann is not None
    return callers.page_token(ann, path, writes)


@pytest.mark.parametrize(
    ("scope", "method", "path", "writes", "is_open"),
    [
        (PATH, "GET", PATH, "", True),
        (PATH, "GET", f"{PATH}/events", "", True),
        (PATH, "HEAD", f"{PATH}/a/b", "", True),
        (PATH, "POST", f"{PATH}/suspend", "", False),
        (PATH, "POST", f"{PATH}/suspend", PATH, True),
        (PATH, "GET", "/-/apps/demo2", "", False),
        (PATH, "GET", "/-/apps", "", False),
        (PATH, "GET", "/-/tokens", PATH, False),
        ("/-/", "GET", "/-/", "", True),
        ("/-/", "GET", "/-/apps", "", False),
        ("/-/", "GET", "/-/apps/demo", "/-/", False),
        ("/-/", "GET", "/-//apps", "/-/", False),
        (PATH, "PUT", f"{PATH}/files/box/a/b", f"{PATH}/files", True),
        (PATH, "DELETE", PATH, f"{PATH}/files", False),
        (PATH, "POST", f"{PATH}/rollback", f"{PATH}/files", False),
        (PATH, "PUT", f"{PATH}/files-of-others", f"{PATH}/files", False),
        (PATH, "GET", "/-/tokens", "/-/tokens", False),
    ],
)
def test_a_token_is_good_for_its_path_and_below(
    callers: Callers, people: PeopleStore, scope: str, method: str, path: str, writes: str, is_open: bool
) -> None:
    found = callers.identify(script(token_of(callers, people, scope, writes), path, method))
    assert (found is not None) == is_open
    assert found is None or (found.name, found.session) == ("ann", "s1")


def test_it_ends_with_its_time_and_its_session(callers: Callers, people: PeopleStore, clock: Clock) -> None:
    token = token_of(callers, people)
    clock.now = NOW + LIFETIME - 2
    assert callers.identify(script(token)) is not None
    clock.now = NOW + LIFETIME
    assert callers.identify(script(token)) is None
    clock.now = NOW
    people.end_session("s1")
    assert callers.identify(script(token)) is None


def test_reading_is_no_use_of_the_session(callers: Callers, people: PeopleStore, clock: Clock) -> None:
    token = token_of(callers, people, writes=PATH)
    clock.now = NOW + 600
    assert callers.identify(script(token)) is not None
    assert people.sessions(callers.limits, clock.now)[0].seen == NOW
    assert callers.identify(script(token, method="POST")) is not None
    assert people.sessions(callers.limits, clock.now)[0].seen == clock.now


def test_it_has_to_come_from_a_sandboxed_page(callers: Callers, people: PeopleStore) -> None:
    token = token_of(callers, people)
    for origin in ("http://localhost:8000", "https://evil.example", ""):
        assert callers.identify(script(token, origin=origin)) is None
    without = script(token)
    headers = {name: value for name, value in without.headers.items() if name != "origin"}
    assert callers.identify(replace(without, headers=headers)) is None


def test_beside_it_nothing_else_counts(callers: Callers) -> None:
    """A page that says it is ours gets nothing by what the browser adds, nor by being on this host."""
    for more in (
        {"authorization": "Bearer letmein-token"},
        {"cookie": f"{SESSION}=cookie"},
        {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
    ):
        assert callers.identify(script("wrong", **more)) is None
        assert callers.identify(script("", **more)) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token[:-1] + ("0" if token[-1] != "0" else "1"),
        lambda token: token.replace("s1.", "s2.", 1),
        lambda token: token.replace("..", f".{token.split('.')[2]}."),
        lambda token: token.replace(str(int(NOW + LIFETIME)), str(int(NOW + 10 * LIFETIME))),
        lambda token: token.rpartition(".")[0] + ".",
        lambda token: token + ".x",
        lambda token: "",
        lambda token: "....",
        lambda token: "é" * 10,
        lambda token: "x" * 5000,
        lambda token: "@admin" + token[2:],
        lambda token: "@host" + token[2:],
        lambda token: f"s1.{'9' * 30}.!!!!..00",
    ],
)
def test_a_token_that_was_changed_is_worth_nothing(
    callers: Callers, people: PeopleStore, change: object
) -> None:
    assert callable(change)
    assert callers.identify(script(change(token_of(callers, people)))) is None


def test_pages_of_callers_without_an_account(callers: Callers) -> None:
    admin = callers.page_token(administrator("admin token"), PATH)
    host = callers.page_token(administrator("this host"), PATH)
    assert callers.identify(script(admin)) == administrator("admin token")
    assert callers.identify(script(host)) == administrator("this host")
    elsewhere = replace(script(host), address="192.0.2.1")
    assert callers.identify(elsewhere) is None
    assert callers.identify(script(host, **{"x-forwarded-for": "192.0.2.1"})) is None
    assert callers.identify(script(host, host="evil.example")) is None


def test_there_is_none_without_a_secret_to_sign_it(people: PeopleStore) -> None:
    assert Callers(people, WebSettings()).page_token(administrator("this host"), PATH) == ""


def test_what_a_token_says() -> None:
    token = PageToken("s1", "/-/apps/имя", "/-/apps/имя/files", 17)
    text = token.signed("key")
    assert read_token(text) == token
    assert is_genuine(text, "key")
    assert not is_genuine(text, "other")
    assert not is_genuine(text, "")
    assert time.time() > 17  # and it is good at no time of today
    assert not token.opens("GET", "/-/apps/имя", time.time())
