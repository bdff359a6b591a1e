"""Checkpoints of the pipelines' schedules, and the handled ticks. A checkpoint is changed by compare-and-set,
and a tick is a primary key. So of several daemons, or one that restarts, exactly one starts the run of a
tick, in the transaction that starts it."""

from __future__ import annotations

import sqlite3

from controller.domain.apps.spec import CronSchedule
from controller.domain.names import AppName, ComponentName
from controller.domain.runs.schedules import Checkpoint, ScheduleState
from controller.store.codec import decode
from controller.store.rows import RowKind, RowReader
from controller.store.runs import PIPELINES
from controller.store.sqlite import Database

ALL = """
SELECT p.app, p.name, p.schedule, s.cron, s.timezone, s.at, s.next, s.skipping
FROM (
    SELECT app, name, CASE WHEN json_valid(pipeline) THEN json_extract(pipeline, '$.schedule') END AS schedule
    FROM pipelines
) AS p LEFT JOIN schedules AS s ON (s.app, s.pipeline) = (p.app, p.name)
WHERE p.schedule IS NOT NULL AND p.app = ifnull(:app, p.app) ORDER BY p.app, p.name
"""
PUT = "INSERT OR REPLACE INTO schedules VALUES (?, ?, ?, ?, ?, ?, ?)"


def _scheduled(row: sqlite3.Row) -> ScheduleState:
    schedule = decode(CronSchedule, str(row["schedule"]))
    mark = None
    if row["cron"] is not None:
        mark = Checkpoint(row["cron"], row["timezone"], row["at"], row["next"], bool(row["skipping"]))
    return ScheduleState(AppName(row["app"]), ComponentName(row["name"]), schedule, mark)


SCHEDULES = RowKind("the schedule of", "pipelines", ("app", "name"), _scheduled, part_of=PIPELINES)


class ScheduleTable:
    def __init__(self, database: Database, rows: RowReader) -> None:
        self._database = database
        self._rows = rows

    def all(self, app: AppName | None = None) -> tuple[ScheduleState, ...]:
        return self._rows.found(SCHEDULES, ALL, {"app": app})

    def advance(self, scheduled: ScheduleState, to: Checkpoint) -> bool:
        with self._database.write() as db:
            if scheduled not in self.all(scheduled.app):
                return False
            mark = (to.cron, to.timezone, to.at, to.next, int(to.skipping))
            db.execute(PUT, (scheduled.app, scheduled.pipeline, *mark))
        return True

    def take(self, app: AppName, pipeline: ComponentName, tick: float) -> bool:
        with self._database.write() as db:
            row = (app, pipeline, tick)
            return bool(db.execute("INSERT OR IGNORE INTO ticks VALUES (?, ?, ?)", row).rowcount)

    def prune(self, before: float) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM ticks WHERE tick < ?", (before,))
