"""The file of the database with async calls: its schema, and a connection for each thread of the workers that share it.

A file that is damaged is set aside, by one worker and once: opening it and setting it aside exclude each other by the
lock of a file beside it, and a worker whose connection is to a file that was set aside opens the new one."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from controller.store import large_values
from controller.store.database_files import announce
from controller.store.error_rules import translated
from controller.store.sqlite import CACHE, transaction

log = logging.getLogger(__name__)

FILE_MODE: Final = 0o600
TIMEOUT: Final = 5.0  # seconds to wait for another writer
MOMENT: Final = 0.05
INCREMENTAL: Final = 2  # SQLite's number for a file whose free pages are given back on demand
_SPOILT: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_SUFFIXES: Final = ("-wal", "-shm", "")  # the file itself last: without it, nobody reads what belongs to it

#: Device and number of a file.
Mark = tuple[int, int]

#: The schema, step by step; a file is taken from the step that it is at to the last one.
_STEPS: Final = (
    (
        """CREATE TABLE calls (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
    app TEXT NOT NULL, api TEXT NOT NULL, component TEXT NOT NULL, user TEXT NOT NULL, key TEXT, digest TEXT NOT NULL,
    state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '', message TEXT NOT NULL DEFAULT '',
    created REAL NOT NULL, started REAL, ended REAL, due REAL NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0,
    worker TEXT NOT NULL DEFAULT '', size INTEGER NOT NULL, status INTEGER NOT NULL DEFAULT 0,
    content_type TEXT NOT NULL DEFAULT '', length INTEGER NOT NULL DEFAULT 0
) STRICT""",
        "CREATE UNIQUE INDEX one_call_per_key ON calls (app, api, user, key) WHERE key IS NOT NULL",
        "CREATE INDEX calls_by_state ON calls (state, app, component, due, number)",
        "CREATE TABLE sizes (app TEXT PRIMARY KEY, size INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        """CREATE TRIGGER size_of_new AFTER INSERT ON calls BEGIN
    INSERT INTO sizes VALUES (new.app, new.size) ON CONFLICT (app) DO UPDATE SET size = size + excluded.size; END""",
        """CREATE TRIGGER size_of_changed AFTER UPDATE OF size ON calls BEGIN
    UPDATE sizes SET size = size + new.size - old.size WHERE app = new.app; END""",
        """CREATE TRIGGER size_of_removed AFTER DELETE ON calls BEGIN
    UPDATE sizes SET size = size - old.size WHERE app = old.app; END""",
        "CREATE INDEX calls_by_end ON calls (ended) WHERE ended IS NOT NULL",
        """CREATE TABLE requests (
    call INTEGER PRIMARY KEY REFERENCES calls ON DELETE CASCADE,
    path BLOB NOT NULL, lines BLOB NOT NULL, host BLOB NOT NULL, identity BLOB NOT NULL, body BLOB NOT NULL
) STRICT""",
        """CREATE TABLE results (
    call INTEGER PRIMARY KEY REFERENCES calls ON DELETE CASCADE, headers TEXT NOT NULL, body BLOB NOT NULL
) STRICT""",
        """CREATE TABLE gone (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, app TEXT NOT NULL, api TEXT NOT NULL, user TEXT NOT NULL
) STRICT""",
    ),
    (
        "ALTER TABLE calls ADD COLUMN webhook TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE calls ADD COLUMN untold INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX calls_untold ON calls (ended) WHERE untold <> 0 AND ended IS NOT NULL",
    ),
    (
        """CREATE TABLE counts (
    app TEXT, api TEXT, state TEXT, number INTEGER NOT NULL, PRIMARY KEY (app, api, state)
) STRICT, WITHOUT ROWID""",
        "INSERT INTO counts SELECT app, api, state, count(*) FROM calls GROUP BY app, api, state",
        """CREATE TRIGGER count_of_new AFTER INSERT ON calls BEGIN
    INSERT INTO counts VALUES (new.app, new.api, new.state, 1) ON CONFLICT DO UPDATE SET number = number + 1; END""",
        """CREATE TRIGGER count_of_changed AFTER UPDATE OF state ON calls WHEN old.state <> new.state BEGIN
    UPDATE counts SET number = number - 1 WHERE app = old.app AND api = old.api AND state = old.state;
    INSERT INTO counts VALUES (new.app, new.api, new.state, 1) ON CONFLICT DO UPDATE SET number = number + 1; END""",
        """CREATE TRIGGER count_of_removed AFTER DELETE ON calls BEGIN
    UPDATE counts SET number = number - 1 WHERE app = old.app AND api = old.api AND state = old.state; END""",
        "CREATE INDEX calls_of_caller ON calls (app, api, user, state, number)",
    ),
    ("ALTER TABLE calls ADD COLUMN version TEXT NOT NULL DEFAULT ''",),
)


class CallFile:
    """May be shared by threads: each has a connection of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = path.with_name(f"{path.name}.lock")
        self._local = threading.local()
        self._opened: list[large_values.Connection] = []

    def close(self) -> None:
        for connection in self._opened:
            connection.close()
        self._opened.clear()
        self._local = threading.local()

    def changed(self) -> bool:
        """Return True if another connection has changed something since the last call in this thread."""
        with self.read() as db:
            version = db.execute("PRAGMA data_version").fetchone()[0]
        before, self._local.version = getattr(self._local, "version", None), version
        return bool(before != version)

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Yield this thread's connection. A damaged file is set aside, and the next use finds a new one."""
        with translated(self.path):
            self._local.used = None
            connection = None
            try:
                connection = self._connection()
                yield connection
            except sqlite3.DatabaseError as error:
                if (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF in _SPOILT:
                    self._set_aside(error, self._local.used)
                raise
            finally:
                if connection is not None and connection.keeps_large and not connection.in_transaction:
                    self._forget()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        with self.read() as db:
            rows = db.total_changes
            with transaction(db):
                yield db
            if db.total_changes != rows:
                announce(self.path)

    # --- connections -------------------------------------------------------------------------------------------

    def _connection(self) -> large_values.Connection:
        """Return the connection to the file at the path: another worker may have set aside the one of before."""
        known: tuple[large_values.Connection, Mark | None] | None = getattr(self._local, "open", None)
        if known is not None and known[1] == _mark(self.path):
            self._local.used = known[1]
            return known[0]
        if known is not None:
            self._forget()
        connection = self._open()
        self._opened.append(connection)
        self._local.open = (connection, self._local.used)
        self._local.version = None
        return connection

    def _forget(self) -> None:
        """Close this thread's connection."""
        known = getattr(self._local, "open", None)
        if known is not None:
            self._local.open = None
            known[0].close()
            with suppress(ValueError):
                self._opened.remove(known[0])

    def _open(self) -> large_values.Connection:
        """Open the file, and wait while another worker makes it: SQLite itself does not wait to change the journal."""
        for _ in range(int(TIMEOUT / MOMENT)):
            try:
                return self._made()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                time.sleep(MOMENT)
        return self._made()

    def _made(self) -> large_values.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked(fcntl.LOCK_SH):
            with suppress(
                FileExistsError
            ):  # closing a file that exists would drop the locks of other connections
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, FILE_MODE))
            self._local.used = _mark(self.path)
            return self._connected()

    def _connected(self) -> large_values.Connection:
        db = sqlite3.connect(
            self.path,
            timeout=TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
            factory=large_values.Connection,
        )
        try:
            db.row_factory = sqlite3.Row
            # Set only once, since setting it takes the lock of writers.
            if db.execute("PRAGMA auto_vacuum").fetchone()[0] != INCREMENTAL:
                db.execute(f"PRAGMA auto_vacuum = {INCREMENTAL}")
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                db.execute(f"PRAGMA {pragma}")
            db.execute(f"PRAGMA journal_size_limit = {64 * 2**20}")
            db.execute(f"PRAGMA cache_size = -{CACHE}")
            _create(db)
        except BaseException:
            db.close()
            raise
        return db

    def _set_aside(self, error: sqlite3.DatabaseError, spoilt: Mark | None) -> None:
        """Set the file aside that the error is about, unless another worker has done that: what is there now is a
        new one."""
        self._forget()
        with self._locked(fcntl.LOCK_EX):
            if spoilt is None or _mark(self.path) != spoilt:
                return
            log.error("%s is damaged and starts again, without the calls in it: %s", self.path, error)
            for suffix in _SUFFIXES:
                with suppress(FileNotFoundError):
                    os.replace(f"{self.path}{suffix}", f"{self.path}.aside{suffix}")

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)


def _create(db: sqlite3.Connection) -> None:
    if db.execute("PRAGMA user_version").fetchone()[0] >= len(_STEPS):
        return  # as almost always: opening the file waits for no writer
    with transaction(db):
        for step, statements in enumerate(_STEPS, 1):
            if db.execute("PRAGMA user_version").fetchone()[0] < step:
                for statement in statements:
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {step}")


def _mark(path: Path) -> Mark | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
