"""The status of each app. Decisions of people (`suspended`, `approved_revision`, `rollback`) are in separate tables of
`asked`, so that a pass that saves its result never undoes a decision made meanwhile.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from dataclasses import asdict, replace

from controller.domain.apps.status import AppStatus, Event, Rollback
from controller.domain.names import AppName
from controller.domain.text import printable
from controller.store.codec import encode, remembering
from controller.store.events import EventLog
from controller.store.pass_inputs import digest_of_inputs
from controller.store.rows import RowKind, RowReader
from controller.store.sqlite import Database

UPSERT = "INSERT INTO apps (app, status) VALUES (?, ?) ON CONFLICT DO UPDATE SET status = excluded.status"
SUSPEND = """
INSERT INTO decisions (app, suspended) VALUES (?, ?) ON CONFLICT DO UPDATE SET suspended = excluded.suspended
"""
APPROVE = (
    "INSERT INTO decisions (app, approved_revision) VALUES (?, ?)"
    " ON CONFLICT DO UPDATE SET approved_revision = excluded.approved_revision"
)
ROLL_BACK = """
INSERT INTO rollbacks (app, revision, replaced, author, at) VALUES (:app, :revision, :replaced, :by, :at)
ON CONFLICT DO UPDATE SET revision = :revision, replaced = :replaced, author = :by, at = :at
"""
END_ROLLBACK = "DELETE FROM rollbacks WHERE app = ? AND revision = ? AND at = ?"
_DECIDED = "suspended, approved_revision, revision, replaced, author, at"
_DECISIONS = "LEFT JOIN decisions USING (app) LEFT JOIN rollbacks USING (app)"
ALL = f"SELECT apps.*, {_DECIDED} FROM apps {_DECISIONS} ORDER BY app"  # noqa: S608 - constants of ours
ONE = f"""
SELECT asked.app, status, {_DECIDED} FROM (SELECT ? AS app) AS asked LEFT JOIN apps USING (app) {_DECISIONS}
"""  # noqa: S608 - constants of ours

_REVISION = re.compile(r"[A-Za-z0-9._-]{1,100}")
_MOST_AUTHOR = 200  # characters

STATUSES = RowKind(
    "the status of the app",
    "apps",
    ("app",),
    remembering(AppStatus, "status", most=2048, longest=16_384),  # pages and lists read all of them
    away=("UPDATE apps SET status = json_object('app', app) WHERE app = :app",),
)


class AppTable:
    def __init__(self, database: Database, rows: RowReader, events: EventLog) -> None:
        self._database = database
        self._rows = rows
        self._events = events

    def status(self, app: AppName) -> AppStatus:
        with self._database.read() as db:
            row = db.execute(ONE, (app,)).fetchone()
        return self._status(row)

    def inputs(self, app: AppName) -> bytes:
        return digest_of_inputs(self._database, app)

    def has(self, app: AppName) -> bool:
        with self._database.read() as db:
            return db.execute("SELECT 1 FROM apps WHERE app = ?", (app,)).fetchone() is not None

    def all(self) -> tuple[AppStatus, ...]:
        """Return the status of all apps, sorted by name."""
        with self._database.read() as db:
            rows = db.execute(ALL).fetchall()
        return tuple(self._status(row) for row in rows)

    def save(self, status: AppStatus, events: Iterable[Event] = ()) -> None:
        """Save a status. If it is unchanged and there are no events, no write lock is taken."""
        events = tuple(events)
        text = _text(status)
        if not events and self._stored(status.app) == text:
            return
        with self._database.write() as db:
            db.execute(UPSERT, (status.app, text))
            self._events.add(events)

    def record_plan(self, app: AppName, revision: str, plan: str) -> None:
        """Store the status' `plan` and `attempted_revision`, so that the intent is durable before the first
        action.
        """
        with self._database.write():
            self.save(replace(self.status(app), attempted_revision=revision, plan=plan))

    def forget(self, app: AppName) -> None:
        """Delete the status of an app. Its events stay until `prune`, so that people can see what happened to
        it.
        """
        with self._database.write() as db:
            db.execute("DELETE FROM apps WHERE app = ?", (app,))
            db.execute("DELETE FROM decisions WHERE app = ?", (app,))
            db.execute("DELETE FROM rollbacks WHERE app = ?", (app,))

    def set_suspended(self, app: AppName, suspended: bool) -> None:
        with self._database.write() as db:
            db.execute(SUSPEND, (app, int(suspended)))

    def roll_back(self, app: AppName, rollback: Rollback) -> None:
        with self._database.write() as db:
            db.execute(ROLL_BACK, {"app": app, **asdict(rollback)})

    def end_rollback(self, app: AppName, rollback: Rollback) -> None:
        """Forget a rollback, but not another one that was asked for meanwhile."""
        with self._database.write() as db:
            db.execute(END_ROLLBACK, (app, rollback.revision, rollback.at))

    def approve(self, app: AppName, revision: str) -> None:
        with self._database.write() as db:
            db.execute(APPROVE, (app, revision))

    def _stored(self, app: AppName) -> str | None:
        with self._database.read() as db:
            row = db.execute("SELECT status FROM apps WHERE app = ?", (app,)).fetchone()
        return row["status"] if row else None

    def _status(self, row: sqlite3.Row) -> AppStatus:
        """Return a status. An unreadable one becomes that of a new app: the next pass observes what is
        running. Decisions of people still hold.
        """
        known = self._rows.readable(STATUSES, row if row["status"] is not None else None)
        status = known or AppStatus(AppName(row["app"]))
        is_suspended, approved = row["suspended"] not in (None, 0), str(row["approved_revision"] or "")
        approved = approved if _REVISION.fullmatch(approved) else ""
        rollback = _rollback(row)
        if (is_suspended, approved, rollback) == (
            status.suspended,
            status.approved_revision,
            status.rollback,
        ):
            return status
        return replace(status, suspended=is_suspended, approved_revision=approved, rollback=rollback)


def _rollback(row: sqlite3.Row) -> Rollback | None:
    """Return what others have written; None if it cannot be a rollback."""
    revision, replaced = str(row["revision"] or ""), str(row["replaced"] or "")
    if not (_REVISION.fullmatch(revision) and _REVISION.fullmatch(replaced)):
        return None
    return Rollback(revision, replaced, printable(str(row["author"])[:_MOST_AUTHOR]), float(row["at"]))


def _text(status: AppStatus) -> str:
    return encode(replace(status.bounded(), suspended=False, approved_revision="", rollback=None))
