"""Runs of pipelines, and the pipelines that can be run.

A run is one value in one row; `version` makes every change a compare-and-set, so that a person who cancels and a runner
who has just seen the end cannot both be right. Whoever ends it, the same transaction puts its webhooks into the outbox.
Claiming counts what runs in the same transaction: limits hold over all processes, and over a daemon's death, since
nothing but the rows is counted.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from controller.domain.errors import Stalled
from controller.domain.names import AppName, ComponentName
from controller.domain.pipelines import Pipeline
from controller.domain.runs import Run, RunCount, RunState
from controller.domain.webhooks import messages
from controller.ports import RunLimits
from controller.store.codec import decode, encode
from controller.store.sqlite import Database, damaged
from controller.store.webhooks import WebhookTable

T = TypeVar("T")

INSERT = """
INSERT INTO runs (id, app, pipeline, user, state, priority, concurrency, created, version, run)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
SAVE = """
UPDATE runs SET state = :state, expires = :expires, version = :next, run = :run WHERE id = :id AND version = :version
"""
# Of the queued ones: per pipeline only the first is a candidate, since the others come after it in any case.
# `active_runs` is a view of those that take a slot.
CLAIMABLE = """
WITH first AS (
    SELECT id, app, pipeline, concurrency, priority,
        row_number() OVER (PARTITION BY app, pipeline ORDER BY priority DESC, id) AS place
    FROM runs WHERE state = 'QUEUED'
)
SELECT run FROM runs WHERE id = (
    SELECT id FROM first WHERE place = 1
    AND (SELECT count(*) FROM active_runs AS r WHERE r.app = first.app AND r.pipeline = first.pipeline) < concurrency
    AND (SELECT count(*) FROM active_runs AS r WHERE r.app = first.app) < :per_app
    ORDER BY priority DESC, id LIMIT 1
)
"""
RUNNING = "SELECT count(*) FROM active_runs"
LIST = """
SELECT run FROM runs WHERE app = :app AND (:pipeline IS NULL OR pipeline = :pipeline)
AND (:user IS NULL OR user IS NULL OR user = :user) AND (:state IS NULL OR state = :state)
AND (:after = '' OR id < :after) ORDER BY id DESC LIMIT :limit
"""
# `+id`: by the index of states, since that of ids leads through all that are over.
UNFINISHED = """
SELECT run FROM runs WHERE app = ? AND state IN ('QUEUED', 'STARTING', 'RUNNING', 'CANCELING') ORDER BY +id LIMIT ?
"""
# Answered from the index `runs_by_state` alone: no run is read.
COUNTS = """
SELECT app, pipeline, state, count(*) AS number, min(id) AS oldest FROM runs
WHERE :app IS NULL OR app = :app GROUP BY state, app, pipeline ORDER BY app, pipeline, state
"""
LAST_ENDED = """
SELECT run FROM runs WHERE app = ? AND state IN ('SUCCEEDED', 'FAILED', 'ERROR', 'CANCELED') ORDER BY id DESC LIMIT 1
"""
GONE = """
SELECT 1 FROM runs_gone WHERE id = :id AND app = :app AND (:user IS NULL OR user IS NULL OR user = :user)
"""
VERSIONS = "SELECT id, version FROM runs WHERE id IN (SELECT value FROM json_each(?))"
UNFINISHED_OF = """
SELECT run FROM runs WHERE state IN ('QUEUED', 'STARTING', 'RUNNING', 'CANCELING') AND app = ? AND pipeline = ?
AND json_extract(run, '$.cause') = ? ORDER BY +id
"""
# Of pipelines that can be run no longer, or not by the clock.
UNSCHEDULE = """
DELETE FROM schedules WHERE app = :app AND pipeline NOT IN
(SELECT name FROM pipelines WHERE app = :app AND json_extract(pipeline, '$.schedule') IS NOT NULL)
"""
EXPIRED = "SELECT run FROM runs WHERE expires <= ? ORDER BY expires LIMIT 100"


class RunTable:
    def __init__(self, database: Database, outbox: WebhookTable) -> None:
        self._database = database
        self._outbox = outbox

    # --- pipelines ---------------------------------------------------------------------------------------------

    def pipelines(self, app: AppName) -> tuple[Pipeline, ...]:
        with self._database.read() as db:
            rows = db.execute("SELECT pipeline FROM pipelines WHERE app = ? ORDER BY name", (app,)).fetchall()
        return tuple(self._decoded(Pipeline, row["pipeline"]) for row in rows)

    def pipeline(self, app: AppName, name: ComponentName) -> Pipeline | None:
        return next((found for found in self.pipelines(app) if found.name == name), None)

    def publish(self, app: AppName, pipelines: tuple[Pipeline, ...]) -> None:
        """The same ones again write nothing."""
        if self.pipelines(app) == pipelines:
            return
        with self._database.write() as db:
            db.execute("DELETE FROM pipelines WHERE app = ?", (app,))
            rows = [(app, pipeline.name, encode(pipeline)) for pipeline in pipelines]
            db.executemany("INSERT INTO pipelines VALUES (?, ?, ?)", rows)
            db.execute(UNSCHEDULE, {"app": app})

    # --- runs --------------------------------------------------------------------------------------------------

    def submit(self, run: Run, key: str = "", digest: str = "") -> Run:
        with self._database.write() as db:
            if key and (earlier := self._earlier(db, run, key, digest)):
                return earlier
            self._insert(db, run)
            if key:
                row = (run.app, run.name, _owner(run), key, digest, run.id, run.created)
                db.execute("INSERT INTO run_keys VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return run

    def _earlier(self, db: sqlite3.Connection, run: Run, key: str, digest: str) -> Run | None:
        query = "SELECT digest, run FROM run_keys WHERE app = ? AND pipeline = ? AND user IS ? AND key = ?"
        row = db.execute(query, (run.app, run.name, _owner(run), key)).fetchone()
        if row is None:
            return None
        if row["digest"] != digest:
            message = f"the key {key!r} was used for another request, which became run {row['run']}"
            raise Stalled("IdempotencyConflict", message)
        return self.get(run.app, row["run"])

    def _insert(self, db: sqlite3.Connection, run: Run) -> None:
        place = (run.id, run.app, run.name, _owner(run), run.state, run.priority, run.pipeline.concurrency)
        db.execute(INSERT, (*place, run.created, run.version, encode(run)))
        self._outbox.add(messages(run))

    def get(self, app: AppName, id: str) -> Run | None:
        with self._database.read() as db:
            row = db.execute("SELECT run FROM runs WHERE id = ? AND app = ?", (id, app)).fetchone()
        return self._decoded(Run, row["run"]) if row else None

    def versions(self, ids: Iterable[str]) -> Mapping[str, int]:
        with self._database.read() as db:
            rows = db.execute(VERSIONS, (json.dumps(list(ids)),)).fetchall()
        return {row["id"]: row["version"] for row in rows}

    def is_gone(self, app: AppName, id: str, user: str | None = None) -> bool:
        with self._database.read() as db:
            return bool(db.execute(GONE, {"id": id, "app": app, "user": user}).fetchone())

    def list(
        self,
        app: AppName,
        pipeline: ComponentName | None = None,
        state: RunState | None = None,
        after: str = "",
        limit: int = 100,
        user: str | None = None,
    ) -> tuple[Run, ...]:
        asked = {
            "app": app,
            "pipeline": pipeline,
            "state": state,
            "after": after,
            "limit": limit,
            "user": user,
        }
        with self._database.read() as db:
            return tuple(self._decoded(Run, row["run"]) for row in db.execute(LIST, asked).fetchall())

    def active(self) -> tuple[Run, ...]:
        with self._database.read() as db:
            rows = db.execute("SELECT run FROM active_runs ORDER BY id").fetchall()
        return tuple(self._decoded(Run, row["run"]) for row in rows)

    def unfinished(self, app: AppName, limit: int | None = None) -> tuple[Run, ...]:
        with self._database.read() as db:
            rows = db.execute(UNFINISHED, (app, -1 if limit is None else limit)).fetchall()
        return tuple(self._decoded(Run, row["run"]) for row in rows)

    def counts(self, app: AppName | None = None) -> tuple[RunCount, ...]:
        with self._database.read() as db:
            rows = db.execute(COUNTS, {"app": app}).fetchall()
        return tuple(
            RunCount(row["app"], row["pipeline"], RunState(row["state"]), row["number"], row["oldest"])
            for row in rows
        )

    def last_ended(self, app: AppName) -> Run | None:
        with self._database.read() as db:
            row = db.execute(LAST_ENDED, (app,)).fetchone()
        return self._decoded(Run, row["run"]) if row else None

    def unfinished_of(self, app: AppName, pipeline: ComponentName, cause: str) -> tuple[Run, ...]:
        with self._database.read() as db:
            rows = db.execute(UNFINISHED_OF, (app, pipeline, cause)).fetchall()
        return tuple(self._decoded(Run, row["run"]) for row in rows)

    def claim(self, limits: RunLimits, now: float) -> Run | None:
        with self._database.read() as db:  # most looks find nothing: no lock for them
            if not db.execute("SELECT 1 FROM runs WHERE state = 'QUEUED' LIMIT 1").fetchone():
                return None
        with self._database.write() as db:
            if db.execute(RUNNING).fetchone()[0] >= limits.host:
                return None
            row = db.execute(CLAIMABLE, {"per_app": limits.app}).fetchone()
            if row is None:
                return None
            run = self._decoded(Run, row["run"])
            return self._saved(db, run, run.to(RunState.STARTING, now))

    def save(self, run: Run) -> Run | None:
        with self._database.write() as db:
            return self._saved(db, run, run)

    def _saved(self, db: sqlite3.Connection, before: Run, after: Run) -> Run | None:
        next = replace(after, version=before.version + 1)
        row = {"id": next.id, "state": next.state, "expires": next.expires, "run": encode(next)}
        ends = next.state.terminal and not self._is_over(db, next)
        done = db.execute(SAVE, {**row, "version": before.version, "next": next.version}).rowcount
        if done and ends:
            self._outbox.add(messages(next))
        return next if done else None

    def _is_over(self, db: sqlite3.Connection, run: Run) -> bool:
        row = db.execute("SELECT state FROM runs WHERE id = ?", (run.id,)).fetchone()
        return row is not None and RunState(row["state"]).terminal

    def expired(self, now: float) -> tuple[Run, ...]:
        with self._database.read() as db:
            return tuple(self._decoded(Run, row["run"]) for row in db.execute(EXPIRED, (now,)).fetchall())

    def forget(self, runs: Iterable[Run]) -> None:
        with self._database.write() as db:
            for run in runs:
                db.execute("DELETE FROM runs WHERE id = ?", (run.id,))
                db.execute("DELETE FROM run_keys WHERE run = ?", (run.id,))
                row = (run.id, run.app, _owner(run), run.created)
                db.execute("INSERT OR IGNORE INTO runs_gone VALUES (?, ?, ?, ?)", row)

    def prune(self, before: float) -> None:
        """Of runs that are gone, that they were."""
        with self._database.write() as db:
            db.execute("DELETE FROM runs_gone WHERE created < ?", (before,))

    def _decoded(self, kind: type[T], text: str) -> T:
        try:
            return decode(kind, text)
        except ValueError as error:
            raise damaged(self._database.path, kind.__name__.lower(), error) from error


def _owner(run: Run) -> str | None:
    """As its columns have it."""
    return None if run.public else run.user or ""
