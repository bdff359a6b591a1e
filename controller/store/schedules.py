"""How far the schedules of pipelines were followed, and which ticks were dealt with.

A mark is changed by compare-and-set, and a tick is a primary key: several daemons, or one that comes back, agree on who
starts the run of a tick, in the transaction that starts it.
"""

from __future__ import annotations

import sqlite3

from controller.domain.names import AppName, ComponentName
from controller.domain.schedules import Mark, Scheduled
from controller.domain.spec import Schedule
from controller.store.codec import decode
from controller.store.sqlite import Database, damaged

ALL = """
SELECT p.app, p.name, json_extract(p.pipeline, '$.schedule') AS schedule, s.cron, s.timezone, s.at, s.next, s.skipping
FROM pipelines AS p LEFT JOIN schedules AS s ON (s.app, s.pipeline) = (p.app, p.name)
WHERE json_extract(p.pipeline, '$.schedule') IS NOT NULL AND p.app = ifnull(:app, p.app) ORDER BY p.app, p.name
"""
PUT = "INSERT OR REPLACE INTO schedules VALUES (?, ?, ?, ?, ?, ?, ?)"


class ScheduleTable:
    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self, app: AppName | None = None) -> tuple[Scheduled, ...]:
        with self._database.read() as db:
            rows = db.execute(ALL, {"app": app}).fetchall()
        return tuple(self._scheduled(row) for row in rows)

    def advance(self, scheduled: Scheduled, to: Mark) -> bool:
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

    def _scheduled(self, row: sqlite3.Row) -> Scheduled:
        try:
            schedule = decode(Schedule, row["schedule"])
        except ValueError as error:
            what = f"schedule of {row['app']}/{row['name']}"
            raise damaged(self._database.path, what, error) from error
        mark = None
        if row["cron"] is not None:
            mark = Mark(row["cron"], row["timezone"], row["at"], row["next"], bool(row["skipping"]))
        return Scheduled(AppName(row["app"]), ComponentName(row["name"]), schedule, mark)
