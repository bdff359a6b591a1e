"""The history of what happened to each app, bounded per app."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable

from controller.domain.names import PLATFORM, AppName, ComponentName
from controller.domain.status import Event, EventType
from controller.store.sqlite import Database

INSERT = """
INSERT INTO events (app, component, type, reason, message, revision, at) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
PRUNE = """
DELETE FROM events WHERE app = :app AND id <=
(SELECT id FROM events WHERE app = :app ORDER BY id DESC LIMIT 1 OFFSET :keep)
"""
NEWEST = """
SELECT * FROM (SELECT * FROM events WHERE :app IS NULL OR app = :app ORDER BY id DESC LIMIT :limit) ORDER BY id
"""
AFTER = "SELECT * FROM events WHERE id > :after AND (:app IS NULL OR app = :app) ORDER BY id LIMIT :limit"
PRUNE_FORGOTTEN = (
    "DELETE FROM events WHERE at < :before AND app <> :platform AND app NOT IN (SELECT app FROM apps)"
)


class EventLog:
    def __init__(self, database: Database, clock: Callable[[], float], keep: int) -> None:
        self._database = database
        self._clock = clock
        self._keep = keep

    def add(self, events: Iterable[Event]) -> None:
        """`at` of 0 means now; `id` is given here, whatever it was."""
        events = tuple(events)
        if not events:
            return
        with self._database.write() as db:
            now = self._clock()
            db.executemany(INSERT, [_row(event, now) for event in events])
            for app in sorted({event.app for event in events}):
                db.execute(PRUNE, {"app": app, "keep": self._keep})

    def list(self, app: AppName | None, after: int = 0, limit: int = 100) -> tuple[Event, ...]:
        asked = {"app": app, "after": after, "limit": limit}
        with self._database.read() as db:
            rows = db.execute(AFTER if after else NEWEST, asked).fetchall()
        return tuple(_event(row) for row in rows)

    def prune(self, before: float) -> None:
        """Remove what is older than `before` of apps that are no longer known; known ones keep their newest events,
        however old."""
        with self._database.write() as db:
            db.execute(PRUNE_FORGOTTEN, {"before": before, "platform": PLATFORM})


def _row(event: Event, now: float) -> tuple[object, ...]:
    at = event.at or now
    return (event.app, event.component, event.type, event.reason, event.message, event.revision, at)


def _event(row: sqlite3.Row) -> Event:
    return Event(
        id=row["id"],
        app=AppName(row["app"]),
        component=ComponentName(row["component"]) if row["component"] is not None else None,
        type=EventType(row["type"]),
        reason=row["reason"],
        message=row["message"],
        revision=row["revision"],
        at=row["at"],
    )
