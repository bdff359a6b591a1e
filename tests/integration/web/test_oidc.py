"""OpenID Connect through a real gunicorn with two workers, and an issuer that changes its keys and goes away."""

from __future__ import annotations

import base64
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from controller.domain.routing.passwords import hash_password, hash_token
from controller.store.names import CallerNameTable
from controller.web.auth import issuers
from tests.support.gateway import make_api
from tests.support.issuer import Issuer, SigningKey, claims_of, forged, issuer, sign, signing_key
from tests.support.waiting import wait_for

from .conftest import Reply, Web, demo_route

RSA, CURVE, STRANGER = signing_key("rsa"), signing_key("curve", "ES256"), signing_key("stranger")


@pytest.fixture
def running() -> Iterator[Issuer]:
    with issuer(RSA, CURVE) as found:
        yield found


@pytest.fixture
def publish(web: Web) -> Iterator[Callable[..., None]]:
    """Puts one API at /demo/<path> and returns once every worker has it."""
    component = "guarded"

    def put(running: Issuer, path: str, **fields: Any) -> None:
        known = {"oidc_issuer": running.url, "oidc_audience": "demo", "pass_identity": True, **fields}
        route = demo_route(web.component.endpoint, component=component, apis=(make_api(path, **known),))
        version = web.store.routes.switch(route)
        wait_for(lambda: web.store.gateways.drained("127.0.0.1:9", version, time.time()))

    yield put
    web.store.routes.withdraw(demo_route().app, demo_route(component=component).component)
    names = CallerNameTable(web.state / "web" / "names.db")
    for each in names.all():  # each test has an issuer of its own
        names.release(each.app, each.name)


def call(web: Web, path: str, token: bytes | None = None, **headers: str) -> Reply:
    if token is not None:
        headers["Authorization"] = f"Bearer {token.decode()}"
    return web.ask("GET", f"/demo/{path}/x", **headers)


def caller(reply: Reply) -> str:
    assert reply.status == 200, reply.body
    headers = {name.lower(): value for name, value in reply.json["headers"].items()}
    assert "authorization" not in headers
    user = headers["x-forwarded-user"]
    assert isinstance(user, str)
    return user


def slug(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.json["type"].rpartition(":")[2]


def test_good_tokens(web: Web, running: Issuer, publish: Callable[..., None]) -> None:
    publish(running, "lab", oidc_claims=(("group", "lab"),))
    claims = claims_of(running.url, preferred_username="olga", group=["staff", "lab"])
    assert caller(call(web, "lab", sign(RSA, claims), X_Forwarded_User="root")) == "olga"
    assert caller(call(web, "lab", sign(CURVE, claims))) == "olga"
    without = call(web, "lab", sign(RSA, claims_of(running.url, group="staff")))
    assert slug(without) == (403, "claim-missing")


def test_bad_tokens_never_reach_the_component(
    web: Web, running: Issuer, publish: Callable[..., None]
) -> None:
    publish(running, "strict")
    good = claims_of(running.url)
    assert caller(call(web, "strict", sign(RSA, good))) == "4711"
    before = len(web.component.seen)
    bad = {
        "none": forged({"alg": "none", "kid": "rsa"}, good),
        "the public key as a secret": forged({"alg": "HS256", "kid": "rsa"}, good, RSA.pem()),
        "another's key": sign(STRANGER, good, kid="rsa"),
        "unknown kid": sign(STRANGER, good),
        "audience": sign(RSA, claims_of(running.url, aud="else")),
        "issuer": sign(RSA, claims_of(running.url + "/")),
        "no expiry": sign(RSA, claims_of(running.url, exp=None)),
        "not yet": sign(RSA, claims_of(running.url, nbf=good["exp"])),
        "nonsense": b"a.b.c",
    }
    for name, token in bad.items():
        reply = call(web, "strict", token)
        assert slug(reply) == (401, "invalid-token"), name
        assert reply.json["detail"] == "The token is not valid here.", name
        assert reply.headers["www-authenticate"] == 'Bearer realm="/demo/strict", error="invalid_token"'
    expired = call(web, "strict", sign(RSA, claims_of(running.url, exp=1)))
    assert (expired.status, expired.json["detail"]) == (401, "The token has expired.")
    assert slug(call(web, "strict")) == (401, "unauthorized")
    assert len(web.component.seen) == before


def test_keys_that_a_token_names_are_not_fetched(
    web: Web, running: Issuer, publish: Callable[..., None]
) -> None:
    publish(running, "named")
    with issuer(STRANGER) as evil:
        places = {"jku": f"{evil.url}/keys", "x5u": f"{evil.url}/keys"}
        for header in (places, {**places, "kid": "rsa"}, {**places, "jwk": STRANGER.jwk()}):
            reply = call(web, "named", sign(STRANGER, claims_of(running.url), **header))
            assert slug(reply) == (401, "invalid-token")
        assert evil.asked == []
    assert running.fetches() >= 1


def test_schemes_side_by_side(web: Web, running: Issuer, publish: Callable[..., None]) -> None:
    users, tokens = (("ann", hash_password("s3cret", "salt")),), (("ci", hash_token("t0ken")),)
    publish(running, "mixed", users=users, tokens=tokens)
    basic = "Basic " + base64.b64encode(b"ann:s3cret").decode()
    assert caller(call(web, "mixed", Authorization=basic)) == "ann"
    assert caller(call(web, "mixed", b"t0ken")) == "ci"
    assert caller(call(web, "mixed", sign(RSA, claims_of(running.url, sub="eve")))) == "eve"


def test_a_name_is_its_first_account_s_over_all_apis_and_workers(
    web: Web, running: Issuer, publish: Callable[..., None]
) -> None:
    publish(running, "first")
    assert (
        caller(call(web, "first", sign(RSA, claims_of(running.url, preferred_username="olga", sub="1"))))
        == "olga"
    )
    with issuer(RSA) as other:
        publish(other, "second")  # in place of the first
        for sub in ("1", "2"):
            claims = claims_of(other.url, preferred_username="olga", sub=sub)
            for _ in range(4):
                assert slug(call(web, "second", sign(RSA, claims))) == (403, "name-taken")
        ann = claims_of(other.url, preferred_username="ann", sub="3")
        assert slug(call(web, "second", sign(RSA, ann))) == (403, "name-taken"), (
            "another API has a password for it"
        )
        assert CallerNameTable(web.state / "web" / "names.db").release(demo_route().app, "olga")
        assert (
            caller(call(web, "second", sign(RSA, claims_of(other.url, preferred_username="olga")))) == "olga"
        )


def test_unknown_kids_and_an_issuer_that_goes(
    web: Web, running: Issuer, publish: Callable[..., None]
) -> None:
    """Both workers learn the keys, are asked for others, and then nobody answers them any more."""
    publish(running, "rotating")
    workers, numbers, began = len(web.workers()), itertools.count(), time.monotonic()

    def ask(key: SigningKey) -> Reply:
        """With a token that nobody remembers."""
        return call(web, "rotating", sign(key, claims_of(running.url, jti=str(next(numbers)))))

    def all_know() -> bool:
        assert ask(RSA).status == 200
        return running.fetches() == workers

    wait_for(all_know)
    for _ in range(20):
        assert slug(ask(STRANGER)) == (401, "invalid-token")
    minutes = (time.monotonic() - began) // issuers.AGAIN
    assert running.fetches() <= workers * (1 + minutes), (
        "callers made the gateway ask more than once a minute"
    )
    running.stop()
    for _ in range(10):
        assert caller(ask(RSA)) == "4711"


def test_an_issuer_that_was_never_there(web: Web, running: Issuer, publish: Callable[..., None]) -> None:
    running.stop()
    publish(running, "away")
    reply = call(web, "away", sign(RSA, claims_of(running.url)))
    assert slug(reply) == (503, "issuer-unreachable")
    assert 1 <= int(reply.headers["retry-after"]) <= issuers.RETRY
    assert slug(call(web, "away", b"opaque")) == (401, "invalid-token")
    running.start()
    wait_for(lambda: call(web, "away", sign(RSA, claims_of(running.url))).status == 200)
