"""Rows of the pages about sessions, tokens and the audit. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from controller.domain.people.accounts import AuditEntry, SessionRecord, TokenRecord
from controller.domain.text import printable


@dataclass(frozen=True)
class SessionRow:
    id: str
    user: str
    since: float
    used: float
    address: str
    agent: str
    issuer: str  # its name in the configuration; empty for a password
    is_present: bool


@dataclass(frozen=True)
class TokenRow:
    """`used` is 0 if it never was."""

    id: str
    user: str
    label: str
    scope: str
    since: float
    used: float
    until: float
    has_expired: bool


@dataclass(frozen=True)
class AuditRow:
    when: float
    who: str
    via: str
    act: str
    subject: str
    address: str


def session_rows(sessions: tuple[SessionRecord, ...], present: str) -> list[SessionRow]:
    return [
        SessionRow(
            each.id,
            each.user,
            each.created,
            each.seen,
            printable(each.address),
            printable(each.agent),
            printable(each.issuer),
            each.id == present,
        )
        for each in sessions
    ]


def token_rows(tokens: tuple[TokenRecord, ...], now: float) -> list[TokenRow]:
    return [
        TokenRow(
            each.id,
            each.user,
            printable(each.label),
            each.scope,
            each.created,
            each.used,
            each.expires,
            each.expires <= now,
        )
        for each in tokens
    ]


def audit_rows(acts: tuple[AuditEntry, ...]) -> list[AuditRow]:
    return [
        AuditRow(
            each.at,
            printable(each.who),
            printable(each.via),
            printable(each.act),
            printable(f"{each.subject} {each.detail}".strip()),
            printable(each.address),
        )
        for each in acts
    ]
