"""A database of its own next to the state, for what is worth losing: the daemon alone writes it, all others read it.
It is not in the state, since a copy of the state need not have it. If the file is damaged, a new one takes its place.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, TypeVar

from controller.domain.errors import Stalled
from controller.domain.reasons import Reason
from controller.store.database_files import FILE_MODE
from controller.store.error_rules import translated

log = logging.getLogger(__name__)

TIMEOUT: Final = 2.0  # seconds to wait for another connection
_SPOILT: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

T = TypeVar("T")


class SideDatabase:
    """`create` are statements that make what is missing."""

    def __init__(self, path: Path, create: Sequence[str]) -> None:
        self._path = path
        self._create = tuple(create)

    @property
    def exists(self) -> bool:
        return self._path.exists()

    def read(self, ask: Callable[[sqlite3.Connection], T]) -> T | None:
        """Return the answer; None if nothing was written yet, or what was written is damaged."""
        if not self.exists:
            return None
        uri = f"{self._path.absolute().as_uri()}?mode=ro"
        try:
            with translated(self._path), closing(sqlite3.connect(uri, uri=True, timeout=TIMEOUT)) as db:
                is_made = db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
                return ask(db) if is_made else None
        except Stalled as error:
            if error.reason != Reason.STATE_CORRUPT:
                raise
            log.warning("%s is damaged; it starts again when something is written", self._path)
            return None

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        with translated(self._path), self._opened() as db:
            try:
                yield db
                db.execute("COMMIT")
            except sqlite3.DatabaseError as error:
                if _is_spoilt(error):  # found only now
                    self._drop(error)
                raise

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """Yield the database in a transaction, or a new one in place of what is none."""
        try:
            db = self._begun()
        except sqlite3.DatabaseError as error:
            if not _is_spoilt(error):
                raise
            self._drop(error)
            db = self._begun()
        with closing(db):
            yield db

    def _begun(self) -> sqlite3.Connection:
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, FILE_MODE))
        db = sqlite3.connect(self._path, timeout=TIMEOUT, isolation_level=None)
        try:
            for statement in ("BEGIN IMMEDIATE", *self._create):
                db.execute(statement)
        except BaseException:
            db.close()
            raise
        return db

    def _drop(self, error: sqlite3.DatabaseError) -> None:
        log.error("%s is damaged and starts again: %s", self._path, error)
        self._path.unlink(missing_ok=True)


def _is_spoilt(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _SPOILT
