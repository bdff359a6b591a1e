"""Rows that cannot be read back, because of another version of the program, a disk, a bug, or a person with
an editor. Such a row affects only what it is about. Queries of several rows skip it and log it once; the
daemon then sets it aside (`set_aside`), so that it takes no place and blocks no queue, and records an event
of its app. `prichal doctor` lists rows that were set aside.

What a later pass writes anyway (a route, the record of a repository) is restored by that pass.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from controller.domain.errors import Stalled
from controller.domain.reasons import Reason
from controller.domain.text import printable
from controller.store.codec import encode
from controller.store.sqlite import Database

log = logging.getLogger(__name__)

T = TypeVar("T")
Parameters = Mapping[str, object] | Sequence[object]

PUT_ASIDE = "INSERT INTO rows_aside (at, kind, app, name, problem, content) VALUES (?, ?, ?, ?, ?, ?)"
KEEP = 1000  # rows that were set aside; the newest ones
FORGET = "DELETE FROM rows_aside WHERE id <= (SELECT max(id) FROM rows_aside) - ?"


@dataclass(frozen=True)
class RowKind(Generic[T]):
    """The rows of one table. `key` has columns that every query returns; `read` returns the value of a row or
    raises a ValueError; `away` has statements that remove the row with these key columns.
    """

    name: str  # in words, for people
    table: str
    key: tuple[str, ...]
    read: Callable[[sqlite3.Row], T]
    away: tuple[str, ...] = ()
    part_of: RowKind[Any] | None = None  # the kind of the whole row, if `read` uses a part of it

    def where(self) -> str:
        return " AND ".join(f"{column} = :{column}" for column in self.key)

    def statements(self) -> tuple[str, ...]:
        return self.away or (f"DELETE FROM {self.table} WHERE {self.where()}",)  # noqa: S608 - constants of ours


@dataclass(frozen=True)
class UnreadableRow:
    """A row that could not be read. `app` is "" for rows that belong to none."""

    kind: str
    app: str
    name: str
    problem: str


@dataclass(frozen=True)
class AsideRow(UnreadableRow):
    """A row that was set aside at this Unix time."""

    at: float


class RowReader:
    """Reads rows. Threads may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, tuple[object, ...]], RowKind[Any]] = {}  # already logged
        self._due: set[tuple[str, tuple[object, ...]]] = set()  # to be set aside

    def each(self, kind: RowKind[T], rows: Iterable[sqlite3.Row]) -> Iterator[tuple[sqlite3.Row, T]]:
        """Yield the readable rows with their values."""
        for row in rows:
            try:
                value = kind.read(row)
            except ValueError as error:
                self._notice(kind, row, error)
            else:
                yield row, value

    def all(self, kind: RowKind[T], rows: Iterable[sqlite3.Row]) -> tuple[T, ...]:
        return tuple(value for _, value in self.each(kind, rows))

    def found(self, kind: RowKind[T], query: str, parameters: Parameters = ()) -> tuple[T, ...]:
        """Return the readable values of a query for rows of this kind."""
        with self._database.read() as db:
            return self.all(kind, db.execute(query, parameters).fetchall())

    def readable(self, kind: RowKind[T], row: sqlite3.Row | None) -> T | None:
        """Return the value of a row; None if there is no row, or it cannot be read."""
        return next(iter(self.all(kind, (row,) if row else ())), None)

    def one(self, kind: RowKind[T], row: sqlite3.Row | None) -> T | None:
        """Return the value of a row, or None if there is no row. Raises Stalled if it cannot be read."""
        if row is None:
            return None
        try:
            return kind.read(row)
        except ValueError as error:
            self._notice(kind, row, error)
            what = f"{kind.name} {_name(kind, row)}"
            message = f"{what} cannot be read back from the state, and is set aside: {error}"
            raise Stalled(Reason.ROW_UNREADABLE, message) from error

    def set_aside(self, now: float) -> tuple[UnreadableRow, ...]:
        """Set aside rows that this process has skipped, if they are still unreadable."""
        with self._lock:
            due, self._due = self._due, set()
        return tuple(found for place in sorted(due, key=repr) for found in self._put_aside(place, now))

    def put_aside(self, kind: RowKind[T], row: sqlite3.Row, error: ValueError, now: float) -> UnreadableRow:
        """Set a row aside, in the caller's transaction."""
        self._notice(kind, row, error)
        keys = {column: row[column] for column in kind.key}
        with self._database.write() as db:
            whole = db.execute(f"SELECT * FROM {kind.table} WHERE {kind.where()}", keys).fetchone()  # noqa: S608
            found = UnreadableRow(kind.name, _app(whole), _name(kind, row), printable(str(error)))
            content = encode({name: _plain(whole[name]) for name in whole.keys()})  # noqa: SIM118 - a row is not a dict
            db.execute(PUT_ASIDE, (now, found.kind, found.app, found.name, found.problem, content))
            db.execute(FORGET, (KEEP,))
            for statement in kind.statements():
                db.execute(statement, keys)
        return found

    def aside(self) -> tuple[AsideRow, ...]:
        """Return the rows that were set aside, newest first."""
        with self._database.read() as db:
            rows = db.execute("SELECT * FROM rows_aside ORDER BY id DESC").fetchall()
        return tuple(
            AsideRow(row["kind"], row["app"], row["name"], row["problem"], row["at"]) for row in rows
        )

    def unreadable(self, kind: RowKind[T]) -> Iterator[UnreadableRow]:
        """Yield the unreadable rows of a table; reads all of it."""
        with self._database.read() as db:
            rows = db.execute(f"SELECT * FROM {kind.table}").fetchall()  # noqa: S608 - a constant of ours
        for row in rows:
            try:
                kind.read(row)
            except ValueError as error:
                yield UnreadableRow(kind.name, _app(row), _name(kind, row), printable(str(error)))

    def _put_aside(self, place: tuple[str, tuple[object, ...]], now: float) -> Iterator[UnreadableRow]:
        kind = self._seen[place]
        keys = dict(zip(kind.key, place[1], strict=True))
        with self._database.write() as db:
            row = db.execute(f"SELECT * FROM {kind.table} WHERE {kind.where()}", keys).fetchone()  # noqa: S608
            if row is None:
                return
            try:
                kind.read(row)  # it may have been written again meanwhile
            except ValueError as error:
                yield self.put_aside(kind, row, error, now)

    def _notice(self, kind: RowKind[T], row: sqlite3.Row, error: ValueError) -> None:
        place = kind.table, tuple(row[column] for column in kind.key)
        with self._lock:
            new = place not in self._seen
            self._seen[place] = kind.part_of or kind
            self._due.add(place)
        if new:
            log.error("%s %s cannot be read back from the state: %s", kind.name, _name(kind, row), error)


def _name(kind: RowKind[T], row: sqlite3.Row) -> str:
    return printable("/".join(str(row[column]) for column in kind.key))


def _app(row: sqlite3.Row) -> str:
    return str(row["app"]) if "app" in row.keys() else ""  # noqa: SIM118 - a row is not a dict


def _plain(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else value
