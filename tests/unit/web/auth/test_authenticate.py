"""Who calls: passwords, tokens, what is remembered and what is not."""

from __future__ import annotations

import asyncio
import base64
import threading
from dataclasses import replace
from typing import Any

import bcrypt
import pytest
from werkzeug.security import generate_password_hash

from controller.domain.names import AppName
from controller.domain.routing.caller_names import TOKEN
from controller.domain.routing.passwords import cost_problem, hash_password, hash_token
from controller.web.auth import authenticate
from controller.web.auth.authenticate import (
    AuthenticatedCaller,
    Authenticator,
    _Known,
    check_password,
    find_user,
)
from controller.web.gateway.router import Router, UpstreamTarget
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from tests.support.authenticating import Clock, identify
from tests.support.gateway import make_api, make_route

QUICK = generate_password_hash("right", method="pbkdf2:sha256:1")


def basic(user: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())


def target(**fields: Any) -> UpstreamTarget:
    table = Router.build(1, [make_route(make_api(**fields))])
    return next(iter(table.targets.values()))


@pytest.mark.parametrize(
    "stored",
    [
        hash_password("right", "salt"),
        generate_password_hash("right", method="scrypt:1024:8:1"),
        generate_password_hash("right", method="pbkdf2:sha256:1"),
        bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode(),
    ],
    ids=["ours", "scrypt", "pbkdf2", "bcrypt"],
)
def test_every_format_of_hash(stored: str) -> None:
    assert check_password(stored, "right")
    assert not check_password(stored, "wrong")


@pytest.mark.parametrize("stored", ["", "scrypt:x$y$z", "scrypt:16:1:1$salt$00", "$2b$nonsense", "plain"])
def test_a_hash_that_cannot_be_read_matches_nothing(stored: str) -> None:
    assert not check_password(stored, "right")


def test_a_long_password_does_not_break_bcrypt() -> None:
    stored = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
    assert check_password(stored, "x" * 72)
    assert not check_password(stored, "y" * 100)


def test_open_api_asks_for_nothing() -> None:
    assert identify(target(), None) == [AuthenticatedCaller("")]


def test_basic() -> None:
    goal = target(users=(("ann", QUICK), ("böb:", QUICK)))
    good, *bad = identify(
        goal,
        basic("ann", "right"),
        basic("ann", "wrong"),
        basic("nobody", "right"),
        b"Basic !!!",
        b"Basic " + base64.b64encode(b"no colon"),
        b"Bearer right",
        b"Digest x",
        b"",
        None,
    )
    assert good == AuthenticatedCaller("ann")
    assert all(isinstance(one, HttpProblem) and one.kind is ProblemKind.UNAUTHORIZED for one in bad)
    assert len(set(map(repr, bad))) == 1, "a refusal must not tell what was wrong"


def test_the_challenge_names_what_is_accepted() -> None:
    (refused,) = identify(target(users=(("ann", QUICK),), tokens=(("ci", hash_token("t")),)), None)
    assert isinstance(refused, HttpProblem)
    assert refused.challenge == 'Basic realm="/demo/image", charset="UTF-8", Bearer realm="/demo/image"'


def test_bearer_token() -> None:
    goal = target(tokens=(("ci", hash_token("t0ken")), ("other", hash_token("else"))))
    good, bad = identify(goal, b"Bearer t0ken", b"Bearer t0ke")
    assert good == AuthenticatedCaller("ci")
    assert isinstance(bad, HttpProblem)
    assert bad.kind is ProblemKind.UNAUTHORIZED


class Counted:
    """Checks passwords, and keeps the hashes that it was asked about."""

    def __init__(self) -> None:
        self.hashes: list[str] = []

    def __call__(self, stored: str, password: str) -> bool:
        self.hashes.append(stored)
        return check_password(stored, password)


def test_an_unknown_user_costs_a_check_too() -> None:
    check = Counted()
    assert find_user(make_api(users=(("ann", QUICK),)), "nobody", "right", check) is None
    assert check.hashes == [QUICK], "the decoy is of the same kind as a real hash"


def test_a_good_credential_is_remembered_for_five_minutes() -> None:
    check = Counted()

    async def run() -> None:
        clock = Clock()
        gate = Authenticator(clock, check)
        goal = target(users=(("ann", QUICK),))
        credential = basic("ann", "right")
        for _ in range(3):
            assert await gate.identify(goal, credential) == AuthenticatedCaller("ann")
        assert len(check.hashes) == 1
        assert gate.recall(goal, credential) == AuthenticatedCaller("ann")
        assert gate.recall(goal, basic("ann", "wrong")) is None
        clock.now += authenticate.REMEMBER
        assert await gate.identify(goal, credential) == AuthenticatedCaller("ann")
        assert len(check.hashes) == 2
        gate.close()

    asyncio.run(run())


def test_a_changed_password_is_forgotten_at_once() -> None:
    async def run() -> None:
        gate = Authenticator(Clock())
        credential = basic("ann", "right")
        assert await gate.identify(target(users=(("ann", QUICK),)), credential) == AuthenticatedCaller("ann")
        changed = target(users=(("ann", generate_password_hash("new", method="pbkdf2:sha256:1")),))
        assert isinstance(await gate.identify(changed, credential), HttpProblem)
        other_api = target(path="other", users=(("ann", QUICK),))
        assert gate.recall(other_api, credential) is None
        gate.close()

    asyncio.run(run())


def test_a_token_is_remembered_until_it_is_changed() -> None:
    async def run() -> None:
        clock = Clock()
        gate = Authenticator(clock)
        goal = target(tokens=(("ci", hash_token("t0ken")),))
        assert gate.recall(goal, b"Bearer t0ken") is None
        assert await gate.identify(goal, b"Bearer t0ken") == AuthenticatedCaller("ci")
        assert gate.recall(goal, b"Bearer t0ken") == AuthenticatedCaller("ci")
        assert gate.recall(goal, b"Bearer t0ke") is None
        changed = target(tokens=(("ci", hash_token("other")),))
        assert gate.recall(changed, b"Bearer t0ken") is None
        assert isinstance(await gate.identify(changed, b"Bearer t0ken"), HttpProblem)
        clock.now += authenticate.REMEMBER
        assert gate.recall(goal, b"Bearer t0ken") is None
        gate.close()

    asyncio.run(run())


def test_callers_with_one_credential_wait_for_one_check() -> None:
    check = Counted()

    async def run() -> None:
        gate = Authenticator(Clock(), check)
        goal = target(users=(("ann", QUICK),))
        callers = await asyncio.gather(*(gate.identify(goal, basic("ann", "right")) for _ in range(20)))
        assert callers == [AuthenticatedCaller("ann")] * 20
        gate.close()

    asyncio.run(run())
    assert len(check.hashes) == 1


@pytest.mark.parametrize("address", [b"", b"192.0.2.7"])
def test_waiting_checks_are_bounded(address: bytes) -> None:
    """Those of an app and those from an address."""
    most = authenticate.PENDING_ADDRESS

    async def run() -> list[HttpProblem]:
        gate = Authenticator(Clock())
        goal = target(users=(("ann", QUICK),))
        flood = [
            asyncio.create_task(gate.identify(goal, basic(f"user {n}", "guess"), address))
            for n in range(most + 10)
        ]
        done = await asyncio.gather(*flood, return_exceptions=True)
        gate.close()
        return [one.problem if isinstance(one, RequestRefused) else one for one in done]  # type: ignore[misc]

    found = [answer.kind for answer in asyncio.run(run())]
    assert found.count(ProblemKind.OVERLOADED) == 10
    assert found.count(ProblemKind.UNAUTHORIZED) == most


def test_one_app_holds_one_thread() -> None:
    """Its checks never end; those of another app do."""
    ends = threading.Event()

    def check(stored: str, password: str) -> bool:
        return stored == QUICK or ends.wait(60)

    async def run() -> None:
        gate = Authenticator(Clock(), check)
        slow = next(iter(Router.build(1, [make_route(make_api(users=(("ann", "slow"),)))]).targets.values()))
        route = make_route(make_api(users=(("ann", QUICK),)), app=AppName("other"))
        quick = next(iter(Router.build(1, [route]).targets.values()))
        addresses = (b"192.0.2.%d" % n for n in range(authenticate.PENDING_APP))
        stuck = [
            asyncio.create_task(gate.identify(slow, basic("ann", f"{n}"), address))
            for n, address in enumerate(addresses)
        ]
        await asyncio.sleep(0)
        try:
            assert await gate.identify(quick, basic("ann", "x"), b"192.0.2.200") == AuthenticatedCaller("ann")
        finally:
            ends.set()
        await asyncio.gather(*stuck)
        gate.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "stored",
    [
        "$2b$31$abcdefghijklmnopqrstuuAbcdefghijklmnopqrstuvwxyz012345",
        "pbkdf2:sha256:900000000$salt$00",
        "pbkdf2:sha512:99999999999999$salt$00",
        "scrypt:1048576:8:1$salt$00",
        "scrypt:32768:8:1000$salt$00",
        "scrypt:2:99999999999999999999:1$salt$00",
    ],
)
def test_a_hash_that_would_take_for_ever_is_not_computed(stored: str) -> None:
    """Nor is a route made with it."""
    assert not check_password(stored, "right")
    assert cost_problem(stored)


@pytest.mark.parametrize(
    "stored",
    [
        hash_password("x"),
        generate_password_hash("x"),
        "pbkdf2:sha256:1000000$salt$00",
        "$2b$12$abc",
        "scrypt:x:y:z$",
        "scrypt$",
        "",
    ],
)
def test_usual_hashes_are_bearable(stored: str) -> None:
    assert cost_problem(stored) == ""


def published(app: str) -> UpstreamTarget:
    route = replace(make_route(make_api(tokens=(("ann", hash_token("t0ken")),))), app=AppName(app))
    return next(iter(Router.build(1, [route]).targets.values()))


def test_memory_is_bounded_for_each_app() -> None:
    """An app with many callers makes nobody check the credentials of another one again."""
    clock = Clock()
    gate, many, few = Authenticator(clock), published("many"), published("few")
    known = _Known("ann", TOKEN, authenticate.REMEMBER)
    gate._remember(few, b"Bearer t0ken", known)
    for number in range(authenticate.REMEMBERED + 5):
        gate._remember(many, b"Bearer %d" % number, known)
    assert gate.recall(few, b"Bearer t0ken") == AuthenticatedCaller("ann")
    assert len(gate._known[b"many"]) == authenticate.REMEMBERED
    assert gate.recall(many, b"Bearer 4") is None
    assert gate.recall(many, b"Bearer 5") == AuthenticatedCaller("ann")
    clock.now += authenticate.REMEMBER
    gate._remember(published("new"), b"Bearer t0ken", known)
    assert gate._known.keys() == {b"new"}
    gate.close()
