"""People who sign in with OpenID Connect: what a token says of them becomes the name of an account, groups and roles.
Pure; `web/auth` has verified the token.

Whose account a name is, is decided by issuer and subject together, never by the name (store/people.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.domain.people.accounts import is_account_name
from controller.domain.people.roles import ALL, Grant, Role

WELL_KNOWN: Final = "/.well-known/openid-configuration"
MOST_GROUPS: Final = 10_000  # of one person that are looked at
LONGEST_SUBJECT: Final = 255  # characters (OpenID Connect Core §2)


def discovery_url(issuer: str) -> str:
    """Return where an issuer describes itself (OpenID Connect Discovery 1.0, section 4)."""
    return issuer.rstrip("/") + WELL_KNOWN


@dataclass(frozen=True)
class GroupRole:
    """The role that a group at an issuer gives, for one app, a pattern such as `pu-lab-*`, or the platform."""

    group: str
    role: Role
    app: str = ALL


@dataclass(frozen=True)
class Identity:
    """A person at an issuer. `subject` is empty for a name that is kept for whom the issuer knows by it, and `issuer`,
    too, if it is for that of any issuer."""

    issuer: str
    subject: str


@dataclass(frozen=True)
class SignedInPerson:
    """A person as an issuer describes them. `groups` are those that the configuration names."""

    identity: Identity
    name: str
    groups: frozenset[str]


def account_name(claimed: str) -> str | None:
    """Return the name of the account; None if the claim cannot be one. Capital letters count as small ones."""
    name = claimed.strip()
    return name.lower() if name.isascii() and is_account_name(name.lower()) else None


def groups_of(claim: object) -> frozenset[str]:
    """Return the groups of a claim that is a list of texts, or one text."""
    several = claim if isinstance(claim, list) else [claim]
    return frozenset(each for each in several[:MOST_GROUPS] if isinstance(each, str))


def roles_by_group(user: str, groups: frozenset[str], rules: Iterable[GroupRole]) -> tuple[Grant, ...]:
    """Return what the groups of a person give them."""
    found = {Grant(user, rule.role, rule.app, rule.group) for rule in rules if rule.group in groups}
    return tuple(sorted(found))


def is_subject(value: object) -> bool:
    """Return True for a `sub` as the specification has it: ASCII, not empty, not too long."""
    return (
        isinstance(value, str)
        and value.isascii()
        and value.isprintable()
        and 0 < len(value) <= LONGEST_SUBJECT
    )


LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
_LONGEST_ID: Final = 255  # characters of an id that an issuer has made


@dataclass(frozen=True)
class IssuerLogout:
    """What an issuer says has ended: all sessions of a subject, one session by its id, or, with both, this session of
    this subject. `id` is that of the message, which counts once until `expires`; it was `issued` by the clock of the
    issuer. Both are in Unix seconds."""

    id: str
    expires: float
    subject: str
    session: str
    issued: float = 0.0


@dataclass(frozen=True)
class IssuerSession:
    """The session at an issuer from which one here comes: `issuer` is its address, `session` the id there, "" if it did
    not say. The ID token was `issued` by the clock of the issuer, and `asked` for by ours; both in Unix seconds."""

    issuer: str
    subject: str
    session: str
    issued: float
    asked: float


def is_ended(session: IssuerSession, logout: IssuerLogout, arrived: float) -> bool:
    """Return whether a logout that arrived (Unix seconds, our clock) before the session here had begun ends it. Without
    an id of both, what was issued first counts, and within one second of the issuer's clock what came first."""
    if logout.subject and logout.subject != session.subject:
        return False
    if logout.session and session.session:
        return logout.session == session.session
    if not logout.subject:
        return False
    return (logout.issued, arrived) >= (session.issued, session.asked)


def issuer_session(claims: Mapping[str, Any]) -> str:
    """Return the id of the session at the issuer that an ID token names; "" if it names none."""
    found = claims.get("sid")
    return found if isinstance(found, str) and len(found) <= _LONGEST_ID and found.isprintable() else ""


def logout_of(claims: Mapping[str, Any]) -> IssuerLogout | None:
    """Return what the verified claims of a logout token say; None if they are not those of one (OpenID Connect
    Back-Channel Logout 1.0 §2.4 and §2.6): an ID token has no such event, and a nonce."""
    events, id, subject = claims.get("events"), claims.get("jti"), claims.get("sub", "")
    is_event = isinstance(events, dict) and isinstance(events.get(LOGOUT_EVENT), dict)
    if not is_event or "nonce" in claims or not isinstance(claims.get("iat"), int | float):
        return None
    if not isinstance(id, str) or not 0 < len(id) <= _LONGEST_ID:
        return None
    session = issuer_session(claims)
    if ("sub" in claims and not is_subject(subject)) or ("sid" in claims and not session):
        return None
    if not subject and not session:
        return None
    return IssuerLogout(id, float(claims["exp"]), subject, session, float(claims["iat"]))
