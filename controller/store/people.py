"""Accounts of people, with their roles, sessions, tokens and what they did. A database of its own in the
folder of the web process, which alone decides by it who may do what: that process writes it, and commands of
root do so under its user (docs/adr/0020-people-belong-to-the-web-process.md). Nobody else may read it, for it
has the hashes of passwords.

Secrets of sessions, tokens and one-time links are long and random, so a plain SHA-256 of each is stored and
the secret itself nowhere. The database is opened for each query."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from controller.domain.errors import Stalled
from controller.domain.people.accounts import (
    NAME_RULE,
    Account,
    AuditEntry,
    Scope,
    SessionRecord,
    TokenRecord,
    is_account_name,
)
from controller.domain.people.roles import Grant, Principal, Role, grant_problem
from controller.domain.reasons import Reason
from controller.domain.text import storable
from controller.store.sqlite import translated

TIMEOUT = 5.0  # seconds to wait for another writer
SEEN = 60.0  # seconds between two notes of when a session or token was used last
MOST_USERS = 10_000
MOST_SESSIONS = 20  # of one person; the one that was not used for the longest time gives way
MOST_TOKENS = 50  # of one person
MOST_TICKETS = 10_000
KEEP_ACTS = 10_000
TICKET = 60.0  # seconds within which a browser has to come back after the password was right
LINK = 86400.0  # seconds that a one-time link is good

_CREATE = """
CREATE TABLE IF NOT EXISTS accounts (name TEXT PRIMARY KEY, created REAL NOT NULL, hash TEXT NOT NULL)
    STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS links (
    user TEXT PRIMARY KEY REFERENCES accounts ON DELETE CASCADE, digest TEXT NOT NULL UNIQUE, expires REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS grants (
    user TEXT NOT NULL REFERENCES accounts ON DELETE CASCADE, role TEXT NOT NULL, app TEXT NOT NULL,
    PRIMARY KEY (user, role, app)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions (
    digest TEXT PRIMARY KEY, id TEXT NOT NULL UNIQUE, user TEXT NOT NULL REFERENCES accounts ON DELETE CASCADE,
    created REAL NOT NULL, seen REAL NOT NULL, address TEXT NOT NULL, agent TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sessions_by_user ON sessions (user, seen);
CREATE TABLE IF NOT EXISTS tickets (
    digest TEXT PRIMARY KEY, user TEXT NOT NULL REFERENCES accounts ON DELETE CASCADE, form TEXT NOT NULL,
    next TEXT NOT NULL, expires REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tokens (
    digest TEXT PRIMARY KEY, id TEXT NOT NULL UNIQUE, user TEXT NOT NULL REFERENCES accounts ON DELETE CASCADE,
    label TEXT NOT NULL, scope TEXT NOT NULL, created REAL NOT NULL, expires REAL NOT NULL, used REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tokens_by_user ON tokens (user, created);
CREATE TABLE IF NOT EXISTS acts (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, who TEXT NOT NULL, via TEXT NOT NULL, act TEXT NOT NULL,
    subject TEXT NOT NULL, detail TEXT NOT NULL, address TEXT NOT NULL
) STRICT;
PRAGMA user_version = 1;
"""
_SESSION = "SELECT id, user, created, seen, address, agent FROM sessions"
_LIVE = "seen > :now - :idle AND created > :now - :lifetime AND seen <= :now + 60"
_TOKEN = "SELECT id, user, label, scope, created, expires, used FROM tokens"  # noqa: S105 - a query
_SCHEMA = 1


@dataclass(frozen=True)
class SessionLimits:
    """Seconds that a session lasts without use, and at all."""

    idle: float
    lifetime: float


@dataclass(frozen=True)
class Ticket:
    """A right password, for the browser that the form was given to."""

    user: str
    form: str
    next: str


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


class PeopleStore:
    """Threads may share it."""

    def __init__(self, path: Path, keep_acts: int = KEEP_ACTS) -> None:
        self._path = path
        self._keep_acts = keep_acts

    # --- accounts -----------------------------------------------------------------------------------------------

    def accounts(self) -> tuple[Account, ...]:
        query = "SELECT name, created, hash <> '' FROM accounts ORDER BY name"
        with self._open() as db:
            return tuple(Account(name, at, bool(known)) for name, at, known in db.execute(query))

    def add(self, name: str, now: float) -> None:
        """Add an account without a password. Stalled `UserExists`, `UserInvalid`, `TooManyUsers`."""
        if not is_account_name(name):
            raise Stalled(Reason.USER_INVALID, f"{name!r} cannot be the name of an account: {NAME_RULE}")
        with self._open(write=True) as db:
            if _one(db, "SELECT 1 FROM accounts WHERE name = ?", name):
                raise Stalled(Reason.USER_EXISTS, f"there is an account {name} already; see: prichal user ls")
            if db.execute("SELECT count(*) FROM accounts").fetchone()[0] >= MOST_USERS:
                raise Stalled(Reason.TOO_MANY_USERS, f"there are {MOST_USERS} accounts already")
            db.execute("INSERT INTO accounts VALUES (?, ?, '')", (name, now))

    def remove(self, name: str) -> None:
        """Delete an account with its roles, sessions and tokens. Stalled `UnknownUser`."""
        with self._open(write=True) as db:
            _require_user(db, name)
            db.execute("DELETE FROM accounts WHERE name = ?", (name,))

    def hash_of(self, name: str) -> str:
        """Return the hash of the password; "" for an account without one, and for an unknown one."""
        with self._open() as db:
            found = _one(db, "SELECT hash FROM accounts WHERE name = ?", name)
        return str(found[0]) if found else ""

    def set_hash(self, name: str, hash: str) -> None:
        """Set the password. Sessions and one-time links end with the previous one. Stalled `UnknownUser`."""
        with self._open(write=True) as db:
            _set_hash(db, name, hash)

    # --- one-time links -----------------------------------------------------------------------------------------

    def put_link(self, user: str, secret: str, expires: float) -> None:
        """Remember a one-time link, in place of an earlier one. Stalled `UnknownUser`."""
        with self._open(write=True) as db:
            _require_user(db, user)
            db.execute("INSERT OR REPLACE INTO links VALUES (?, ?, ?)", (user, digest_of(secret), expires))

    def link_user(self, secret: str, now: float) -> str | None:
        """Return whom a one-time link is for; None if it is not good, or not any more."""
        with self._open() as db:
            return _link_user(db, secret, now)

    def use_link(self, secret: str, hash: str, now: float) -> str | None:
        """Set the password of the person whom the link is for, and return their name; the link is used up."""
        with self._open(write=True) as db:
            user = _link_user(db, secret, now)
            if user is not None:
                _set_hash(db, user, hash)
        return user

    # --- roles --------------------------------------------------------------------------------------------------

    def grants(self, user: str | None = None) -> tuple[Grant, ...]:
        with self._open() as db:
            return _grants(db, user)

    def grant(self, grant: Grant) -> bool:
        """Give a role; return False if the person has it already. Stalled `UnknownUser`, `RoleInvalid`."""
        if problem := grant_problem(grant.role, grant.app):
            raise Stalled(Reason.ROLE_INVALID, problem)
        with self._open(write=True) as db:
            _require_user(db, grant.user)
            row = (grant.user, grant.role, grant.app)
            return db.execute("INSERT OR IGNORE INTO grants VALUES (?, ?, ?)", row).rowcount > 0

    def take_back(self, grant: Grant) -> bool:
        """Take a role away; return False if the person does not have it."""
        query = "DELETE FROM grants WHERE user = ? AND role = ? AND app = ?"
        with self._open(write=True) as db:
            return db.execute(query, (grant.user, grant.role, grant.app)).rowcount > 0

    # --- signing in ---------------------------------------------------------------------------------------------

    def put_ticket(self, secret: str, ticket: Ticket, now: float) -> None:
        with self._open(write=True) as db:
            db.execute("DELETE FROM tickets WHERE expires <= ?", (now,))
            if db.execute("SELECT count(*) FROM tickets").fetchone()[0] >= MOST_TICKETS:
                raise Stalled(Reason.TOO_MANY_TICKETS, "too many people sign in at once")
            row = (digest_of(secret), ticket.user, ticket.form, ticket.next, now + TICKET)
            db.execute("INSERT INTO tickets VALUES (?, ?, ?, ?, ?)", row)

    def take_ticket(self, secret: str, now: float) -> Ticket | None:
        """Return the ticket and delete it: it is good once."""
        query = "DELETE FROM tickets WHERE digest = ? RETURNING user, form, next, expires"
        with self._open(write=True) as db:
            found = db.execute(query, (digest_of(secret),)).fetchone()
        return Ticket(*found[:3]) if found and found[3] > now else None

    def begin_session(self, secret: str, session: SessionRecord, limits: SessionLimits) -> None:
        """Begin a session. Ended ones of everybody are deleted, and this person's oldest above the limit."""
        times = {"now": session.created, "idle": limits.idle, "lifetime": limits.lifetime}
        with self._open(write=True) as db:
            db.execute(f"DELETE FROM sessions WHERE NOT ({_LIVE})", times)  # noqa: S608 - a constant of ours
            oldest = "SELECT digest FROM sessions WHERE user = ? ORDER BY seen DESC LIMIT -1 OFFSET ?"
            db.execute(f"DELETE FROM sessions WHERE digest IN ({oldest})", (session.user, MOST_SESSIONS - 1))  # noqa: S608
            row = (session.id, session.user, session.created, session.seen)
            texts = (storable(session.address), storable(session.agent))
            db.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?)", (digest_of(secret), *row, *texts))

    def session(self, secret: str, limits: SessionLimits, now: float) -> Principal | None:
        """Return whose session a cookie is of; None if it has ended."""
        return self._session("digest", digest_of(secret), limits, now)

    def session_key(self, id: str) -> str:
        """Return what the forms of a session are signed with; "" if there is no such session."""
        with self._open() as db:
            found = _one(db, "SELECT digest FROM sessions WHERE id = ?", id)
        return str(found[0]) if found else ""

    def session_by_id(self, id: str, limits: SessionLimits, now: float) -> Principal | None:
        return self._session("id", id, limits, now)

    def sessions(
        self, limits: SessionLimits, now: float, user: str | None = None
    ) -> tuple[SessionRecord, ...]:
        query = f"{_SESSION} WHERE {_LIVE} AND (:user IS NULL OR user = :user) ORDER BY seen DESC, id"
        times = {"now": now, "idle": limits.idle, "lifetime": limits.lifetime, "user": user}
        with self._open() as db:
            return tuple(SessionRecord(*row) for row in db.execute(query, times))

    def end_session(self, id: str, user: str | None = None) -> SessionRecord | None:
        """End a session, of this person only if they are given. Return it, or None if there was none."""
        query = """DELETE FROM sessions WHERE id = ?1 AND (?2 IS NULL OR user = ?2)
            RETURNING id, user, created, seen, address, agent"""
        with self._open(write=True) as db:
            found = db.execute(query, (id, user)).fetchone()
        return SessionRecord(*found) if found else None

    def end_cookie(self, secret: str) -> None:
        with self._open(write=True) as db:
            db.execute("DELETE FROM sessions WHERE digest = ?", (digest_of(secret),))

    def _session(self, column: str, value: str, limits: SessionLimits, now: float) -> Principal | None:
        query = f"{_SESSION} WHERE {column} = :value AND {_LIVE}"
        asked = {"value": value, "now": now, "idle": limits.idle, "lifetime": limits.lifetime}
        with self._open() as db:
            row = db.execute(query, asked).fetchone()
            if row is None:
                return None
            found, grants = SessionRecord(*row), _grants(db, row[1])
        if not 0 <= now - found.seen < SEEN:
            with self._open(write=True) as db:
                db.execute("UPDATE sessions SET seen = ? WHERE id = ?", (now, found.id))
        return Principal(found.user, grants, Scope.ADMIN, f"session {found.id}", found.id)

    # --- tokens -------------------------------------------------------------------------------------------------

    def add_token(self, secret: str, token: TokenRecord) -> None:
        """Stalled `UnknownUser`, `TooManyTokens`."""
        with self._open(write=True) as db:
            _require_user(db, token.user)
            db.execute("DELETE FROM tokens WHERE user = ? AND expires <= ?", (token.user, token.created))
            if (
                db.execute("SELECT count(*) FROM tokens WHERE user = ?", (token.user,)).fetchone()[0]
                >= MOST_TOKENS
            ):
                raise Stalled(
                    Reason.TOO_MANY_TOKENS, f"{token.user} has {MOST_TOKENS} tokens: revoke unused ones"
                )
            row = (digest_of(secret), token.id, token.user, storable(token.label), token.scope)
            times = (token.created, token.expires, token.used)
            db.execute("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, *times))

    def tokens(self, user: str | None = None) -> tuple[TokenRecord, ...]:
        """The tokens of a person, or of all, expired ones included."""
        query = f"{_TOKEN} WHERE ?1 IS NULL OR user = ?1 ORDER BY user, created, id"
        with self._open() as db:
            return tuple(_token(row) for row in db.execute(query, (user,)))

    def revoke_token(self, id: str, user: str | None = None) -> TokenRecord | None:
        """Delete a token, of this person only if they are given. Return it, or None if there was none."""
        with self._open(write=True) as db:
            found = db.execute(f"{_TOKEN} WHERE id = ?1 AND (?2 IS NULL OR user = ?2)", (id, user)).fetchone()
            if found:
                db.execute("DELETE FROM tokens WHERE id = ?", (id,))
        return _token(found) if found else None

    def by_token(self, secret: str, now: float) -> Principal | None:
        """Return whose token it is; None if there is no such token, or not any more."""
        with self._open() as db:
            row = _one(db, f"{_TOKEN} WHERE digest = ?", digest_of(secret))
            found = _token(row) if row else None
            if found is None or found.expires <= now:
                return None
            grants = _grants(db, found.user)
        if not 0 <= now - found.used < SEEN:
            with self._open(write=True) as db:
                db.execute("UPDATE tokens SET used = ? WHERE id = ?", (now, found.id))
        return Principal(found.user, grants, found.scope, f"token {found.id}")

    # --- audit --------------------------------------------------------------------------------------------------

    def record(self, entry: AuditEntry) -> None:
        texts = (entry.who, entry.via, entry.act, entry.subject, entry.detail, entry.address)
        with self._open(write=True) as db:
            insert = (
                "INSERT INTO acts (at, who, via, act, subject, detail, address) VALUES (?, ?, ?, ?, ?, ?, ?)"
            )
            db.execute(insert, (entry.at, *(storable(text) for text in texts)))
            db.execute("DELETE FROM acts WHERE id <= (SELECT max(id) FROM acts) - ?", (self._keep_acts,))

    def acts(self, limit: int = 100, who: str | None = None) -> tuple[AuditEntry, ...]:
        """Newest first."""
        query = """SELECT at, who, via, act, subject, detail, address, id FROM acts
            WHERE ?1 IS NULL OR who = ?1 ORDER BY id DESC LIMIT ?2"""
        with self._open() as db:
            return tuple(AuditEntry(*row) for row in db.execute(query, (who, limit)))

    # --- the file -----------------------------------------------------------------------------------------------

    @contextmanager
    def _open(self, write: bool = False) -> Iterator[sqlite3.Connection]:
        """Yield a connection in a transaction. One that writes takes its lock first: see sqlite.py."""
        with translated(self._path):
            self._make()
            with closing(sqlite3.connect(self._path, timeout=TIMEOUT, isolation_level=None)) as db:
                db.execute("PRAGMA foreign_keys = ON")
                found = db.execute("PRAGMA user_version").fetchone()[0]
                if found > _SCHEMA:
                    raise Stalled(
                        Reason.STATE_TOO_NEW, f"{self._path} was written by a newer version of prichal"
                    )
                db.execute("BEGIN IMMEDIATE" if write or found < _SCHEMA else "BEGIN")
                try:
                    for statement in _CREATE.split(";\n") if found < _SCHEMA else ():
                        db.execute(statement)
                    yield db
                except BaseException:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
                    raise
                db.execute("COMMIT")

    def _make(self) -> None:
        """Create the file so that only its owner may read it, with any umask."""
        if self._path.exists():
            return
        try:
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600))
        except OSError as error:
            message = f"cannot write {self._path} ({error.strerror}): run this as root or the user of the web process"
            raise Stalled(Reason.PEOPLE_UNWRITABLE, message) from error


def _one(db: sqlite3.Connection, query: str, *parameters: object) -> sqlite3.Row | None:
    found: sqlite3.Row | None = db.execute(query, parameters).fetchone()
    return found


def _require_user(db: sqlite3.Connection, name: str) -> None:
    if not _one(db, "SELECT 1 FROM accounts WHERE name = ?", name):
        raise Stalled(Reason.UNKNOWN_USER, f"there is no account {name!r}; see: prichal user ls")


def _set_hash(db: sqlite3.Connection, name: str, hash: str) -> None:
    _require_user(db, name)
    db.execute("UPDATE accounts SET hash = ? WHERE name = ?", (hash, name))
    for table in ("sessions", "tickets", "links"):
        db.execute(f"DELETE FROM {table} WHERE user = ?", (name,))  # noqa: S608 - constants of ours


def _link_user(db: sqlite3.Connection, secret: str, now: float) -> str | None:
    found = _one(db, "SELECT user FROM links WHERE digest = ? AND expires > ?", digest_of(secret), now)
    return str(found[0]) if found else None


def _grants(db: sqlite3.Connection, user: str | None) -> tuple[Grant, ...]:
    query = "SELECT user, role, app FROM grants WHERE ?1 IS NULL OR user = ?1 ORDER BY user, app, role"
    known = frozenset(Role)
    return tuple(
        Grant(name, Role(role), app) for name, role, app in db.execute(query, (user,)) if role in known
    )


def _token(row: sqlite3.Row) -> TokenRecord:
    id, user, label, scope, *times = row
    return TokenRecord(id, user, label, Scope(scope), *times)
