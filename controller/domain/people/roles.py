"""Decides who may do what at the platform's own interface: one table of acts and the roles that they need.

A caller who may not see an app gets the same answer as for an app that does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from typing import Final

from controller.domain.localizable import Localizable
from controller.domain.people.accounts import Scope

#: The app of a role that holds for the whole platform.
ALL: Final = ""
#: In place of an app's name: all apps whose names begin so.
_PATTERN: Final = re.compile(r"(?:[a-z0-9][a-z0-9-]{0,62})?\*")


class Role(StrEnum):
    """`viewer` of an app or of all apps; `developer` of an app; `creator` of new apps; `admin` of the platform."""

    VIEWER = "viewer"
    DEVELOPER = "developer"
    CREATOR = "creator"
    ADMIN = "admin"


@dataclass(frozen=True, order=True)
class Grant:
    """A role of a person. `app` is the name of one, a pattern such as `pu-lab-*`, or ALL. `group` is the one that gives
    the role, at the issuer with which the person signs in; empty for a role that was given to the account."""

    user: str
    role: Role
    app: str = ALL
    group: str = ""

    def covers(self, app: str) -> bool:
        return self.app in (ALL, app) or (is_app_pattern(self.app) and _matches(app, self.app))


def is_app_pattern(text: str) -> bool:
    return _PATTERN.fullmatch(text) is not None


def _matches(app: str, pattern: str) -> bool:
    """No pattern covers the platform folder, whose name begins with another character than those of apps."""
    return app != ALL and not app.startswith("@") and app.startswith(pattern[:-1])


def is_in_sight(app: str, sight: frozenset[str]) -> bool:
    """Return True if one of the names and patterns covers the app."""
    return app in sight or any(is_app_pattern(each) and _matches(app, each) for each in sight)


def grant_problem(role: Role, app: str) -> str:
    """Return why this role cannot be given, or ""."""
    if role is Role.DEVELOPER and app == ALL:
        return Localizable("a developer needs an app: prichal role add USER developer APP")
    if role in (Role.ADMIN, Role.CREATOR) and app != ALL:
        return Localizable(
            "{who} is one of the whole platform, not of an app",
            who=Localizable("an admin") if role is Role.ADMIN else Localizable("a creator"),
        )
    return ""


class Act(Enum):
    """What a request does, with the scope that a token needs for it. None: everybody may."""

    PUBLIC = ("public", None)  # health checks, the sign-in page
    SIGNED = ("signed", None)  # the request carries a signature, which its view checks
    LIST = ("list", Scope.READ)  # shows the apps that the caller may see
    SEE = ("see", Scope.READ)  # an app
    STEER = ("steer", Scope.DEPLOY)  # an app
    SELF = ("self", Scope.READ)  # who the caller is, and the end of the token that was sent
    CREATE = ("create", Scope.DEPLOY)  # apps
    DELETE = ("delete", Scope.ADMIN)  # an app
    OWN = ("own", Scope.ADMIN)  # the caller's sessions and tokens
    WATCH = ("watch", Scope.READ)  # the platform as a whole
    ADMINISTER = ("administer", Scope.ADMIN)

    def __init__(self, word: str, scope: Scope | None) -> None:
        self.word = word
        self.scope = scope

    @property
    def is_open(self) -> bool:
        return self.scope is None


#: The roles that may do an act; empty: every person who has signed in.
_NEEDED: Final = {
    Act.LIST: frozenset[Role](),
    Act.SELF: frozenset[Role](),
    Act.OWN: frozenset[Role](),
    Act.SEE: frozenset((Role.VIEWER, Role.DEVELOPER, Role.ADMIN)),
    Act.STEER: frozenset((Role.DEVELOPER, Role.ADMIN)),
    Act.CREATE: frozenset((Role.CREATOR, Role.ADMIN)),
    Act.DELETE: frozenset((Role.DEVELOPER, Role.ADMIN)),
    Act.WATCH: frozenset((Role.VIEWER, Role.ADMIN)),
    Act.ADMINISTER: frozenset((Role.ADMIN,)),
}


#: Acts about one app.
OF_APP: Final = frozenset((Act.SEE, Act.STEER, Act.DELETE))


class Verdict(Enum):
    ALLOWED = "allowed"
    FORBIDDEN = "forbidden"
    UNKNOWN = "unknown"  # the answer is that of an app which does not exist


@dataclass(frozen=True)
class Principal:
    """The person or program that makes a request. `name` is empty for the holder of the admin token and for
    trusted callers of this host, which have no account. `via` says how they proved who they are; `session` is
    the id of their session. `previews` has the app of each preview."""

    name: str
    grants: tuple[Grant, ...]
    scope: Scope
    via: str
    session: str = ""
    previews: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def is_admin(self) -> bool:
        return Role.ADMIN in self.roles(ALL)

    @property
    def sees_all(self) -> bool:
        """Return True for those who see every app, and the platform as a whole."""
        return self.sees(ALL)

    def roles(self, app: str) -> frozenset[Role]:
        """The roles that hold for an app; for `ALL` those of the platform. For a preview those in its app do, and no
        others: its name begins like those of apps that may be somebody else's, and a pattern would cover it."""
        whose = self.previews.get(app, app)
        return frozenset(grant.role for grant in self.grants if grant.covers(whose))

    def sees(self, app: str) -> bool:
        return decide(self, Act.SEE, app) is Verdict.ALLOWED

    @property
    def sight(self) -> frozenset[str]:
        """Return the names and patterns of the apps that the principal may see. It is equal for people who see the
        same."""
        return frozenset(grant.app for grant in self.grants if self.sees(grant.app))


def decide(principal: Principal, act: Act, app: str = ALL) -> Verdict:
    """`app` is the one that an act of `OF_APP` is about."""
    if act.scope is None:
        return Verdict.ALLOWED
    roles = principal.roles(app)
    if act in OF_APP and not roles & _NEEDED[Act.SEE]:
        return Verdict.UNKNOWN
    if _NEEDED[act] and not roles & _NEEDED[act]:
        return Verdict.FORBIDDEN
    return Verdict.ALLOWED if principal.scope.covers(act.scope) else Verdict.FORBIDDEN


def with_previews(principal: Principal, previews: Iterable[tuple[str, str]]) -> Principal:
    """Return the principal who knows which apps are previews. `previews` are pairs of a preview and its app."""
    return replace(principal, previews=dict(previews))


def administrator(via: str) -> Principal:
    """The holder of the admin token, or a caller of this host that the configuration trusts."""
    return Principal("", (Grant("", Role.ADMIN),), Scope.ADMIN, via)
