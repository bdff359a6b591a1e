"""The status of each app. Decisions of people (`suspended`, `approved_revision`) are in a separate table of
`asked`, so that a pass that saves its result never undoes a decision made meanwhile.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from dataclasses import replace

from controller.domain.apps.status import AppStatus, Event
from controller.domain.names import AppName
from controller.store.codec import decode, encode
from controller.store.events import EventLog
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
ALL = "SELECT apps.*, suspended, approved_revision FROM apps LEFT JOIN decisions USING (app) ORDER BY app"
ONE = """
SELECT asked.app, status, suspended, approved_revision FROM (SELECT ? AS app) AS asked
LEFT JOIN apps USING (app) LEFT JOIN decisions USING (app)
"""

_REVISION = re.compile(r"[A-Za-z0-9._-]{1,100}")


def _decoded(row: sqlite3.Row) -> AppStatus:
    return decode(AppStatus, row["status"])


STATUSES = RowKind(
    "the status of the app",
    "apps",
    ("app",),
    _decoded,
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

    def set_suspended(self, app: AppName, suspended: bool) -> None:
        with self._database.write() as db:
            db.execute(SUSPEND, (app, int(suspended)))

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
        approved = str(row["approved_revision"] or "")
        return replace(
            status,
            suspended=row["suspended"] not in (None, 0),
            approved_revision=approved if _REVISION.fullmatch(approved) else "",
        )


def _text(status: AppStatus) -> str:
    return encode(replace(status.bounded(), suspended=False, approved_revision=""))
