"""Notifications: those that are declared, how far each is, notices that nobody has taken yet, and tests that people ask
for.

Passes declare them, the daemon's notifier moves their states on and puts messages into the outbox, in one transaction,
and the dispatcher records what has become of a message. Each writes its own column.
"""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from controller.domain.apps.conditions import Conditions
from controller.domain.errors import Transient
from controller.domain.localizable import Localizable
from controller.domain.names import PLATFORM, AppName, ComponentName, is_dns_label
from controller.domain.notifications.alerts import Notice
from controller.domain.notifications.content import reasons_of
from controller.domain.notifications.delivery import Fate, NotificationState
from controller.domain.notifications.records import (
    AskedTest,
    Delivery,
    DeliveryRecord,
    StoredNotification,
    with_delivery,
)
from controller.domain.notifications.spec import NotificationSpec
from controller.domain.reasons import Reason
from controller.domain.runs.webhooks import Message
from controller.store.codec import decode, encode
from controller.store.rows import RowKind, RowReader
from controller.store.sqlite import Database
from controller.store.webhooks import WebhookTable

MOST_NOTICES: Final = 1000  # that nobody has taken
MOST_TESTS: Final = 100  # that nobody has taken
_TEST: Final = re.compile(r"[0-9a-f]{32}")
_ALL: Final = "SELECT * FROM notifications WHERE app = ifnull(:app, app) ORDER BY app, name"
_DECLARE: Final = """
INSERT INTO notifications (app, name, spec) VALUES (?, ?, ?)
ON CONFLICT (app, name) DO UPDATE SET spec = excluded.spec
"""
_FORGET: Final = (
    "DELETE FROM notifications WHERE app = :app AND name NOT IN (SELECT value FROM json_each(:names))"
)
_CONDITIONS: Final = """
SELECT app, json_extract(status, '$.conditions') AS conditions FROM apps WHERE json_valid(status)
"""
_PRUNE: Final = "DELETE FROM notices WHERE id <= (SELECT max(id) FROM notices) - ?"


def _stored(row: sqlite3.Row) -> StoredNotification:
    return StoredNotification(
        AppName(row["app"]),
        decode(NotificationSpec, row["spec"]),
        decode(NotificationState, row["state"]),
        decode(DeliveryRecord, row["record"]),
    )


NOTIFICATIONS = RowKind("the notification", "notifications", ("app", "name"), _stored)


class NoticeTable:
    """Written in the transactions that make notices true."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, notices: Iterable[Notice]) -> None:
        rows = [(encode(notice),) for notice in notices]
        if rows:
            with self._database.write() as db:
                db.executemany("INSERT INTO notices (notice) VALUES (?)", rows)
                db.execute(_PRUNE, (MOST_NOTICES,))

    def list(self) -> tuple[int, tuple[Notice, ...]]:
        """Return those that are there, and the number of the last one."""
        with self._database.read() as db:
            rows = db.execute("SELECT id, notice FROM notices ORDER BY id").fetchall()
        return rows[-1]["id"] if rows else 0, tuple(
            found for row in rows if (found := _notice(row["notice"]))
        )

    def take(self, last: int) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM notices WHERE id <= ?", (last,))


def _notice(text: str) -> Notice | None:
    try:
        return decode(Notice, text)
    except ValueError:  # of another release
        return None


class NotificationTable:
    def __init__(
        self, database: Database, rows: RowReader, notices: NoticeTable, outbox: WebhookTable
    ) -> None:
        self._database = database
        self._rows = rows
        self._notices = notices
        self._outbox = outbox

    # --- what is declared --------------------------------------------------------------------------------------

    def declare(self, app: AppName, specs: Iterable[NotificationSpec]) -> None:
        """Store these as those of the app. Writes nothing if they are unchanged."""
        wanted = {str(spec.name): encode(spec) for spec in specs}
        with self._database.read() as db:
            found = dict(db.execute("SELECT name, spec FROM notifications WHERE app = ?", (app,)).fetchall())
        if wanted == found:
            return
        with self._database.write() as db:
            db.executemany(_DECLARE, [(app, name, text) for name, text in sorted(wanted.items())])
            db.execute(_FORGET, {"app": app, "names": json.dumps(sorted(wanted))})

    def all(self, app: AppName | None = None) -> tuple[StoredNotification, ...]:
        return self._rows.found(NOTIFICATIONS, _ALL, {"app": app})

    def get(self, app: AppName, name: ComponentName) -> StoredNotification | None:
        return next((each for each in self.all(app) if each.spec.name == name), None)

    # --- looking -----------------------------------------------------------------------------------------------

    def conditions(self) -> Mapping[AppName, Conditions]:
        """Return the conditions of all apps and of the platform. They are read several times a minute, so the rest
        of a status is not decoded."""
        with self._database.read() as db:
            rows = db.execute(_CONDITIONS).fetchall()
        return {AppName(row["app"]): _conditions(row["conditions"] or "[]") for row in rows}

    def notices(self) -> tuple[int, tuple[Notice, ...]]:
        return self._notices.list()

    def take(self, last: int) -> None:
        self._notices.take(last)

    def advance(
        self, app: AppName, name: ComponentName, state: NotificationState, message: Message | None = None
    ) -> None:
        """Save a state, with the message that follows from it."""
        with self._database.write() as db:
            query = "UPDATE notifications SET state = ? WHERE app = ? AND name = ?"
            if db.execute(query, (encode(state), app, name)).rowcount and message:
                self._outbox.add((message,))

    # --- what has become of messages ---------------------------------------------------------------------------

    def record(self, message: Message, at: float, fate: Fate | None, problem: str = "") -> None:
        """Record an attempt to send a message; `fate` is None if there will be another one."""
        with self._database.write() as db:
            query = "SELECT record FROM notifications WHERE app = ? AND name = ?"
            row = db.execute(query, (message.app, message.pipeline)).fetchone()
            if row is None:
                return
            try:
                record = decode(DeliveryRecord, row["record"])
            except ValueError:
                record = DeliveryRecord()
            record = with_delivery(record, Delivery(message.id, at, fate, problem, _reasons(message.body)))
            query = "UPDATE notifications SET record = ? WHERE app = ? AND name = ?"
            db.execute(query, (encode(record), message.app, message.pipeline))

    # --- tests -------------------------------------------------------------------------------------------------

    def ask_test(self, app: AppName, name: ComponentName) -> str:
        """Ask the daemon for a test message, and return its id. Raises Transient if too many others wait."""
        id = secrets.token_hex(16)
        with self._database.write() as db:
            if db.execute("SELECT count(*) FROM asked_tests").fetchone()[0] >= MOST_TESTS:
                raise Transient(
                    Reason.QUEUE_FULL,
                    Localizable("too many tests are asked for already: try again soon"),
                )
            db.execute("INSERT INTO asked_tests VALUES (?, ?, ?)", (id, app, name))
        return id

    def tests(self) -> tuple[AskedTest, ...]:
        """Return what was asked for, and delete what nobody can have asked for: others may have written anything."""
        with self._database.read() as db:
            rows = db.execute("SELECT * FROM asked_tests LIMIT ?", (MOST_TESTS,)).fetchall()
        tests: list[AskedTest] = []
        bad: list[tuple[str]] = []
        for row in rows:
            if _is_test(row):
                tests.append(AskedTest(row["id"], AppName(row["app"]), ComponentName(row["name"])))
            else:
                bad.append((row["id"],))
        if bad:
            with self._database.write() as db:
                db.executemany("DELETE FROM asked_tests WHERE id = ?", bad)
        return tuple(tests)

    def send_test(self, message: Message) -> None:
        """Put the message of a test into the outbox, unless it is there."""
        self._outbox.add_once(message)

    def end_test(self, id: str) -> None:
        """Forget that it was asked for."""
        with self._database.write() as db:
            db.execute("DELETE FROM asked_tests WHERE id = ?", (id,))


def _is_test(row: sqlite3.Row) -> bool:
    is_app = row["app"] == PLATFORM or is_dns_label(row["app"])
    return bool(_TEST.fullmatch(row["id"])) and is_app and is_dns_label(row["name"])


def _reasons(body: str) -> tuple[str, ...]:
    try:
        return reasons_of(body)
    except (ValueError, KeyError, TypeError, AttributeError):  # of another release
        return ()


@lru_cache(maxsize=2048)
def _conditions(text: str) -> Conditions:
    try:
        return decode(Conditions, text)
    except ValueError:
        return ()
