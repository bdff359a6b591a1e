"""Who may do what: roles, scopes of tokens, and apps that somebody may not know of."""

from __future__ import annotations

import pytest

from controller.domain.people.accounts import Scope, is_account_name, password_problem
from controller.domain.people.roles import (
    ALL,
    Act,
    Grant,
    Principal,
    Role,
    Verdict,
    administrator,
    decide,
    grant_problem,
    is_in_sight,
    with_previews,
)

PEOPLE = {
    "nobody": (),
    "viewer": (Grant("ann", Role.VIEWER),),
    "viewer of demo": (Grant("ann", Role.VIEWER, "demo"),),
    "developer of demo": (Grant("ann", Role.DEVELOPER, "demo"),),
    "admin": (Grant("ann", Role.ADMIN),),
}
YES, NO, HIDDEN = Verdict.ALLOWED, Verdict.FORBIDDEN, Verdict.UNKNOWN
#: By act and app, in the order of PEOPLE.
TABLE = {
    (Act.PUBLIC, ALL): (YES, YES, YES, YES, YES),
    (Act.SIGNED, ALL): (YES, YES, YES, YES, YES),
    (Act.LIST, ALL): (YES, YES, YES, YES, YES),
    (Act.OWN, ALL): (YES, YES, YES, YES, YES),
    (Act.SELF, ALL): (YES, YES, YES, YES, YES),
    (Act.WATCH, ALL): (NO, YES, NO, NO, YES),
    (Act.ADMINISTER, ALL): (NO, NO, NO, NO, YES),
    (Act.CREATE, ALL): (NO, NO, NO, NO, YES),
    (Act.SEE, "demo"): (HIDDEN, YES, YES, YES, YES),
    (Act.STEER, "demo"): (HIDDEN, NO, NO, YES, YES),
    (Act.DELETE, "demo"): (HIDDEN, NO, NO, YES, YES),
    (Act.SEE, "other"): (HIDDEN, YES, HIDDEN, HIDDEN, YES),
    (Act.STEER, "other"): (HIDDEN, NO, HIDDEN, HIDDEN, YES),
    (Act.DELETE, "other"): (HIDDEN, NO, HIDDEN, HIDDEN, YES),
    (Act.SEE, "@platform"): (HIDDEN, YES, HIDDEN, HIDDEN, YES),
    (Act.STEER, "@platform"): (HIDDEN, NO, HIDDEN, HIDDEN, YES),
}


def person(role: str, scope: Scope = Scope.ADMIN) -> Principal:
    return Principal("ann", PEOPLE[role], scope, "session 1")


@pytest.mark.parametrize(("act", "app"), TABLE, ids=lambda value: getattr(value, "word", value or "-"))
def test_the_table(act: Act, app: str) -> None:
    assert tuple(decide(person(role), act, app) for role in PEOPLE) == TABLE[act, app]


@pytest.mark.parametrize(
    ("app", "sees"),
    [("demo", True), ("dem*", True), ("*", True), (ALL, True), ("demo-*", False), ("demo-x-1234abcd", False)],
)
def test_only_roles_in_its_app_hold_for_a_preview(app: str, sees: bool) -> None:
    """Somebody else may have all apps that begin with `demo-`."""
    principal = Principal("ann", (Grant("ann", Role.VIEWER, app),), Scope.ADMIN, "session 1")
    previews = (("demo-x-1234abcd", "demo"),)
    assert with_previews(principal, previews).sees("demo-x-1234abcd") is sees
    assert is_in_sight("demo", principal.sight) is (sees and app != ALL)


def test_the_table_has_every_act() -> None:
    assert {act for act, _ in TABLE} == set(Act)


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize(("act", "app"), TABLE, ids=lambda value: getattr(value, "word", value or "-"))
@pytest.mark.parametrize("role", PEOPLE)
def test_a_scope_only_takes_away(role: str, act: Act, app: str, scope: Scope) -> None:
    verdict = decide(person(role, scope), act, app)
    if act.scope is None or scope.covers(act.scope):
        assert verdict is decide(person(role), act, app)
    else:
        assert verdict is (HIDDEN if decide(person(role), act, app) is HIDDEN else NO)


def test_scopes_include_each_other() -> None:
    assert [[scope.covers(needed) for needed in Scope] for scope in Scope] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


def test_the_holder_of_the_admin_token_may_do_all() -> None:
    who = administrator("admin token")
    assert who.is_admin
    assert all(decide(who, act, app) is YES for act, app in TABLE)


def test_what_roles_there_are() -> None:
    assert grant_problem(Role.DEVELOPER, ALL)
    assert grant_problem(Role.ADMIN, "demo")
    assert not grant_problem(Role.VIEWER, ALL)
    assert not grant_problem(Role.VIEWER, "demo")
    assert not grant_problem(Role.DEVELOPER, "demo")


@pytest.mark.parametrize("name", ["a", "ann", "ivanov.p", "a-b_c", "ann@example.org", "a" * 63])
def test_names(name: str) -> None:
    assert is_account_name(name)


@pytest.mark.parametrize(
    "name", ["", "Ann", "-a", "a-", "a b", "a:b", "a/b", "Анна", "a\n", "<b>", "a" * 64, "host:root"]
)
def test_names_that_are_none(name: str) -> None:
    assert not is_account_name(name)


def test_passwords() -> None:
    assert not password_problem("correct horse", "ann")
    assert "at least 10" in password_problem("short")
    assert "at most" in password_problem("ab1!" * 100)
    assert "guess" in password_problem("aaaaaaaaaaaa")
    assert "guess" in password_problem("Ann-Ann-Ann", "ann-ann-ann")
