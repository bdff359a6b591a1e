"""The last calls of components. Workers of the gateway record them about once a second for components that
can hibernate; the daemon reads them, and stops unused components."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controller.domain.names import AppName, ComponentName
from controller.store.sqlite import Database

TOUCH = """
INSERT INTO activity VALUES (?, ?, ?)
ON CONFLICT DO UPDATE SET last_used = max(last_used, excluded.last_used)
"""


class ActivityTable:
    def __init__(self, database: Database) -> None:
        self._database = database

    def touch(self, used: Iterable[tuple[AppName, ComponentName]], at: float) -> None:
        with self._database.write() as db:
            db.executemany(TOUCH, [(app, component, at) for app, component in used])

    def of(self, app: AppName) -> Mapping[ComponentName, float]:
        with self._database.read() as db:
            rows = db.execute("SELECT component, last_used FROM activity WHERE app = ?", (app,)).fetchall()
        return {ComponentName(row["component"]): row["last_used"] for row in rows}

    def prune(self, before: float) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM activity WHERE last_used < ?", (before,))
