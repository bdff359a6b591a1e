"""Rows of the pages about sessions, tokens and the audit. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from controller.domain.people.accounts import AuditEntry, SessionRecord, TokenRecord
from controller.domain.text import printable
from controller.web.pages.status_page import ago


@dataclass(frozen=True)
class SessionRow:
    id: str
    since: str
    used: str
    address: str
    agent: str
    is_present: bool


@dataclass(frozen=True)
class TokenRow:
    id: str
    label: str
    scope: str
    since: str
    used: str
    until: str
    has_expired: bool


@dataclass(frozen=True)
class AuditRow:
    when: str
    who: str
    via: str
    act: str
    subject: str
    address: str


def session_rows(sessions: tuple[SessionRecord, ...], present: str, now: float) -> list[SessionRow]:
    return [
        SessionRow(
            each.id,
            _date(each.created),
            ago(now - each.seen),
            printable(each.address),
            printable(each.agent),
            each.id == present,
        )
        for each in sessions
    ]


def token_rows(tokens: tuple[TokenRecord, ...], now: float) -> list[TokenRow]:
    return [
        TokenRow(
            each.id,
            printable(each.label),
            each.scope,
            _date(each.created),
            ago(now - each.used) if each.used else "never",
            _date(each.expires),
            each.expires <= now,
        )
        for each in tokens
    ]


def audit_rows(acts: tuple[AuditEntry, ...]) -> list[AuditRow]:
    return [
        AuditRow(
            _date(each.at),
            printable(each.who),
            printable(each.via),
            printable(each.act),
            printable(f"{each.subject} {each.detail}".strip()),
            printable(each.address),
        )
        for each in acts
    ]


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
