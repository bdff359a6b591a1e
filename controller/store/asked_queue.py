"""A queue of what people ask the daemon for, in a table of the database of requests, for example lists of images.

All processes put something in; the daemon answers one at a time and takes it out then. What it had begun when it died
is still there, and so it is begun again.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from controller.domain.errors import Transient
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.store.sqlite import Database

log = logging.getLogger(__name__)

_AT_ONCE: Final = 100  # rows that are looked through for a valid one


class Asked(Protocol):
    @property
    def is_valid(self) -> bool:
        """Return False if no process of ours has asked for it."""
        ...


A = TypeVar("A", bound=Asked)


class AskedQueue(Generic[A]):
    """The table has the columns `place`, `id` and `begun`, and those that say what is asked for. `read` makes a value
    of a row; `most` may wait, and `full` is what the next one is told."""

    def __init__(
        self,
        database: Database,
        table: str,
        read: Callable[[sqlite3.Row], A],
        most: int,
        full: str | Localizable,
    ) -> None:
        self._database = database
        self._table = table
        self._read = read
        self._most = most
        self._full = full

    def ask(self, **wanted: str | int) -> str:
        """Return the id under which the answer will be found. Those who ask for the same share one that is begun after
        all of them have asked. Raises Transient if too many others wait."""
        same = " AND ".join(f"{column} = :{column}" for column in wanted)
        with self._database.write() as db:
            shared = db.execute(
                f"SELECT id FROM {self._table} WHERE begun = 0 AND {same} ORDER BY place LIMIT 1",  # noqa: S608
                wanted,
            ).fetchone()
            if shared:
                return str(shared["id"])
            if db.execute(f"SELECT count(*) FROM {self._table}").fetchone()[0] >= self._most:  # noqa: S608
                raise Transient(Reason.QUEUE_FULL, self._full)
            row = {"id": secrets.token_hex(16), **wanted}
            values = ", ".join(f":{column}" for column in row)
            db.execute(f"INSERT INTO {self._table} ({', '.join(row)}) VALUES ({values})", row)  # noqa: S608
        return str(row["id"])

    def begin(self) -> A | None:
        """Return what was asked for first, until it is ended. Rows that no process of ours has written are deleted by
        their place: another column may be no text."""
        with self._database.read() as db:
            if db.execute(f"SELECT 1 FROM {self._table} LIMIT 1").fetchone() is None:  # noqa: S608
                return None
        with self._database.write() as db:
            first = f"SELECT * FROM {self._table} ORDER BY place LIMIT ?"  # noqa: S608
            for row in db.execute(first, (_AT_ONCE,)).fetchall():
                asked = self._read(row)
                if asked.is_valid:
                    db.execute(f"UPDATE {self._table} SET begun = 1 WHERE place = ?", (row["place"],))  # noqa: S608
                    return asked
                log.warning("an invalid row of %s was dropped", self._table)
                db.execute(f"DELETE FROM {self._table} WHERE place = ?", (row["place"],))  # noqa: S608
        return None

    def end(self, id: str) -> None:
        with self._database.write() as db:
            db.execute(f"DELETE FROM {self._table} WHERE id = ?", (id,))  # noqa: S608
