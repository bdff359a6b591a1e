"""A name, and with it an area of files, belongs to one account of an app."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
from werkzeug.security import generate_password_hash

from controller.domain.errors import Transient
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.routing.caller_names import PASSWORD, TOKEN, ClaimedName, openid
from controller.domain.routing.passwords import hash_token
from controller.store.names import CallerNameTable
from controller.web.auth import authenticate
from controller.web.auth.authenticate import AuthenticatedCaller, Authenticator
from controller.web.auth.caller_names import CallerNames
from controller.web.gateway.router import Router, UpstreamTarget
from controller.web.problems import HttpProblem, ProblemKind
from tests.support.authenticating import Clock
from tests.support.gateway import make_api, make_route

APP = AppName("demo")
ISSUER, OTHER = "https://id.example.org/realms/demo", "https://id.example.org/realms/other"
ACCOUNTS = [PASSWORD, TOKEN, openid(ISSUER, "1"), openid(ISSUER, "2"), openid(OTHER, "1")]
QUICK = generate_password_hash("right", method="pbkdf2:sha256:1")


def target(app: AppName = APP, path: str = "image", **fields: Any) -> UpstreamTarget:
    return next(iter(Router.build(1, [make_route(make_api(path, **fields), app=app)]).targets.values()))


def admit(
    owners: CallerNames, account: str, name: str = "ann", goal: UpstreamTarget | None = None
) -> HttpProblem | None:
    return asyncio.run(owners.admit(goal or target(), name, account))


@pytest.fixture
def names(tmp_path: Path) -> CallerNameTable:
    return CallerNameTable(tmp_path / "names.db")


@pytest.mark.parametrize("first", ACCOUNTS)
def test_the_first_one_has_it_and_no_other_one(names: CallerNameTable, first: str) -> None:
    assert admit(CallerNames(names), first) is None
    for account in ACCOUNTS:
        owners = CallerNames(names)  # another worker
        for _ in range(2):
            problem = admit(owners, account)
            if account == first:
                assert problem is None
            else:
                assert problem is not None
                assert problem.kind is ProblemKind.NAME_TAKEN
                assert "prichal name release demo ann" in problem.detail
                assert ISSUER not in problem.detail, "whose it is is nobody's business"
    assert admit(CallerNames(names), ACCOUNTS[0] if first != ACCOUNTS[0] else ACCOUNTS[1], "bob") is None
    assert admit(CallerNames(names), PASSWORD, goal=target(AppName("other"))) is None, (
        "in another app it is another name"
    )


def test_a_released_name_is_the_next_one_s(names: CallerNameTable) -> None:
    old, new = openid(ISSUER, "1"), openid(ISSUER, "2")
    admit(CallerNames(names), old)
    assert [each.owner for each in names.all(APP)] == [old]
    assert names.release(APP, "ann")
    assert not names.release(APP, "ann")
    owners = CallerNames(names)
    assert admit(owners, new) is None
    assert admit(owners, old) is not None
    assert names.all(AppName("other")) == ()


@pytest.mark.parametrize("how", [{"users": (("ann", QUICK),)}, {"tokens": (("ann", hash_token("t")),)}])
def test_declared_names_are_no_issuer_s_even_unused(names: CallerNameTable, how: dict[str, Any]) -> None:
    """Whichever of the app's APIs declares them."""
    route = make_route(make_api("open"), make_api("closed", **how), app=APP)
    table = Router.build(1, [route])
    for goal in table.targets.values():
        problem = admit(CallerNames(names), openid(ISSUER, "1"), goal=goal)
        assert problem is not None
        assert problem.kind is ProblemKind.NAME_TAKEN
    assert names.all() == ()


class Broken:
    def claim(self, app: AppName, name: str, owner: str, now: float) -> str:
        raise Transient(Reason.STATE_BUSY, "the state is locked")


def test_a_database_that_is_away_keeps_out_those_whose_names_anybody_could_have() -> None:
    assert admit(CallerNames(Broken()), PASSWORD) is None
    assert admit(CallerNames(Broken()), TOKEN) is None
    problem = admit(CallerNames(Broken()), openid(ISSUER, "1"))
    assert problem is not None
    assert problem.kind is ProblemKind.STORE_BUSY


@pytest.mark.parametrize(
    "name", ["ann", "böb", "a b", "a'; DROP TABLE names; --", "\ud800", "a\0b", "x" * 5000]
)
@pytest.mark.parametrize("account", ACCOUNTS[2:])
def test_any_name_can_be_kept(names: CallerNameTable, name: str, account: str) -> None:
    assert names.claim(APP, name, account, 1.0) == account
    assert names.claim(APP, name, PASSWORD, 2.0) == account
    (kept,) = names.all()
    assert (kept.app, kept.since, kept.owner) == (APP, 1.0, account)


def test_accounts_in_words() -> None:
    assert ClaimedName(APP, "ann", PASSWORD, 0.0).description == "password"
    assert ClaimedName(APP, "ann", openid(ISSUER, "a b"), 0.0).description == f"{ISSUER}, subject a b"


def test_who_is_refused_is_not_remembered(names: CallerNameTable) -> None:
    """The owner is not asked again for either the password or the token."""
    names.claim(APP, "ann", openid(ISSUER, "1"), 1.0)
    names.claim(APP, "ci", PASSWORD, 1.0)
    goal = target(users=(("ann", QUICK),), tokens=(("ci", hash_token("t")),))
    basic = b"Basic " + base64.b64encode(b"ann:right")

    async def run() -> list[AuthenticatedCaller | HttpProblem]:
        gate = Authenticator(Clock(), owners=CallerNames(names))
        found = [await gate.identify(goal, sent) for sent in (basic, basic, b"Bearer t", b"Bearer t")]
        names.release(APP, "ann")
        gate._owners = CallerNames(names)
        found.append(await gate.identify(goal, basic))
        gate.close()
        return found

    *refused, admitted = asyncio.run(run())
    assert [problem.kind for problem in refused if isinstance(problem, HttpProblem)] == [
        ProblemKind.NAME_TAKEN
    ] * 4
    assert admitted == AuthenticatedCaller("ann")


@pytest.mark.parametrize("account", ACCOUNTS)
def test_names_of_people_belong_to_no_credential(names: CallerNameTable, account: str) -> None:
    problem = admit(CallerNames(names), account, "person:ann")
    assert problem is not None
    assert problem.kind is ProblemKind.NAME_TAKEN
    assert names.all() == ()
    assert admit(CallerNames(names), account, "personal:ann") is None


def test_a_released_name_is_free_when_the_credential_is_forgotten(names: CallerNameTable) -> None:
    """The last call before a release may be the one that makes the worker remember the credential, and no second memory
    adds to that time, as the command's documentation says."""
    clock = Clock()
    goal = target(users=(("ann", QUICK),))
    ann = b"Basic " + base64.b64encode(b"ann:right")
    owner = openid(ISSUER, "1")

    async def run() -> list[AuthenticatedCaller | HttpProblem]:
        gate = Authenticator(clock, owners=CallerNames(names))
        found = [await gate.identify(goal, ann)]
        clock.now += authenticate.REMEMBER  # forgotten, and remembered again by the next call
        found.append(await gate.identify(goal, ann))
        names.release(APP, "ann")
        names.claim(APP, "ann", owner, 1.0)
        clock.now += authenticate.REMEMBER - 1
        found.append(await gate.identify(goal, ann))
        clock.now += 1
        found.append(await gate.identify(goal, ann))
        gate.close()
        return found

    *before, after = asyncio.run(run())
    assert before == [AuthenticatedCaller("ann")] * 3
    assert isinstance(after, HttpProblem)
    assert after.kind is ProblemKind.NAME_TAKEN
