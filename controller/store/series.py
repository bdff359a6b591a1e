"""Samples of components for a day, in a database of their own next to the state. The daemon alone writes it; the web
process reads it.

Each resolution is a ring: the place of a row is its time, modulo the length of the ring, so that a row of a day ago is
overwritten, nothing has to be deleted, and the file has a bound (`LARGEST` bytes for each component). Rows of one
moment lie next to each other, because all components are written at once and one is read now and then. A row has its
time in it: rows that a clock set forward or back has left are recognised when they are read.

It is not in the state, since it changes every few seconds: every commit there wakes the gateway's workers, and a copy
of the state need not have it. If the file is damaged, a new one takes its place.
"""

from __future__ import annotations

import logging
import math
import os
import sqlite3
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from controller.domain.apps.samples import (
    BUCKETS,
    FIELDS,
    RESOLUTIONS,
    Resolution,
    Sample,
    Stored,
    merged,
)
from controller.domain.names import AppName, ComponentName
from controller.store.database_files import FILE_MODE
from controller.store.error_rules import translated

log = logging.getLogger(__name__)

Key = tuple[AppName, ComponentName]

MOST: Final = 2**20  # components
LARGEST: Final = 300 * 2**10  # bytes that the samples of one component take
TIMEOUT: Final = 2.0
_TABLES: Final = (
    """CREATE TABLE components (
    id INTEGER PRIMARY KEY,
    app TEXT NOT NULL,
    component TEXT NOT NULL,
    UNIQUE (app, component)
) STRICT""",
    "CREATE TABLE samples (place INTEGER PRIMARY KEY, at INTEGER NOT NULL, sample BLOB NOT NULL) STRICT",
)
_VERSION: Final = 1
_SPOILT: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
#: Where the places of each resolution begin.
_FIRST: Final = {
    each.step: sum(earlier.slots for earlier in RESOLUTIONS[:number])
    for number, each in enumerate(RESOLUTIONS)
}
_HEAD: Final = struct.Struct(f"<B{len(FIELDS) + 1}f")
_BUCKETS: Final = struct.Struct(f"<{len(BUCKETS) + 1}I")


class SeriesTable:
    """`timeout`: seconds to wait for a reader; the next samples come soon. Not `durable`, a loss of power may damage
    the file."""

    def __init__(self, path: Path, timeout: float = TIMEOUT, durable: bool = True) -> None:
        self._path = path
        self._timeout = timeout
        self._durable = durable

    def add(self, at: float, samples: Mapping[Key, Sample]) -> None:
        """Add samples that end at `at` (Unix seconds) to all resolutions. Called by the daemon alone."""
        if not samples:
            return
        try:
            self._add(at, samples)
        except sqlite3.DatabaseError as error:
            if _primary(error) not in _SPOILT:
                with translated(self._path):
                    raise
            log.error("the samples of components at %s are damaged and start again: %s", self._path, error)
            self._path.unlink(missing_ok=True)
            self._path.with_name(self._path.name + "-journal").unlink(missing_ok=True)

    def _add(self, at: float, samples: Mapping[Key, Sample]) -> None:
        with self._writing() as db:
            for key, sample in samples.items():
                id = _id(db, key)
                for resolution in RESOLUTIONS:
                    _put(db, _place(resolution, at, id), resolution.start(at), sample)

    def of(self, app: AppName, component: ComponentName, resolution: Resolution) -> tuple[Stored, ...]:
        """Return what is kept, in no order. Raises Transient, Stalled."""
        if not self._path.exists():
            return ()
        with translated(self._path), closing(self._connect("ro")) as db:
            found = db.execute(
                "SELECT id FROM components WHERE app = ? AND component = ?", (app, component)
            ).fetchone()
            if found is None:
                return ()
            rows = db.execute(_READ, (_FIRST[resolution.step], resolution.slots, MOST, found[0])).fetchall()
        return tuple(Stored(at, sample) for at, content in rows if (sample := _unpacked(content)))

    def keep(self, known: Collection[Key]) -> None:
        """Delete the samples of all other components. Called by the daemon alone."""
        if not self._path.exists():
            return
        with translated(self._path), self._writing() as db:
            rows = db.execute("SELECT id, app, component FROM components").fetchall()
            for id, app, component in rows:
                if (app, component) not in known:
                    db.executemany("DELETE FROM samples WHERE place = ?", ((place,) for place in _places(id)))
                    db.execute("DELETE FROM components WHERE id = ?", (id,))

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, FILE_MODE))
        with closing(self._connect("rw")) as db:
            db.execute("BEGIN IMMEDIATE")
            if db.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                _make(db)
            yield db
            db.execute("COMMIT")

    def _connect(self, mode: str) -> sqlite3.Connection:
        uri = f"{self._path.absolute().as_uri()}?mode={mode}"
        db = sqlite3.connect(uri, uri=True, timeout=self._timeout, isolation_level=None)
        if not self._durable:
            db.execute("PRAGMA synchronous = OFF")
        return db


def _make(db: sqlite3.Connection) -> None:
    """Create the tables, in place of those of another version."""
    for table in ("components", "samples"):
        db.execute(f"DROP TABLE IF EXISTS {table}")
    for statement in _TABLES:
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {_VERSION}")


_READ: Final = """
WITH RECURSIVE slots (slot) AS (SELECT ?1 UNION ALL SELECT slot + 1 FROM slots WHERE slot + 1 < ?1 + ?2)
SELECT at, sample FROM slots JOIN samples ON place = slot * ?3 + ?4
"""


def _id(db: sqlite3.Connection, key: Key) -> int:
    found = db.execute("SELECT id FROM components WHERE app = ? AND component = ?", key).fetchone()
    if found is not None:
        return int(found[0])
    made = db.execute("INSERT INTO components (app, component) VALUES (?, ?) RETURNING id", key).fetchone()
    return int(made[0])


def _place(resolution: Resolution, at: float, id: int) -> int:
    return (_FIRST[resolution.step] + resolution.slot(at)) * MOST + id


def _places(id: int) -> Iterable[int]:
    return (slot * MOST + id for slot in range(sum(each.slots for each in RESOLUTIONS)))


def _put(db: sqlite3.Connection, place: int, at: int, sample: Sample) -> None:
    """Add the sample to that of the same step, which a daemon before may have begun; replace one of another time."""
    row = db.execute("SELECT at, sample FROM samples WHERE place = ?", (place,)).fetchone()
    before = _unpacked(row[1]) if row is not None and row[0] == at else None
    content = _packed(merged(before, sample) if before else sample)
    db.execute("INSERT OR REPLACE INTO samples VALUES (?, ?, ?)", (place, at, content))


def _packed(sample: Sample) -> bytes:
    values = [getattr(sample, name) for name in FIELDS]
    head = _HEAD.pack(_VERSION, sample.seconds, *(math.nan if value is None else value for value in values))
    if not any(sample.buckets):
        return head
    return head + _BUCKETS.pack(*(min(count, 2**32 - 1) for count in sample.buckets))


def _unpacked(content: bytes) -> Sample | None:
    """Return None for what another version has written."""
    if len(content) not in (_HEAD.size, _HEAD.size + _BUCKETS.size) or content[0] != _VERSION:
        return None
    _, seconds, *values = _HEAD.unpack_from(content)
    counts = _BUCKETS.unpack_from(content, _HEAD.size) if len(content) > _HEAD.size else ()
    named = {name: None if math.isnan(value) else value for name, value in zip(FIELDS, values, strict=True)}
    return Sample(seconds, **named, buckets=counts)


def _primary(error: sqlite3.Error) -> int:
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
