"""Calls that their callers do not wait for, with their bodies and results. A database of its own in the folder of the
web process: its workers share it, and no other process uses it. A file that is damaged is set aside, and the calls in
it are lost (`calls_file`).

The space is bounded: what a call takes is counted with it, pages that are free are given back to the disk, and the
reserve of the disk is left alone."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from controller.disk import free_percent
from controller.domain.errors import Stalled, Transient
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.routing.async_calls import (
    CANCELED,
    LONGEST_PAUSE,
    LOST,
    OVERHEAD,
    REMOVED,
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
from controller.store.calls_file import CallFile
from controller.store.commit_watch import open_commit_watch

if TYPE_CHECKING:
    from controller.ports import CommitWatch

GONE: Final = 100_000  # ids of removed calls that are remembered, the newest
AT_ONCE: Final = 200  # calls that are removed or ended in one transaction
OTHERS: Final = 5.0  # seconds that a worker has to tell the ends of its own calls
FREED: Final = 2000  # pages that are given back to the disk at once
SLACK: Final = (
    60.0  # seconds: a time that lies further in the future was written before the clock was set back
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
_RUNNING = """
SELECT app, component, version, count(*) FROM calls WHERE state IN ('RUNNING', 'CANCELING')
GROUP BY app, component, version
"""
_SIZES = "SELECT app, size FROM sizes WHERE size > 0"
_WAITING = "SELECT app, component, count(*) FROM calls WHERE state = 'QUEUED' GROUP BY app, component"
_CLAIM = """
UPDATE calls SET state = 'RUNNING', reason = '', message = '', worker = ?, version = ?, started = ?,
attempts = attempts + 1 WHERE number = ? AND state = 'QUEUED'
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
_COUNTS = "SELECT app, api, state, number FROM counts WHERE number > 0"
_PAGE = f"""
SELECT {_COLUMNS}, number FROM calls
WHERE app = ? AND api = ? AND user = ? AND state = ? AND number < ? ORDER BY number DESC LIMIT ?
"""  # noqa: S608 - a constant of ours
_PLACE = """
SELECT number FROM calls WHERE id = :id AND app = :app AND api = :api AND user = :user UNION ALL
SELECT number FROM gone WHERE id = :id AND app = :app AND api = :api AND user = :user
"""
_NO_VERSIONS: Final[Mapping[Key, str]] = {}
LAST: Final = 2**63 - 1  # greater than the number of any call
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
class CallFilter:
    """The calls of one caller of one API, in one state or in all of them. `after` is the id of the last call of the
    page before, "" for the first page."""

    app: AppName
    api: str
    user: str
    state: CallState | None = None
    after: str = ""


#: What a follower of a call sees of it; when it differs, there is something new.
CallMark = tuple[CallState, str, str]


@dataclass(frozen=True)
class ClaimedCall:
    call: AsyncCall
    request: CallRequest
    attempts: int


class CallTable:
    """May be shared by threads: each has a connection of its own. `clock` returns Unix seconds, `free` the free
    percentage of the disk."""

    def __init__(
        self,
        path: Path,
        limits: CallLimits,
        clock: Callable[[], float],
        free: Callable[[Path], float] = free_percent,
    ) -> None:
        self.path = path
        self.limits = limits
        self._clock = clock
        self._free = free
        self._file = CallFile(path)

    def close(self) -> None:
        self._file.close()

    def _read(self) -> AbstractContextManager[sqlite3.Connection]:
        return self._file.read()

    def _write(self) -> AbstractContextManager[sqlite3.Connection]:
        return self._file.write()

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

    def page(self, wanted: CallFilter, most: int) -> tuple[AsyncCall, ...] | None:
        """Return at most so many calls, newest first; None if the caller has never had the call `after`. What a page
        costs depends on its length only: each state is a range of the index."""
        whose = (wanted.app, wanted.api, storable(wanted.user))
        with self._read() as db:
            before = LAST
            if wanted.after:
                asked = dict(zip(("app", "api", "user"), whose, strict=True), id=wanted.after)
                place = db.execute(_PLACE, asked).fetchone()
                if place is None:
                    return None
                before = place[0]
            states = tuple(CallState) if wanted.state is None else (wanted.state,)
            rows = [
                row for state in states for row in db.execute(_PAGE, (*whose, state, before, most)).fetchall()
            ]
        rows.sort(key=lambda row: int(row["number"]), reverse=True)
        return tuple(_call(row) for row in rows[:most])

    def marks(self, ids: Iterable[str]) -> dict[str, CallMark]:
        """Return what followers see of these calls, without those that are gone."""
        query = "SELECT id, state, reason, message FROM calls WHERE id IN (SELECT value FROM json_each(?))"
        with self._read() as db:
            rows = db.execute(query, (json.dumps(list(ids)),)).fetchall()
        return {row["id"]: (CallState(row["state"]), row["reason"], row["message"]) for row in rows}

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

    def claim(
        self, worker: str, slots: Mapping[Key, int], versions: Mapping[Key, str] = _NO_VERSIONS
    ) -> ClaimedCall | None:
        """Take the call that begins next, if one may. `versions` are those in service. Looking takes no lock."""
        with self._read() as db:
            if next_call(self._load(db, versions), slots, self.limits) is None:
                return None
        with self._write() as db:
            number = next_call(self._load(db, versions), slots, self.limits)
            if number is None:
                return None
            row = db.execute("SELECT * FROM calls WHERE number = ?", (number,)).fetchone()
            version = versions.get((AppName(row["app"]), ComponentName(row["component"])), "")
            db.execute(_CLAIM, (worker, version, self._clock(), number))
            row = db.execute("SELECT * FROM calls WHERE number = ?", (number,)).fetchone()
            parts = db.execute("SELECT * FROM requests WHERE call = ?", (number,)).fetchone()
            return ClaimedCall(_call(row), CallRequest(*tuple(parts)[1:]), row["attempts"])

    def _load(self, db: sqlite3.Connection, versions: Mapping[Key, str]) -> CallLoad:
        asked = {"now": self._clock(), "longest": LONGEST_PAUSE + SLACK}
        running: Counter[Key] = Counter()
        leaving: Counter[Key] = Counter()
        for app, component, version, number in db.execute(_RUNNING):
            key = (AppName(app), ComponentName(component))
            running[key] += number
            if version and versions.get(key, version) != version:
                leaving[key] += number
        waiting = {(AppName(a), ComponentName(c)): n for a, c, n in db.execute(_DUE, asked)}
        return CallLoad(waiting, running, _sizes(db), leaving)

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
            db.execute("DELETE FROM counts WHERE number <= 0")
            db.execute("DELETE FROM gone WHERE number <= (SELECT max(number) FROM gone) - ?", (GONE,))
        if old:
            with self._read() as db:
                db.executescript(f"PRAGMA incremental_vacuum({FREED})")  # execute frees only one page
        return max(len(late), len(old)) < AT_ONCE

    def waiting(self) -> frozenset[Key]:
        """Return the components for which calls wait."""
        with self._read() as db:
            return frozenset((AppName(app), ComponentName(name)) for app, name, _ in db.execute(_WAITING))

    def abandon(self, app: AppName, component: ComponentName) -> int:
        """End calls that wait for a component that was removed; return how many these are, at most AT_ONCE."""
        query = "SELECT number FROM calls WHERE state = 'QUEUED' AND app = ? AND component = ? LIMIT ?"
        with self._write() as db:
            rows = db.execute(query, (app, component, AT_ONCE)).fetchall()
            for row in rows:
                self._end(db, row["number"], REMOVED, None)
        return len(rows)

    def apps(self) -> frozenset[AppName]:
        """Return the apps that have calls."""
        with self._read() as db:
            return frozenset(_sizes(db))

    def remove(self, app: AppName) -> int:
        """Remove the calls of an app that was deleted, except those that run, or whose end the daemon has to be told:
        the next app of this name may be somebody else's. Return how many these are, at most AT_ONCE."""
        states = ("SUCCEEDED", "FAILED", "ERROR", "CANCELED", "EXPIRED")
        query = "DELETE FROM calls WHERE number = ?"
        found = "SELECT number FROM calls WHERE state = ? AND app = ? AND NOT untold LIMIT ?"
        with self._write() as db:
            rows = [row for state in states for row in db.execute(found, (state, app, AT_ONCE))][:AT_ONCE]
            db.executemany(query, [(row["number"],) for row in rows])
            if rows:
                db.execute("DELETE FROM gone WHERE app = ?", (app,))
        return len(rows)

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

    def free(self) -> float:
        """Return the free percentage of the disk. If it cannot be found out, all of it: writing fails by itself."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return self._free(self.path.parent)
        except OSError:
            return 100.0

    # --- what is told ------------------------------------------------------------------------------------------

    def changed(self) -> bool:
        """Return True if another connection has changed something since the last call in this thread."""
        return self._file.changed()

    def commit_watch(self) -> CommitWatch:
        """Return a new watch for commits, of this process and others."""
        return open_commit_watch((self.path,))

    def use(self) -> tuple[Mapping[AppName, int], Mapping[AppName, int]]:
        """Return, by app, how many calls wait for the component with the most, and the bytes of all."""
        with self._read() as db:
            waiting = waiting_by_app((AppName(a), ComponentName(c), n) for a, c, n in db.execute(_WAITING))
            return waiting, _sizes(db)

    def counts(self) -> tuple[tuple[str, str, int], ...]:
        """Return the numbers of calls by API (`<app>/<path>`) and state."""
        with self._read() as db:
            return tuple((f"{app}/{api}", state, n) for app, api, state, n in db.execute(_COUNTS).fetchall())


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
