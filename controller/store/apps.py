"""The status of each app. What a person decided (`suspended`, `approved_revision`) has columns of its own, so that
a reconcile that saves its result never undoes what was decided meanwhile."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import replace

from controller.domain.names import AppName
from controller.domain.status import AppStatus, Event
from controller.store.codec import decode, encode
from controller.store.events import EventLog
from controller.store.sqlite import Database, damaged

UPSERT = "INSERT INTO apps (app, status) VALUES (?, ?) ON CONFLICT DO UPDATE SET status = excluded.status"
SUSPEND = (
    "INSERT INTO apps (app, status, suspended) VALUES (?, ?, ?)"
    " ON CONFLICT DO UPDATE SET suspended = excluded.suspended"
)
APPROVE = (
    "INSERT INTO apps (app, status, approved_revision) VALUES (?, ?, ?)"
    " ON CONFLICT DO UPDATE SET approved_revision = excluded.approved_revision"
)


class AppTable:
    def __init__(self, database: Database, events: EventLog) -> None:
        self._database = database
        self._events = events

    def status(self, app: AppName) -> AppStatus:
        with self._database.read() as db:
            row = db.execute("SELECT * FROM apps WHERE app = ?", (app,)).fetchone()
        return self._status(row) if row else AppStatus(app)

    def all(self) -> tuple[AppStatus, ...]:
        """Sorted by name."""
        with self._database.read() as db:
            rows = db.execute("SELECT * FROM apps ORDER BY app").fetchall()
        return tuple(self._status(row) for row in rows)

    def save(self, status: AppStatus, events: Iterable[Event] = ()) -> None:
        """A status that says what is stored already, without events, takes no write lock."""
        events = tuple(events)
        text = _text(status)
        if not events and self._stored(status.app) == text:
            return
        with self._database.write() as db:
            db.execute(UPSERT, (status.app, text))
            self._events.add(events)

    def record_plan(self, app: AppName, revision: str, plan: str) -> None:
        """Becomes the status' `plan` and `attempted_revision`: the intent is durable before the first act."""
        with self._database.write():
            self.save(replace(self.status(app), attempted_revision=revision, plan=plan))

    def forget(self, app: AppName) -> None:
        """The app is no longer known. Its events stay until `prune`, for those who ask what became of it."""
        with self._database.write() as db:
            db.execute("DELETE FROM apps WHERE app = ?", (app,))

    def set_suspended(self, app: AppName, suspended: bool) -> None:
        with self._database.write() as db:
            db.execute(SUSPEND, (app, _text(AppStatus(app)), int(suspended)))

    def approve(self, app: AppName, revision: str) -> None:
        with self._database.write() as db:
            db.execute(APPROVE, (app, _text(AppStatus(app)), revision))

    def _stored(self, app: AppName) -> str | None:
        with self._database.read() as db:
            row = db.execute("SELECT status FROM apps WHERE app = ?", (app,)).fetchone()
        return row["status"] if row else None

    def _status(self, row: sqlite3.Row) -> AppStatus:
        try:
            status = decode(AppStatus, row["status"])
        except ValueError as error:
            raise damaged(self._database.path, f"status of {row['app']}", error) from error
        return replace(status, suspended=bool(row["suspended"]), approved_revision=row["approved_revision"])


def _text(status: AppStatus) -> str:
    return encode(replace(status, suspended=False, approved_revision=""))
