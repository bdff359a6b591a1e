"""Values about people, and the rules for names and passwords."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from controller.domain.localizable import Localizable

NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._@+-]{0,61}[a-z0-9])?")
NAME_RULE: Final = Localizable(
    "1 to 63 of a-z, 0-9, dots, hyphens, _, @ and +, beginning and ending with a letter or digit"
)
SHORTEST_PASSWORD, LONGEST_PASSWORD = 10, 256  # characters
ANY_ISSUER: Final = "any"
LABEL: Final = 60  # characters of the label of a token


class Scope(StrEnum):
    """What a token may be used for. Each one includes those before it; `admin` is all that its person may do."""

    READ = "read"
    DEPLOY = "deploy"
    ADMIN = "admin"

    def covers(self, needed: Scope) -> bool:
        order = list(Scope)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True)
class Account:
    """`issuer` is the URL of the one with which the person signs in, "any" before a first sign-in with any of them, and
    empty for an account of the platform's own."""

    name: str
    created: float
    has_password: bool
    issuer: str = ""


@dataclass(frozen=True)
class SessionRecord:
    """A sign-in of a browser. `id` is for people; the secret of its cookie is stored as a digest alone."""

    id: str
    user: str
    created: float
    seen: float
    address: str
    agent: str
    issuer: str = ""  # its name in the configuration, if the person signed in with one


@dataclass(frozen=True)
class TokenRecord:
    """An API token of a person. Its secret is stored as a digest alone; `used` is 0 if it never was."""

    id: str
    user: str
    label: str
    scope: Scope
    created: float
    expires: float
    used: float


@dataclass(frozen=True)
class AuditEntry:
    """What a person did. `via` says how they proved who they are, for example `session 3f0c`."""

    at: float
    who: str
    via: str
    act: str
    subject: str
    detail: str
    address: str
    id: int = 0


def is_account_name(text: str) -> bool:
    return NAME.fullmatch(text) is not None


def password_problem(password: str, name: str = "") -> str:
    """Return what is wrong with a new password, or ""."""
    if len(password) < SHORTEST_PASSWORD:
        return Localizable("the password must have at least {least} characters", least=SHORTEST_PASSWORD)
    if len(password) > LONGEST_PASSWORD:
        return Localizable("the password may have at most {most} characters", most=LONGEST_PASSWORD)
    if password.casefold() == name.casefold() or len(set(password)) < 4:
        return Localizable("the password is too easy to guess")
    return ""
