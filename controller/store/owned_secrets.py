"""Secrets that people set: encrypted values in the state, sealed changes in `asked`.

The daemon, which has the keys (`unlock`), applies a change in the transaction that takes it in: the values, what
became of the change, an event and the request for a pass are written together or not at all. All others see names,
fingerprints, authors and times, and seal changes for the daemon's public key.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable
from dataclasses import replace

from controller.domain.apps.owned_secrets import (
    KEEP_CHANGES,
    LONGEST_WAIT,
    MAX_BYTES,
    MAX_WAITING,
    CannotOpen,
    ChangeRecord,
    ChangeState,
    Decision,
    OwnedKey,
    OwnedSecrets,
    SecretChange,
    change_problem,
    decide,
    is_change_id,
    packed,
    padded,
    unpacked,
)
from controller.domain.apps.requests import Trigger
from controller.domain.apps.spec import SecretSpec
from controller.domain.apps.status import Event, EventType
from controller.domain.errors import Stalled, Transient
from controller.domain.localizable import Localizable, as_document, from_stored, joined
from controller.domain.names import PLATFORM, AppName, is_dns_label
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.encryption import seal_for
from controller.ports import SecretCipher
from controller.store.age_keys import AgeKeyTable, reseal
from controller.store.apps import AppTable
from controller.store.events import EventLog
from controller.store.requests import RequestQueue
from controller.store.sqlite import Database

log = logging.getLogger(__name__)

LARGEST = 8 * MAX_BYTES  # bytes of a sealed change: JSON may write a character in six bytes
AT_ONCE = 5  # changes in one transaction
NAMED = 10  # keys in a message
SHOWN = 50  # changes of an app in a list
FUTURE = 3600.0  # seconds by which clocks may differ

LISTED = """
SELECT secret, key, fingerprint, length(sealed) AS size, author, at FROM secrets WHERE app = ? ORDER BY secret, key
"""
STORE = """
INSERT OR REPLACE INTO secrets (app, secret, key, sealed, fingerprint, author, at) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
TAKEN = "SELECT * FROM secret_changes_taken WHERE app = ? ORDER BY at DESC, id LIMIT ?"
NOTE = """
INSERT INTO secret_changes_taken (id, app, secret, author, state, message, request, at, told)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
PRUNE = """
DELETE FROM secret_changes_taken WHERE app = :app AND id NOT IN
(SELECT id FROM secret_changes_taken WHERE app = :app ORDER BY at DESC, id LIMIT :keep)
"""
WAITING = "SELECT id, app, created FROM secret_changes WHERE app = ? ORDER BY created, id LIMIT ?"


class OwnedSecretTable:
    """Threads may share it."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float],
        requests: RequestQueue,
        events: EventLog,
        apps: AppTable,
    ) -> None:
        self._database = database
        self._clock = clock
        self._requests = requests
        self._events = events
        self._keys: SecretCipher | None = None
        self.age_keys = AgeKeyTable(database, clock, apps)

    # --- for everybody ------------------------------------------------------------------------------------------

    def listed(self, app: AppName) -> tuple[OwnedKey, ...]:
        with self._database.read() as db:
            rows = db.execute(LISTED, (app,)).fetchall()
        return tuple(OwnedKey(*row) for row in rows)

    def ask(self, change: SecretChange) -> None:
        """Seal a change for the daemon. Stalled `SecretRefused` for one that nobody may ask for; Transient `QueueFull`
        and `StateMissing`."""
        if problem := change_problem(change):
            raise Stalled(Reason.SECRET_REFUSED, problem)
        content = packed(change)
        if len(content) > LARGEST:
            message = Localizable(
                "the values have more than {most} bytes together, which is all that an app may store",
                most=MAX_BYTES,
            )
            raise Stalled(Reason.SECRET_REFUSED, message)
        sealed = seal_for(self._public(), content, _change_place(change.id, change.app))
        with self._database.write() as db:
            if len(db.execute(WAITING, (change.app, MAX_WAITING)).fetchall()) >= MAX_WAITING:
                message = Localizable(
                    "{number} changes of the Secrets of {app} wait for the daemon: is it running?",
                    number=MAX_WAITING,
                    app=change.app,
                )
                raise Transient(Reason.QUEUE_FULL, message)
            row = (change.id, change.app, sealed, self._clock())
            db.execute("INSERT INTO secret_changes (id, app, sealed, created) VALUES (?, ?, ?, ?)", row)

    def changes(self, app: AppName) -> tuple[ChangeRecord, ...]:
        """Return the changes that wait, then those that were taken, newest first."""
        with self._database.read() as db:
            waiting = db.execute(WAITING, (app, MAX_WAITING)).fetchall()
            taken = db.execute(TAKEN, (app, SHOWN)).fetchall()
        known = {row["id"] for row in taken}
        return (*(_waiting(row) for row in waiting if row["id"] not in known), *map(_record, taken))

    def change(self, app: AppName, id: str) -> ChangeRecord | None:
        """Return a change; None if there was none, or its record was deleted."""
        query = "SELECT * FROM secret_changes_taken WHERE id = ? AND app = ?"
        with self._database.read() as db:  # it moves from the one to the other
            waiting = db.execute(
                "SELECT * FROM secret_changes WHERE id = ? AND app = ?", (id, app)
            ).fetchone()
            taken = db.execute(query, (id, app)).fetchone()
        return _record(taken) if taken else _waiting(waiting) if waiting else None

    # --- for the daemon, which has the keys ---------------------------------------------------------------------

    @property
    def unlocked(self) -> bool:
        return self._keys is not None

    @property
    def public_key(self) -> bytes:
        """Return the public key that others seal for; empty before the first start."""
        with self._database.read() as db:
            row = db.execute("SELECT public_key FROM sealing WHERE id = 1").fetchone()
        return bytes(row["public_key"]) if row else b""

    def unlock(self, keys: SecretCipher) -> None:
        """Use the keys from now on, and publish the public one. Values of another key are reported; they stay, and can
        be read once it is back."""
        known = self.public_key
        self._keys = keys
        self.age_keys.unlock(keys)
        if known == keys.public:
            return
        with self._database.write() as db:
            db.execute("INSERT OR REPLACE INTO sealing (id, public_key) VALUES (1, ?)", (keys.public,))
            if foreign := self.foreign(keys):
                log.error("%s", foreign)
                self._events.add([Event(PLATFORM, EventType.WARNING, Reason.SECRET_UNREADABLE, foreign)])

    def foreign(self, keys: SecretCipher) -> str:
        """Return what to do about values that were encrypted with other keys; "" if there are none."""
        query = (
            "SELECT app, count(*) AS number FROM {} WHERE substr(sealed, 1, 8) <> ? GROUP BY app ORDER BY app"
        )
        found = []
        for table, what in (("secrets", "values of Secrets"), ("age_keys", "age keys")):
            with self._database.read() as db:
                rows = db.execute(query.format(table), (keys.id,)).fetchall()
            if rows:
                apps = ", ".join(row["app"] for row in rows[:10])
                found.append(f"{sum(row['number'] for row in rows)} {what} ({apps})")
        if not found:
            return ""
        return f"{' and '.join(found)} were encrypted with another key than instance.key. {RESTORE}"

    def of(self, app: AppName) -> OwnedSecrets:
        """Return the Secrets of an app with their values; none before `unlock`."""
        if self._keys is None:
            return OwnedSecrets()
        with self._database.read() as db:
            rows = db.execute("SELECT * FROM secrets WHERE app = ? ORDER BY secret, key", (app,)).fetchall()
        found: dict[str, list[tuple[str, Secret]]] = {}
        unreadable: dict[str, str] = {}
        for row in rows:
            try:
                found.setdefault(row["secret"], []).append((row["key"], _opened(self._keys, row)))
            except CannotOpen as error:
                unreadable[row["secret"]] = _unreadable(row["secret"], row["key"], error)
        specs = (
            SecretSpec(name, tuple(values), app) for name, values in found.items() if name not in unreadable
        )
        return OwnedSecrets(tuple(specs), unreadable)

    def forget(self, app: AppName) -> None:
        """Delete all Secrets of an app, and what became of changes."""
        with self._database.write() as db:
            db.execute("DELETE FROM secrets WHERE app = ?", (app,))
            db.execute("DELETE FROM secret_changes_taken WHERE app = ?", (app,))
            db.execute("DELETE FROM age_keys WHERE app = ?", (app,))

    def rekey(self, keys: SecretCipher) -> int:
        """Encrypt all values with other keys, in one transaction, and return how many there are. Raises Stalled
        `SecretUnreadable`, and then changes nothing, if one cannot be read."""
        number = self.reencrypt(keys)
        self._keys = keys
        self.age_keys.unlock(keys)
        with (
            self._database.read() as db
        ):  # to the disk, before the old key is given up; and without the old pages
            db.execute("VACUUM main")
            db.execute("PRAGMA main.wal_checkpoint(TRUNCATE)")
        return number

    def reencrypt(self, keys: SecretCipher) -> int:
        """Encrypt all values with other keys, and return how many there are; nothing uses the keys yet."""
        old = self._keys
        if old is None:
            raise AssertionError("unlock comes first")
        with self._database.write() as db:
            rows = db.execute("SELECT * FROM secrets").fetchall()
            for row in rows:
                try:
                    value = _opened(old, row)
                except CannotOpen as error:
                    message = f"{row['app']}: {_unreadable(row['secret'], row['key'], error)}"
                    raise Stalled(Reason.SECRET_UNREADABLE, message) from error
                place = row["app"], row["secret"], row["key"]
                values = (*place, *_sealed(keys, place, value), row["author"], row["at"])
                db.execute(STORE, values)
            try:
                reseal(db, old, keys)
            except CannotOpen as error:
                message = f"an age key was encrypted with another key than instance.key. {RESTORE}"
                raise Stalled(Reason.SECRET_UNREADABLE, message) from error
            db.execute("INSERT OR REPLACE INTO sealing (id, public_key) VALUES (1, ?)", (keys.public,))
        return len(rows)

    def take(self, row: sqlite3.Row) -> None:
        """Apply a change, in the caller's transaction, or record why it is refused. Raises ValueError for what the
        platform does not write."""
        id, app, sealed = row["id"], row["app"], row["sealed"]
        if (
            not is_change_id(id)
            or not (app == PLATFORM or is_dns_label(app))
            or not isinstance(sealed, bytes)
            or len(sealed) > LARGEST
        ):
            raise ValueError("it is not a change of a Secret")
        with self._database.write() as db:
            if not db.execute("SELECT 1 FROM apps WHERE app = ?", (app,)).fetchone():
                raise ValueError(f"there is no app {app!r}")
            if not db.execute("SELECT 1 FROM secret_changes_taken WHERE id = ?", (id,)).fetchone():
                self._take(db, id, AppName(app), sealed)

    def _take(self, db: sqlite3.Connection, id: str, app: AppName, sealed: bytes) -> None:
        if self._keys is None:
            raise AssertionError("a change was taken before unlock")
        try:
            change = unpacked(id, app, self._keys.open_received(sealed, _change_place(id, app)))
        except CannotOpen:
            message = Localizable("the change was sealed for another key than the daemon's: ask for it again")
            self._note(db, SecretChange(id, app, "", (), "", self._clock()), Decision(message))
            return
        if problem := change_problem(change):  # who asks by `ask` was told
            raise ValueError(problem)
        self._note(db, change, self._decided(db, change))

    def _decided(self, db: sqlite3.Connection, change: SecretChange) -> Decision:
        """Decide on a change and store its values."""
        age = self._clock() - change.at
        if not -FUTURE <= age <= LONGEST_WAIT:
            return Decision(Localizable("the change is too old, or the clock was set back: ask for it again"))
        keys = self._keys
        if keys is None:
            raise AssertionError
        if change.action is not None:
            refusal, done = self.age_keys.change(db, change.app, change.action, change.by, change.force)
            return Decision(refusal, done=done)
        given = {key: value for key, value in change.values if value is not None}
        sealed = {key: _sealed(keys, (change.app, change.secret, key), value) for key, value in given.items()}
        prints = {key: each[1] for key, each in sealed.items()}
        decision = decide(
            change, self.listed(change.app), prints, {key: len(each[0]) for key, each in sealed.items()}
        )
        for key in decision.stored:
            row = (change.app, change.secret, key, *sealed[key], change.by, self._clock())
            db.execute(STORE, row)
        for key in decision.removed:
            db.execute(
                "DELETE FROM secrets WHERE app = ? AND secret = ? AND key = ?",
                (change.app, change.secret, key),
            )
        return decision

    def _note(self, db: sqlite3.Connection, change: SecretChange, decision: Decision) -> None:
        """Record what became of a change, and ask for a pass if something has changed."""
        now, request = self._clock(), 0
        message = decision.refusal or _told(change, decision)
        if decision.state is ChangeState.APPLIED:
            request = self._requests.enqueue(change.app, Trigger.SECRET)
        if decision.state is not ChangeState.UNCHANGED:
            is_refused = decision.state is ChangeState.REFUSED
            kind = EventType.WARNING if is_refused else EventType.NORMAL
            reason = Reason.SECRET_REFUSED if is_refused else Reason.SECRET_CHANGED
            self._events.add([Event(change.app, kind, reason, message)])
        about = (change.id, change.app, change.secret, change.by, decision.state)
        db.execute(NOTE, (*about, message, request, now, json.dumps(as_document(message))))
        db.execute(PRUNE, {"app": change.app, "keep": KEEP_CHANGES})

    def _public(self) -> bytes:
        found = self.public_key
        if not found:
            message = Localizable(
                "the daemon of this version has not run yet, so nothing can be sealed for it: prichal daemon"
            )
            raise Transient(Reason.STATE_MISSING, message)
        return found


RESTORE = (
    "Restore private/instance.key from the backup and restart the daemon; or set them again: prichal secret set. "
    "Containers keep running"
)


def _change_place(id: str, app: AppName) -> bytes:
    return f"change {app} {id}".encode()


def _place(app: str, secret: str, key: str) -> bytes:
    return json.dumps([app, secret, key]).encode()


def _sealed(keys: SecretCipher, place: tuple[str, str, str], value: Secret) -> tuple[bytes, str]:
    """Return a value as it is stored, and its fingerprint."""
    where = _place(*place)
    return keys.seal(padded(value.reveal()), where), keys.fingerprint(value.reveal().encode(), where)


def _opened(keys: SecretCipher, row: sqlite3.Row) -> Secret:
    """Raises CannotOpen."""
    content = keys.open(bytes(row["sealed"]), _place(row["app"], row["secret"], row["key"]))
    return Secret(str(json.loads(content)))


def _unreadable(secret: str, key: str, error: CannotOpen) -> str:
    if error.is_foreign:
        return f"the Secret {secret!r} was encrypted with another key than instance.key. {RESTORE}"
    return (
        f"the Secret {secret!r} is damaged in the state, at its key {key!r}: set it again: prichal secret set"
    )


def _told(change: SecretChange, decision: Decision) -> str:
    if change.action is not None:
        return f"{decision.done or 'there are no older age keys'} (by {change.by or 'nobody that is known'})"
    parts = []
    if decision.stored:
        parts.append(Localizable("set {keys}", keys=_few(decision.stored)))
    if decision.removed and not change.values:
        parts.append(Localizable("removed"))
    elif decision.removed:
        parts.append(Localizable("removed {keys}", keys=_few(decision.removed)))
    what = joined(parts) if parts else Localizable("has these values already")
    author = change.by or Localizable("nobody that is known")
    return Localizable(
        "the Secret {secret!r}: {what} (by {author})", secret=change.secret, what=what, author=author
    )


def _few(keys: tuple[str, ...]) -> str:
    named = ", ".join(keys[:NAMED])
    return (
        Localizable("{keys} and {more} more", keys=named, more=len(keys) - NAMED)
        if len(keys) > NAMED
        else named
    )


def _record(row: sqlite3.Row) -> ChangeRecord:
    found = ChangeRecord(row["id"], AppName(row["app"]), ChangeState(row["state"]), row["at"], row["secret"])
    return replace(found, by=row["author"], message=_message(row), request=row["request"])


def _message(row: sqlite3.Row) -> str:
    """Return the message as it was made. Rows of earlier versions have its text alone."""
    return from_stored(str(row["message"]), row["told"])


def _waiting(row: sqlite3.Row) -> ChangeRecord:
    return ChangeRecord(str(row["id"]), AppName(row["app"]), ChangeState.WAITING, float(row["created"]))
