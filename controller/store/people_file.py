"""The file of the database of `people`: its schema, and how it is made, upgraded and opened."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from controller.domain.errors import Stalled
from controller.domain.reasons import Reason
from controller.store.error_rules import translated
from controller.store.sqlite import transaction

TIMEOUT = 5.0  # seconds to wait for another writer

#: The schema, step by step; a file is taken from the step that it is at to the last one.
_STEPS = (
    """
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
""",
    """
CREATE TABLE identities (
    user TEXT PRIMARY KEY REFERENCES accounts ON DELETE CASCADE, issuer TEXT NOT NULL, subject TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX identities_by_subject ON identities (issuer, subject) WHERE subject <> '';
CREATE TABLE group_grants (
    user TEXT NOT NULL REFERENCES accounts ON DELETE CASCADE, role TEXT NOT NULL, app TEXT NOT NULL, name TEXT NOT NULL,
    until REAL NOT NULL, PRIMARY KEY (user, role, app, name)
) STRICT, WITHOUT ROWID;
ALTER TABLE sessions ADD COLUMN issuer TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN id_token TEXT NOT NULL DEFAULT '';
""",
    """
CREATE TABLE promises (
    id TEXT PRIMARY KEY, user TEXT REFERENCES accounts ON DELETE CASCADE, app TEXT NOT NULL, at REAL NOT NULL
) STRICT;
CREATE TABLE quotas (
    user TEXT NOT NULL REFERENCES accounts ON DELETE CASCADE, resource TEXT NOT NULL, most REAL NOT NULL,
    PRIMARY KEY (user, resource)
) STRICT, WITHOUT ROWID;
""",
    """
CREATE TABLE devices (
    digest TEXT PRIMARY KEY, code TEXT NOT NULL UNIQUE, label TEXT NOT NULL, scope TEXT NOT NULL,
    address TEXT NOT NULL, expires REAL NOT NULL, user TEXT REFERENCES accounts ON DELETE CASCADE,
    granted TEXT NOT NULL
) STRICT, WITHOUT ROWID;
""",
    """
ALTER TABLE sessions ADD COLUMN issuer_session TEXT NOT NULL DEFAULT '';
CREATE INDEX sessions_by_issuer ON sessions (issuer, issuer_session) WHERE issuer <> '';
CREATE TABLE issuer_logouts (
    issuer TEXT NOT NULL, id TEXT NOT NULL, expires REAL NOT NULL, PRIMARY KEY (issuer, id)
) STRICT, WITHOUT ROWID;
""",
    """
ALTER TABLE issuer_logouts ADD COLUMN subject TEXT NOT NULL DEFAULT '';
ALTER TABLE issuer_logouts ADD COLUMN session TEXT NOT NULL DEFAULT '';
ALTER TABLE issuer_logouts ADD COLUMN issued REAL NOT NULL DEFAULT 0;
ALTER TABLE issuer_logouts ADD COLUMN arrived REAL NOT NULL DEFAULT 0;
""",
)
_SCHEMA = len(_STEPS)


class PeopleFile:
    """A file that is opened for each transaction. Threads may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def opened(self, write: bool = False) -> Iterator[sqlite3.Connection]:
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
                with transaction(db, "BEGIN IMMEDIATE" if write or found < _SCHEMA else "BEGIN"):
                    if found < _SCHEMA:
                        _upgrade(db)
                    yield db

    def _make(self) -> None:
        """Create the file so that only its owner may read it, with any umask."""
        if self._path.exists():
            return
        try:
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600))
        except OSError as error:
            message = f"cannot write {self._path} ({error.strerror}): run this as root or the user of the web process"
            raise Stalled(Reason.PEOPLE_UNWRITABLE, message) from error


def _upgrade(db: sqlite3.Connection) -> None:
    """Called in a transaction that writes; another process may have done it meanwhile."""
    found = db.execute("PRAGMA user_version").fetchone()[0]
    for statement in ";\n".join(_STEPS[found:]).split(";\n"):
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {_SCHEMA}")
