"""Copies of databases while they are in use, for backups."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from controller.domain.errors import Stalled
from controller.domain.reasons import Reason
from controller.store.error_rules import translated
from controller.store.owners import as_owner_of

_TIMEOUT: Final = 30.0  # seconds to wait for a writer that holds the file


def copy_database(source: Path, target: Path) -> bool:
    """Copy the database as it is at one moment, and check the copy; return False if there is none. Writers go on. Only
    root and the owner may; root reads as the owner. Raises errors as the state does, above all `StateCorrupt` if the
    content is damaged."""
    if not source.is_file():
        return False
    uri = f"{source.absolute().as_uri()}?mode=ro"
    with translated(source):
        with as_owner_of(source.parent):
            reader = sqlite3.connect(uri, uri=True, timeout=_TIMEOUT, isolation_level=None)
            reader.execute("PRAGMA schema_version").fetchone()  # opens all files while this is their owner
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with closing(reader), closing(sqlite3.connect(target, isolation_level=None)) as copy:
            reader.backup(copy)  # in one step: a copy in several ones would begin again with each change
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
            found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise Stalled(Reason.STATE_CORRUPT, f"{source} is damaged: {found}; a copy of it would be of no use")
    return True


def schema_of(path: Path) -> int:
    """Return the version that is written in a database."""
    with translated(path), closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])
