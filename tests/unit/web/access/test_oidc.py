"""Bearer tokens of OpenID Connect: every way in which one is not good, whom a good one names, how long it counts."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.security import generate_password_hash

from controller.domain.passwords import hash_token
from controller.web.access import auth
from controller.web.access.auth import Authenticator, Caller
from controller.web.access.issuers import read_keys
from controller.web.access.oidc import LEEWAY, Refusal, Verified, has_claim, read_header, user_of, verify
from controller.web.gateway.decide import RouteTable, Target
from controller.web.problems import Kind, Problem
from tests.support.authenticating import Clock, identify
from tests.support.gateway import make_api, make_route
from tests.support.issuer import Issuer, claims_of, encoded, forged, issuer, sign, signing_key

URL = "https://id.example.org/realm"
RULES: dict[str, Any] = {"oidc_issuer": URL, "oidc_audience": "demo"}
KEY, OTHER = signing_key("first"), signing_key("second")


class FromNow(float):
    """Seconds from the moment in which the token is made, however long after the collection of tests that is."""


def check(claims: dict[str, Any], **rules: Any) -> Verified | Refusal:
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
    assert isinstance(found, Verified)
    assert found.user == "4711"


@pytest.mark.parametrize(
    ("claims", "refusal"),
    [
        ({"exp": FromNow(-LEEWAY - 5)}, Refusal.EXPIRED),
        ({"exp": None}, Refusal.INVALID),
        ({"exp": "soon"}, Refusal.INVALID),
        ({"exp": 1e400}, Refusal.INVALID),
        ({"nbf": FromNow(3600)}, Refusal.INVALID),
        ({"iat": FromNow(3600)}, Refusal.INVALID),
        ({"iss": None}, Refusal.INVALID),
        ({"iss": URL + "/"}, Refusal.INVALID),
        ({"iss": URL.upper()}, Refusal.INVALID),
        ({"aud": None}, Refusal.INVALID),
        ({"aud": []}, Refusal.INVALID),
        ({"aud": "demo2"}, Refusal.INVALID),
        ({"aud": {"demo": 1}}, Refusal.INVALID),
        ({"azp": "another"}, Refusal.INVALID),
        ({"sub": None}, Refusal.INVALID),
        ({"sub": ""}, Refusal.INVALID),
    ],
)
def test_bad_claims(claims: dict[str, Any], refusal: Refusal) -> None:
    assert check(claims, oidc_client="web") is refusal


def test_a_client_is_no_audience_unless_it_is_configured() -> None:
    assert check({"aud": "web"}) is Refusal.INVALID
    assert isinstance(check({"azp": "anything"}), Verified)


@pytest.mark.parametrize(
    ("claims", "user"),
    [
        ({"preferred_username": "ann", "email": "ann@example.org", "sub": "1"}, "ann"),
        ({"email": "ann@example.org", "sub": "1"}, "ann@example.org"),
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


def test_every_required_claim_counts() -> None:
    rules: dict[str, Any] = {"oidc_claims": (("group", "lab"), ("level", "2"))}
    assert isinstance(check({"group": ["lab"], "level": 2}, **rules), Verified)
    assert check({"group": ["lab"]}, **rules) is Refusal.NOT_ENTITLED
    assert check({"group": ["lab"], "level": 2, "exp": FromNow(-3600)}, **rules) is Refusal.EXPIRED


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
    assert isinstance(verify(api, good, key), Verified)
    header, _, signature = good.split(b".")
    for bad in (
        sign(another, claims, kid="mine"),
        b".".join((header, encoded(claims_of(URL, sub="root")), signature)),
        header + b"." + encoded(claims) + b".",
        forged({"alg": "HS256", "kid": "mine"}, claims, mine.pem()),
        forged({"alg": "none", "kid": "mine"}, claims),
    ):
        assert verify(api, bad, key) is Refusal.INVALID


# --- with an issuer -----------------------------------------------------------------------------------------------


@pytest.fixture
def running() -> Iterator[Issuer]:
    with issuer(KEY) as found:
        yield found


def target(running: Issuer, **fields: Any) -> Target:
    api = make_api(**{"oidc_issuer": running.url, "oidc_audience": "demo", **fields})
    return next(iter(RouteTable.build(1, [make_route(api)]).targets.values()))


def bearer(running: Issuer, **claims: Any) -> bytes:
    return b"Bearer " + sign(KEY, claims_of(running.url, **claims))


def test_what_a_refusal_tells(running: Issuer) -> None:
    goal = target(running, oidc_claims=(("group", "lab"),))
    missing, expired, invalid, wrong_audience, unentitled = identify(
        goal, None, bearer(running, exp=1), b"Bearer x.y.z", bearer(running, aud="else"), bearer(running)
    )
    realm = 'Bearer realm="/demo/image"'
    assert missing == Problem(Kind.UNAUTHORIZED, "The credentials are missing or wrong.", challenge=realm)
    bad = f'{realm}, error="invalid_token"'
    assert expired == Problem(Kind.INVALID_TOKEN, "The token has expired.", challenge=bad)
    assert invalid == Problem(Kind.INVALID_TOKEN, "The token is not valid here.", challenge=bad)
    assert wrong_audience == invalid
    assert isinstance(unentitled, Problem)
    assert (unentitled.code, unentitled.challenge) == (403, f'{realm}, error="insufficient_scope"')


def test_schemes_side_by_side(running: Issuer) -> None:
    password = generate_password_hash("right", method="pbkdf2:sha256:1")
    goal = target(running, users=(("ann", password),), tokens=(("ci", hash_token("t0ken")),))
    basic = b"Basic " + base64.b64encode(b"ann:right")
    callers = identify(goal, basic, b"Bearer t0ken", bearer(running, sub="eve"), b"Bearer nope")
    assert callers[:3] == [Caller("ann"), Caller("ci"), Caller("eve")]
    assert isinstance(callers[3], Problem)
    assert callers[3].challenge == (
        'Basic realm="/demo/image", charset="UTF-8", Bearer realm="/demo/image", error="invalid_token"'
    )


def test_an_issuer_that_is_away(running: Issuer) -> None:
    running.stop()
    (answer,) = identify(target(running), bearer(running))
    assert isinstance(answer, Problem)
    assert (answer.kind, answer.retry_after) == (Kind.ISSUER, 5)


@pytest.mark.parametrize(("left", "remembered"), [(600, auth.REMEMBER), (100, 100)])
def test_how_long_a_token_is_remembered(running: Issuer, left: int, remembered: float) -> None:
    async def run() -> None:
        clock = Clock()
        gate = Authenticator(clock)
        goal, token = target(running), bearer(running, exp=int(time.time()) + left)
        assert gate.recall(goal, token) is None
        assert await gate.identify(goal, token) == Caller("4711")
        assert gate.recall(goal, token) == Caller("4711")
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
        assert await gate.identify(goal, token) == Caller("4711")
        assert gate.recall(goal, token) is None
        gate.close()

    asyncio.run(run())
