"""Keys of age, by which files in Git are encrypted for an app or for the platform folder: private keys encrypted in the
state as Secrets that people set, public ones in clear.

An app has a key of its own, so that nobody gets at a value by copying another app's encrypted file into their
repository (docs/adr/0037-encrypted-files-in-git.md). Only the daemon writes and reads private keys.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from controller.domain.apps.age_keys import (
    MAX_AGE_KEYS,
    EncryptedFiles,
    KeyAction,
    PublicAgeKey,
    retire_refusal,
)
from controller.domain.apps.owned_secrets import CannotOpen
from controller.domain.apps.status import AppStatus
from controller.domain.names import AppName
from controller.domain.secret import Secret
from controller.ports import SecretCipher
from controller.store.apps import AppTable
from controller.store.sqlite import Database

if TYPE_CHECKING:
    from controller.age import AgeKeys

_LISTED: Final = "SELECT * FROM age_keys WHERE app = ? ORDER BY number DESC"
_PREVIEWS: Final = "SELECT app FROM branch_previews WHERE of_app = ?"
_STORE: Final = "INSERT INTO age_keys (app, number, recipient, sealed, author, at) VALUES (?, ?, ?, ?, ?, ?)"
_LOCKED: Final = "the keys of age cannot be read before the daemon has its own key"
_FOREIGN: Final = (
    "its age key was encrypted with another key than private/instance.key: restore that file from the backup and "
    "restart the daemon"
)
_NONE: Final = "it has no age key yet: wait for the daemon's next pass over the platform folder"


class AgeKeyTable:
    """Threads may share it. `apps` tells which files the commits in force have."""

    def __init__(self, database: Database, clock: Callable[[], float], apps: AppTable) -> None:
        self._database = database
        self._clock = clock
        self._apps = apps
        self._cipher: SecretCipher | None = None

    def listed(self, app: AppName) -> tuple[PublicAgeKey, ...]:
        with self._database.read() as db:
            rows = db.execute(_LISTED, (app,)).fetchall()
        return tuple(PublicAgeKey(row["recipient"], row["author"], row["at"]) for row in rows)

    def unlock(self, cipher: SecretCipher) -> None:
        self._cipher = cipher

    def of(self, app: AppName) -> AgeKeys:
        """Return the keys of an app with their private parts; none, and why, if they cannot be read."""
        from controller.age import AgeKey, AgeKeys  # not for those who only read the state

        if self._cipher is None:
            return AgeKeys(app, problem=_LOCKED)
        with self._database.read() as db:
            rows = db.execute(_LISTED, (app,)).fetchall()
        try:
            found = (AgeKey(row["recipient"], _opened(self._cipher, row)) for row in rows)
            return AgeKeys(app, tuple(found), "" if rows else _NONE)
        except CannotOpen:
            return AgeKeys(app, problem=_FOREIGN)

    def ensure(self, app: AppName) -> None:
        """Make the first key of an app. Idempotent; does nothing before `unlock`."""
        if self._cipher is None or self.listed(app):
            return
        with self._database.write() as db:
            if not db.execute(_LISTED, (app,)).fetchone():
                self._add(db, app, "")

    def retire_refusal(self, app: AppName) -> str:
        """Return why the older keys may not be deleted; "" if they may."""
        in_force = ((each.app, _known_files(each)) for each in self._apps.all())
        with self._database.read() as db:
            previews = [AppName(row["app"]) for row in db.execute(_PREVIEWS, (app,)).fetchall()]
        return retire_refusal((app, *previews), [key.recipient for key in self.listed(app)], in_force)

    def change(
        self, db: sqlite3.Connection, app: AppName, action: KeyAction, by: str, force: bool = False
    ) -> tuple[str, str]:
        """Make another key, or delete all but the newest, in the caller's transaction. Return a refusal, and what was
        done; both are empty if there is nothing to do. `force` deletes keys that a commit in force needs."""
        rows = db.execute(_LISTED, (app,)).fetchall()
        if action is KeyAction.RETIRE:
            if not force and (refusal := self.retire_refusal(app)):
                return refusal, ""
            for row in rows[1:]:
                db.execute("DELETE FROM age_keys WHERE app = ? AND number = ?", (app, row["number"]))
            old = ", ".join(row["recipient"] for row in rows[1:])
            return "", f"deleted the age keys {old}; files for them can no longer be decrypted" if old else ""
        if len(rows) >= MAX_AGE_KEYS:
            return (
                f"{app} has {MAX_AGE_KEYS} age keys: retire the older ones: prichal secret key {app} --retire",
                "",
            )
        recipient = self._add(db, app, by)
        return "", f"the new age key is {recipient}; older ones still decrypt until they are retired"

    def _add(self, db: sqlite3.Connection, app: AppName, by: str) -> str:
        from controller.age import new_key

        if self._cipher is None:
            raise AssertionError("unlock comes first")
        key = new_key()
        number = db.execute(
            "SELECT coalesce(max(number), 0) + 1 FROM age_keys WHERE app = ?", (app,)
        ).fetchone()[0]
        sealed = self._cipher.seal(key.identity.reveal().encode(), _place(app, key.recipient))
        db.execute(_STORE, (app, number, key.recipient, sealed, by, self._clock()))
        return key.recipient


def _known_files(status: AppStatus) -> tuple[EncryptedFiles, ...] | None:
    """Return None if a commit is in force whose files no pass has looked for yet."""
    is_new = not status.desired_revision and not status.conditions
    return () if status.encrypted is None and is_new else status.encrypted


def reseal(db: sqlite3.Connection, old: SecretCipher, new: SecretCipher) -> None:
    """Encrypt all private keys with another key, in the caller's transaction. Raises CannotOpen."""
    for row in db.execute("SELECT * FROM age_keys").fetchall():
        sealed = new.seal(_opened(old, row).reveal().encode(), _place(row["app"], row["recipient"]))
        db.execute(
            "UPDATE age_keys SET sealed = ? WHERE app = ? AND number = ?", (sealed, row["app"], row["number"])
        )


def _place(app: str, recipient: str) -> bytes:
    return json.dumps(["age", app, recipient]).encode()


def _opened(cipher: SecretCipher, row: sqlite3.Row) -> Secret:
    """Raises CannotOpen."""
    return Secret(cipher.open(bytes(row["sealed"]), _place(row["app"], row["recipient"])).decode())
