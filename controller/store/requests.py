"""Queue of reconcile requests.

Two partial unique indexes enforce its rules: at most one queued and one running request per app, over all
processes. A second request for a queued app is merged into the first. Every id that was returned can be
queried: a request that a dead daemon has left while another one for its app was queued refers to that one,
and reports its result.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace

from controller.domain.apps.requests import Outcome, ReconcileRequest, RequestState, Trigger, due_after
from controller.domain.names import AppName
from controller.store.codec import decode, encode
from controller.store.inbox import LAST_WISH
from controller.store.sqlite import Database

# finished requests per app; about two hours of an app that polls and repairs every half minute
KEEP_DONE = 500

ENQUEUE = """
INSERT INTO requests (app, reasons, state, created, not_before)
VALUES (:app, json_array(:reason), 'queued', :now, :not_before)
ON CONFLICT (app) WHERE state = 'queued' DO UPDATE SET
    not_before = min(not_before, excluded.not_before),
    reasons = CASE WHEN NOT json_valid(requests.reasons) THEN json_array(:reason)
        WHEN EXISTS (SELECT 1 FROM json_each(requests.reasons) WHERE value = :reason)
        THEN requests.reasons ELSE json_insert(requests.reasons, '$[#]', :reason) END
RETURNING id
"""
CLAIMABLE = """
SELECT id FROM requests AS mine WHERE state = 'queued' AND not_before <= :now
AND NOT EXISTS (SELECT 1 FROM requests WHERE app = mine.app AND state = 'running')
ORDER BY max(created, not_before), id LIMIT 1
"""
CLAIM = f"UPDATE requests SET state = 'running' WHERE id = ({CLAIMABLE}) RETURNING *"  # noqa: S608 - two constants
FINISH = """
UPDATE requests SET state = 'done', finished = :now, outcome = :outcome, message = :message, revision = :revision
WHERE id = :id AND state = 'running' RETURNING app
"""
PRUNE = """
DELETE FROM requests WHERE state = 'done' AND app = :app AND id <=
(SELECT id FROM requests WHERE state = 'done' AND app = :app ORDER BY id DESC LIMIT 1 OFFSET :keep)
"""
# Each half has an index of its own.
LAST_BEGUN = """
SELECT * FROM requests WHERE app = :app AND state = 'running' UNION ALL
SELECT * FROM (SELECT * FROM requests WHERE app = :app AND state = 'done' ORDER BY id DESC LIMIT 1)
ORDER BY id DESC LIMIT 1
"""
NEXT_DUE = """
SELECT min(not_before) AS due FROM requests AS mine WHERE state = 'queued'
AND NOT EXISTS (SELECT 1 FROM requests WHERE app = mine.app AND state = 'running')
"""
ONE = """
SELECT * FROM requests WHERE id = coalesce((SELECT request FROM wishes_taken WHERE wish = :id), :id)
"""
WISH = "SELECT * FROM wishes WHERE id = ?"
LEFT_BEHIND = """
SELECT dead.*, next.id AS next_id, next.reasons AS next_reasons FROM requests AS dead
LEFT JOIN requests AS next ON next.app = dead.app AND next.state = 'queued' WHERE dead.state = 'running'
"""


class RequestQueue:
    def __init__(self, database: Database, clock: Callable[[], float], keep_done: int = KEEP_DONE) -> None:
        self._database = database
        self._clock = clock
        self._keep_done = keep_done
        self.take_in: Callable[[], None] = lambda: None  # takes in requests of other processes

    def enqueue(self, app: AppName, trigger: Trigger, not_before: float = 0.0) -> int:
        with self._database.write() as db:
            row = db.execute(LAST_BEGUN, {"app": app}).fetchone() if trigger is Trigger.WEBHOOK else None
            due = max(not_before, due_after(_request(row))) if row else not_before
            new = {"app": app, "reason": trigger, "now": self._clock(), "not_before": due}
            return int(db.execute(ENQUEUE, new).fetchone()["id"])

    def claim(self, now: float) -> ReconcileRequest | None:
        """Claim the request that has been due for longest. An idle worker takes no write lock."""
        self.take_in()
        with self._database.read() as db:
            if db.execute(CLAIMABLE, {"now": now}).fetchone() is None:
                return None
        with self._database.write() as db:
            row = db.execute(CLAIM, {"now": now}).fetchone()
        return _request(row) if row else None

    def finish(self, request: int, outcome: Outcome, message: str, revision: str) -> None:
        """Store the result. A request that is not running stays as it is."""
        result = {
            "id": request,
            "outcome": outcome,
            "message": message,
            "revision": revision,
            "now": self._clock(),
        }
        with self._database.write() as db:
            row = db.execute(FINISH, result).fetchone()
            if row:
                db.execute(PRUNE, {"app": row["app"], "keep": self._keep_done})

    def prune(self, before: float) -> None:
        """Delete requests that were done before that time."""
        with self._database.write() as db:
            db.execute("DELETE FROM requests WHERE state = 'done' AND finished < ?", (before,))

    def recover(self) -> int:
        with self._database.write() as db:
            left = db.execute(LEFT_BEHIND).fetchall()
            for row in left:
                if row["next_id"] is None:
                    db.execute("UPDATE requests SET state = 'queued' WHERE id = ?", (row["id"],))
                else:
                    self._hand_over(db, row)
        return len(left)

    def _hand_over(self, db: sqlite3.Connection, dead: sqlite3.Row) -> None:
        """Give the reasons and the place in the queue of the interrupted request to the queued one."""
        reasons = dict.fromkeys((*_reasons(dead["reasons"]), *_reasons(dead["next_reasons"])))
        db.execute(
            "UPDATE requests SET state = 'done', finished = ?, outcome = 'Superseded', followed_by = ?, message = ?"
            " WHERE id = ?",
            (
                self._clock(),
                dead["next_id"],
                f"interrupted; request {dead['next_id']} continues it",
                dead["id"],
            ),
        )
        db.execute(
            "UPDATE requests SET reasons = ?, created = min(created, ?), not_before = min(not_before, ?) WHERE id = ?",
            (encode(tuple(reasons)), dead["created"], dead["not_before"], dead["next_id"]),
        )

    def queued(self, app: AppName) -> ReconcileRequest | None:
        """Return the queued request of an app, also one that was not taken in yet."""
        with self._database.read() as db:
            waiting = db.execute("SELECT * FROM wishes WHERE app = ? ORDER BY id LIMIT 1", (app,)).fetchone()
            row = db.execute("SELECT * FROM requests WHERE app = ? AND state = 'queued'", (app,)).fetchone()
        if row is None and waiting is not None:
            return add_request(waiting)
        return _request(row) if row else None

    def latest(self, app: AppName) -> ReconcileRequest | None:
        """Return the newest request of an app, whatever its state."""
        with self._database.read() as db:
            row = db.execute(
                "SELECT * FROM requests WHERE app = ? ORDER BY id DESC LIMIT 1", (app,)
            ).fetchone()
        return _request(row) if row else None

    def get(self, request: int) -> ReconcileRequest | None:
        """Return a request, or the one that took over from it; None if it never existed or was deleted.
        Requests of other processes are found by their own ids.
        """
        if request > LAST_WISH:  # the database may not even take the number
            return None
        with self._database.read() as db:
            row = self._row(db, request)
            if row is None and (waiting := db.execute(WISH, (request,)).fetchone()):
                return add_request(waiting)
            row = row or self._row(db, request)  # taken in meanwhile
            while row and row["followed_by"]:
                row = db.execute("SELECT * FROM requests WHERE id = ?", (row["followed_by"],)).fetchone()
        return replace(_request(row), id=request) if row else None

    def _row(self, db: sqlite3.Connection, request: int) -> sqlite3.Row | None:
        found: sqlite3.Row | None = db.execute(ONE, {"id": request}).fetchone()
        return found

    def next_due(self) -> float | None:
        """Return when the next request is due. Requests that wait for a running one of the same app do not
        count.
        """
        with self._database.read() as db:
            due: float | None = db.execute(NEXT_DUE).fetchone()["due"]
        return due


def _request(row: sqlite3.Row) -> ReconcileRequest:
    return ReconcileRequest(
        id=row["id"],
        app=AppName(row["app"]),
        reasons=_reasons(row["reasons"]),
        state=RequestState(row["state"]),
        created=row["created"],
        not_before=row["not_before"],
        outcome=Outcome(row["outcome"]),
        message=row["message"],
        revision=row["revision"],
    )


def add_request(row: sqlite3.Row) -> ReconcileRequest:
    """Return a request of another process that was not taken in yet."""
    state, reasons = RequestState.QUEUED, (Trigger(row["reason"]),)
    return ReconcileRequest(row["id"], AppName(row["app"]), reasons, state, row["created"], row["not_before"])


def _reasons(text: str) -> tuple[Trigger, ...]:
    """Return the reasons; none if they cannot be read, since the pass is what counts."""
    try:
        return decode(tuple[Trigger, ...], text)
    except ValueError:
        return ()
