"""Connections and transactions. Every thread has a connection of its own, every write is `BEGIN IMMEDIATE`, and no
`sqlite3` error leaves this room untranslated.

Why not a deferred transaction: one that reads and then writes cannot wait for the lock, since what it has read may
be outdated; SQLite fails it at once with "database is locked", whatever the busy timeout. Taking the write lock
first turns every conflict into a short wait.

`synchronous=NORMAL` in WAL mode: a commit survives the death of any process; the loss of power may take back the
last commits, never tear one. That suffices: after a reboot the containers are observed anew and webhooks are made up
for by the first poll.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.domain.errors import ControllerError, Stalled, Transient

BUSY_TIMEOUT = 15.0  # seconds; a write takes milliseconds, so whoever waits longer meets something broken
WAL_LIMIT = 16 * 2**20  # bytes kept of the write-ahead log after a checkpoint
FOLDER_MODE = 0o2770  # set-gid: the web process has another user and the same group
FILE_MODE = 0o660  # SQLite gives its -wal and -shm files the same


class _Handle:
    """One thread's connection, closed with the thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.process = os.getpid()
        self.seen: int | None = None  # data_version at the last `changed()`

    def __del__(self) -> None:
        self.connection.close()


_inherited: list[_Handle] = []  # connections of a parent process: they must be neither used nor closed here


class Database:
    """The file at `path`, which must exist (`prepare`)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._handles: weakref.WeakSet[_Handle] = weakref.WeakSet()
        self._lock = threading.Lock()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection. Fetch all rows at once: an open cursor would hold back the log's checkpoints."""
        with translated(self.path):
            yield self._handle().connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that holds the write lock from its first moment. Within another one it is a savepoint: it
        is committed with the outer one, but its own failure takes back only itself."""
        with translated(self.path):
            connection = self._handle().connection
            nested = connection.in_transaction
            begin, commit, rollback = _NESTED if nested else _OUTERMOST
            connection.execute(begin)
            try:
                yield connection
                connection.execute(commit)
            except BaseException:
                if connection.in_transaction:  # a full disk makes SQLite roll back by itself
                    connection.execute(rollback)
                    if nested:
                        connection.execute(commit)
                raise

    def changed(self) -> bool:
        """Whether a connection other than this thread's has committed since this thread asked last. Its first
        answer is yes. This thread's own commits do not count, those of its process' other threads do."""
        with translated(self.path):
            handle = self._handle()
            version: int = handle.connection.execute("PRAGMA data_version").fetchone()[0]
            handle.seen, before = version, handle.seen
            return version != before

    def damage(self) -> tuple[str, ...]:
        """The findings of `PRAGMA quick_check`, empty for a sound file."""
        with self.read() as connection:
            findings = [row[0] for row in connection.execute("PRAGMA quick_check").fetchall()]
        return tuple(finding for finding in findings if finding != "ok")

    def close(self) -> None:
        with self._lock:
            for handle in self._handles:
                handle.connection.close()
        self._local = threading.local()

    def _handle(self) -> _Handle:
        handle: _Handle | None = getattr(self._local, "handle", None)
        if handle is not None and handle.process == os.getpid():
            return handle
        if handle is not None:
            _inherited.append(handle)
        handle = self._local.handle = _Handle(connect(self.path))
        with self._lock:
            self._handles.add(handle)
        return handle


_OUTERMOST = ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")
_NESTED = ("SAVEPOINT nested", "RELEASE nested", "ROLLBACK TO nested")


def connect(path: Path) -> sqlite3.Connection:
    """`isolation_level=None`: the driver begins no transactions of its own. The file is never created here."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
    )
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
    return connection


@contextmanager
def prepare(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to set up the file with, made with its folder if it is not there. Other processes that open the
    store meanwhile wait: the change to WAL mode does not heed the busy timeout."""
    folder = _claim_folder(path)
    try:
        with translated(path):
            connection = connect(path)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                yield connection
            finally:
                connection.close()
    finally:
        os.close(folder)


def _claim_folder(path: Path) -> int:
    """Locked file descriptor of the folder of `path`; both are there afterwards. The file is made by us rather than
    by SQLite, which would apply the umask and shut the group out."""
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.parent.chmod(FOLDER_MODE)
        folder = os.open(path.parent, os.O_RDONLY)
        fcntl.flock(folder, fcntl.LOCK_EX)
        if not path.exists():
            file = os.open(path, os.O_CREAT | os.O_RDWR)
            os.fchmod(file, FILE_MODE)
            os.close(file)
    except OSError as error:
        raise Stalled("StateUnwritable", f"{_UNWRITABLE.format(path=path)} ({error.strerror})") from error
    return folder


@contextmanager
def translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        known = translate(error, path)
        if known is None:
            raise  # a wrong statement or a broken rule of ours: a bug, and shown as one
        raise known from error


def translate(error: sqlite3.Error, path: Path) -> ControllerError | None:
    """What an SQLite error means for the one who asked; None where only a bug can have caused it."""
    code = getattr(error, "sqlite_errorcode", None)  # extended code; the low byte is the primary one
    meaning = _MEANING.get((code or 0) & 0xFF)
    if meaning is None:
        return None
    kind, reason, text = meaning
    return kind(reason, f"{text.format(path=path)} (SQLite: {error})")


_UNWRITABLE = (
    "cannot write the state at {path}: its folder and files must belong to the group of this process and be "
    "writable by it; 'prichal doctor' shows what differs"
)
_BUSY = f"another process has held the state at {{path}} locked for {BUSY_TIMEOUT:.0f} s; tried again"
_FULL = "no space left for the state at {path}: free some on that disk; tried again"
_IO = "reading or writing the state at {path} failed: look at the disk; tried again"
_CORRUPT = (
    "the state at {path} is damaged. Stop prichal, move the file and its -wal and -shm away, start again: what is "
    "deployed is found again from Git, the container engine and the storage; suspensions, the history of events and "
    "which kept box was adopted by which are lost"
)
_MEANING: dict[int, tuple[type[Stalled | Transient], str, str]] = {
    sqlite3.SQLITE_BUSY: (Transient, "StateBusy", _BUSY),
    sqlite3.SQLITE_LOCKED: (Transient, "StateBusy", _BUSY),
    sqlite3.SQLITE_FULL: (Transient, "StateDiskFull", _FULL),
    sqlite3.SQLITE_IOERR: (Transient, "StateIOError", _IO),
    sqlite3.SQLITE_PERM: (Stalled, "StateUnwritable", _UNWRITABLE),
    sqlite3.SQLITE_AUTH: (Stalled, "StateUnwritable", _UNWRITABLE),
    sqlite3.SQLITE_READONLY: (Stalled, "StateUnwritable", _UNWRITABLE),
    sqlite3.SQLITE_CANTOPEN: (Stalled, "StateUnwritable", _UNWRITABLE),
    sqlite3.SQLITE_CORRUPT: (Stalled, "StateCorrupt", _CORRUPT),
    sqlite3.SQLITE_NOTADB: (Stalled, "StateCorrupt", _CORRUPT),
}


def damaged(path: Path, what: str, error: Exception) -> Stalled:
    """For a row that cannot be read back."""
    return Stalled("StateCorrupt", f"{_CORRUPT.format(path=path)} ({what}: {error})")
