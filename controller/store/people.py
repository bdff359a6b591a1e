"""Accounts of people, with their roles, sessions, tokens and what they did. A database of its own in the
folder of the web process, which alone decides by it who may do what: that process writes it, and commands of
root do so under its user (docs/adr/0020-people-belong-to-the-web-process.md). Nobody else may read it, for it
has the hashes of passwords.

Secrets of sessions, tokens and one-time links are long and random, so a plain SHA-256 of each is stored and
the secret itself nowhere. The file is opened for each query: see `people_file`."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.config import OpenIdIssuer
from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable
from controller.domain.people.accounts import (
    ANY_ISSUER,
    NAME_RULE,
    Account,
    AuditEntry,
    Scope,
    SessionRecord,
    TokenRecord,
    is_account_name,
)
from controller.domain.people.openid import (
    GroupRole,
    Identity,
    IssuerLogout,
    IssuerSession,
    SignedInPerson,
    is_ended,
    roles_by_group,
)
from controller.domain.people.roles import Grant, Principal, Role, grant_problem
from controller.domain.reasons import Reason
from controller.domain.text import storable
from controller.store.people_file import PeopleFile

SEEN = 60.0  # seconds between two notes of when a session or token was used last
MOST_USERS = 10_000
MOST_SESSIONS = 20  # of one person; the one that was not used for the longest time gives way
MOST_TOKENS = 50  # of one person
MOST_TICKETS = 10_000
KEEP_ACTS = 10_000
TICKET = 60.0  # seconds within which a browser has to come back after the password was right
KEEP_LOGOUTS = (
    600.0  # seconds in which a sign-in is completed whose session at the issuer has ended meanwhile
)
MOST_LOGOUTS = 10_000  # of all issuers that are remembered
CLOCKS = 60.0  # seconds, more than clocks of issuers may differ
LINK = 86400.0  # seconds that a one-time link is good

_RECORD = "id, user, created, seen, address, agent, issuer"
_SESSION = f"SELECT {_RECORD} FROM sessions"  # noqa: S608 - a constant of ours
_LIVE = "seen > :now - :idle AND created > :now - :lifetime AND seen <= :now + 60"
_TOKEN = "SELECT id, user, label, scope, created, expires, used FROM tokens"  # noqa: S105 - a query
_SUBJECT_ANY = ""  # of an identity: the next person whom the issuer knows by the account's name


@dataclass(frozen=True)
class SessionLimits:
    """Seconds that a session lasts without use, and at all."""

    idle: float
    lifetime: float


@dataclass(frozen=True)
class Promise:
    """That a person becomes the developer of an app once the order `id` was carried out; or, without a person, that
    nobody has a role in it any more."""

    id: str
    user: str
    app: str
    at: float


@dataclass(frozen=True)
class Ticket:
    """A right password, for the browser that the form was given to."""

    user: str
    form: str
    next: str


@dataclass(frozen=True)
class AdmittedPerson:
    """Somebody whom an issuer knows, with what their groups give them from now on and gave them before."""

    name: str
    is_new: bool
    grants: tuple[Grant, ...]
    former: tuple[Grant, ...]

    @property
    def gained(self) -> list[Grant]:
        return sorted(set(self.grants) - set(self.former))

    @property
    def lost(self) -> list[Grant]:
        return sorted(set(self.former) - set(self.grants))


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


class PeopleStore(PeopleFile):
    """What is known about people. Threads may share it."""

    def __init__(self, path: Path, keep_acts: int = KEEP_ACTS, most_logouts: int = MOST_LOGOUTS) -> None:
        super().__init__(path)
        self._keep_acts = keep_acts
        self._most_logouts = most_logouts

    # --- accounts -----------------------------------------------------------------------------------------------

    def accounts(self) -> tuple[Account, ...]:
        query = """SELECT name, created, hash <> '', issuer FROM accounts LEFT JOIN identities ON user = name
            ORDER BY name"""
        with self.opened() as db:
            return tuple(
                Account(name, at, bool(known), "" if issuer is None else issuer or ANY_ISSUER)
                for name, at, known, issuer in db.execute(query)
            )

    def add(self, name: str, now: float, issuer: str | None = None) -> None:
        """Add an account without a password; with an `issuer` it is for whom that one knows by this name, or any one if
        it is empty. Stalled `UserExists`, `UserInvalid`, `TooManyUsers`."""
        with self.opened(write=True) as db:
            if _is_account(db, name):
                raise Stalled(
                    Reason.USER_EXISTS,
                    Localizable("there is an account {name} already; see: prichal user ls", name=name),
                )
            _add(db, name, now)
            if issuer is not None:
                db.execute("INSERT INTO identities VALUES (?, ?, ?)", (name, issuer, _SUBJECT_ANY))

    def remove(self, name: str) -> None:
        """Delete an account with its roles, sessions and tokens. Stalled `UnknownUser`."""
        with self.opened(write=True) as db:
            _require_user(db, name)
            db.execute("DELETE FROM accounts WHERE name = ?", (name,))

    def require(self, name: str) -> None:
        """Stalled `UnknownUser` if there is no such account."""
        with self.opened() as db:
            _require_user(db, name)

    def hash_of(self, name: str) -> str:
        """Return the hash of the password; "" for an account without one, and for an unknown one."""
        with self.opened() as db:
            found = _one(db, "SELECT hash FROM accounts WHERE name = ?", name)
        return str(found[0]) if found else ""

    def set_hash(self, name: str, hash: str) -> None:
        """Set the password. Sessions and one-time links end with the previous one. Stalled `UnknownUser`,
        `UserExternal`."""
        with self.opened(write=True) as db:
            _set_hash(db, name, hash)

    # --- one-time links -----------------------------------------------------------------------------------------

    def put_link(self, user: str, secret: str, expires: float) -> None:
        """Remember a one-time link, in place of an earlier one. Stalled `UnknownUser`, `UserExternal`."""
        with self.opened(write=True) as db:
            _require_local(db, user)
            db.execute("INSERT OR REPLACE INTO links VALUES (?, ?, ?)", (user, digest_of(secret), expires))

    def link_user(self, secret: str, now: float) -> str | None:
        """Return whom a one-time link is for; None if it is not good, or not any more."""
        with self.opened() as db:
            return _link_user(db, secret, now)

    def use_link(self, secret: str, hash: str, now: float) -> str | None:
        """Set the password of the person whom the link is for, and return their name; the link is used up."""
        with self.opened(write=True) as db:
            user = _link_user(db, secret, now)
            if user is not None:
                _set_hash(db, user, hash)
        return user

    # --- roles --------------------------------------------------------------------------------------------------

    def grants(self, now: float, user: str | None = None) -> tuple[Grant, ...]:
        """What was given to accounts, and what groups give them now."""
        with self.opened() as db:
            return _grants(db, user, now)

    def grant(self, grant: Grant) -> bool:
        """Give a role; return False if the person has it already. Stalled `UnknownUser`, `RoleInvalid`."""
        if problem := grant_problem(grant.role, grant.app):
            raise Stalled(Reason.ROLE_INVALID, problem)
        with self.opened(write=True) as db:
            _require_user(db, grant.user)
            row = (grant.user, grant.role, grant.app)
            return db.execute("INSERT OR IGNORE INTO grants VALUES (?, ?, ?)", row).rowcount > 0

    def take_back(self, grant: Grant) -> bool:
        """Take a role away; return False if the person does not have it."""
        query = "DELETE FROM grants WHERE user = ? AND role = ? AND app = ?"
        with self.opened(write=True) as db:
            return db.execute(query, (grant.user, grant.role, grant.app)).rowcount > 0

    # --- OpenID Connect -----------------------------------------------------------------------------------------

    def admit(
        self, person: SignedInPerson, rules: tuple[GroupRole, ...], now: float, until: float
    ) -> AdmittedPerson:
        """Return the account of a person at an issuer, and make it the first time. Their groups give them roles by
        these rules until then, in place of earlier ones. Stalled `UserTaken`, `UserLocal`, `UserInvalid`,
        `TooManyUsers`."""
        with self.opened(write=True) as db:
            query = "SELECT user FROM identities WHERE issuer = ? AND subject = ?"
            found = _one(db, query, person.identity.issuer, person.identity.subject)
            name, is_new = (str(found[0]), False) if found else (person.name, _bind(db, person, now))
            former = _group_grants(db, name, now)
            db.execute("DELETE FROM group_grants WHERE user = ?", (name,))
            grants = roles_by_group(name, person.groups, rules)
            rows = [(each.user, each.role, each.app, each.group, until) for each in grants]
            db.executemany("INSERT INTO group_grants VALUES (?, ?, ?, ?, ?)", rows)
        return AdmittedPerson(name, is_new, grants, former)

    def dismiss(self, identity: Identity) -> str | None:
        """End the sessions of somebody who may not sign in any more, and what their groups gave them. Return their
        name; None if they have no account."""
        query = "SELECT user FROM identities WHERE issuer = ? AND subject = ?"
        with self.opened(write=True) as db:
            found = _one(db, query, identity.issuer, identity.subject)
            if found is not None:
                _end(db, ("sessions", "group_grants"), found[0])
        return str(found[0]) if found else None

    def release(self, name: str) -> Identity:
        """Take an account from the person who signs in with it: it is that of the next one whom an issuer knows by this
        name. Sessions, tokens and roles by groups end; roles of the account stay. Return whose it was. Stalled
        `UnknownUser`, `UserLocal`."""
        with self.opened(write=True) as db:
            _require_user(db, name)
            found = _one(db, "SELECT issuer, subject FROM identities WHERE user = ?", name)
            if found is None:
                message = (
                    f"{name} is an account of the platform's own; remove it to free its name: prichal user rm"
                )
                raise Stalled(Reason.USER_LOCAL, message)
            db.execute("UPDATE identities SET issuer = '', subject = ? WHERE user = ?", (_SUBJECT_ANY, name))
            _end(db, ("sessions", "tokens", "tickets", "group_grants"), name)
        return Identity(*found)

    def enforce(self, issuers: Iterable[str], rules: frozenset[GroupRole], passwords: bool) -> int:
        """End sessions and roles by groups that the configuration does not allow any more; `issuers` are the names of
        those with which people sign in. Return how many sessions have ended."""
        names = [*issuers, *([""] if passwords else [])]
        kept = ", ".join("?" * len(names))
        with self.opened(write=True) as db:
            ended = db.execute(f"DELETE FROM sessions WHERE issuer NOT IN ({kept})", names)  # noqa: S608
            for row in db.execute(
                "SELECT role, app, name FROM group_grants GROUP BY role, app, name"
            ).fetchall():
                if not any((rule.role, rule.app, rule.group) == row for rule in rules):
                    db.execute("DELETE FROM group_grants WHERE role = ? AND app = ? AND name = ?", row)
        return ended.rowcount

    def sign_out_hint(self, id: str) -> tuple[str, str]:
        """Return the name of the issuer with which a session began, and its ID token."""
        with self.opened() as db:
            found = _one(db, "SELECT issuer, id_token FROM sessions WHERE id = ?", id)
        return (str(found[0]), str(found[1])) if found else ("", "")

    # --- apps that people make and delete -----------------------------------------------------------------------

    def promise(self, id: str, user: str, app: str, now: float) -> None:
        """Remember, before an order is placed, whose role depends on it: see `settle`. `user` is "" for callers without
        an account, and for an order to delete the app. Stalled `UnknownUser`."""
        with self.opened(write=True) as db:
            if user:
                _require_user(db, user)
            db.execute("INSERT OR IGNORE INTO promises VALUES (?, ?, ?, ?)", (id, user or None, app, now))

    def promises(self) -> tuple[Promise, ...]:
        """Oldest first."""
        with self.opened() as db:
            rows = db.execute(
                "SELECT id, coalesce(user, ''), app, at FROM promises ORDER BY rowid"
            ).fetchall()
        return tuple(Promise(*row) for row in rows)

    def keep_promise(self, promise: Promise) -> None:
        """The order was carried out: roles of an earlier app of this name are gone, and the one who has made it is its
        developer."""
        with self.opened(write=True) as db:
            if db.execute("DELETE FROM promises WHERE id = ?", (promise.id,)).rowcount == 0:
                return  # another process has kept it, and more may have been given since
            db.execute("DELETE FROM grants WHERE app = ?", (promise.app,))
            if promise.user:
                row = (promise.user, Role.DEVELOPER, promise.app)
                db.execute("INSERT OR IGNORE INTO grants (user, role, app) VALUES (?, ?, ?)", row)

    def drop_promise(self, promise: Promise) -> None:
        with self.opened(write=True) as db:
            db.execute("DELETE FROM promises WHERE id = ?", (promise.id,))

    def quota(self, user: str) -> dict[str, float]:
        """Return the numbers of a person's quota that were set for them, by resource."""
        with self.opened() as db:
            return dict(db.execute("SELECT resource, most FROM quotas WHERE user = ?", (user,)).fetchall())

    def set_quota(self, user: str, most: Mapping[str, float | None]) -> None:
        """Set numbers of a person's quota; None means that of the configuration. Stalled `UnknownUser`."""
        with self.opened(write=True) as db:
            _require_user(db, user)
            for resource, number in most.items():
                db.execute("DELETE FROM quotas WHERE user = ? AND resource = ?", (user, resource))
                if number is not None:
                    db.execute("INSERT INTO quotas VALUES (?, ?, ?)", (user, resource, number))

    # --- signing in ---------------------------------------------------------------------------------------------

    def put_ticket(self, secret: str, ticket: Ticket, now: float) -> None:
        with self.opened(write=True) as db:
            db.execute("DELETE FROM tickets WHERE expires <= ?", (now,))
            if db.execute("SELECT count(*) FROM tickets").fetchone()[0] >= MOST_TICKETS:
                raise Stalled(Reason.TOO_MANY_TICKETS, Localizable("too many people sign in at once"))
            row = (digest_of(secret), ticket.user, ticket.form, ticket.next, now + TICKET)
            db.execute("INSERT INTO tickets VALUES (?, ?, ?, ?, ?)", row)

    def take_ticket(self, secret: str, now: float) -> Ticket | None:
        """Return the ticket and delete it: it is good once."""
        query = "DELETE FROM tickets WHERE digest = ? RETURNING user, form, next, expires"
        with self.opened(write=True) as db:
            found = db.execute(query, (digest_of(secret),)).fetchone()
        return Ticket(*found[:3]) if found and found[3] > now else None

    def begin_session(
        self,
        secret: str,
        session: SessionRecord,
        limits: SessionLimits,
        id_token: str = "",
        origin: IssuerSession | None = None,
    ) -> bool:
        """Begin a session. Ended ones of everybody are deleted, and this person's oldest above the limit. An issuer
        that is asked to sign the person out gets the `id_token`. Return False, and begin none, if the issuer has said
        already that the session there has ended."""
        times = {"now": session.created, "idle": limits.idle, "lifetime": limits.lifetime}
        with self.opened(write=True) as db:
            if origin is not None and _is_ended(db, origin):
                return False
            db.execute(f"DELETE FROM sessions WHERE NOT ({_LIVE})", times)  # noqa: S608 - a constant of ours
            oldest = "SELECT digest FROM sessions WHERE user = ? ORDER BY seen DESC LIMIT -1 OFFSET ?"
            db.execute(f"DELETE FROM sessions WHERE digest IN ({oldest})", (session.user, MOST_SESSIONS - 1))  # noqa: S608
            row = (session.id, session.user, session.created, session.seen)
            texts = (storable(session.address), storable(session.agent))
            at_issuer = (session.issuer, id_token, origin.session if origin is not None else "")
            insert = "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            db.execute(insert, (digest_of(secret), *row, *texts, *at_issuer))
        return True

    def session(self, secret: str, limits: SessionLimits, now: float) -> Principal | None:
        """Return whose session a cookie is of; None if it has ended."""
        return self._session("digest", digest_of(secret), limits, now)

    def session_key(self, id: str) -> str:
        """Return what the forms of a session are signed with; "" if there is no such session."""
        with self.opened() as db:
            found = _one(db, "SELECT digest FROM sessions WHERE id = ?", id)
        return str(found[0]) if found else ""

    def session_by_id(
        self, id: str, limits: SessionLimits, now: float, is_use: bool = True
    ) -> Principal | None:
        """A request that a page makes by itself is not a use of the session, which may end while nobody is there."""
        return self._session("id", id, limits, now, is_use)

    def sessions(
        self, limits: SessionLimits, now: float, user: str | None = None
    ) -> tuple[SessionRecord, ...]:
        query = f"{_SESSION} WHERE {_LIVE} AND (:user IS NULL OR user = :user) ORDER BY seen DESC, id"
        times = {"now": now, "idle": limits.idle, "lifetime": limits.lifetime, "user": user}
        with self.opened() as db:
            return tuple(SessionRecord(*row) for row in db.execute(query, times))

    def end_session(self, id: str, user: str | None = None) -> SessionRecord | None:
        """End a session, of this person only if they are given. Return it, or None if there was none."""
        query = f"DELETE FROM sessions WHERE id = ?1 AND (?2 IS NULL OR user = ?2) RETURNING {_RECORD}"  # noqa: S608
        with self.opened(write=True) as db:
            found = db.execute(query, (id, user)).fetchone()
        return SessionRecord(*found) if found else None

    def end_issuer_sessions(
        self, issuer: OpenIdIssuer, logout: IssuerLogout, now: float
    ) -> tuple[SessionRecord, ...] | None:
        """End the sessions that an issuer says have ended, and return them; None if it has said so before. A session
        without an id of the issuer is one of its subject that may be meant. It is remembered for those that begin in a
        moment: see `begin_session`."""
        query = f"""DELETE FROM sessions WHERE issuer = :name
            AND (:session = '' OR issuer_session = :session OR (issuer_session = '' AND :subject <> ''))
            AND (:subject = '' OR user IN (SELECT user FROM identities WHERE issuer = :issuer AND subject = :subject))
            RETURNING {_RECORD}"""  # noqa: S608 - a constant of ours
        asked = {
            "name": issuer.name,
            "issuer": issuer.issuer,
            "session": logout.session,
            "subject": logout.subject,
        }
        with self.opened(write=True) as db:
            _forget_logouts(db, now, self._most_logouts)
            row = (
                issuer.issuer,
                logout.id,
                logout.expires,
                logout.subject,
                logout.session,
                logout.issued,
                now,
            )
            if (
                db.execute("INSERT OR IGNORE INTO issuer_logouts VALUES (?, ?, ?, ?, ?, ?, ?)", row).rowcount
                == 0
            ):
                return None
            return tuple(SessionRecord(*each) for each in db.execute(query, asked).fetchall())

    def end_cookie(self, secret: str) -> None:
        with self.opened(write=True) as db:
            db.execute("DELETE FROM sessions WHERE digest = ?", (digest_of(secret),))

    def _session(
        self, column: str, value: str, limits: SessionLimits, now: float, is_use: bool = True
    ) -> Principal | None:
        query = f"{_SESSION} WHERE {column} = :value AND {_LIVE}"
        asked = {"value": value, "now": now, "idle": limits.idle, "lifetime": limits.lifetime}
        with self.opened() as db:
            row = db.execute(query, asked).fetchone()
            if row is None:
                return None
            found, grants = SessionRecord(*row), _grants(db, row[1], now)
        if is_use and not 0 <= now - found.seen < SEEN:
            with self.opened(write=True) as db:
                db.execute("UPDATE sessions SET seen = ? WHERE id = ?", (now, found.id))
        return Principal(found.user, grants, Scope.ADMIN, f"session {found.id}", found.id)

    # --- tokens -------------------------------------------------------------------------------------------------

    def add_token(self, secret: str, token: TokenRecord) -> None:
        """Stalled `UnknownUser`, `TooManyTokens`."""
        with self.opened(write=True) as db:
            put_token(db, secret, token)

    def tokens(self, user: str | None = None) -> tuple[TokenRecord, ...]:
        """The tokens of a person, or of all, expired ones included."""
        query = f"{_TOKEN} WHERE ?1 IS NULL OR user = ?1 ORDER BY user, created, id"
        with self.opened() as db:
            return tuple(_token(row) for row in db.execute(query, (user,)))

    def revoke_token(self, id: str, user: str | None = None) -> TokenRecord | None:
        """Delete a token, of this person only if they are given. Return it, or None if there was none."""
        with self.opened(write=True) as db:
            found = db.execute(f"{_TOKEN} WHERE id = ?1 AND (?2 IS NULL OR user = ?2)", (id, user)).fetchone()
            if found:
                db.execute("DELETE FROM tokens WHERE id = ?", (id,))
        return _token(found) if found else None

    def by_token(self, secret: str, now: float) -> Principal | None:
        """Return whose token it is; None if there is no such token, or not any more."""
        with self.opened() as db:
            row = _one(db, f"{_TOKEN} WHERE digest = ?", digest_of(secret))
            found = _token(row) if row else None
            if found is None or found.expires <= now:
                return None
            grants = _grants(db, found.user, now)
        if not 0 <= now - found.used < SEEN:
            with self.opened(write=True) as db:
                db.execute("UPDATE tokens SET used = ? WHERE id = ?", (now, found.id))
        return Principal(found.user, grants, found.scope, f"token {found.id}")

    # --- audit --------------------------------------------------------------------------------------------------

    def record(self, entry: AuditEntry) -> None:
        texts = (entry.who, entry.via, entry.act, entry.subject, entry.detail, entry.address)
        with self.opened(write=True) as db:
            insert = (
                "INSERT INTO acts (at, who, via, act, subject, detail, address) VALUES (?, ?, ?, ?, ?, ?, ?)"
            )
            db.execute(insert, (entry.at, *(storable(text) for text in texts)))
            db.execute("DELETE FROM acts WHERE id <= (SELECT max(id) FROM acts) - ?", (self._keep_acts,))

    def acts(self, limit: int = 100, who: str | None = None) -> tuple[AuditEntry, ...]:
        """Newest first."""
        query = """SELECT at, who, via, act, subject, detail, address, id FROM acts
            WHERE ?1 IS NULL OR who = ?1 ORDER BY id DESC LIMIT ?2"""
        with self.opened() as db:
            return tuple(AuditEntry(*row) for row in db.execute(query, (who, limit)))


def _one(db: sqlite3.Connection, query: str, *parameters: object) -> sqlite3.Row | None:
    found: sqlite3.Row | None = db.execute(query, parameters).fetchone()
    return found


def put_token(db: sqlite3.Connection, secret: str, token: TokenRecord) -> None:
    """Stalled `UnknownUser`, `TooManyTokens`."""
    _require_user(db, token.user)
    db.execute("DELETE FROM tokens WHERE user = ? AND expires <= ?", (token.user, token.created))
    number = db.execute("SELECT count(*) FROM tokens WHERE user = ?", (token.user,)).fetchone()[0]
    if number >= MOST_TOKENS:
        message = Localizable(
            "{user} has {number} tokens: revoke unused ones", user=token.user, number=MOST_TOKENS
        )
        raise Stalled(Reason.TOO_MANY_TOKENS, message)
    row = (digest_of(secret), token.id, token.user, storable(token.label), token.scope)
    times = (token.created, token.expires, token.used)
    db.execute("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, *times))


def _require_user(db: sqlite3.Connection, name: str) -> None:
    if not _one(db, "SELECT 1 FROM accounts WHERE name = ?", name):
        raise Stalled(
            Reason.UNKNOWN_USER, Localizable("there is no account {name!r}; see: prichal user ls", name=name)
        )


def _is_ended(db: sqlite3.Connection, origin: IssuerSession) -> bool:
    query = """SELECT id, expires, subject, session, issued, arrived FROM issuer_logouts
        WHERE issuer = ? AND (subject = ? OR subject = '')"""
    rows = db.execute(query, (origin.issuer, origin.subject)).fetchall()
    return any(is_ended(origin, IssuerLogout(*row[:5]), row[5]) for row in rows)


def _forget_logouts(db: sqlite3.Connection, now: float, most: int) -> None:
    """Forget what can neither be repeated nor concern a sign-in any more, and the oldest ones above the limit."""
    db.execute(
        "DELETE FROM issuer_logouts WHERE expires < ? AND arrived < ?", (now - CLOCKS, now - KEEP_LOGOUTS)
    )
    oldest = "SELECT issuer, id FROM issuer_logouts ORDER BY arrived DESC LIMIT -1 OFFSET ?"
    db.execute(f"DELETE FROM issuer_logouts WHERE (issuer, id) IN ({oldest})", (most - 1,))  # noqa: S608


def _is_account(db: sqlite3.Connection, name: str) -> bool:
    return _one(db, "SELECT 1 FROM accounts WHERE name = ?", name) is not None


def _add(db: sqlite3.Connection, name: str, now: float) -> None:
    if not is_account_name(name):
        message = Localizable(
            "{name!r} cannot be the name of an account: use {rule}", name=name, rule=NAME_RULE
        )
        raise Stalled(Reason.USER_INVALID, message)
    if db.execute("SELECT count(*) FROM accounts").fetchone()[0] >= MOST_USERS:
        raise Stalled(
            Reason.TOO_MANY_USERS, Localizable("there are {most} accounts already", most=MOST_USERS)
        )
    db.execute("INSERT INTO accounts VALUES (?, ?, '')", (name, now))


def _bind(db: sqlite3.Connection, person: SignedInPerson, now: float) -> bool:
    """Bind the account of a name to a person, or make it; return True if it is new."""
    kept = _one(db, "SELECT issuer, subject FROM identities WHERE user = ?", person.name)
    if kept is not None and kept[1] == _SUBJECT_ANY and kept[0] in ("", person.identity.issuer):
        row = (person.identity.issuer, person.identity.subject, person.name)
        db.execute("UPDATE identities SET issuer = ?, subject = ? WHERE user = ?", row)
        return False
    if kept is not None:
        raise Stalled(Reason.USER_TAKEN, f"the name {person.name} belongs to somebody else's account")
    if _is_account(db, person.name):
        raise Stalled(Reason.USER_LOCAL, f"{person.name} is an account of the platform's own")
    _add(db, person.name, now)
    row = (person.name, person.identity.issuer, person.identity.subject)
    db.execute("INSERT INTO identities VALUES (?, ?, ?)", row)
    return True


def _require_local(db: sqlite3.Connection, name: str) -> None:
    _require_user(db, name)
    if _one(db, "SELECT 1 FROM identities WHERE user = ?", name):
        message = Localizable("{name} signs in with OpenID Connect, and has no password here", name=name)
        raise Stalled(Reason.USER_EXTERNAL, message)


def _set_hash(db: sqlite3.Connection, name: str, hash: str) -> None:
    _require_local(db, name)
    db.execute("UPDATE accounts SET hash = ? WHERE name = ?", (hash, name))
    _end(db, ("sessions", "tickets", "links"), name)


def _end(db: sqlite3.Connection, tables: tuple[str, ...], user: str) -> None:
    """Delete what these tables have of a person."""
    for table in tables:
        db.execute(f"DELETE FROM {table} WHERE user = ?", (user,))  # noqa: S608 - constants of ours


def _link_user(db: sqlite3.Connection, secret: str, now: float) -> str | None:
    found = _one(db, "SELECT user FROM links WHERE digest = ? AND expires > ?", digest_of(secret), now)
    return str(found[0]) if found else None


def _grants(db: sqlite3.Connection, user: str | None, now: float) -> tuple[Grant, ...]:
    query = "SELECT user, role, app, '' FROM grants WHERE ?1 IS NULL OR user = ?1"
    given = _read_grants(db.execute(query, (user,)))
    return tuple(
        sorted([*given, *_group_grants(db, user, now)], key=lambda each: (each.user, each.group, each))
    )


def _group_grants(db: sqlite3.Connection, user: str | None, now: float) -> tuple[Grant, ...]:
    query = "SELECT user, role, app, name FROM group_grants WHERE (?1 IS NULL OR user = ?1) AND until > ?2"
    return _read_grants(db.execute(query, (user, now)))


def _read_grants(rows: Iterable[tuple[str, str, str, str]]) -> tuple[Grant, ...]:
    known = frozenset(Role)
    return tuple(Grant(user, Role(role), app, group) for user, role, app, group in rows if role in known)


def _token(row: sqlite3.Row) -> TokenRecord:
    id, user, label, scope, *times = row
    return TokenRecord(id, user, label, Scope(scope), *times)
