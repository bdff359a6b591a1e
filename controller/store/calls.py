"""Calls that their callers do not wait for, with their bodies and results. A database of its own in the folder of the
web process: its workers share it, and no other process uses it. A file that is damaged is set aside, and the calls in
it are lost.

The space is bounded: what a call takes is counted with it, and pages that are free are given back to the disk."""

from __future__ import annotations

import json
import logging
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.domain.errors import Stalled, Transient
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.routing.async_calls import (
    CANCELED,
    LONGEST_PAUSE,
    LOST,
    OVERHEAD,
    AsyncCall,
    CallEnd,
    CallLimits,
    CallLoad,
    CallState,
    EndedCall,
    Key,
    expired,
    next_call,
    waiting_by_app,
)
from controller.domain.text import storable
from controller.domain.units import about_size
from controller.store.sqlite import transaction, translated

log = logging.getLogger(__name__)

FILE_MODE: Final = 0o600
TIMEOUT: Final = 5.0  # seconds to wait for another writer
MOMENT: Final = 0.05
GONE: Final = 100_000  # ids of removed calls that are remembered, the newest
AT_ONCE: Final = 200  # calls that are removed or ended in one transaction
OTHERS: Final = 5.0  # seconds that a worker has to tell the ends of its own calls
FREED: Final = 2000  # pages that are given back to the disk at once
SLACK: Final = (
    60.0  # seconds: a time that lies further in the future was written before the clock was set back
)
INCREMENTAL: Final = 2  # SQLite's number for a file whose free pages are given back on demand
_SPOILT: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_SUFFIXES: Final = ("", "-wal", "-shm")

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
)
_COLUMNS = """
id, app, api, component, user, state, reason, message, created, started, ended, status, content_type, length"""
_BY_ID = f"SELECT {_COLUMNS} FROM calls WHERE id = ?"  # noqa: S608 - a constant of ours
_EARLIER = "SELECT id, digest FROM calls WHERE app = ? AND api = ? AND user = ? AND key = ?"
_INSERT = """
INSERT INTO calls (id, app, api, component, user, key, digest, webhook, untold, state, created, size)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'QUEUED', ?, ?)
"""
_DUE = """
SELECT app, component, min(number) FROM calls WHERE state = 'QUEUED' AND (due <= :now OR due > :now + :longest)
GROUP BY app, component
"""
_RUNNING = "SELECT app, component, count(*) FROM calls WHERE state IN ('RUNNING', 'CANCELING') GROUP BY app, component"
_SIZES = "SELECT app, size FROM sizes WHERE size > 0"
_WAITING = "SELECT app, component, count(*) FROM calls WHERE state = 'QUEUED' GROUP BY app, component"
_CLAIM = """
UPDATE calls SET state = 'RUNNING', reason = '', message = '', worker = ?, started = ?, attempts = attempts + 1
WHERE number = ? AND state = 'QUEUED'
"""
_REQUEUE = """
UPDATE calls SET state = 'QUEUED', worker = '', started = NULL, reason = ?, message = ?, due = ?
WHERE id = ? AND worker = ? AND state = 'RUNNING'
"""
_END = """
UPDATE calls SET state = ?, reason = ?, message = ?, ended = ?, status = ?, content_type = ?, length = ?, size = ?
WHERE number = ?
"""
_TAKEN = "SELECT number FROM calls WHERE id = ? AND worker = ? AND state IN ('RUNNING', 'CANCELING')"
_CANCEL = "UPDATE calls SET state = 'CANCELING' WHERE id = ? AND state = 'RUNNING'"
_COUNTS = "SELECT app, api, state, count(*) FROM calls GROUP BY app, api, state"
_RESTAMP = (  # the beginning matters only while a call waits
    "UPDATE calls SET created = :now WHERE state = 'QUEUED' AND created > :now + :slack",
    "UPDATE calls SET ended = :now WHERE ended > :now + :slack",
)


@dataclass(frozen=True)
class CallRequest:
    """What the component gets: `path` includes the query, `lines` are finished header lines."""

    path: bytes
    lines: bytes
    host: bytes
    identity: bytes
    body: bytes

    @property
    def size(self) -> int:
        return OVERHEAD + sum(map(len, (self.path, self.lines, self.host, self.identity, self.body)))


@dataclass(frozen=True)
class CallResult:
    """The response to the caller, without the fields of a connection."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @property
    def content_type(self) -> str:
        found = next((value for name, value in self.headers if name.lower() == b"content-type"), b"")
        return found[:200].decode("latin-1")


@dataclass(frozen=True)
class NewCall:
    """`key` is the Idempotency-Key, "" for none, `digest` that of the request that came with it. `told`: its end has to
    be told to the daemon, which sends webhooks, one to `webhook` if its caller has named a receiver."""

    app: AppName
    api: str
    component: ComponentName
    user: str
    request: CallRequest
    key: str = ""
    digest: str = ""
    webhook: str = ""
    told: bool = False


@dataclass(frozen=True)
class ClaimedCall:
    call: AsyncCall
    request: CallRequest
    attempts: int


class CallTable:
    """May be shared by threads: each has a connection of its own. `clock` returns Unix seconds."""

    def __init__(self, path: Path, limits: CallLimits, clock: Callable[[], float]) -> None:
        self.path = path
        self.limits = limits
        self._clock = clock
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []

    def close(self) -> None:
        for connection in self._opened:
            connection.close()
        self._opened.clear()
        self._local = threading.local()

    # --- what callers do ---------------------------------------------------------------------------------------

    def submit(self, new: NewCall) -> tuple[AsyncCall, bool]:
        """Store a call, and return it and whether it is a new one. Raises Transient `QueueFull`, and Stalled
        `IdempotencyConflict` if the key stands for another request."""
        whose = (new.app, new.api, storable(new.user))
        with self._write() as db:
            if new.key and (found := db.execute(_EARLIER, (*whose, new.key)).fetchone()):
                if found["digest"] != new.digest:
                    raise Stalled(
                        Reason.IDEMPOTENCY_CONFLICT,
                        f"the key {new.key!r} was used for a different request, which became call {found['id']}",
                    )
                return _call(db.execute(_BY_ID, (found["id"],)).fetchone()), False
            self._check_room(db, new)
            id, request = secrets.token_hex(16), new.request
            row = (
                id,
                new.app,
                new.api,
                new.component,
                whose[2],
                new.key or None,
                new.digest,
                new.webhook,
                new.told,
            )
            number = db.execute(_INSERT, (*row, self._clock(), request.size)).lastrowid
            parts = (request.path, request.lines, request.host, request.identity, request.body)
            db.execute("INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?)", (number, *parts))
            return _call(db.execute(_BY_ID, (id,)).fetchone()), True

    def _check_room(self, db: sqlite3.Connection, new: NewCall) -> None:
        most, size = self.limits, new.request.size
        query = "SELECT count(*) FROM calls WHERE state = 'QUEUED' AND app = ? AND component = ?"
        if db.execute(query, (new.app, new.component)).fetchone()[0] >= most.queued:
            text = f"{most.queued} calls wait for component {new.component} of app {new.app}, as many as may"
            raise Transient(Reason.QUEUE_FULL, text)
        sizes = _sizes(db)
        if sizes.get(new.app, 0) + size + most.result > most.size_per_app:
            text = f"calls of app {new.app} and their results take {about_size(sizes.get(new.app, 0))} of "
            raise Transient(Reason.QUEUE_FULL, text + about_size(most.size_per_app))
        if sum(sizes.values()) + size + most.result > most.size:
            text = (
                f"calls and their results take {about_size(sum(sizes.values()))} of {about_size(most.size)}"
            )
            raise Transient(Reason.QUEUE_FULL, text)

    def get(self, id: str) -> AsyncCall | None:
        with self._read() as db:
            row = db.execute(_BY_ID, (id,)).fetchone()
        return _call(row) if row else None

    def unfinished(self, ids: Iterable[str]) -> frozenset[str]:
        """Return those of these calls that are not over."""
        query = (
            "SELECT id FROM calls WHERE id IN (SELECT value FROM json_each(?))"
            " AND state IN ('QUEUED', 'RUNNING', 'CANCELING')"
        )
        with self._read() as db:
            return frozenset(row["id"] for row in db.execute(query, (json.dumps(list(ids)),)))

    def is_gone(self, id: str, app: AppName, api: str, user: str) -> bool:
        """Return True if the caller had such a call, and it was removed."""
        query = "SELECT 1 FROM gone WHERE id = ? AND app = ? AND api = ? AND user = ?"
        with self._read() as db:
            return db.execute(query, (id, app, api, storable(user))).fetchone() is not None

    def result(self, id: str, offset: int, size: int) -> CallResult | None:
        """Return a result with a part of its body, since all of it for many slow readers would not fit into memory."""
        query = (
            "SELECT status, headers, substr(body, ?, ?) FROM results JOIN calls ON number = call WHERE id = ?"
        )
        with self._read() as db:
            row = db.execute(query, (offset + 1, size, id)).fetchone()
        return CallResult(row[0], _headers(row[1]), row[2]) if row else None

    def cancel(self, id: str) -> AsyncCall | None:
        """Cancel a call: one that waits is over at once, one that runs when its worker has noticed."""
        with self._write() as db:
            row = db.execute("SELECT number, state FROM calls WHERE id = ?", (id,)).fetchone()
            if row is None:
                return None
            if row["state"] == CallState.QUEUED:
                self._end(db, row["number"], CANCELED, None)
            else:
                db.execute(_CANCEL, (id,))
            return _call(db.execute(_BY_ID, (id,)).fetchone())

    # --- what workers do ---------------------------------------------------------------------------------------

    def claim(self, worker: str, slots: Mapping[Key, int]) -> ClaimedCall | None:
        """Take the call that begins next, if one may. Looking takes no lock."""
        with self._read() as db:
            if next_call(self._load(db), slots, self.limits) is None:
                return None
        with self._write() as db:
            number = next_call(self._load(db), slots, self.limits)
            if number is None:
                return None
            db.execute(_CLAIM, (worker, self._clock(), number))
            row = db.execute("SELECT * FROM calls WHERE number = ?", (number,)).fetchone()
            parts = db.execute("SELECT * FROM requests WHERE call = ?", (number,)).fetchone()
            return ClaimedCall(_call(row), CallRequest(*tuple(parts)[1:]), row["attempts"])

    def _load(self, db: sqlite3.Connection) -> CallLoad:
        asked = {"now": self._clock(), "longest": LONGEST_PAUSE + SLACK}
        return CallLoad(
            {(AppName(a), ComponentName(c)): n for a, c, n in db.execute(_DUE, asked)},
            {(AppName(a), ComponentName(c)): n for a, c, n in db.execute(_RUNNING)},
            _sizes(db),
        )

    def requeue(self, id: str, worker: str, why: CallEnd, pause: float) -> bool:
        """Put a call back that certainly did not run; False if it was canceled meanwhile."""
        with self._write() as db:
            row = (why.reason, storable(why.message), self._clock() + pause, id, worker)
            return db.execute(_REQUEUE, row).rowcount > 0

    def end(self, id: str, worker: str, end: CallEnd, result: CallResult | None) -> bool:
        """Record the end of a call that this worker makes; False if it has ended already."""
        with self._write() as db:
            row = db.execute(_TAKEN, (id, worker)).fetchone()
            if row is not None:
                self._end(db, row["number"], end, result)
            return row is not None

    def _end(self, db: sqlite3.Connection, number: int, end: CallEnd, result: CallResult | None) -> None:
        db.execute("DELETE FROM requests WHERE call = ?", (number,))
        told, headers = ("", ""), ""
        body = result.body if result else b""
        if result is not None:
            headers = json.dumps([[a.decode("latin-1"), b.decode("latin-1")] for a, b in result.headers])
            told = (str(result.status), result.content_type)
            db.execute("INSERT INTO results VALUES (?, ?, ?)", (number, headers, body))
        ended = (end.state, end.reason, storable(end.message), self._clock())
        size = OVERHEAD + len(headers) + len(body)
        db.execute(_END, (*ended, int(told[0] or 0), told[1], len(body), size, number))

    def canceling(self, worker: str) -> frozenset[str]:
        """Return the calls that this worker makes and somebody has canceled."""
        with self._read() as db:
            rows = db.execute("SELECT id FROM calls WHERE state = 'CANCELING' AND worker = ?", (worker,))
            return frozenset(row["id"] for row in rows)

    def workers(self) -> frozenset[str]:
        """Return those that make calls."""
        with self._read() as db:
            rows = db.execute("SELECT DISTINCT worker FROM calls WHERE state IN ('RUNNING', 'CANCELING')")
            return frozenset(row["worker"] for row in rows)

    def lose(self, worker: str, but: frozenset[str] = frozenset()) -> int:
        """End the calls of a worker that does not make them, except `but`, and return how many these are."""
        query = "SELECT number, id, state FROM calls WHERE worker = ? AND state IN ('RUNNING', 'CANCELING')"
        with self._read() as db:
            if all(row["id"] in but for row in db.execute(query, (worker,))):
                return 0
        with self._write() as db:
            rows = [row for row in db.execute(query, (worker,)).fetchall() if row["id"] not in but]
            for row in rows:
                self._end(db, row["number"], CANCELED if row["state"] == CallState.CANCELING else LOST, None)
        return len(rows)

    def sweep(self) -> bool:
        """End calls that have waited for too long, and remove old ones; return False if there are more of them.
        Times that the clock has not reached, since it was set back, become now."""
        now, keep = self._clock(), self.limits.keep
        with self._write() as db:
            for statement in _RESTAMP:
                db.execute(statement, {"now": now, "slack": SLACK})
            query = "SELECT number FROM calls WHERE state = 'QUEUED' AND created < ? ORDER BY number LIMIT ?"
            late = db.execute(query, (now - keep, AT_ONCE)).fetchall()
            for row in late:
                self._end(db, row["number"], expired(keep), None)
            query = "SELECT number, id, app, api, user FROM calls WHERE ended < ? AND NOT untold ORDER BY ended LIMIT ?"
            old = db.execute(query, (now - keep, AT_ONCE)).fetchall()
            for row in old:
                db.execute("DELETE FROM calls WHERE number = ?", (row["number"],))
            db.executemany("INSERT OR IGNORE INTO gone VALUES (?, ?, ?, ?, ?)", map(tuple, old))
            db.execute("DELETE FROM sizes WHERE size <= 0")
            db.execute("DELETE FROM gone WHERE number <= (SELECT max(number) FROM gone) - ?", (GONE,))
        if old:
            with self._read() as db:
                db.executescript(f"PRAGMA incremental_vacuum({FREED})")  # execute frees only one page
        return max(len(late), len(old)) < AT_ONCE

    def untold(self, worker: str) -> tuple[EndedCall, ...]:
        """Return calls of this worker whose end the daemon has to be told, and those that others have not told."""
        query = (
            f"SELECT {_COLUMNS}, webhook FROM calls WHERE untold <> 0 AND ended IS NOT NULL"  # noqa: S608
            " AND (worker = ? OR ended < ? OR ended > ?) ORDER BY ended LIMIT ?"
        )
        now = self._clock()
        with self._read() as db:
            rows = db.execute(query, (worker, now - OTHERS, now + SLACK, AT_ONCE)).fetchall()
        return tuple(EndedCall(_call(row), row["webhook"]) for row in rows)

    def told(self, id: str) -> None:
        with self._write() as db:
            db.execute("UPDATE calls SET untold = 0 WHERE id = ?", (id,))

    # --- what is told ------------------------------------------------------------------------------------------

    def changed(self) -> bool:
        """Return True if another connection has changed something since the last call in this thread."""
        with self._read() as db:
            version = db.execute("PRAGMA data_version").fetchone()[0]
        before, self._local.version = getattr(self._local, "version", None), version
        return bool(before != version)

    def use(self) -> tuple[Mapping[AppName, int], Mapping[AppName, int]]:
        """Return, by app, how many calls wait for the component with the most, and the bytes of all."""
        with self._read() as db:
            waiting = waiting_by_app((AppName(a), ComponentName(c), n) for a, c, n in db.execute(_WAITING))
            return waiting, _sizes(db)

    def counts(self) -> tuple[tuple[str, str, int], ...]:
        """Return the numbers of calls by API (`<app>/<path>`) and state."""
        with self._read() as db:
            return tuple((f"{app}/{api}", state, n) for app, api, state, n in db.execute(_COUNTS).fetchall())

    # --- connections -------------------------------------------------------------------------------------------

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._guarded() as db:
            yield db

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._guarded() as db, transaction(db):
            yield db

    @contextmanager
    def _guarded(self) -> Iterator[sqlite3.Connection]:
        """Yield this thread's connection. A damaged file is set aside, and the next use finds a new one."""
        with translated(self.path):
            try:
                yield self._connection()
            except sqlite3.DatabaseError as error:
                if (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF in _SPOILT:
                    self._set_aside(error)
                raise

    def _connection(self) -> sqlite3.Connection:
        """Return the connection to the file at the path: another worker may have set aside the one of before."""
        known: tuple[sqlite3.Connection, tuple[int, int]] | None = getattr(self._local, "open", None)
        mark = _mark(self.path)
        if known is not None and known[1] == mark:
            return known[0]
        if known is not None:
            known[0].close()
        connection = self._open()
        self._opened.append(connection)
        self._local.open = (connection, _mark(self.path))
        self._local.version = None
        return connection

    def _open(self) -> sqlite3.Connection:
        """Open the file, and wait while another worker makes it: SQLite itself does not wait to change the journal."""
        for _ in range(int(TIMEOUT / MOMENT)):
            try:
                return self._made()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                time.sleep(MOMENT)
        return self._made()

    def _made(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(
            FileExistsError
        ):  # closing a file that exists would drop the locks of other connections
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, FILE_MODE))
        db = sqlite3.connect(self.path, timeout=TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            db.row_factory = sqlite3.Row
            # Set only once, since setting it takes the lock of writers.
            if db.execute("PRAGMA auto_vacuum").fetchone()[0] != INCREMENTAL:
                db.execute(f"PRAGMA auto_vacuum = {INCREMENTAL}")
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                db.execute(f"PRAGMA {pragma}")
            db.execute(f"PRAGMA journal_size_limit = {64 * 2**20}")
            _create(db)
        except BaseException:
            db.close()
            raise
        return db

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        log.error("%s is damaged and starts again, without the calls in it: %s", self.path, error)
        known = getattr(self._local, "open", None)
        if known is not None:
            known[0].close()
            self._local.open = None
        for suffix in _SUFFIXES:
            with suppress(FileNotFoundError):
                os.replace(f"{self.path}{suffix}", f"{self.path}.aside{suffix}")


def _create(db: sqlite3.Connection) -> None:
    if db.execute("PRAGMA user_version").fetchone()[0] >= len(_STEPS):
        return  # as almost always: opening the file waits for no writer
    with transaction(db):
        for step, statements in enumerate(_STEPS, 1):
            if db.execute("PRAGMA user_version").fetchone()[0] < step:
                for statement in statements:
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {step}")


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _sizes(db: sqlite3.Connection) -> dict[AppName, int]:
    return {AppName(app): int(size) for app, size in db.execute(_SIZES)}


def _headers(text: str) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in json.loads(text))


def _call(row: sqlite3.Row) -> AsyncCall:
    return AsyncCall(
        id=row["id"],
        app=AppName(row["app"]),
        api=row["api"],
        component=ComponentName(row["component"]),
        user=row["user"],
        state=CallState(row["state"]),
        reason=row["reason"],
        message=row["message"],
        created=row["created"],
        started=row["started"],
        ended=row["ended"],
        status=row["status"],
        content_type=row["content_type"],
        length=row["length"],
    )
