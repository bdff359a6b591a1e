"""The history of what happened to each app, with a limit for each app."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable

from controller.domain.apps.status import Event, EventType
from controller.domain.localizable import as_stored, from_stored
from controller.domain.names import PLATFORM, AppName, ComponentName
from controller.domain.notifications.alerts import notice_of_event
from controller.domain.reasons import Reason
from controller.store.notifications import NoticeTable
from controller.store.sqlite import Database

INSERT = """
INSERT INTO events (app, component, type, reason, message, revision, at, told) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
PRUNE = """
DELETE FROM events WHERE app = :app AND id <=
(SELECT id FROM events WHERE app = :app ORDER BY id DESC LIMIT 1 OFFSET :keep)
"""
#: The limit for an app: characters of all its messages, besides the number of its events.
MOST_TEXT = 4 * 2**20
_LONG = 1024  # characters of a message after which the total is checked
PRUNE_TEXT = """
DELETE FROM events WHERE app = :app AND id <= (
    SELECT max(id) FROM (
        SELECT id, sum(length(message)) OVER (ORDER BY id DESC) AS written FROM events WHERE app = :app
    ) WHERE written > :most
)
"""
NEWEST = """
SELECT * FROM (SELECT * FROM events WHERE :app IS NULL OR app = :app ORDER BY id DESC LIMIT :limit) ORDER BY id
"""
AFTER = "SELECT * FROM events WHERE id > :after AND (:app IS NULL OR app = :app) ORDER BY id LIMIT :limit"
PRUNE_FORGOTTEN = (
    "DELETE FROM events WHERE at < :before AND app <> :platform AND app NOT IN (SELECT app FROM apps)"
)

_TYPES = frozenset(EventType)


class EventLog:
    def __init__(self, database: Database, clock: Callable[[], float], keep: int) -> None:
        self._database = database
        self._notices = NoticeTable(database)
        self._clock = clock
        self._keep = keep

    def add(self, events: Iterable[Event]) -> None:
        """Add events. An `at` of 0 means now; `id` is assigned here."""
        events = tuple(events)
        if not events:
            return
        with self._database.write() as db:
            now = self._clock()
            db.executemany(INSERT, [_row(event, now) for event in events])
            self._notices.add(found for event in events if (found := notice_of_event(event, event.at or now)))
            for app in sorted({event.app for event in events}):
                db.execute(PRUNE, {"app": app, "keep": self._keep})
            for app in sorted({event.app for event in events if len(event.message) > _LONG}):
                db.execute(PRUNE_TEXT, {"app": app, "most": MOST_TEXT})

    def list(self, app: AppName | None, after: int = 0, limit: int = 100) -> tuple[Event, ...]:
        asked = {"app": app, "after": after, "limit": limit}
        with self._database.read() as db:
            rows = db.execute(AFTER if after else NEWEST, asked).fetchall()
        return tuple(_event(row) for row in rows)

    def forget(self, app: AppName) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM events WHERE app = ?", (app,))

    def prune(self, before: float) -> None:
        """Delete events older than `before` of unknown apps; known ones keep their newest events, however
        old.
        """
        with self._database.write() as db:
            db.execute(PRUNE_FORGOTTEN, {"before": before, "platform": PLATFORM})


def _row(event: Event, now: float) -> tuple[object, ...]:
    at = event.at or now
    told = as_stored(event.message) or ""
    return (event.app, event.component, event.type, event.reason, event.message, event.revision, at, told)


def _event(row: sqlite3.Row) -> Event:
    return Event(
        id=row["id"],
        app=AppName(row["app"]),
        component=ComponentName(row["component"]) if row["component"] is not None else None,
        type=EventType(row["type"]) if row["type"] in _TYPES else EventType.WARNING,
        reason=Reason(row["reason"]),
        message=from_stored(row["message"], row["told"]),
        revision=row["revision"],
        at=row["at"],
    )
