"""Runs of pipelines, and the pipelines that can be run.

A run is one value in one row; `version` makes every change a compare-and-set, so that a person who cancels
and a runner that has just seen the end cannot both succeed. The transaction that ends a run puts its webhooks
into the outbox. Claiming counts the active runs in the same transaction: limits hold over all processes and a
daemon's death, since only rows are counted.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from functools import partial

from controller.domain.errors import Stalled, Transient
from controller.domain.host_paths import may_have_host_paths, without_host_paths
from controller.domain.integrity import IntegrityError
from controller.domain.names import AppName, ComponentName
from controller.domain.notifications.alerts import notice_of_run
from controller.domain.reasons import Reason
from controller.domain.routing.routes import Service
from controller.domain.runs.pipeline import Pipeline
from controller.domain.runs.run import (
    ELLIPSIS,
    EVERY_RUN,
    Run,
    RunCause,
    RunCount,
    RunFilter,
    RunState,
    cancel,
    id_time,
    is_run_id,
    with_messages,
)
from controller.domain.runs.submissions import RunSubmission, admit
from controller.domain.runs.webhooks import messages
from controller.domain.units import about_size
from controller.ports import QueueLimits, RunLimits
from controller.store.codec import decode, encode, remembering
from controller.store.inbox import SUBMITTED_BY
from controller.store.notifications import NoticeTable
from controller.store.rows import RowKind, RowReader
from controller.store.sqlite import Database
from controller.store.webhooks import WebhookTable

INSERT = """
INSERT INTO runs (id, app, pipeline, user, state, priority, concurrency, created, version, run, cause)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
SAVE = """
UPDATE runs SET state = :state, expires = :expires, version = :next, run = :run WHERE id = :id AND version = :version
"""
# Only the first queued run of each pipeline is a candidate, since the others come after it. `active_runs` is
# a view of runs that take a slot.
CLAIMABLE = """
WITH first AS (
    SELECT id, app, pipeline, concurrency, priority,
        row_number() OVER (PARTITION BY app, pipeline ORDER BY priority DESC, id) AS place
    FROM runs WHERE state = 'QUEUED'
)
SELECT id, run FROM runs WHERE id = (
    SELECT id FROM first WHERE place = 1
    AND (SELECT count(*) FROM active_runs AS r WHERE r.app = first.app AND r.pipeline = first.pipeline) < concurrency
    AND (SELECT count(*) FROM active_runs AS r WHERE r.app = first.app) < :per_app
    ORDER BY priority DESC, id LIMIT 1
)
"""
RUNNING = "SELECT count(*) FROM active_runs"
# Inputs of megabytes would be read for each run of a list, and for all who follow one. SQLite leaves them out: while it
# looks through them, other threads go on.
_SHORT, _SHORT_INPUT = 2**16, 2**12  # characters; what is no longer stays as it is
ABRIDGED = f"""
CASE WHEN length({{0}}) > {_SHORT} AND json_valid({{0}}) THEN json_set({{0}}, '$.inputs', (
    SELECT json_group_array(CASE WHEN length(value) <= {_SHORT_INPUT} THEN json(value) ELSE json_object(
        'name', json_extract(value, '$.name'), 'datatype', json_extract(value, '$.datatype'), 'data', '{ELLIPSIS}'
    ) END) FROM json_each({{0}}, '$.inputs') WHERE type = 'object'
)) ELSE {{0}} END AS {{0}}
"""  # noqa: S608 - constants of ours
BRIEF = ABRIDGED.format("run")
# The ids are found in an index alone, so that no more runs are read than are listed.
LIST = f"""
SELECT id, {BRIEF} FROM runs WHERE id IN (SELECT id FROM {{table}} WHERE {{filters}} ORDER BY id DESC LIMIT :limit)
ORDER BY id DESC
"""  # noqa: S608 - a text of ours
FILTERS = {
    "pipeline": "pipeline = :pipeline",
    "state": "state = :state",
    "after": "id < :after",
    "since": "id >= :since",
    "user": "(user IS NULL OR user = :user)",
    "owner": "user = :owner",
    "cause": "cause = :cause",
}
# `+id` selects the index of states, since that of ids would read all ended runs. Only runs within the limit are read.
UNFINISHED = """
SELECT id, run FROM runs WHERE id IN (
    SELECT id FROM runs WHERE app = ? AND state IN ('QUEUED', 'STARTING', 'RUNNING', 'CANCELING') ORDER BY +id LIMIT ?
) ORDER BY id
"""
# A queue may have many megabytes of inputs, of which nothing gets into the memory of the process.
IMAGES = """
SELECT DISTINCT json_extract(stage.value, '$.image') AS image FROM runs, json_each(
    CASE WHEN json_valid(run) THEN run ELSE '{}' END, '$.pipeline.stages'
) AS stage
WHERE app = ? AND state IN ('QUEUED', 'STARTING', 'RUNNING', 'CANCELING') AND json_valid(stage.value)
"""
# The index `runs_by_state` answers it without reading a run.
COUNTS = """
SELECT app, pipeline, state, count(*) AS number, min(id) AS oldest FROM runs
WHERE :app IS NULL OR app = :app GROUP BY state, app, pipeline ORDER BY app, pipeline, state
"""
LAST_ENDED = """
SELECT id, run FROM runs WHERE app = ? AND state IN ('SUCCEEDED', 'FAILED', 'ERROR', 'CANCELED')
ORDER BY id DESC LIMIT 1
"""
ENDED_BADLY = """
SELECT id, run FROM runs WHERE app = ? AND state IN ('FAILED', 'ERROR', 'CANCELED') ORDER BY id DESC LIMIT ?
"""
GONE = """
SELECT 1 FROM runs_gone WHERE id = :id AND app = :app AND (:user IS NULL OR user IS NULL OR user = :user)
"""
VERSIONS = "SELECT id, version FROM runs WHERE id IN (SELECT value FROM json_each(?))"
# The index `runs_queued` has the sizes; without it, each queued run is read.
QUEUED_SIZE = """
SELECT app, sum(length(run)) AS size FROM runs INDEXED BY runs_queued WHERE state = 'QUEUED' GROUP BY app
"""
OWNERS = "SELECT id, app FROM runs WHERE id IN (SELECT value FROM json_each(?))"
UNFINISHED_OF = """
SELECT id, run FROM runs WHERE state IN ('QUEUED', 'STARTING', 'RUNNING', 'CANCELING') AND app = ? AND pipeline = ?
AND cause = ? ORDER BY +id
"""
# Of pipelines that no longer exist or have no schedule.
UNSCHEDULE = """
DELETE FROM schedules WHERE app = :app AND pipeline NOT IN
(SELECT name FROM pipelines WHERE app = :app AND json_extract(pipeline, '$.schedule') IS NOT NULL)
"""
WAITING = """
SELECT user, count(*) AS number, sum(length(run)) AS size FROM runs INDEXED BY runs_queued
WHERE app = :app AND state = 'QUEUED' GROUP BY user
"""
WAITING_AND_ASKED = f"""
SELECT user, count(*) AS number, sum(size) AS size FROM (
    SELECT user, length(run) AS size FROM runs INDEXED BY runs_queued WHERE app = :app AND state = 'QUEUED' UNION ALL
    SELECT CASE WHEN json_valid({SUBMITTED_BY}) THEN json_extract({SUBMITTED_BY}, '$') END, length(submission)
    FROM submissions INDEXED BY submissions_waiting WHERE app = :app
) GROUP BY user
"""  # noqa: S608 - both are texts of ours
CANCELED = "SELECT 1 FROM cancels WHERE run = ?"
EXPIRED = "SELECT id, run FROM runs WHERE expires <= ? ORDER BY expires LIMIT 100"

AFTER_ALL = "~"  # no id is greater: ids have lower-case letters and digits
_STATES = frozenset(RunState)


_run = remembering(Run, "run", most=256, longest=8192)  # an open page of a pipeline reads its newest ones


def _pipeline(row: sqlite3.Row) -> Pipeline:
    return decode(Pipeline, row["pipeline"])


# A run that is set aside is reported as gone and takes no slot; its containers are swept.
RUNS = RowKind(
    "the run",
    "runs",
    ("id",),
    _run,
    away=(
        "INSERT OR IGNORE INTO runs_gone SELECT id, app, user, created FROM runs WHERE id = :id",
        "DELETE FROM run_keys WHERE run = :id",
        "DELETE FROM caller_keys WHERE run = :id",
        "DELETE FROM runs WHERE id = :id",
    ),
)
PIPELINES = RowKind("the pipeline", "pipelines", ("app", "name"), _pipeline)


def _table(wanted: RunFilter) -> str:
    """Return where the ids are looked for: few of many may have a cause or be in a state."""
    if wanted.cause is not None:
        return "runs INDEXED BY runs_by_cause"
    return "runs INDEXED BY runs_by_state" if wanted.state else "runs"


def check_queue(db: sqlite3.Connection, run: Run, size: int, most: QueueLimits, query: str = WAITING) -> None:
    """Raise if the queue is full. Called in the transaction that adds the run, which has `size` characters. The daemon
    counts what it has taken in, since the requests of others are not limited; others count both.
    """
    waiting = [(row["user"], row["number"], row["size"]) for row in db.execute(query, {"app": run.app})]
    of_app = (sum(number for _, number, _ in waiting) + 1, sum(size for _, _, size in waiting) + size)
    if of_app[0] > most.runs or of_app[1] > most.bytes:
        text = f"app {run.app} may have {most.runs} runs with {about_size(most.bytes)} in the queue"
        raise Transient(Reason.QUEUE_FULL, text)
    of_user = next(((n + 1, s + size) for user, n, s in waiting if user == run.user), (1, size))
    if run.user and (of_user[0] > most.runs // 2 or of_user[1] > most.bytes // 2):
        text = f"a user may have {most.runs // 2} runs with {about_size(most.bytes // 2)} in the queue of app {run.app}"
        raise Transient(Reason.QUEUE_FULL, text)


class RunTable:
    def __init__(self, database: Database, rows: RowReader, outbox: WebhookTable) -> None:
        self._database = database
        self._rows = rows
        self._outbox = outbox
        self._notices = NoticeTable(database)
        self._state = database.path.absolute().parent.parent
        self._kind = replace(RUNS, read=self._read)
        self.take_in: Callable[[], None] = lambda: None  # takes in requests of other processes

    def _read(self, row: sqlite3.Row) -> Run:
        """Return a run without paths of the host in its texts, which callers read; older releases wrote such
        paths.
        """
        run = RUNS.read(row)
        if not may_have_host_paths(row["run"], self._state):
            return run
        return with_messages(run, partial(without_host_paths, state=self._state))

    # --- pipelines ---------------------------------------------------------------------------------------------

    def pipelines(self, app: AppName) -> tuple[Pipeline, ...]:
        return self._rows.found(PIPELINES, "SELECT * FROM pipelines WHERE app = ? ORDER BY name", (app,))

    def pipeline(self, app: AppName, name: ComponentName) -> Pipeline | None:
        return next((found for found in self.pipelines(app) if found.name == name), None)

    def publish(self, app: AppName, pipelines: tuple[Pipeline, ...]) -> None:
        """Store the pipelines. Writes nothing if they are unchanged."""
        if self.pipelines(app) == pipelines:
            return
        with self._database.write() as db:
            db.execute("DELETE FROM pipelines WHERE app = ?", (app,))
            rows = [(app, pipeline.name, encode(pipeline)) for pipeline in pipelines]
            db.executemany("INSERT INTO pipelines VALUES (?, ?, ?)", rows)
            db.execute(UNSCHEDULE, {"app": app})

    # --- runs --------------------------------------------------------------------------------------------------

    def submit(self, run: Run, key: str = "", digest: str = "", most: QueueLimits | None = None) -> Run:
        text = encode(run)
        with self._database.write() as db:
            if key and (earlier := self._earlier(db, run, key, digest)):
                return earlier
            if most is not None:
                check_queue(db, run, len(text), most)
            self._insert(db, run, text)
            if key:
                row = (run.app, run.name, owner_of(run), key, digest, run.id, run.created)
                db.execute("INSERT INTO run_keys VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return run

    def submitted(self, run: Run, key: str, digest: str) -> Run | None:
        if not key:
            return None
        with self._database.read() as db:
            return self._earlier(db, run, key, digest)

    def admitted(self, asked: RunSubmission) -> Run:
        """Return the requested run of a pipeline that is published here. Raises ValueError."""
        if asked.repeats:
            before = RunTable.get(self, asked.app, asked.repeats)
            pipeline = before.pipeline if before else None
        else:
            before, pipeline = None, self.pipeline(asked.app, asked.pipeline)
        if pipeline is None:
            raise IntegrityError(f"{asked.app}/{asked.pipeline} is not a pipeline that can be run")
        may_pass = asked.pass_identity and self._tells_callers(asked.app, asked.pipeline)
        return admit(asked, pipeline, before, may_pass)

    def _tells_callers(self, app: AppName, pipeline: ComponentName) -> bool:
        with self._database.read() as db:
            rows = db.execute("SELECT service FROM services WHERE app = ?", (app,)).fetchall()
        services = (decode(Service, row["service"]) for row in rows)
        return any(s.api.pass_identity and s.pipeline in (pipeline, None) for s in services)

    def add(self, run: Run, most: QueueLimits | None = None) -> None:
        """Add a run. Raises Transient `QueueFull`."""
        text = encode(run)
        with self._database.write() as db:
            if most is not None:
                check_queue(db, run, len(text), most)
            self._insert(db, run, text)

    def refuse(self, asked: RunSubmission) -> None:
        """Refuse a submission; its caller gets the answer that the run is gone."""
        with self._database.write() as db:
            row = (asked.id, asked.app, asked.user or "", id_time(asked.id) if is_run_id(asked.id) else 0.0)
            db.execute("INSERT OR IGNORE INTO runs_gone VALUES (?, ?, ?, ?)", row)

    def _earlier(self, db: sqlite3.Connection, run: Run, key: str, digest: str) -> Run | None:
        query = "SELECT digest, run FROM run_keys WHERE app = ? AND pipeline = ? AND user IS ? AND key = ?"
        row = db.execute(query, (run.app, run.name, owner_of(run), key)).fetchone()
        if row is None:
            return None
        if row["digest"] != digest:
            raise conflict(key, row["run"])
        return self.get(run.app, row["run"])

    def _insert(self, db: sqlite3.Connection, run: Run, text: str) -> None:
        place = (run.id, run.app, run.name, owner_of(run), run.state, run.priority, run.pipeline.concurrency)
        db.execute(INSERT, (*place, run.created, run.version, text, run.cause))
        self._tell(run)

    def _tell(self, run: Run) -> None:
        self._outbox.add(messages(run))
        if notice := notice_of_run(run):
            self._notices.add((notice,))

    def get(self, app: AppName, id: str) -> Run | None:
        return self._one(app, id, in_brief=False)

    def brief(self, app: AppName, id: str) -> Run | None:
        return self._one(app, id, in_brief=True)

    def _one(self, app: AppName, id: str, in_brief: bool) -> Run | None:
        query = f"SELECT id, {BRIEF if in_brief else 'run'} FROM runs WHERE id = ? AND app = ?"  # noqa: S608 - texts of ours
        with self._database.read() as db:
            row = db.execute(query, (id, app)).fetchone()
        return self._rows.one(self._kind, row)

    def versions(self, ids: Iterable[str]) -> Mapping[str, int]:
        with self._database.read() as db:
            rows = db.execute(VERSIONS, (json.dumps(list(ids)),)).fetchall()
        return {row["id"]: row["version"] for row in rows}

    def queued_size(self) -> Mapping[AppName, int]:
        with self._database.read() as db:
            rows = db.execute(QUEUED_SIZE).fetchall()
        return {AppName(row["app"]): row["size"] for row in rows}

    def owners(self, ids: Iterable[str]) -> Mapping[str, AppName]:
        with self._database.read() as db:
            rows = db.execute(OWNERS, (json.dumps(list(ids)),)).fetchall()
        return {row["id"]: AppName(row["app"]) for row in rows}

    def is_gone(self, app: AppName, id: str, user: str | None = None) -> bool:
        with self._database.read() as db:
            return bool(db.execute(GONE, {"id": id, "app": app, "user": user}).fetchone())

    def list(self, app: AppName, wanted: RunFilter = EVERY_RUN, limit: int = 100) -> tuple[Run, ...]:
        asked = {name: value for name, value in asdict(wanted).items() if value is not None}
        asked |= {"app": app, "after": wanted.after or AFTER_ALL}
        filters = " AND ".join(["app = :app", *(FILTERS[name] for name in FILTERS if name in asked)])
        query = LIST.format(table=_table(wanted), filters=filters)
        runs: tuple[Run, ...] = ()
        with self._database.read() as db:
            while len(runs) < limit:  # a page with gaps would look like the last one
                rows = db.execute(query, {**asked, "limit": limit - len(runs)}).fetchall()
                if not rows:
                    break
                runs += self._rows.all(self._kind, rows)
                asked["after"] = rows[-1]["id"]
        return runs

    def active(self) -> tuple[Run, ...]:
        return self._rows.found(self._kind, "SELECT id, run FROM active_runs ORDER BY id")

    def unfinished(self, app: AppName, limit: int | None = None) -> tuple[Run, ...]:
        return self._rows.found(self._kind, UNFINISHED, (app, -1 if limit is None else limit))

    def images(self, app: AppName) -> frozenset[str]:
        with self._database.read() as db:
            found = [row["image"] for row in db.execute(IMAGES, (app,)).fetchall()]
        return frozenset(image for image in found if isinstance(image, str))

    def counts(self, app: AppName | None = None) -> tuple[RunCount, ...]:
        with self._database.read() as db:
            rows = db.execute(COUNTS, {"app": app}).fetchall()
        return tuple(
            RunCount(row["app"], row["pipeline"], RunState(row["state"]), row["number"], row["oldest"])
            for row in rows
            if row["state"] in _STATES
        )

    def last_ended(self, app: AppName) -> Run | None:
        with self._database.read() as db:
            row = db.execute(LAST_ENDED, (app,)).fetchone()
        return self._rows.readable(self._kind, row)

    def ended_badly(self, app: AppName, limit: int) -> tuple[Run, ...]:
        return self._rows.found(self._kind, ENDED_BADLY, (app, limit))

    def unfinished_of(self, app: AppName, pipeline: ComponentName, cause: RunCause) -> tuple[Run, ...]:
        return self._rows.found(self._kind, UNFINISHED_OF, (app, pipeline, cause))

    def claim(self, limits: RunLimits, now: float) -> Run | None:
        self.take_in()
        with self._database.read() as db:  # most calls find nothing: no lock for them
            if not db.execute("SELECT 1 FROM runs WHERE state = 'QUEUED' LIMIT 1").fetchone():
                return None
        with self._database.write() as db:
            if db.execute(RUNNING).fetchone()[0] >= limits.host:
                return None
            while row := db.execute(CLAIMABLE, {"per_app": limits.app}).fetchone():
                try:
                    run = _run(row)
                except ValueError as error:  # it would stay first in the queue for ever
                    self._rows.put_aside(self._kind, row, error, now)
                else:
                    return self._saved(db, run, run.to(RunState.STARTING, now))
        return None

    def cancel(self, app: AppName, id: str, at: float) -> Run | None:
        """Cancel a run. On a conflict with another process, reload the run and decide again."""
        while (run := self.get(app, id)) is not None:
            wanted = cancel(run, at)
            if wanted is run:
                return run
            if saved := self.save(wanted):
                return saved
        return None

    def save(self, run: Run) -> Run | None:
        with self._database.write() as db:
            if run.state.terminal and db.execute(CANCELED, (run.id,)).fetchone():
                self.take_in()  # or it would be canceled after its end
            return self._saved(db, run, run)

    def _saved(self, db: sqlite3.Connection, before: Run, after: Run) -> Run | None:
        next = replace(after, version=before.version + 1)
        row = {"id": next.id, "state": next.state, "expires": next.expires, "run": encode(next)}
        ends = next.state.terminal and not self._is_over(db, next)
        done = db.execute(SAVE, {**row, "version": before.version, "next": next.version}).rowcount
        if done and ends:
            self._tell(next)
        return next if done else None

    def _is_over(self, db: sqlite3.Connection, run: Run) -> bool:
        row = db.execute("SELECT state FROM runs WHERE id = ?", (run.id,)).fetchone()
        return row is not None and row["state"] in _STATES and RunState(row["state"]).terminal

    def expired(self, now: float) -> tuple[Run, ...]:
        return self._rows.found(self._kind, EXPIRED, (now,))

    def forget(self, runs: Iterable[Run]) -> None:
        with self._database.write() as db:
            for run in runs:
                db.execute("DELETE FROM runs WHERE id = ?", (run.id,))
                db.execute("DELETE FROM run_keys WHERE run = ?", (run.id,))
                db.execute("DELETE FROM caller_keys WHERE run = ?", (run.id,))
                row = (run.id, run.app, owner_of(run), run.created)
                db.execute("INSERT OR IGNORE INTO runs_gone VALUES (?, ?, ?, ?)", row)

    def prune(self, before: float) -> None:
        """Delete tombstones older than `before`."""
        with self._database.write() as db:
            db.execute("DELETE FROM runs_gone WHERE created < ?", (before,))
            db.execute("DELETE FROM caller_keys WHERE created < ?", (before,))


def owner_of(run: Run) -> str | None:
    """Return the user in the columns of the run."""
    return None if run.public else run.user or ""


def conflict(key: str, run: str) -> Stalled:
    message = f"the key {key!r} was used for a different request, which became run {run}"
    return Stalled(Reason.IDEMPOTENCY_CONFLICT, message)
