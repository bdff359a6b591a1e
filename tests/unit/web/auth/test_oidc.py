"""Bearer tokens of OpenID Connect: every way in which one is not good, whom a good one names, how long it counts."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.security import generate_password_hash

from controller.domain.routing.passwords import hash_token
from controller.web.auth import authenticate
from controller.web.auth.authenticate import AuthenticatedCaller, Authenticator
from controller.web.auth.discovery import read_keys
from controller.web.auth.oidc import (
    CLIENTS,
    LEEWAY,
    TokenRefusal,
    VerifiedToken,
    has_claim,
    read_header,
    user_of,
    verify,
)
from controller.web.gateway.router import Router, UpstreamTarget
from controller.web.problems import HttpProblem, ProblemKind
from tests.support.authenticating import Clock, identify
from tests.support.gateway import make_api, make_route
from tests.support.issuer import Issuer, claims_of, encoded, forged, issuer, sign, signing_key

URL = "https://id.example.org/realm"
RULES: dict[str, Any] = {"oidc_issuer": URL, "oidc_audience": "demo"}
KEY, OTHER = signing_key("first"), signing_key("second")


class FromNow(float):
    """Seconds from the moment in which the token is made, however long after the collection of tests that is."""


def check(claims: dict[str, Any], **rules: Any) -> VerifiedToken | TokenRefusal:
    claims = {k: time.time() + v if isinstance(v, FromNow) else v for k, v in claims.items()}
    key = read_keys({"keys": [KEY.jwk()]}).find("RS256", "first")
    assert key is not None
    return verify(make_api(**{**RULES, **rules}), sign(KEY, claims_of(URL, **claims)), key)


# --- claims -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"aud": ["other", "demo"]},
        {"aud": "web"},
        {"azp": "web"},
        {"nbf": FromNow(-5)},
        {"exp": FromNow(-LEEWAY / 2)},
        {"nbf": FromNow(LEEWAY / 2)},
        {"iat": FromNow(LEEWAY / 2)},
    ],
)
def test_good_claims(claims: dict[str, Any]) -> None:
    found = check(claims, oidc_client="web")
    assert isinstance(found, VerifiedToken)
    assert found.user == "4711"


@pytest.mark.parametrize(
    ("claims", "refusal"),
    [
        ({"exp": FromNow(-LEEWAY - 5)}, TokenRefusal.EXPIRED),
        ({"exp": None}, TokenRefusal.INVALID),
        ({"exp": "soon"}, TokenRefusal.INVALID),
        ({"exp": 1e400}, TokenRefusal.INVALID),
        ({"nbf": FromNow(3600)}, TokenRefusal.INVALID),
        ({"iat": FromNow(3600)}, TokenRefusal.INVALID),
        ({"iss": None}, TokenRefusal.INVALID),
        ({"iss": URL + "/"}, TokenRefusal.INVALID),
        ({"iss": URL.upper()}, TokenRefusal.INVALID),
        ({"aud": None}, TokenRefusal.INVALID),
        ({"aud": []}, TokenRefusal.INVALID),
        ({"aud": "demo2"}, TokenRefusal.INVALID),
        ({"aud": {"demo": 1}}, TokenRefusal.INVALID),
        ({"azp": "another"}, TokenRefusal.INVALID),
        ({"client_id": "another"}, TokenRefusal.INVALID),
        ({"azp": "web", "client_id": "another"}, TokenRefusal.INVALID),
        ({"client_id": "web", "azp": "another"}, TokenRefusal.INVALID),
        ({"aud": "web", "client_id": "another"}, TokenRefusal.INVALID),
        ({"client_id": ["web"]}, TokenRefusal.INVALID),
        ({"client_id": ""}, TokenRefusal.INVALID),
        ({"cid": "another"}, TokenRefusal.INVALID),
        ({"appid": "another"}, TokenRefusal.INVALID),
        ({"sub": None}, TokenRefusal.INVALID),
        ({"sub": ""}, TokenRefusal.INVALID),
    ],
)
def test_bad_claims(claims: dict[str, Any], refusal: TokenRefusal) -> None:
    assert check(claims, oidc_client="web") is refusal


@pytest.mark.parametrize("name", CLIENTS)
def test_the_client_by_every_name(name: str) -> None:
    assert isinstance(check({name: "web"}, oidc_client="web"), VerifiedToken)
    assert isinstance(check({name: "anything"}), VerifiedToken)


def test_a_client_is_no_audience_unless_it_is_configured() -> None:
    assert check({"aud": "web"}) is TokenRefusal.INVALID
    assert isinstance(check({"azp": "anything"}), VerifiedToken)


@pytest.mark.parametrize(
    ("claims", "user"),
    [
        ({"preferred_username": "ann", "email": "ann@example.org", "sub": "1"}, "ann"),
        ({"email": "ann@example.org", "sub": "1"}, "1"),
        ({"email": "ann@example.org"}, None),
        ({"email": "ann@example.org", "email_verified": True, "sub": "1"}, "ann@example.org"),
        ({"email": "ann@example.org", "email_verified": False, "sub": "1"}, "1"),
        ({"email": "ann@example.org", "email_verified": "false", "sub": "1"}, "1"),
        ({"preferred_username": "", "email": " ", "sub": "1"}, "1"),
        ({"preferred_username": ["ann"], "sub": "1"}, "1"),
        ({"preferred_username": "\ud800", "sub": "1"}, "1"),
        ({"preferred_username": "böb"}, "böb"),
        ({}, None),
    ],
)
def test_whom_a_token_names(claims: dict[str, Any], user: str | None) -> None:
    assert user_of(claims) == user


@pytest.mark.parametrize(
    ("claim", "user"),
    [
        ("sub", "1"),
        ("name.first", "Ann"),
        ("email", None),
        ("nickname", None),
        ("groups", None),
        ("preferred_username", "ann"),
    ],
)
def test_the_manifest_names_the_claim_and_there_is_no_other(claim: str, user: str | None) -> None:
    claims = {
        "preferred_username": "ann",
        "sub": "1",
        "name": {"first": "Ann"},
        "email": "a@b",
        "groups": ["x"],
    }
    assert user_of(claims, claim) == user
    assert user_of({**claims, "email_verified": True}, "email") == "a@b"


@pytest.mark.parametrize(
    ("claim", "value", "has"),
    [
        ("lab", "lab", True),
        (["x", "lab"], "lab", True),
        ("laboratory", "lab", False),
        (["laboratory"], "lab", False),
        (True, "true", True),
        ([7], "7", True),
        (None, "lab", False),
        ({"lab": 1}, "lab", False),
    ],
)
def test_required_claims(claim: object, value: str, has: bool) -> None:
    assert has_claim({"group": claim}, "group", value) is has


NESTED = {
    "realm_access": {"roles": ["lab", "user"]},
    "resource_access": {"models.example.org": {"roles": ["lab"]}, "a\\b": "lab"},
    "https://example.org/roles": ["lab"],
    "scope": "openid lab",
    "group": "openid lab",
    "a.b": "whole",
    "a": {"b": "path"},
    "nothing": None,
}


@pytest.mark.parametrize(
    ("name", "value", "has"),
    [
        ("realm_access.roles", "lab", True),
        ("realm_access.roles", "lab2", False),
        ("realm_access", "lab", False),
        ("realm_access.roles.lab", "lab", False),
        ("realm_access.none", "null", False),
        ("none", "null", False),
        ("nothing", "null", True),
        (r"resource_access.models\.example\.org.roles", "lab", True),
        ("resource_access.models.example.org.roles", "lab", False),
        (r"resource_access.a\\b", "lab", True),
        ("https://example.org/roles", "lab", True),
        (r"https://example\.org/roles", "lab", True),
        ("a.b", "whole", True),
        ("a.b", "path", False),
        ("scope", "lab", True),
        ("scope", "openid lab", True),
        ("scope", "open", False),
        ("group", "lab", False),
        ("", "null", False),
        (".", "null", False),
        ("realm_access.", "lab", False),
        ("realm_access\\", "lab", False),
    ],
)
def test_claims_within_claims(name: str, value: str, has: bool) -> None:
    assert has_claim(NESTED, name, value) is has


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4))
def test_every_claim_can_be_addressed(names: list[str]) -> None:
    claims: Any = "lab"
    for name in reversed(names):
        claims = {name: claims}
    escaped = ".".join(name.replace("\\", "\\\\").replace(".", "\\.") for name in names)
    assert has_claim(claims, escaped, "lab")


def test_every_required_claim_counts() -> None:
    rules: dict[str, Any] = {"oidc_claims": (("group", "lab"), ("level", "2"))}
    assert isinstance(check({"group": ["lab"], "level": 2}, **rules), VerifiedToken)
    assert check({"group": ["lab"]}, **rules) is TokenRefusal.NOT_ENTITLED
    assert check({"group": ["lab"], "level": 2, "exp": FromNow(-3600)}, **rules) is TokenRefusal.EXPIRED


# --- headers and signatures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"opaque",
        b"a.b.c",
        b"..",
        b"\xff.\xff.\xff",
        forged({"alg": "none"}, claims_of(URL)),
        forged({"alg": "None", "kid": "first"}, claims_of(URL)),
        forged({"kid": "first"}, claims_of(URL)),
        forged({"alg": ["RS256"]}, claims_of(URL)),
        forged({"alg": "HS256", "kid": "first"}, claims_of(URL), KEY.pem()),
        forged({"alg": "ES256K", "kid": "first"}, claims_of(URL)),
        forged({"alg": "RS256", "kid": 1}, claims_of(URL)),
        forged({"alg": "RS256", "crit": ["x"]}, claims_of(URL)),
        encoded(b"[" * 5000) + b".e30.AA",
    ],
)
def test_headers_that_no_key_fits(token: bytes) -> None:
    assert read_header(token) is None


@pytest.mark.parametrize("algorithm", ["RS256", "PS384", "ES256", "ES384", "ES512", "EdDSA"])
def test_signatures(algorithm: str) -> None:
    mine, another = signing_key("mine", algorithm), signing_key("another", algorithm)
    key = read_keys({"keys": [mine.jwk()]}).find(algorithm, "mine")
    assert key is not None
    api, claims = make_api(**RULES), claims_of(URL)
    good = sign(mine, claims)
    assert isinstance(verify(api, good, key), VerifiedToken)
    header, _, signature = good.split(b".")
    for bad in (
        sign(another, claims, kid="mine"),
        b".".join((header, encoded(claims_of(URL, sub="root")), signature)),
        header + b"." + encoded(claims) + b".",
        forged({"alg": "HS256", "kid": "mine"}, claims, mine.pem()),
        forged({"alg": "none", "kid": "mine"}, claims),
    ):
        assert verify(api, bad, key) is TokenRefusal.INVALID


# --- with an issuer -----------------------------------------------------------------------------------------------


@pytest.fixture
def running() -> Iterator[Issuer]:
    with issuer(KEY) as found:
        yield found


def target(running: Issuer, **fields: Any) -> UpstreamTarget:
    api = make_api(**{"oidc_issuer": running.url, "oidc_audience": "demo", **fields})
    return next(iter(Router.build(1, [make_route(api)]).targets.values()))


def bearer(running: Issuer, **claims: Any) -> bytes:
    return b"Bearer " + sign(KEY, claims_of(running.url, **claims))


def test_what_a_refusal_tells(running: Issuer) -> None:
    goal = target(running, oidc_claims=(("group", "lab"),))
    missing, expired, invalid, wrong_audience, unentitled = identify(
        goal, None, bearer(running, exp=1), b"Bearer x.y.z", bearer(running, aud="else"), bearer(running)
    )
    realm = 'Bearer realm="/demo/image"'
    assert missing == HttpProblem(
        ProblemKind.UNAUTHORIZED, "The credentials are missing or wrong.", challenge=realm
    )
    bad = f'{realm}, error="invalid_token"'
    assert expired == HttpProblem(ProblemKind.INVALID_TOKEN, "The token has expired.", challenge=bad)
    assert invalid == HttpProblem(ProblemKind.INVALID_TOKEN, "The token is not valid here.", challenge=bad)
    assert wrong_audience == invalid
    assert isinstance(unentitled, HttpProblem)
    assert (unentitled.code, unentitled.challenge) == (403, f'{realm}, error="insufficient_scope"')


def test_schemes_side_by_side(running: Issuer) -> None:
    password = generate_password_hash("right", method="pbkdf2:sha256:1")
    goal = target(running, users=(("ann", password),), tokens=(("ci", hash_token("t0ken")),))
    basic = b"Basic " + base64.b64encode(b"ann:right")
    callers = identify(goal, basic, b"Bearer t0ken", bearer(running, sub="eve"), b"Bearer nope")
    assert callers[:3] == [AuthenticatedCaller("ann"), AuthenticatedCaller("ci"), AuthenticatedCaller("eve")]
    assert isinstance(callers[3], HttpProblem)
    assert callers[3].challenge == (
        'Basic realm="/demo/image", charset="UTF-8", Bearer realm="/demo/image", error="invalid_token"'
    )


def test_an_issuer_that_is_away(running: Issuer) -> None:
    running.stop()
    (answer,) = identify(target(running), bearer(running))
    assert isinstance(answer, HttpProblem)
    assert (answer.kind, answer.retry_after) == (ProblemKind.ISSUER, 5)


@pytest.mark.parametrize(("left", "remembered"), [(600, authenticate.REMEMBER), (100, 100)])
def test_how_long_a_token_is_remembered(running: Issuer, left: int, remembered: float) -> None:
    async def run() -> None:
        clock = Clock()
        gate = Authenticator(clock)
        goal, token = target(running), bearer(running, exp=int(time.time()) + left)
        assert gate.recall(goal, token) is None
        assert await gate.identify(goal, token) == AuthenticatedCaller("4711")
        assert gate.recall(goal, token) == AuthenticatedCaller("4711")
        assert gate.recall(target(running, oidc_claims=(("group", "lab"),)), token) is None
        assert gate.recall(target(running, oidc_client="web"), token) is None
        clock.now += remembered
        assert gate.recall(goal, token) is None
        gate.close()

    asyncio.run(run())


def test_a_token_in_its_last_moments_is_not_remembered(running: Issuer) -> None:
    async def run() -> None:
        gate = Authenticator(Clock())
        goal, token = target(running), bearer(running, exp=int(time.time()) - 1)
        assert await gate.identify(goal, token) == AuthenticatedCaller("4711")
        assert gate.recall(goal, token) is None
        gate.close()

    asyncio.run(run())
