"""Single numbers that belong to no table: the version of the route table, the daemon's last heartbeat, how
often each part was restarted, and how much apps use of their limits.
"""

from __future__ import annotations

from collections.abc import Mapping

from controller.store.sqlite import Database


class FactTable:
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

    def starting_with(self, prefix: str) -> dict[str, float]:
        """Return facts with this prefix, by the rest of their names."""
        with self._database.read() as db:
            found = db.execute(
                "SELECT name, value FROM facts WHERE substr(name, 1, ?) = ?", (len(prefix), prefix)
            )
            return {row["name"][len(prefix) :]: row["value"] for row in found}

    def replace(self, prefix: str, values: Mapping[str, float]) -> None:
        """Replace all facts with this prefix. `values` are by the rest of their names. Writes only what has
        changed.
        """
        before = self.starting_with(prefix)
        if before == values:
            return
        with self._database.write() as db:
            db.executemany(
                "DELETE FROM facts WHERE name = ?", [(prefix + name,) for name in before.keys() - values]
            )
            for name, value in values.items():
                if before.get(name) != value:
                    self.put(prefix + name, value)

    def increase(self, name: str) -> int:
        """Add one and return the result, starting with 1."""
        upsert = "INSERT INTO facts VALUES (?, 1) ON CONFLICT DO UPDATE SET value = value + 1 RETURNING value"
        with self._database.write() as db:
            return int(db.execute(upsert, (name,)).fetchone()["value"])
