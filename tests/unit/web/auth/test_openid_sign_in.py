"""Signing in with an issuer of OpenID Connect, at an issuer that keeps the rules and one that breaks each of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask

from controller.config import OpenIdIssuer, Settings, SignInSettings, WebSettings
from controller.domain.people.openid import GroupRole
from controller.domain.people.roles import Grant, Role
from controller.domain.secret import Secret
from controller.store import SqliteStore
from controller.store.people import PeopleStore
from controller.web.app import create_app
from controller.web.auth.attempts import BY_NAME
from controller.web.auth.oidc import LEEWAY
from controller.web.auth.openid_sign_in import (
    RETRY,
    SIGN_IN_TIMEOUT,
    OpenIdRefused,
    OpenIdSignIn,
    SignInRefusal,
)
from controller.web.auth.people import LOGIN, SESSION
from controller.web.context import people_context
from controller.web.storage import StorageClient
from tests.support.fake_objects import FakeObjects
from tests.support.issuer import claims_of, forged, sign, signing_key
from tests.support.openid_provider import CLIENT, KEY, SECRET, OpenIdProvider, Request, openid_provider
from tests.support.people import Browser, add_person, add_token, hidden
from tests.support.stores import open_store

#: Together they take seconds.
pytestmark = pytest.mark.slow

GROUPS = (
    GroupRole("ops", Role.ADMIN),
    GroupRole("lab", Role.DEVELOPER, "pu-lab-*"),
    GroupRole("staff", Role.VIEWER),
)
OTHER_KEY = signing_key("another")


@pytest.fixture(scope="module")
def server() -> Iterator[OpenIdProvider]:
    with openid_provider() as running:
        yield running


@pytest.fixture
def provider(server: OpenIdProvider) -> Iterator[OpenIdProvider]:
    yield server
    server.metadata, server.tokens, server.users, server.refuse = {}, server.signed, {}, None
    server.answers.clear()
    server.publish()


@pytest.fixture(scope="module")
def ground(
    tmp_path_factory: pytest.TempPathFactory, server: OpenIdProvider
) -> Iterator[tuple[Settings, SqliteStore, StorageClient]]:
    """What the applications of all tests share: they are quick to make then."""
    state: Path = tmp_path_factory.mktemp("state")
    (state / "web").mkdir()
    lab = OpenIdIssuer("lab", server.url, CLIENT, Secret(SECRET), "The <lab>", groups=GROUPS)
    web = WebSettings(public_url="http://localhost")
    settings = Settings(state=state, web=web, sign_in=SignInSettings(oidc=(lab,)))
    store = open_store(settings.database)
    storage = StorageClient(store, lambda access: FakeObjects())
    yield settings, store, storage
    storage.close()
    store.close()


@pytest.fixture
def settings(ground: tuple[Settings, SqliteStore, StorageClient], provider: OpenIdProvider) -> Settings:
    """With nobody in the database of people."""
    ground[0].people.unlink(missing_ok=True)
    return ground[0]


@pytest.fixture
def make(ground: tuple[Settings, SqliteStore, StorageClient], settings: Settings) -> Callable[..., Flask]:
    """Makes an application, which knows nothing of the issuer yet; fields of the issuer, and of the section `people`,
    can be others."""
    _, store, storage = ground

    def made(more: dict[str, Any] | None = None, web: WebSettings | None = None, **fields: Any) -> Flask:
        lab = replace(settings.sign_in.oidc[0], **fields)
        sign_in = replace(settings.sign_in, **{"oidc": (lab,), **(more or {})})
        return create_app(store, replace(settings, sign_in=sign_in, web=web or settings.web), storage)

    return made


@pytest.fixture(scope="module")
def running(ground: tuple[Settings, SqliteStore, StorageClient]) -> Flask:
    settings, store, storage = ground
    return create_app(store, settings, storage)


@pytest.fixture
def app(running: Flask, settings: Settings) -> Flask:
    return running


@pytest.fixture
def people(settings: Settings) -> PeopleStore:
    return PeopleStore(settings.people)


def begin(browser: Browser, next: str = "/-/", name: str = "lab") -> Request:
    browser.open("/-/login")
    reply = browser.open(f"/-/login/oidc/{name}?next={next}")
    assert reply.status_code == 303, reply.text
    return Request.of(reply.location)


def local(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def sign_in(browser: Browser, provider: OpenIdProvider, sub: str = "4711", **claims: Any) -> Any:
    """The response to the last step."""
    request = begin(browser)
    return browser.open(local(provider.answer(request, sub, **{"preferred_username": "ann", **claims})))


def grants(people: PeopleStore) -> list[tuple[str, str, str]]:
    return [(each.role, each.app, each.group) for each in people.grants(time.time())]


# --- the usual ----------------------------------------------------------------------------------------------------


def test_from_the_button_to_the_page_and_out_again(app: Flask, provider: OpenIdProvider) -> None:
    browser = Browser(app)
    page = browser.open("/-/login?next=/-/apps")
    assert "Sign in with The &lt;lab&gt;" in page.text
    assert 'href="/-/login/oidc/lab?next=/-/apps"' in page.text
    request = begin(browser, "/-/apps%3Fx=1")
    assert (request.back, request.scope) == (
        "http://localhost/-/login/oidc/lab/callback",
        "openid profile email",
    )
    reply = browser.open(local(provider.answer(request, preferred_username="Ann")))
    assert (reply.status_code, reply.location) == (303, "/-/apps?x=1")
    assert browser.open("/-/apps").status_code == 200
    assert LOGIN not in browser.cookies()
    page = browser.open("/-/sessions")
    assert "<td>lab</td>" in page.text
    out = browser.submit("/-/logout", hidden(page))
    assert "next=%2F-%2Flogin" in out.text  # of the links to other languages
    link = out.text.partition('class="button primary" href="')[2].partition('"')[0].replace("&amp;", "&")
    place, query = urlsplit(link), parse_qs(urlsplit(link).query)
    assert (place.path, query["client_id"]) == (f"{provider.realm}/end_session", [CLIENT])
    assert query["post_logout_redirect_uri"] == ["http://localhost/-/login"]
    assert query["id_token_hint"][0].count(".") == 2
    assert browser.open("/-/apps").status_code == 303
    told = [(each.who, each.act, each.detail) for each in reversed(people_context(app).store.acts())]
    assert told == [("ann", "user add", "by lab"), ("ann", "login", "by lab"), ("ann", "logout", "")]


@pytest.mark.parametrize("end", ["removed", "released", "out of all groups"])
def test_a_session_ends_with_what_it_rests_on(
    make: Callable[..., Flask], provider: OpenIdProvider, people: PeopleStore, end: str
) -> None:
    app = make(allowed_groups=("staff",))
    browser, other = Browser(app), Browser(app)
    for each in (browser, other):
        assert sign_in(each, provider, groups=["staff"]).status_code == 303
        assert each.open("/-/apps").status_code == 200
    if end == "removed":
        people.remove("ann")
    elif end == "released":
        people.release("ann")
    else:  # as the issuer says at her next attempt to sign in, in whatever browser
        assert sign_in(Browser(app), provider, groups=["guests"]).status_code == 403
    for each in (browser, other):
        assert each.open("/-/apps").status_code == 303, "to the page for signing in"


def test_an_issuer_without_an_end_of_sessions(make: Callable[..., Flask], provider: OpenIdProvider) -> None:
    provider.metadata = {"end_session_endpoint": None}
    provider.publish()
    browser = Browser(make())
    sign_in(browser, provider)
    out = browser.submit("/-/logout", hidden(browser.open("/-/sessions")))
    assert (out.status_code, out.location) == (303, "/-/login")


def test_cookies_over_https(make: Callable[..., Flask], provider: OpenIdProvider, settings: Settings) -> None:
    app = make(web=replace(settings.web, public_url="https://localhost"))
    browser = Browser(app, "https://localhost")
    request = begin(browser)
    assert request.back == "https://localhost/-/login/oidc/lab/callback"
    reply = browser.open(local(provider.answer(request, preferred_username="ann")))
    (field,) = [each for each in reply.headers.getlist("Set-Cookie") if SESSION in each]
    assert field.startswith("__Host-")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= set(field.split("; "))


def test_one_goes_to_the_registered_address_first(app: Flask) -> None:
    """Only there the browser has the cookie when the issuer sends it back. A proxy that hides the address does not make
    the browser go in circles."""
    elsewhere = Browser(app, "http://127.0.0.1:8000")
    reply = elsewhere.open("/-/login/oidc/lab?next=/-/apps")
    assert reply.location == "http://localhost/-/login/oidc/lab?next=%2F-%2Fapps&again=1"
    again = elsewhere.open("/-/login/oidc/lab?next=/-/apps&again=1")
    assert Request.of(again.location).back.startswith("http://localhost/")


def test_a_long_token_is_no_hint(app: Flask, provider: OpenIdProvider) -> None:
    """The address would be too long for the issuer, which asks the person instead."""
    browser = Browser(app)
    assert sign_in(browser, provider, about="x" * 7000).status_code == 303
    out = browser.submit("/-/logout", hidden(browser.open("/-/sessions")))
    assert ("/end_session?client_id=" in out.text, "id_token_hint" in out.text) == (True, False)


def test_a_public_client_has_no_secret(make: Callable[..., Flask], provider: OpenIdProvider) -> None:
    seen: list[bytes] = []

    def post(path: str, headers: dict[str, str], body: bytes) -> tuple[int, object]:
        seen.append(body)
        assert "Authorization" not in headers
        return 400, {"error": "invalid_grant"}

    browser = Browser(make(client_secret=None))
    request = begin(browser)
    provider.post = post  # type: ignore[method-assign]
    try:
        browser.open(local(provider.answer(request)))
    finally:
        del provider.post
    (form,) = (parse_qs(each.decode()) for each in seen)
    assert form["client_id"] == [CLIENT]
    assert "client_secret" not in form


# --- whose account ------------------------------------------------------------------------------------------------


def test_a_name_belongs_to_who_used_it_first(
    app: Flask, provider: OpenIdProvider, people: PeopleStore
) -> None:
    assert sign_in(Browser(app), provider, "1").status_code == 303
    assert sign_in(Browser(app), provider, "1", preferred_username="other").status_code == 303
    assert [each.name for each in people.accounts()] == ["ann"]  # the subject counts, not the name
    thief = Browser(app)
    refused = sign_in(thief, provider, "2")
    assert (refused.status_code, SESSION in thief.cookies()) == (403, False)
    assert "prichal user release ann" in refused.text
    last = people.acts()[0]
    assert (last.who, last.act, last.detail) == ("lab:2", "login refused", "ann name of another account")
    people.release("ann")
    assert sign_in(Browser(app), provider, "2").status_code == 303
    assert sign_in(Browser(app), provider, "1").status_code == 403


def test_an_account_of_the_platform_s_own_is_never_taken(
    app: Flask, provider: OpenIdProvider, people: PeopleStore
) -> None:
    add_person(people, "ann", Grant("ann", Role.ADMIN))
    refused = sign_in(Browser(app), provider)
    assert refused.status_code == 403
    assert "signs in with a password here" in refused.text
    assert Browser(app).sign_in("ann").status_code == 303


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Анна", "a b", "<b>x</b>", "../x", "x" * 64, "{0}"])
def test_names_that_no_account_can_have(
    app: Flask, provider: OpenIdProvider, people: PeopleStore, name: str
) -> None:
    refused = sign_in(Browser(app), provider, preferred_username=name)
    assert refused.status_code == 403
    assert "<b>x" not in refused.text
    assert people.accounts() == ()


def test_an_account_is_kept_for_somebody(app: Flask, provider: OpenIdProvider, people: PeopleStore) -> None:
    people.add("ann", time.time(), "https://other.example.org")
    assert sign_in(Browser(app), provider).status_code == 403
    people.release("ann")
    people.grant(Grant("ann", Role.VIEWER, "demo"))
    assert sign_in(Browser(app), provider).status_code == 303
    assert people.accounts()[0].issuer == provider.url
    assert grants(people) == [("viewer", "demo", "")]


def test_claims_that_only_the_user_info_has(
    make: Callable[..., Flask], provider: OpenIdProvider, people: PeopleStore
) -> None:
    app = make(username_claim="nickname", groups_claim="realm.groups")
    provider.users = {"4711": {"sub": "4711", "nickname": "nick", "realm": {"groups": ["staff"]}}}
    assert sign_in(Browser(app), provider).status_code == 303
    assert [each.name for each in people.accounts()] == ["nick"]
    assert grants(people) == [("viewer", "", "staff")]
    provider.users = {"4711": {"sub": "somebody-else", "nickname": "nick"}}
    assert sign_in(Browser(app), provider).status_code == 403


# --- roles by groups ----------------------------------------------------------------------------------------------


def test_groups_give_roles_until_they_are_lost(
    app: Flask, provider: OpenIdProvider, people: PeopleStore
) -> None:
    browser = Browser(app)
    sign_in(browser, provider, groups=["lab", "ops", "Staff", "unknown", 7, None])
    assert grants(people) == [("developer", "pu-lab-*", "lab"), ("admin", "", "ops")]
    assert browser.open("/-/audit").status_code == 200
    people.grant(Grant("ann", Role.DEVELOPER, "demo"))
    sign_in(Browser(app), provider, groups="staff")
    assert grants(people) == [("developer", "demo", ""), ("viewer", "", "staff")]
    assert browser.open("/-/audit").status_code == 403  # in the earlier session, too
    sign_in(Browser(app), provider)
    assert grants(people) == [("developer", "demo", "")]
    told = [each.detail for each in reversed(people.acts()) if each.act == "roles by groups"]
    assert told == ["+admin, +developer pu-lab-*", "+viewer, -admin, -developer pu-lab-*", "-viewer"]


def test_a_group_of_somebody_who_stays_away_is_forgotten(
    make: Callable[..., Flask], provider: OpenIdProvider, people: PeopleStore
) -> None:
    app = make({"group_lifetime": 60.0})
    sign_in(Browser(app), provider, groups=["ops"])
    now = time.time()
    assert people.grants(now + 50) != ()
    assert people.grants(now + 61) == ()


def test_only_members_of_a_group_may_sign_in(
    make: Callable[..., Flask], provider: OpenIdProvider, people: PeopleStore
) -> None:
    app = make(allowed_groups=("staff",))
    browser = Browser(app)
    refused = sign_in(Browser(app), provider, groups=["lab"])
    assert (refused.status_code, "no group" in refused.text) == (403, True)
    assert people.accounts() == ()
    assert sign_in(browser, provider, groups=["staff"]).status_code == 303
    assert sign_in(Browser(app), provider, groups=["lab"]).status_code == 403
    assert browser.open("/-/apps").status_code == 303  # who left the group is signed out everywhere
    assert grants(people) == []


# --- what must not get in -----------------------------------------------------------------------------------------


NOW = time.time
FORGERIES: dict[str, Callable[[OpenIdProvider, dict[str, Any]], bytes]] = {
    "unsigned": lambda _, claims: forged({"alg": "none", "kid": KEY.kid}, claims),
    "the public key as a secret": lambda _, claims: forged(
        {"alg": "HS256", "kid": KEY.kid}, claims, KEY.pem()
    ),
    "the client's secret": lambda _, claims: forged({"alg": "HS256"}, claims, SECRET.encode()),
    "another key": lambda _, claims: sign(OTHER_KEY, claims, kid=KEY.kid),
    "an unknown key": lambda _, claims: sign(OTHER_KEY, claims),
    "another issuer": lambda _, claims: sign(KEY, {**claims, "iss": "https://id.example.org"}),
    "almost the issuer": lambda p, claims: sign(KEY, {**claims, "iss": f"{p.url}/"}),
    "another audience": lambda _, claims: sign(KEY, {**claims, "aud": "other"}),
    "another party": lambda _, claims: sign(KEY, {**claims, "aud": [CLIENT, "other"], "azp": "other"}),
    "two audiences without a party": lambda _, claims: sign(KEY, {**claims, "aud": [CLIENT, "other"]}),
    "another nonce": lambda _, claims: sign(KEY, {**claims, "nonce": "other"}),
    "no nonce": lambda _, claims: sign(KEY, {k: v for k, v in claims.items() if k != "nonce"}),
    "no subject": lambda _, claims: sign(KEY, {k: v for k, v in claims.items() if k != "sub"}),
    "an empty subject": lambda _, claims: sign(KEY, {**claims, "sub": ""}),
    "a subject that is no text": lambda _, claims: forged({"alg": "RS256"}, {**claims, "sub": 4711}),
    "a long subject": lambda _, claims: sign(KEY, {**claims, "sub": "x" * 256}),
    "no expiry": lambda _, claims: sign(KEY, {k: v for k, v in claims.items() if k != "exp"}),
    "expired": lambda _, claims: sign(KEY, {**claims, "exp": int(NOW() - LEEWAY - 2)}),
    "of the future": lambda _, claims: sign(KEY, {**claims, "iat": int(NOW() + LEEWAY + 60)}),
    "not yet": lambda _, claims: sign(KEY, {**claims, "nbf": int(NOW() + LEEWAY + 60)}),
    "of another access token": lambda _, claims: sign(KEY, {**claims, "at_hash": "bm90IHRoaXMgb25lLi4u"}),
    "nonsense": lambda _, claims: b"a.b.c",
    "not even that": lambda _, claims: b"\\u0000",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FORGERIES)
def test_tokens_that_prove_nothing(
    app: Flask, provider: OpenIdProvider, people: PeopleStore, name: str
) -> None:
    provider.tokens = lambda claims: FORGERIES[name](provider, claims)
    browser = Browser(app)
    reply = sign_in(browser, provider)
    assert (reply.status_code, SESSION in browser.cookies()) == (403, False)
    assert "cannot be verified" in reply.text
    assert 'name="password"' in reply.text  # the page stays usable
    assert people.accounts() == ()


@pytest.mark.parametrize("skew", [-LEEWAY + 5, LEEWAY - 5])
def test_clocks_may_differ_a_little(app: Flask, provider: OpenIdProvider, skew: float) -> None:
    now = int(time.time() + skew)
    expiry = int(time.time() - LEEWAY + 5) if skew < 0 else now + 60
    assert sign_in(Browser(app), provider, iat=now - 1, nbf=now - 1, exp=expiry).status_code == 303


def test_a_code_is_good_once(app: Flask, provider: OpenIdProvider) -> None:
    """Not even where the first use failed, and the cookie is still there."""
    browser = Browser(app)
    request = begin(browser)
    place = local(provider.answer(request, preferred_username="ann"))
    cookie = browser.cookies()[LOGIN]
    assert browser.open(place).status_code == 303
    replayed = Browser(app)
    assert replayed.open(place).status_code == 403
    replayed.put_cookie(LOGIN, cookie)
    reply = replayed.open(place)
    assert (reply.status_code, SESSION in replayed.cookies()) == (403, False)


def test_a_stolen_code_is_of_no_use(app: Flask, provider: OpenIdProvider) -> None:
    """Somebody takes the code of another browser's sign-in and gives it to their own: the verifier does not fit."""
    victim, thief = Browser(app), Browser(app)
    code = provider.sign_in(begin(victim), preferred_username="ann")
    own = begin(thief)
    reply = thief.open(f"/-/login/oidc/lab/callback?code={code}&state={own.state}")
    assert (reply.status_code, SESSION in thief.cookies()) == (403, False)
    assert provider.granted == [] or all(form["code"] != code for form in provider.granted)


def test_nobody_signs_another_browser_in(app: Flask, provider: OpenIdProvider) -> None:
    attacker, victim = Browser(app), Browser(app)
    begin(victim)
    place = local(provider.answer(begin(attacker), preferred_username="eve"))
    reply = victim.open(place)
    assert (reply.status_code, SESSION in victim.cookies()) == (403, False)
    assert "did not begin in this browser" in reply.text
    assert attacker.open(place).status_code == 303  # the code was not used up by it


def altered(state: str, place: int, text: str) -> str:
    parts = state.split(".")
    parts[place] = text
    return ".".join(parts)


STATES: dict[str, Callable[[str], str]] = {
    "none": lambda _: "",
    "of somebody": lambda _: "x",
    "longer life": lambda state: altered(state, 0, "9999999999"),
    "another random part": lambda state: altered(state, 1, "x"),
    "another place": lambda state: altered(state, 2, "L2V2aWw"),
    "no proof": lambda state: altered(state, 3, ""),
    "another proof": lambda state: altered(state, 3, "0" * 64),
    "fewer parts": lambda state: state.rpartition(".")[0],
    "more parts": lambda state: f"{state}.x",
    "very long": lambda state: state + "x" * 5000,
    "no ASCII": lambda state: f"{state}é",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STATES)
def test_a_state_that_we_did_not_make(app: Flask, provider: OpenIdProvider, name: str) -> None:
    browser = Browser(app)
    request = begin(browser)
    code = provider.sign_in(request, preferred_username="ann")
    reply = browser.open(f"/-/login/oidc/lab/callback?code={code}&state={STATES[name](request.state)}")
    assert (reply.status_code, SESSION in browser.cookies()) == (403, False)
    assert browser.open(f"/-/login/oidc/lab/callback?code={code}&state={request.state}").status_code == 303


def test_a_sign_in_that_took_too_long(provider: OpenIdProvider, settings: Settings) -> None:
    clock = [time.time()]
    one = alone(settings, clock=lambda: clock[0])
    request = Request.of(one.begin("cookie", "/-/apps"))
    clock[0] += SIGN_IN_TIMEOUT + 1
    with pytest.raises(OpenIdRefused) as refused:
        one.finish("cookie", {"state": request.state, "code": provider.sign_in(request)})
    assert refused.value.refusal is SignInRefusal.ELSEWHERE


def test_two_issuers_are_not_mixed_up(
    make: Callable[..., Flask], settings: Settings, provider: OpenIdProvider
) -> None:
    """One issuer is an attacker's: it answers a sign-in at the other one, or has its own answered by that one."""
    with openid_provider() as evil:
        issuer = replace(settings.sign_in.oidc[0], name="evil", issuer=evil.url, client_secret=Secret(SECRET))
        app = make({"oidc": (settings.sign_in.oidc[0], issuer)})
        browser = Browser(app)
        honest, other = begin(browser), begin(browser, name="evil")
        assert honest.back != other.back
        code = provider.sign_in(honest, preferred_username="ann")
        for state in (honest.state, other.state):  # the honest code is brought to the attacker
            reply = browser.open(f"/-/login/oidc/evil/callback?code={code}&state={state}")
            assert (reply.status_code, SESSION in browser.cookies()) == (403, False)
        evil.tokens = lambda claims: sign(evil.key, {**claims, "iss": provider.url})
        reply = browser.open(local(evil.answer(begin(browser, name="evil"))))
        assert (reply.status_code, "cannot be verified" in reply.text) == (403, True)
        evil.tokens = evil.signed
        sign_in(Browser(app), provider, "1")
        taken = Browser(app)
        reply = taken.open(local(evil.answer(begin(taken, name="evil"), "1", preferred_username="ann")))
        assert (reply.status_code, SESSION in taken.cookies()) == (403, False)  # one subject at two issuers


def test_an_answer_that_names_its_issuer(make: Callable[..., Flask], provider: OpenIdProvider) -> None:
    provider.metadata = {"authorization_response_iss_parameter_supported": True}
    provider.publish()
    app = make()
    for iss, status in (("", 403), ("&iss=https://evil.example", 403), (f"&iss={provider.url}", 303)):
        browser = Browser(app)
        place = local(provider.answer(begin(browser), preferred_username="ann"))
        assert browser.open(place + iss).status_code == status, iss


def test_somebody_who_does_not_agree(app: Flask, provider: OpenIdProvider) -> None:
    browser = Browser(app)
    request = begin(browser)
    text = "error=access_denied&error_description=Call+0900-EVIL"
    reply = browser.open(f"/-/login/oidc/lab/callback?{text}&state={request.state}")
    assert (reply.status_code, "did not sign you in" in reply.text) == (403, True)
    assert "EVIL" not in reply.text
    assert request.state not in reply.text  # not in the links to other languages either
    without = browser.open(f"/-/login/oidc/lab/callback?state={begin(browser).state}")
    assert without.status_code == 403


@pytest.mark.parametrize(
    "sent",
    [
        {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
        {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    ],
    ids=repr,
)
def test_scripts_and_frames_sign_nobody_in(
    app: Flask, provider: OpenIdProvider, sent: dict[str, str]
) -> None:
    browser = Browser(app)
    place = local(provider.answer(begin(browser), preferred_username="ann"))
    assert browser.open("/-/login/oidc/lab", **sent).status_code == 403
    assert browser.open(place, **sent).status_code == 403
    assert SESSION not in browser.cookies()
    assert browser.open(place).status_code == 303


def test_a_look_at_the_header_uses_nothing_up(app: Flask, provider: OpenIdProvider) -> None:
    browser = Browser(app)
    place = local(provider.answer(begin(browser), preferred_username="ann"))
    assert browser._client.head(place).status_code == 204
    assert browser._client.head("/-/login/oidc/lab").status_code == 204
    assert browser.open(place).status_code == 303


@pytest.mark.parametrize(
    "place", ["//evil.example", "https://evil.example", "/-/login/oidc/lab", "/evil", ""]
)
def test_afterwards_one_stays_here(app: Flask, provider: OpenIdProvider, place: str) -> None:
    browser = Browser(app)
    reply = browser.open(local(provider.answer(begin(browser, place), preferred_username="ann")))
    assert (reply.status_code, reply.location) == (303, "/-/")


def test_no_cookie_from_before_becomes_a_session(app: Flask, provider: OpenIdProvider) -> None:
    browser = Browser(app)
    for name in (SESSION, LOGIN):
        browser.put_cookie(name, "known-to-the-attacker")
    sign_in(browser, provider)
    assert browser.cookies()[SESSION] != "known-to-the-attacker"
    first = browser.cookies()[SESSION]
    sign_in(browser, provider)
    assert browser.cookies()[SESSION] != first
    other = Browser(app)
    other.put_cookie(SESSION, first)
    assert other.open("/-/apps").status_code == 303


def test_who_fails_often_has_to_wait(app: Flask, provider: OpenIdProvider) -> None:
    browser = Browser(app)
    request = begin(browser)
    for _ in range(BY_NAME.burst):
        assert browser.open("/-/login/oidc/lab/callback?state=x&code=x").status_code == 403
    reply = browser.open(local(provider.answer(request, preferred_username="ann")))
    assert (reply.status_code, int(reply.headers["Retry-After"]) > 0) == (429, True)
    assert sign_in(Browser(app), provider).status_code == 303  # others are not locked out


def test_failures_are_in_the_log_once_each(
    app: Flask, provider: OpenIdProvider, caplog: pytest.LogCaptureFixture
) -> None:
    sign_in(Browser(app), provider, "1")
    Browser(app).open("/-/login/oidc/lab/callback?state=x&code=x")
    sign_in(Browser(app), provider, "2")
    lines = [each for each in caplog.records if each.name == "prichal.auth"]
    assert [(each.__dict__["scheme"], each.__dict__["user"]) for each in lines] == [
        ("openid", "-"),
        ("openid", "ann"),
    ]


# --- an issuer that is not well -----------------------------------------------------------------------------------


def broken(
    path: str, status: int = 200, body: bytes = b"", **headers: str
) -> Callable[[OpenIdProvider], None]:
    def put(provider: OpenIdProvider) -> None:
        provider.answers[f"{provider.realm}{path}"] = (status, headers, body)

    return put


def said(**metadata: Any) -> Callable[[OpenIdProvider], None]:
    def put(provider: OpenIdProvider) -> None:
        provider.metadata = metadata
        provider.publish()

    return put


DISCOVERY = "/.well-known/openid-configuration"
BEFORE: dict[str, Callable[[OpenIdProvider], None]] = {
    "an error": broken(DISCOVERY, 500),
    "nothing": broken(DISCOVERY, 404),
    "no JSON": broken(DISCOVERY, 200, b"<html>"),
    "no object": broken(DISCOVERY, 200, b"[]"),
    "too much": broken(DISCOVERY, 200, b" " * 300_000),
    "elsewhere": broken(DISCOVERY, 302, Location="https://evil.example/"),
    "of another issuer": said(issuer="https://evil.example"),
    "a script": said(authorization_endpoint="javascript:alert(1)"),
    "plain": said(authorization_endpoint="http://id.example.org/authorize"),
    "no endpoint": said(authorization_endpoint=None),
    "no keys": said(jwks_uri=None),
    "keys that are none": broken("/keys", 200, b'{"keys": [{"kty": "oct", "k": "x"}]}'),
}


def alone(settings: Settings, slots: int = 4, **clocks: Any) -> OpenIdSignIn:
    """The sign-in with the issuer, without pages."""
    people, shared = PeopleStore(settings.people), threading.BoundedSemaphore(slots)
    return OpenIdSignIn(settings.sign_in.oidc[0], "http://localhost/x", people, 60.0, shared, **clocks)


@pytest.mark.slow
@pytest.mark.parametrize("name", BEFORE)
def test_before_one_goes_there(settings: Settings, provider: OpenIdProvider, name: str) -> None:
    BEFORE[name](provider)
    with pytest.raises(OpenIdRefused) as refused:
        alone(settings).begin("cookie", "/-/")
    assert refused.value.refusal is SignInRefusal.UNREACHABLE


def test_the_page_stays_usable(make: Callable[..., Flask], provider: OpenIdProvider) -> None:
    app = make()
    provider.stop()
    browser = Browser(app)
    try:
        reply = browser.open("/-/login/oidc/lab?next=/-/apps")
    finally:
        provider.start()
    assert (reply.status_code, "does not answer, or not as it should" in reply.text) == (503, True)
    assert 'name="next" value="/-/apps"' in reply.text
    add_person(people_context(app).store, "bob")
    assert browser.sign_in("bob").status_code == 303


AFTER: dict[str, Callable[[OpenIdProvider], None]] = {
    "an error": broken("/token", 500, b"{}"),
    "no JSON": broken("/token", 200, b"<html>"),
    "no object": broken("/token", 200, b"[]"),
    "no tokens": broken("/token", 200, b"{}"),
    "numbers": broken("/token", 200, b'{"id_token": 1, "access_token": 2}'),
    "expiry": broken("/token", 200, b'{"id_token": "a", "access_token": "b", "expires_in": "soon"}'),
    "too much": broken("/token", 200, b" " * 300_000),
    "elsewhere": broken("/token", 302, Location="https://evil.example/"),
    "refused": broken("/token", 401, b'{"error": "invalid_client"}'),
    "strange": broken("/token", 400, b'{"error": {"a": 1}, "error_description": []}'),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", AFTER)
def test_after_one_comes_back(app: Flask, provider: OpenIdProvider, name: str) -> None:
    browser = Browser(app)
    request = begin(browser)
    place = local(provider.answer(request, preferred_username="ann"))
    AFTER[name](provider)
    reply = browser.open(place)
    assert (reply.status_code, SESSION in browser.cookies()) == (503, False)
    assert 'name="password"' in reply.text


def test_new_keys_are_fetched_and_an_issuer_that_is_back_is_found(
    provider: OpenIdProvider, settings: Settings
) -> None:
    passing = [0.0]
    one = alone(settings, passing=lambda: passing[0])

    def sign_in(sub: str) -> str:
        request = Request.of(one.begin("cookie", "/-/"))
        code = provider.sign_in(request, sub, preferred_username=f"user-{sub}")
        return one.finish("cookie", {"state": request.state, "code": code}).person.name

    provider.stop()
    with pytest.raises(OpenIdRefused):
        one.begin("cookie", "/-/")
    provider.start()
    with pytest.raises(OpenIdRefused):  # it is not asked at each click
        one.begin("cookie", "/-/")
    passing[0] += RETRY
    assert sign_in("1") == "user-1"
    provider.key = OTHER_KEY
    provider.publish()
    try:
        with pytest.raises(OpenIdRefused):
            sign_in("1")
        passing[0] += RETRY
        assert sign_in("1") == "user-1"
    finally:
        provider.key = KEY


def test_a_slow_issuer_holds_a_few_threads(provider: OpenIdProvider, settings: Settings) -> None:
    one = alone(settings, slots=1)
    assert one._shared.acquire(blocking=False)
    with pytest.raises(OpenIdRefused) as refused:
        one.begin("cookie", "/-/")
    assert refused.value.refusal is SignInRefusal.BUSY
    one._shared.release()
    assert one.begin("cookie", "/-/").startswith(provider.url)


# --- without passwords --------------------------------------------------------------------------------------------


def test_without_passwords(make: Callable[..., Flask], provider: OpenIdProvider, people: PeopleStore) -> None:
    app = make({"passwords": False})
    add_person(people, "bob")
    people.put_link("bob", "the-code", time.time() + 60)
    browser = Browser(app)
    page = browser.open("/-/login")
    assert ("Sign in with" in page.text, 'name="password"' in page.text) == (True, False)
    form = {"form": "0" * 64, "name": "bob", "password": "correct horse battery"}
    assert browser.submit("/-/login", form).status_code == 403
    assert (
        browser.submit("/-/login", {**form, "code": "the-code", "again": form["password"]}).status_code == 403
    )
    assert people.link_user("the-code", time.time()) == "bob"
    known = people_context(app).sign_in  # also for what else asks it for passwords
    assert known.by_password("192.0.2.1", "bob", form["password"]) is None
    assert known.by_link("192.0.2.1", "the-code", form["password"]) is None
    assert sign_in(browser, provider).status_code == 303


# --- the issuer says that a session has ended -------------------------------------------------------------------------

EVENTS: dict[str, Any] = {"http://schemas.openid.net/event/backchannel-logout": {}}


def logout_token(provider: OpenIdProvider, **claims: Any) -> bytes:
    """Claims that are None are left out."""
    about = {"aud": CLIENT, "events": EVENTS, "jti": f"j{time.monotonic_ns()}", **claims}
    return sign(provider.key, claims_of(provider.url, **about))


def tell(app: Flask, token: bytes, name: str = "lab") -> Any:
    """The issuer itself makes the request: no browser, no cookie."""
    return app.test_client().post(f"/-/login/oidc/{name}/logout", data={"logout_token": token.decode()})


def signed_in(app: Flask, provider: OpenIdProvider, sub: str, name: str, sid: str = "") -> Browser:
    browser = Browser(app)
    sign_in(browser, provider, sub, preferred_username=name, **({"sid": sid} if sid else {}))
    assert is_in(browser)
    return browser


def is_in(browser: Browser) -> bool:
    return bool(browser.open("/-/sessions").status_code == 200)


@pytest.mark.parametrize(
    ("claims", "left"),
    [
        ({"sub": "4711"}, [False, False, True]),
        ({"sub": "4711", "sid": "s1"}, [False, True, True]),
        ({"sub": None, "sid": "s2"}, [True, False, True]),
        ({"sub": "4712", "sid": "s1"}, [True, True, False]),  # of this session the issuer has said no id
        ({"sub": "nobody"}, [True, True, True]),
    ],
)
def test_an_issuer_ends_sessions(
    app: Flask, provider: OpenIdProvider, people: PeopleStore, claims: dict[str, Any], left: list[bool]
) -> None:
    """Of a subject, or one by its id; sessions with a password and of others stay, and so do tokens."""
    browsers = [
        signed_in(app, provider, "4711", "ann", "s1"),
        signed_in(app, provider, "4711", "ann", "s2"),
        signed_in(app, provider, "4712", "bob"),
    ]
    add_token(people, "ann")
    reply = tell(app, logout_token(provider, **claims))
    assert (reply.status_code, reply.headers["Cache-Control"]) == (200, "no-store")
    assert [is_in(browser) for browser in browsers] == left
    acts = [act for act in people.acts() if act.act == "logout"]
    assert [act.via for act in acts] == ["openid"] * left.count(False)
    assert len(people.tokens("ann")) == 1


@pytest.mark.parametrize(
    ("claims", "left"),
    [
        ({"sub": "4711", "sid": "s1"}, [False, False, True]),
        ({"sub": "4711"}, [False, False, False]),
        ({"sub": None, "sid": "s1"}, [True, True, True]),
        ({"sub": "4712", "sid": "s1"}, [True, True, True]),
    ],
)
def test_sessions_of_whose_ids_the_issuer_has_said_nothing(
    app: Flask, provider: OpenIdProvider, claims: dict[str, Any], left: list[bool]
) -> None:
    """With subject and id, any of the subject's may be meant."""
    browsers = [
        signed_in(app, provider, "4711", "ann"),
        signed_in(app, provider, "4711", "ann"),
        signed_in(app, provider, "4711", "ann", "s2"),
    ]
    assert tell(app, logout_token(provider, **claims)).status_code == 200
    assert [is_in(browser) for browser in browsers] == left


@pytest.mark.parametrize("sid", ["", "s1"])
@pytest.mark.parametrize(
    ("claims", "ends"),
    [
        ({"sub": "4711"}, True),
        ({"sub": "4711", "sid": "s1"}, True),
        ({"sub": None, "sid": "s1"}, None),  # only if the ID token has the id
        ({"sub": "4711", "sid": "s2"}, False),
        ({"sub": "4712", "sid": "s1"}, False),
        ({"sub": "4712"}, False),
    ],
)
def test_a_logout_that_arrives_before_the_session_is_saved(
    app: Flask,
    provider: OpenIdProvider,
    people: PeopleStore,
    sid: str,
    claims: dict[str, Any],
    ends: bool | None,
) -> None:
    """It arrives while the issuer makes the tokens."""
    browser, replies = Browser(app), []

    def tokens(about: dict[str, Any]) -> bytes:
        replies.append(tell(app, logout_token(provider, **claims)).status_code)
        return provider.signed(about)

    provider.tokens = tokens
    reply = sign_in(browser, provider, **({"sid": sid} if sid else {}))
    if ends is None:
        ends = bool(sid)
    if claims.get("sid") == "s2" and not sid:
        ends = True  # its session may be the one
    assert replies == [200]
    assert (reply.status_code, is_in(browser)) == ((403, False) if ends else (303, True))
    if ends:
        assert "your session there has ended meanwhile" in reply.text
        assert ("ann", "login refused", "ann ended at the issuer meanwhile") in [
            (act.who, act.act, act.detail) for act in people.acts()
        ]
    provider.tokens = provider.signed
    again = signed_in(app, provider, "4711", "ann", "s3" if sid else "")
    assert is_in(again), "what they do afterwards counts"


def test_a_logout_token_counts_once(app: Flask, provider: OpenIdProvider) -> None:
    """Somebody who has seen one cannot end later sessions with it."""
    signed_in(app, provider, "4711", "ann")
    token = logout_token(provider)
    assert tell(app, token).status_code == 200
    again = signed_in(app, provider, "4711", "ann")
    assert tell(app, token).status_code == 400
    assert is_in(again)


@pytest.mark.parametrize(
    "claims",
    [
        {"events": None},
        {"events": {}},
        {"events": []},
        {"events": {"http://schemas.openid.net/event/backchannel-logout": True}},
        {"nonce": "n"},
        {"jti": None},
        {"jti": ""},
        {"jti": "x" * 256},
        {"jti": 7},
        {"sub": None},
        {"sub": ""},
        {"sub": 4711},
        {"sid": 7},
        {"sid": "x" * 256},
        {"sid": ""},
        {"iat": None},
        {"iat": 3600},
        {"exp": None},
        {"exp": -3600},
        {"aud": "somebody else"},
        {"iss": "https://else.example.org"},
    ],
    ids=str,
)
def test_logout_tokens_that_prove_nothing(
    app: Flask, provider: OpenIdProvider, claims: dict[str, Any]
) -> None:
    """Times are seconds from now."""
    browser = signed_in(app, provider, "4711", "ann")
    now = int(time.time())
    claims = {
        name: now + value if name in ("iat", "exp") and value else value for name, value in claims.items()
    }
    assert tell(app, logout_token(provider, **claims)).status_code == 400
    assert is_in(browser)


def test_nobody_else_ends_sessions(app: Flask, provider: OpenIdProvider) -> None:
    """An ID token does not count as a logout token, and neither does what another key has signed, or nobody."""
    browser = signed_in(app, provider, "4711", "ann")
    claims = {"sub": "4711", "aud": CLIENT, "events": EVENTS, "jti": "j", "iat": int(time.time())}
    about = claims_of(provider.url, **claims)
    for token in (
        sign(signing_key("other"), about),
        forged({"alg": "none"}, about),
        forged({"alg": "HS256"}, about, provider.key.pem()),
        b"",
        b"x" * 100_000,
        sign(provider.key, claims_of(provider.url, sub="4711", aud=CLIENT, nonce="n")),
    ):
        assert tell(app, token).status_code == 400
    assert app.test_client().post("/-/login/oidc/else/logout").status_code == 404
    assert is_in(browser)
