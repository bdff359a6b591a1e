"""Signing in with a browser: the three steps, one-time links, and what attackers try on the way."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from controller.config import Settings, WebSettings
from controller.domain.people.roles import Grant, Role
from controller.domain.secret import Secret
from controller.store import SqliteStore
from controller.store.first_admin import first_login_url, prepare_people
from controller.store.people import LINK, PeopleStore
from controller.web.app import create_app
from controller.web.auth.people import LOGIN, SESSION
from controller.web.auth.sign_in import CHECKS, SignIn, form_of, local_path
from controller.web.context import people_context
from controller.web.pages.static_files import asset
from controller.web.problems import ProblemKind, RequestRefused
from controller.web.storage import StorageClient
from tests.support.people import PASSWORD, SUBMIT, WINDOW, Browser, add_person, hidden

#: Together they take seconds.
pytestmark = pytest.mark.slow

HTTPS = "https://localhost"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "web").mkdir()
    return Settings(state=tmp_path, web=WebSettings(admin_token=Secret("letmein-token")))


@pytest.fixture
def app(store: SqliteStore, settings: Settings, storage: StorageClient) -> Flask:
    made = create_app(store, settings, storage)
    add_person(people_context(made).store, "ann", Grant("ann", Role.ADMIN))
    add_person(people_context(made).store, "bob")
    return made


@pytest.fixture
def people(app: Flask) -> PeopleStore:
    return people_context(app).store


def acts(people: PeopleStore) -> list[tuple[str, str]]:
    return [(entry.who, entry.act) for entry in reversed(people.acts())]


def with_cookie(app: Flask, cookie: str, base: str = "http://localhost") -> Any:
    client = FlaskClient(app, use_cookies=False)
    return client.get("/-/apps", base_url=base, headers={**WINDOW, "Cookie": cookie})


def test_signing_in_and_out(app: Flask, people: PeopleStore) -> None:
    browser = Browser(app)
    refused = browser.open("/-/apps?x=1")
    assert (refused.status_code, refused.location) == (303, "/-/login?next=%2F-%2Fapps%3Fx%3D1")
    reply = browser.sign_in("ann", path=refused.location)
    assert (reply.status_code, reply.location) == (303, "/-/apps?x=1")
    assert browser.open("/-/apps").status_code == 200
    page = browser.open("/-/sessions")
    assert "this one" in page.text
    out = browser.submit("/-/logout", hidden(page))
    assert (out.status_code, out.location) == (303, "/-/login")
    assert browser.open("/-/apps").status_code == 303
    assert acts(people) == [("ann", "login"), ("ann", "logout")]


@pytest.mark.parametrize("base", ["http://localhost", HTTPS])
def test_the_cookie(app: Flask, base: str) -> None:
    reply = Browser(app, base).sign_in("ann")
    fields = [f for f in reply.headers.getlist("Set-Cookie") if SESSION in f]
    (field,) = fields
    assert "HttpOnly" in field
    assert "SameSite=Lax" in field
    assert ("Secure" in field) == (base == HTTPS)
    assert field.startswith("__Host-") == (base == HTTPS)
    assert ("Path=/;" in field + ";") == (base == HTTPS)
    assert "Domain" not in field


def test_a_cookie_of_plain_http_does_not_count_over_https(app: Flask) -> None:
    """Other pages of the host can set it, but not one with the prefix."""
    browser = Browser(app)
    browser.sign_in("ann")
    value = browser.cookies()[SESSION]
    for name, status in ((SESSION, 303), (f"__Host-{SESSION}", 200)):
        reply = with_cookie(app, f"{name}={value}", HTTPS)
        assert reply.status_code == status


def test_two_cookies_of_one_name_count_as_none(app: Flask) -> None:
    browser = Browser(app)
    browser.sign_in("ann")
    value = browser.cookies()[SESSION]
    assert with_cookie(app, f"{SESSION}={value}").status_code == 200
    assert with_cookie(app, f"{SESSION}=evil; {SESSION}={value}").status_code == 303


def test_a_wrong_password_and_an_unknown_name_look_alike(app: Flask, people: PeopleStore) -> None:
    people.add("newcomer", time.time())
    texts = set()
    for name in ("ann", "nobody", "newcomer", "<b>", ""):
        reply = Browser(app).sign_in(name, "wrong password")
        assert reply.status_code == 403
        texts.add(re.sub(r'value="[0-9a-f]{64}"|nonce="[^"]+"', "", reply.text))
    assert len(texts) == 1
    assert acts(people) == []


def test_who_guesses_has_to_wait(app: Flask) -> None:
    browser = Browser(app)
    for _ in range(5):
        assert browser.sign_in("ann", "wrong password").status_code == 403
    reply = browser.sign_in("ann")
    assert reply.status_code == 429
    assert int(reply.headers["Retry-After"]) > 0
    assert Browser(app).sign_in("bob").status_code == 303  # others are not locked out


def test_a_few_passwords_are_checked_at_once(people: PeopleStore, app: Flask) -> None:
    callers = people_context(app).callers
    inner: list[str] = []

    def check(stored: str, password: str) -> bool:
        if len(inner) < CHECKS:
            inner.append(password)
            try:
                sign_in.by_password("192.0.2.1", f"name-{len(inner)}", "x")
            except RequestRefused as refused:
                inner.append(refused.problem.kind.slug)
        return False

    sign_in = SignIn(people, callers.limits, check=check)
    assert sign_in.by_password("192.0.2.1", "ann", "x") is None
    assert inner[-1] == ProblemKind.OVERLOADED.slug


# --- fixation and forgery -----------------------------------------------------------------------------------------


def test_no_cookie_from_before_becomes_a_session(app: Flask) -> None:
    browser = Browser(app)
    browser.put_cookie(SESSION, "known-to-the-attacker")
    browser.put_cookie(LOGIN, "this-one-too")
    browser.sign_in("ann")
    assert browser.cookies()[SESSION] != "known-to-the-attacker"
    for cookie in ("known-to-the-attacker", "this-one-too"):
        assert with_cookie(app, f"{SESSION}={cookie}").status_code == 303


def test_with_each_sign_in_the_session_changes(app: Flask) -> None:
    browser = Browser(app)
    browser.sign_in("ann")
    former = browser.cookies()[SESSION]
    browser.sign_in("ann")
    assert browser.cookies()[SESSION] != former
    assert with_cookie(app, f"{SESSION}={former}").status_code == 303


def test_nobody_signs_another_browser_in(app: Flask) -> None:
    """An attacker's form with their own password, sent by the browser of somebody else; then only their ticket."""
    attacker, victim = Browser(app), Browser(app)
    fields = {**hidden(attacker.open("/-/login")), "name": "bob", "password": PASSWORD}
    victim.open("/-/login")
    reply = victim.submit("/-/login", fields)
    assert reply.status_code == 303
    finished = victim.open(reply.location)
    assert finished.status_code == 403
    assert SESSION not in victim.cookies()
    assert attacker.open(reply.location).status_code == 403  # it is good once


def test_a_ticket_is_not_used_up_by_a_look_at_its_header(app: Flask) -> None:
    browser = Browser(app)
    fields = {**hidden(browser.open("/-/login")), "name": "bob", "password": PASSWORD}
    place = browser.submit("/-/login", fields).location
    assert browser._client.head(place).status_code == 200
    assert browser.open(place).status_code == 303


@pytest.mark.parametrize("form", ["", "x", "0" * 64, "é" * 64])
def test_a_form_that_we_did_not_make_leads_nowhere(app: Flask, form: str) -> None:
    browser = Browser(app)
    browser.open("/-/login")
    reply = browser.submit("/-/login", {"form": form, "name": "ann", "password": PASSWORD})
    if reply.status_code == 303:
        reply = browser.open(reply.location)
    assert reply.status_code == 403
    assert SESSION not in browser.cookies()


def test_a_form_of_another_session_or_of_none_changes_nothing(app: Flask, people: PeopleStore) -> None:
    ann, bob = Browser(app), Browser(app, cookies_with_forms=True)
    ann.sign_in("ann")
    bob.sign_in("bob")
    form = hidden(ann.open("/-/tokens"))["form"]
    id, _, signature = form.partition(".")
    for value in ("", form + "0", f"{id}.", f".{signature}", f"{'0' * 12}.{signature}", "x" * 5000, "é.é"):
        reply = ann.submit("/-/tokens", {"form": value, "scope": "read"})
        assert reply.status_code == 401, value
    assert bob.submit("/-/tokens", {"form": form, "scope": "read"}).status_code == 401
    assert people.tokens() == ()
    people.end_session(id)
    assert ann.submit("/-/tokens", {"form": form, "scope": "read"}).status_code == 401


@pytest.mark.parametrize(
    "sent",
    [
        {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
        {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    ],
    ids=repr,
)
def test_scripts_and_frames_get_nothing_by_the_cookie(app: Flask, sent: dict[str, str]) -> None:
    browser = Browser(app)
    browser.sign_in("ann")
    form = hidden(browser.open("/-/tokens"))["form"]
    assert browser.open("/-/apps", **sent).status_code == 401
    assert browser.open("/-/login", **sent).status_code == 403
    assert browser.submit("/-/login", {"form": "0" * 64}, **sent).status_code == 400
    assert browser.submit("/-/tokens", {"form": form, "scope": "read"}, **sent).status_code == 401
    assert browser._client.post("/-/apps/x/reconcile", headers=SUBMIT).status_code == 401
    assert browser._client.post("/-/apps/x/reconcile", headers={"X-Prichal": "1"}).status_code == 401


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    [
        "//evil.example",
        "https://evil.example/-/",
        "/\\evil.example",
        "/-/\\evil",
        "/-//evil.example",
        "/-/../evil",
        "/-/%2e%2e/evil",
        "/-/%2f%2fevil.example",
        "/evil",
        "javascript:alert(1)",
        "/-/\r\nLocation: https://evil.example",
        "/-/\tx",
        " /-/",
        "/-/é",
        "http://[",
        "/-/login?ticket=x",
        "/-/logout",
        "/-/" + "x" * 1000,
        "",
    ],
)
def test_after_signing_in_one_stays_here(app: Flask, place: str) -> None:
    assert local_path(place) == "/-/"
    browser = Browser(app)
    fields = {**hidden(browser.open("/-/login")), "next": place, "name": "ann", "password": PASSWORD}
    reply = browser.open(browser.submit("/-/login", fields).location)
    assert (reply.status_code, reply.location) == (303, "/-/")


@pytest.mark.parametrize(
    "place", ["/-/", "/-/apps", "/-/apps/demo/events?limit=5", "/-/audit?who=ann&limit=1"]
)
def test_where_one_wanted_to_go(place: str) -> None:
    assert local_path(place) == place


# --- over the network ---------------------------------------------------------------------------------------------


def test_no_password_is_asked_for_over_plain_http(app: Flask) -> None:
    browser = Browser(app, "http://ml.example.org")
    page = browser.open("/-/login")
    assert (page.status_code, "needs HTTPS" in page.text, "<form" in page.text) == (403, True, False)
    reply = browser.submit("/-/login", {"form": form_of("x"), "name": "ann", "password": PASSWORD})
    assert reply.status_code == 400


def test_behind_a_proxy_that_is_trusted(
    store: SqliteStore, settings: Settings, storage: StorageClient
) -> None:
    proxied = WebSettings(trusted_proxies=("127.0.0.1/32",))
    app = create_app(store, Settings(state=settings.state, web=proxied), storage)
    sent = {**WINDOW, "X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7", "Host": "ml.example.org"}
    reply = app.test_client().get("/-/login", headers=sent)
    assert reply.status_code == 200
    assert "__Host-" in reply.headers["Set-Cookie"]


def test_pages_run_modules_of_ours_and_send_forms_to_us_alone(app: Flask) -> None:
    browser = Browser(app)
    browser.sign_in("ann")
    for path in ("/-/login", "/-/sessions", "/-/tokens", "/-/audit"):
        page = browser.open(path)
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "form-action 'self'" in policy
        assert "sandbox allow-scripts allow-forms" in policy
        assert "allow-same-origin" not in policy
        assert "unsafe" not in policy
        assert re.findall(r"<script[^>]* src=.([^'\"]*)", page.text) == [asset("main.js")]
        assert "prichal-page" not in page.text, "scripts of these pages may ask for nothing"


# --- one-time links -----------------------------------------------------------------------------------------------


def use_link(browser: Browser, link: str, password: str = "another good one", **changed: str) -> Any:
    fields = hidden(browser.open(f"/-/login?code={link}"))
    return browser.submit("/-/login", {**fields, "password": password, "again": password, **changed})


def test_a_link_sets_a_password_and_signs_in(app: Flask, people: PeopleStore) -> None:
    elsewhere, browser = Browser(app), Browser(app)
    elsewhere.sign_in("bob")
    people.put_link("bob", "the-code", time.time() + LINK)
    assert "bob" in browser.open("/-/login?code=the-code").text
    assert browser.open("/-/login?code=the-code").status_code == 200  # looking does not use it up
    reply = use_link(browser, "the-code")
    assert browser.open(reply.location).status_code == 303
    assert browser.open("/-/apps").status_code == 200
    assert elsewhere.open("/-/apps").status_code == 303  # it ends sessions from before
    assert browser.open("/-/login?code=the-code").status_code == 403
    assert ("bob", "password set") in acts(people)
    assert Browser(app).sign_in("bob").status_code == 403
    assert Browser(app).sign_in("bob", "another good one").status_code == 303


@pytest.mark.parametrize(
    ("password", "changed", "status"),
    [
        ("short", {}, 422),
        ("another good one", {"again": "another bad one"}, 422),
        ("aaaaaaaaaaaaaa", {}, 422),
        ("another good one", {"code": "other"}, 403),
        ("another good one", {"code": "x" * 5000}, 403),
    ],
)
def test_a_link_is_kept_if_the_password_is_not_taken(
    app: Flask, people: PeopleStore, password: str, changed: dict[str, str], status: int
) -> None:
    people.put_link("bob", "the-code", time.time() + LINK)
    assert use_link(Browser(app), "the-code", password, **changed).status_code == status
    assert people.link_user("the-code", time.time()) == "bob"


def test_the_first_administrator(app: Flask, settings: Settings, people: PeopleStore) -> None:
    for name in ("ann", "bob"):
        people.remove(name)
    prepare_people(settings)
    url = first_login_url(settings)
    prepare_people(settings)
    assert first_login_url(settings) == url  # it stays the same until it is used
    assert settings.first_login.stat().st_mode & 0o777 == 0o600
    browser = Browser(app)
    reply = use_link(browser, url.partition("code=")[2])
    browser.open(reply.location)
    assert browser.open("/-/audit").status_code == 200
    assert first_login_url(settings) == ""
    assert not settings.first_login.exists()
    prepare_people(settings)
    assert first_login_url(settings) == ""


def test_a_first_link_that_has_expired_is_made_again_at_the_next_start(
    settings: Settings,
) -> None:
    people = PeopleStore(settings.people)
    prepare_people(settings)
    url = first_login_url(settings)
    people.put_link("admin", url.partition("code=")[2], time.time() - 1)
    assert first_login_url(settings) == ""
    prepare_people(settings)
    assert first_login_url(settings) not in ("", url)


def test_where_somebody_has_an_account_there_is_no_first_administrator(settings: Settings) -> None:
    people = PeopleStore(settings.people)
    people.add("ann", time.time())
    prepare_people(settings)
    assert [each.name for each in people.accounts()] == ["ann"]
    assert first_login_url(settings) == ""


def test_the_platform_starts_without_the_database(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.people.mkdir()
    prepare_people(settings)
    assert "people cannot sign in" in caplog.text


def test_the_admin_token_opens_without_the_database(app: Flask, settings: Settings) -> None:
    settings.people.unlink()
    settings.people.mkdir()
    reply = app.test_client().get("/-/apps", headers={"Authorization": "Bearer letmein-token"})
    assert reply.status_code == 200
    assert app.test_client().get("/-/apps", headers={"Authorization": "Bearer other"}).status_code == 503
