"""The store for all processes but the daemon: they read the state and write requests next to it (`inbox`),
where the daemon finds them. A request is visible at once, in the form that the daemon is going to give it.

What the daemon takes moves from one database to the other, not in both at one moment: a reader that finds a thing
in neither looks again where it goes to.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

from controller.domain.apps.requests import Trigger
from controller.domain.names import AppName
from controller.domain.runs.run import EVERY_RUN, Run, RunCount, RunFilter, RunState
from controller.domain.runs.submissions import RunSubmission, being_canceled, submission_of
from controller.ports import QueueLimits
from controller.store.codec import encode
from controller.store.intake import read_submission
from controller.store.requests import RequestQueue
from controller.store.runs import ABRIDGED, WAITING_AND_ASKED, RunTable, check_queue, conflict, owner_of

WISH = """
INSERT INTO wishes (app, reason, created, not_before) VALUES (:app, :reason, :now, :not_before)
ON CONFLICT (app, reason) DO UPDATE SET not_before = min(not_before, excluded.not_before) RETURNING id
"""
EARLIER = """
SELECT digest, run FROM {} WHERE app = ? AND pipeline = ? AND user IS ? AND key = ?
"""
SUBMITTED_IN_BRIEF = ABRIDGED.format("submission")
WAITING = f"SELECT id, app, {SUBMITTED_IN_BRIEF} FROM submissions WHERE app = ? ORDER BY id DESC LIMIT ?"  # noqa: S608
MOST = 1000  # submissions that are read for a list; the daemon takes them in continuously


class GuestRequests(RequestQueue):
    def enqueue(self, app: AppName, trigger: Trigger, not_before: float = 0.0) -> int:
        asked = {"app": app, "reason": trigger, "now": self._clock(), "not_before": not_before}
        with self._database.write() as db:
            return int(db.execute(WISH, asked).fetchone()["id"])


class GuestRuns(RunTable):
    def submit(self, run: Run, key: str = "", digest: str = "", most: QueueLimits | None = None) -> Run:
        """All that takes time is done before the lock is held, for which all other processes wait."""
        submission = submission_of(run)
        text, admitted = encode(submission), self.admitted(submission)
        size = _size(run, submission, text)
        with self._database.write() as db:
            if key and (earlier := self._earlier(db, run, key, digest)):
                return earlier
            if most is not None:
                check_queue(db, run, size, most, WAITING_AND_ASKED)
            db.execute("INSERT INTO submissions VALUES (?, ?, ?)", (run.id, run.app, text))
            if key:
                known = (run.app, run.name, owner_of(run), key, digest, run.id, run.created)
                db.execute("INSERT OR REPLACE INTO caller_keys VALUES (?, ?, ?, ?, ?, ?, ?)", known)
        return admitted

    def _earlier(self, db: sqlite3.Connection, run: Run, key: str, digest: str) -> Run | None:
        for table in ("caller_keys", "run_keys"):
            asked = (run.app, run.name, owner_of(run), key)
            row = db.execute(EARLIER.format(table), asked).fetchone()
            if row is None:
                continue
            if row["digest"] != digest:
                raise conflict(key, row["run"])
            if found := self.get(run.app, row["run"]):
                return found
        return None

    def get(self, app: AppName, id: str) -> Run | None:
        return self._wherever(app, id, in_brief=False)

    def brief(self, app: AppName, id: str) -> Run | None:
        return self._wherever(app, id, in_brief=True)

    def _wherever(self, app: AppName, id: str, in_brief: bool) -> Run | None:
        taken = partial(self._one, app, id, in_brief)
        found = taken() or self._waiting_one(app, id, in_brief) or taken()
        return found and self._as_asked(app, (found,))[0]

    def versions(self, ids: Iterable[str]) -> Mapping[str, int]:
        wanted = json.dumps(list(ids))
        with self._database.read() as db:
            waiting = db.execute(
                "SELECT id FROM submissions WHERE id IN (SELECT value FROM json_each(?))", (wanted,)
            ).fetchall()
            cancels = db.execute(
                "SELECT run FROM cancels WHERE run IN (SELECT value FROM json_each(?))", (wanted,)
            ).fetchall()
        found = {**{row["id"]: 0 for row in waiting}, **super().versions(json.loads(wanted))}
        for row in cancels:
            if row["run"] in found:
                found[row["run"]] += 1
        return found

    def list(self, app: AppName, wanted: RunFilter = EVERY_RUN, limit: int = 100) -> tuple[Run, ...]:
        waiting = self._waiting(app)  # read first: what is taken in meanwhile is in the other list
        found = {run.id: run for run in waiting if wanted.takes(run)}
        found |= {run.id: run for run in super().list(app, wanted, limit)}
        newest = sorted(found.values(), key=lambda run: run.id, reverse=True)[:limit]
        return self._as_asked(app, newest)

    def unfinished(self, app: AppName, limit: int | None = None) -> tuple[Run, ...]:
        found = {run.id: run for run in (*self._waiting(app), *super().unfinished(app, limit))}
        return tuple(sorted(found.values(), key=lambda run: run.id)[:limit])

    def counts(self, app: AppName | None = None) -> tuple[RunCount, ...]:
        with self._database.read() as db:
            query = "SELECT DISTINCT app FROM submissions WHERE :app IS NULL OR app = :app"
            apps = [AppName(row["app"]) for row in db.execute(query, {"app": app}).fetchall()]
        waiting = [run for each in apps for run in self._waiting(each)]
        found = {(count.app, count.pipeline, count.state): count for count in super().counts(app)}
        for run in waiting:
            key = (run.app, run.name, RunState.QUEUED)
            if super().get(run.app, run.id) is None:
                known = found.get(key, RunCount(*key, 0, run.id))
                found[key] = replace(known, number=known.number + 1, oldest=min(known.oldest, run.id))
        return tuple(found[key] for key in sorted(found))

    def cancel(self, app: AppName, id: str, at: float) -> Run | None:
        run = self.get(app, id)
        if run is None or run.state.terminal or run.state is RunState.CANCELING:
            return run
        with self._database.write() as db:
            db.execute("INSERT INTO cancels VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (id, app, at))
        return self.get(app, id)

    # --- what the daemon has not taken yet ----------------------------------------------------------------------

    def _waiting_one(self, app: AppName, id: str, in_brief: bool) -> Run | None:
        column = SUBMITTED_IN_BRIEF if in_brief else "submission"
        query = f"SELECT id, app, {column} FROM submissions WHERE id = ? AND app = ?"  # noqa: S608 - texts of ours
        with self._database.read() as db:
            row = db.execute(query, (id, app)).fetchone()
        return self._admitted(row) if row else None

    def _waiting(self, app: AppName) -> tuple[Run, ...]:
        with self._database.read() as db:
            rows = db.execute(WAITING, (app, MOST)).fetchall()
        return tuple(run for row in rows if (run := self._admitted(row)))

    def _admitted(self, row: sqlite3.Row) -> Run | None:
        try:
            return self.admitted(read_submission(row))
        except ValueError:
            return None

    def _as_asked(self, app: AppName, runs: Iterable[Run]) -> tuple[Run, ...]:
        """Return the runs with cancels that the daemon has not handled yet."""
        with self._database.read() as db:
            rows = db.execute("SELECT run, at FROM cancels WHERE app = ?", (app,)).fetchall()
        asked = {row["run"]: float(row["at"]) for row in rows}
        return tuple(_being_canceled(run, asked[run.id]) if run.id in asked else run for run in runs)


def _size(run: Run, submission: RunSubmission, text: str) -> int:
    """Return at least the characters that the run is going to have, without writing its inputs a second time."""
    if submission.repeats:
        return len(encode(run))
    return len(text) + len(encode(replace(run, inputs=(), outputs=())))


def _being_canceled(run: Run, at: float) -> Run:
    changed = being_canceled(run, at)
    return changed if changed is run else replace(changed, version=run.version + 1)
