"""What errors of SQLite mean for callers. No `sqlite3` error leaves this package untranslated, except bugs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.domain.error_table import ErrorRule
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.reasons import Reason
from controller.store.shared_file import shared_path

BUSY_TIMEOUT = 15.0  # seconds; a write takes milliseconds, so a longer wait means that something is broken
#: By these the file of others shows that it cannot be used.
SPOILT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_IOERR}

#: What guests get while the daemon is writing, starts or has died: SQLite reads the index of the log, which they may
#: not repair. It looks for a writer only after the index, so one that ends in between makes the index look broken.
UNSETTLED = {sqlite3.SQLITE_READONLY_RECOVERY, sqlite3.SQLITE_READONLY_CANTINIT}


class SharedFileError(sqlite3.OperationalError):
    """The file of others is to blame for an error."""

    def __init__(self, error: sqlite3.Error) -> None:
        super().__init__(str(error))
        self.sqlite_errorcode = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)


@contextmanager
def of_shared_file() -> Iterator[None]:
    try:
        yield
    except SharedFileError:
        raise
    except sqlite3.Error as error:
        raise SharedFileError(error) from error


def primary_code(error: sqlite3.Error) -> int:
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


@contextmanager
def translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        known = translate(error, path)
        if known is None:
            raise  # a wrong statement or a violated constraint is a bug, and raised as one
        raise known from error


def translate(error: sqlite3.Error, path: Path) -> ControllerError | None:
    """Return what an SQLite error means for the caller; None if only a bug can have caused it."""
    code = getattr(error, "sqlite_errorcode", None)  # extended code; the low byte is the primary one
    if code in UNSETTLED:
        return _UNSETTLED.error(doing(path), f"SQLite: {error}")
    if isinstance(error, SharedFileError) and (code or 0) & 0xFF in SPOILT:
        return set_aside_error(path, error)
    rule = _MEANING.get((code or 0) & 0xFF)
    return None if rule is None else rule.error(doing(path), f"SQLite: {error}")


def set_aside_error(path: Path, error: sqlite3.Error) -> ControllerError:
    return _SET_ASIDE.error(f"cannot use what others ask for, at {shared_path(path)}", f"SQLite: {error}")


def doing(path: Path) -> str:
    return f"cannot use the state at {path}"


_SET_ASIDE = ErrorRule(
    Transient,
    Reason.STATE_SET_ASIDE,
    "It was set aside and is tried again. The history of @platform and 'prichal doctor' say why",
)
_BUSY = ErrorRule(
    Transient, Reason.STATE_BUSY, f"Another process has held it locked for {BUSY_TIMEOUT:.0f} s; trying again"
)
_UNSETTLED = ErrorRule(
    Transient,
    Reason.STATE_BUSY,
    "The daemon has ended while it was writing, and repairs it when it starts; trying again",
)
_FULL = ErrorRule(Transient, Reason.STATE_DISK_FULL, "Free some space on that disk; trying again")
_IO = ErrorRule(Transient, Reason.STATE_IO_ERROR, "Check the disk; trying again")
UNWRITABLE = ErrorRule(
    Stalled,
    Reason.STATE_UNWRITABLE,
    "The daemon's user must be able to write it, its group to read it and to write the files in the folder asked next "
    "to it; 'prichal doctor' shows what differs",
)
_CORRUPT = ErrorRule(
    Stalled,
    Reason.STATE_CORRUPT,
    "It is damaged. Stop prichal, move the file and its -wal and -shm away, and start again: what is deployed is found "
    "again from Git, the container engine and the storage; suspensions, the history of events and which kept box was "
    "adopted by which are lost",
)
#: By SQLite's primary result code.
_MEANING: dict[int, ErrorRule] = {
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_PROTOCOL: _BUSY,  # a reader that the writers overtake again and again
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_IOERR: _IO,
    sqlite3.SQLITE_PERM: UNWRITABLE,
    sqlite3.SQLITE_AUTH: UNWRITABLE,
    sqlite3.SQLITE_READONLY: UNWRITABLE,
    sqlite3.SQLITE_CANTOPEN: UNWRITABLE,
    sqlite3.SQLITE_CORRUPT: _CORRUPT,
    sqlite3.SQLITE_NOTADB: _CORRUPT,
}
