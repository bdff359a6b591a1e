"""Ownership of callers' names. The name chooses the area of files, so within an app it belongs to one
account: that of a password, of a token, or of an issuer's subject, whichever used it first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from controller.domain.names import AppName

PASSWORD: Final = "password"  # noqa: S105 - no password: a name
TOKEN: Final = "token"  # noqa: S105 - no password: a name
_OPENID: Final = "openid"
#: How names of people begin who try an API in the platform's own pages. No other credential may have such a name.
PERSON: Final = "person:"


def name_of_person(account: str) -> str:
    """Return the caller's name of somebody with an account of the platform."""
    return f"{PERSON}{account}"


def openid(issuer: str, subject: str) -> str:
    """Return the account of a subject at an issuer; an issuer's URL has no space."""
    return f"{_OPENID} {issuer} {subject}"


@dataclass(frozen=True)
class ClaimedName:
    app: AppName
    name: str
    owner: str
    since: float

    @property
    def description(self) -> str:
        """Describe the account for people."""
        kind, _, account = self.owner.partition(" ")
        if kind != _OPENID:
            return kind
        issuer, _, subject = account.partition(" ")
        return f"{issuer}, subject {subject}"
