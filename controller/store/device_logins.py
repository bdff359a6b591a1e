"""Programs that ask a person for a token, in the database of people: `prichal login` shows a code, and the person
confirms it in a browser. Kept are digests of both codes and the person's answer, never a token: the token is made
when the program that began asks for it, once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from controller.domain.errors import Stalled
from controller.domain.people.accounts import Scope, TokenRecord
from controller.domain.reasons import Reason
from controller.domain.text import storable
from controller.store.people import PeopleStore, digest_of, put_token

LIFETIME: Final = 600.0  # seconds within which a person has to confirm
MOST, MOST_EACH = 1000, 20  # that wait, in all and of one address
_DENIED: Final = "denied"
_ROW: Final = "SELECT label, scope, address, expires, user, granted FROM devices"


@dataclass(frozen=True)
class DeviceLogin:
    """What a person is shown before they answer."""

    label: str
    scope: Scope
    address: str


class Unanswered(Enum):
    """Why there is no token."""

    PENDING = "pending"
    DENIED = "denied"
    GONE = "gone"  # unknown, too old, or answered with a token before


@dataclass(frozen=True)
class GrantedLogin:
    secret: str
    token: TokenRecord


#: Makes a token for a person with this label and scope.
MakeToken = Callable[[str, str, Scope], tuple[str, TokenRecord]]


class DeviceLogins:
    """Threads may share it."""

    def __init__(self, people: PeopleStore) -> None:
        self._people = people

    def begin(self, secret: str, code: str, login: DeviceLogin, now: float) -> None:
        """Stalled `TooManyTickets`."""
        with self._people.opened(write=True) as db:
            db.execute("DELETE FROM devices WHERE expires <= ?", (now,))
            all, own = db.execute(
                "SELECT count(*), count(*) FILTER (WHERE address = ?) FROM devices", (login.address,)
            ).fetchone()
            if all >= MOST or own >= MOST_EACH:
                raise Stalled(Reason.TOO_MANY_TICKETS, "too many programs wait for a person to sign in")
            row = (digest_of(secret), digest_of(code), storable(login.label), login.scope, login.address)
            db.execute("INSERT INTO devices VALUES (?, ?, ?, ?, ?, ?, NULL, '')", (*row, now + LIFETIME))

    def waiting(self, code: str, now: float) -> DeviceLogin | None:
        """Return what waits for an answer with this code."""
        with self._people.opened() as db:
            row = db.execute(
                f"{_ROW} WHERE code = ? AND expires > ? AND granted = ''", (digest_of(code), now)
            ).fetchone()
        return DeviceLogin(row[0], Scope(row[1]), row[2]) if row else None

    def answer(self, code: str, user: str, scope: Scope | None, now: float) -> DeviceLogin | None:
        """Grant this scope, or deny with None; return what was answered, None if nothing waits any more."""
        with self._people.opened(write=True) as db:
            row = db.execute(
                "UPDATE devices SET user = ?, granted = ? WHERE code = ? AND expires > ? AND granted = '' "
                "RETURNING label, scope, address",
                (user, scope or _DENIED, digest_of(code), now),
            ).fetchone()
        return DeviceLogin(row[0], Scope(row[1]), row[2]) if row else None

    def take(self, secret: str, now: float, make: MakeToken) -> GrantedLogin | Unanswered:
        """Return the token if a person has agreed; it is there once. Stalled `TooManyTokens`."""
        with self._people.opened(write=True) as db:
            row = db.execute(f"{_ROW} WHERE digest = ? AND expires > ?", (digest_of(secret), now)).fetchone()
            if row is None:
                return Unanswered.GONE
            if row[5] == "":
                return Unanswered.PENDING
            db.execute("DELETE FROM devices WHERE digest = ?", (digest_of(secret),))
            return Unanswered.DENIED if row[5] == _DENIED else _granted(db, row, make)


def _granted(db: sqlite3.Connection, row: sqlite3.Row, make: MakeToken) -> GrantedLogin:
    secret, token = make(row[4], row[0], Scope(row[5]))
    put_token(db, secret, token)
    return GrantedLogin(secret, token)
