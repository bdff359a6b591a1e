"""The outbox of webhooks and commit statuses. `runs` fills it in the transaction that ends a run, a pass in the one
that saves the status of its app, and the daemon removes what was
delivered. Messages that were given up are kept for a while, with the last error.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping

from controller.domain.errors import Transient
from controller.domain.integrity import IntegrityError
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.routing.async_calls import EndedCall
from controller.domain.runs.webhooks import LONGEST, Message
from controller.ports import WebhookUnderWay
from controller.store.codec import decode, encode
from controller.store.sqlite import Database

INTO = """
INTO webhooks (id, app, pipeline, revision, run, secret, url, lane, body, attempts, due)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
INSERT = f"INSERT {INTO}"
INSERT_ONCE = f"INSERT OR IGNORE {INTO}"
# A few of each partition: otherwise messages to one failing receiver would block all others. If a
# message is due later than the longest pause, the clock was set back, and it is due now.
DUE = """
WITH waiting AS (
    SELECT *, iif(id GLOB 'note*', 'notifications', 'webhooks') AS pool FROM webhooks
), due AS (
    SELECT id, row_number() OVER (PARTITION BY lane ORDER BY due, id) AS place FROM waiting
    WHERE given_up IS NULL AND (due <= :now OR due > :now + :longest)
    AND id NOT IN (SELECT value FROM json_each(:ids))
    AND lane NOT IN (SELECT value FROM json_each(:partitions))
    AND pool NOT IN (SELECT value FROM json_each(:pools))
    AND pool || ' ' || app NOT IN (SELECT value FROM json_each(:apps))
)
SELECT * FROM webhooks WHERE id IN (SELECT id FROM due WHERE place <= :each) ORDER BY due, id LIMIT :limit
"""
MOST_ENDS = 10_000  # of calls, until the daemon takes them
MOST_OF_APP = 10_000  # messages of an app that wait, beyond which those of calls are dropped
LARGEST = 65_536  # characters of the end of a call
EACH = 2  # of a partition
LIMIT = 64
UNDER_WAY = ("ids", "partitions", "pools", "apps")
# One that is being sent now is not stopped by this, but is not repeated.
SUPERSEDE = "DELETE FROM webhooks WHERE app = ? AND revision = ? AND run = '' AND given_up IS NULL"
FAILED = "UPDATE webhooks SET attempts = attempts + 1, error = :error, due = :due WHERE id = :id"
GIVEN_UP = "UPDATE webhooks SET attempts = attempts + 1, error = :error, given_up = :at WHERE id = :id"


class WebhookTable:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, messages: tuple[Message, ...]) -> None:
        if not messages:
            return
        with self._database.write() as db:
            db.executemany(INSERT, [_row(message) for message in messages])

    def add_once(self, message: Message) -> None:
        """Add a message; one with its id that is there already stays."""
        with self._database.write() as db:
            db.execute(INSERT_ONCE, _row(message))

    def call_ended(self, ended: EndedCall) -> None:
        with self._database.write() as db:
            if db.execute("SELECT count(*) FROM call_ends").fetchone()[0] >= MOST_ENDS:
                raise Transient(
                    Reason.QUEUE_FULL, f"the daemon has not heard of the end of {MOST_ENDS} calls"
                )
            db.execute("INSERT OR IGNORE INTO call_ends VALUES (?, ?)", (ended.call.id, encode(ended)))

    def add_call(self, messages: tuple[Message, ...]) -> bool:
        """Add those of an async call; a message that is there already stays. Return False if the app has too many."""
        with self._database.write() as db:
            for message in messages:
                query = "SELECT count(*) FROM webhooks WHERE app = ? AND given_up IS NULL"
                if db.execute(query, (message.app,)).fetchone()[0] >= MOST_OF_APP:
                    return False
                db.execute(INSERT_ONCE, _row(message))
        return True

    def supersede(self, status: Message) -> None:
        with self._database.write() as db:
            db.execute(SUPERSEDE, (status.app, status.revision))
            db.execute(INSERT, _row(status))

    def due(self, now: float, underway: WebhookUnderWay) -> tuple[Message, ...]:
        asked = {"now": now, "longest": LONGEST, "each": EACH, "limit": LIMIT}
        busy = {name: json.dumps(sorted(getattr(underway, name))) for name in UNDER_WAY}
        with self._database.read() as db:
            rows = db.execute(DUE, {**asked, **busy}).fetchall()
        return tuple(_message(row) for row in rows)

    def of(self, run: str) -> tuple[Message, ...]:
        with self._database.read() as db:
            rows = db.execute("SELECT * FROM webhooks WHERE run = ? ORDER BY id", (run,)).fetchall()
        return tuple(_message(row) for row in rows)

    def next_tries(self, ids: Iterable[str]) -> Mapping[str, float]:
        """Return when each of these messages is sent next; those that are not sent any more are left out."""
        query = (
            "SELECT id, due FROM webhooks WHERE given_up IS NULL AND id IN (SELECT value FROM json_each(?))"
        )
        with self._database.read() as db:
            return dict(db.execute(query, (json.dumps(sorted(ids)),)).fetchall())

    def delivered(self, id: str) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM webhooks WHERE id = ?", (id,))

    def failed(self, id: str, error: str, due: float) -> None:
        with self._database.write() as db:
            db.execute(FAILED, {"id": id, "error": error, "due": due})

    def give_up(self, id: str, error: str, at: float) -> None:
        with self._database.write() as db:
            db.execute(GIVEN_UP, {"id": id, "error": error, "at": at})

    def prune(self, before: float) -> None:
        """Delete messages that were given up."""
        with self._database.write() as db:
            db.execute("DELETE FROM webhooks WHERE given_up < ?", (before,))


def read_ended(row: sqlite3.Row) -> EndedCall:
    """Return a call as another process has told its end. Raises ValueError if it is invalid."""
    if len(row["ended_call"]) > LARGEST:
        raise IntegrityError("the end of a call is too long")
    found = decode(EndedCall, row["ended_call"])
    if found.call.id != row["id"]:
        raise IntegrityError("the end of a call is not what its row says")
    return found


def _row(message: Message) -> tuple[object, ...]:
    whose = (message.id, message.app, message.pipeline, message.revision, message.run, message.secret)
    return (*whose, message.url, message.partition, message.body, message.attempts, message.due)


def _message(row: sqlite3.Row) -> Message:
    return Message(
        id=row["id"],
        app=AppName(row["app"]),
        pipeline=ComponentName(row["pipeline"]),
        revision=row["revision"],
        run=row["run"],
        secret=row["secret"],
        url=row["url"],
        body=row["body"],
        attempts=row["attempts"],
        due=row["due"],
    )
