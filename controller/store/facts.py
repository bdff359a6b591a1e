"""Single numbers that belong to no table: the version of the route table, the daemon's last heartbeat."""

from __future__ import annotations

from controller.store.sqlite import Database


class Facts:
    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, name: str) -> float | None:
        with self._database.read() as db:
            row = db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row["value"] if row else None

    def put(self, name: str, value: float) -> None:
        upsert = "INSERT INTO facts VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
        with self._database.write() as db:
            db.execute(upsert, (name, value))

    def increase(self, name: str) -> int:
        """One more than before, from 1 on."""
        upsert = "INSERT INTO facts VALUES (?, 1) ON CONFLICT DO UPDATE SET value = value + 1 RETURNING value"
        with self._database.write() as db:
            return int(db.execute(upsert, (name,)).fetchone()["value"])
