"""What the web process may know of the connected repositories, and the webhooks that it has accepted for them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from controller.domain.status import Delivery, RepositoryRecord
from controller.store.codec import decode, encode
from controller.store.sqlite import Database, damaged

KEEP_DELIVERIES = 1000  # per repository; a replay older than these costs one reconcile that changes nothing

PRUNE = """
DELETE FROM deliveries WHERE repository = :repository AND rowid <=
(SELECT rowid FROM deliveries WHERE repository = :repository ORDER BY rowid DESC LIMIT 1 OFFSET :keep)
"""


class RepositoryTable:
    def __init__(self, database: Database, keep_deliveries: int = KEEP_DELIVERIES) -> None:
        self._database = database
        self._keep = keep_deliveries

    def all(self) -> tuple[RepositoryRecord, ...]:
        """Sorted by name."""
        with self._database.read() as db:
            rows = db.execute("SELECT * FROM repositories ORDER BY name").fetchall()
        return tuple(self._record(row) for row in rows)

    def get(self, name: str) -> RepositoryRecord | None:
        with self._database.read() as db:
            row = db.execute("SELECT * FROM repositories WHERE name = ?", (name,)).fetchone()
        return self._record(row) if row else None

    def replace(self, records: Iterable[RepositoryRecord]) -> None:
        """The records are all there are from now on. The same ones again write nothing."""
        wanted = {record.name: encode(record) for record in records}
        with self._database.read() as db:
            stored = dict(db.execute("SELECT name, record FROM repositories").fetchall())
        if wanted == stored:
            return
        with self._database.write() as db:
            db.execute("DELETE FROM repositories")
            db.executemany("INSERT INTO repositories VALUES (?, ?)", sorted(wanted.items()))
            db.execute("DELETE FROM deliveries WHERE repository NOT IN (SELECT name FROM repositories)")

    def remember(self, delivery: Delivery) -> bool:
        row = (delivery.repository, delivery.id, encode(delivery.requests), delivery.at)
        with self._database.write() as db:
            new = (
                db.execute("INSERT INTO deliveries VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", row).rowcount
                == 1
            )
            db.execute(PRUNE, {"repository": delivery.repository, "keep": self._keep})
        return new

    def prune(self, before: float) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM deliveries WHERE at < ?", (before,))

    def delivery(self, repository: str, delivery_id: str) -> Delivery | None:
        query = "SELECT * FROM deliveries WHERE repository = ? AND id = ?"
        with self._database.read() as db:
            row = db.execute(query, (repository, delivery_id)).fetchone()
        if row is None:
            return None
        return Delivery(row["id"], row["repository"], decode(tuple[int, ...], row["requests"]), row["at"])

    def _record(self, row: sqlite3.Row) -> RepositoryRecord:
        try:
            return decode(RepositoryRecord, row["record"])
        except ValueError as error:
            raise damaged(self._database.path, f"repository {row['name']}", error) from error
