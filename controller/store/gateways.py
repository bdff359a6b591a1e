"""What each worker of the gateway has loaded and is busy with, as it reports itself. A worker that was not heard of
for a while is taken for dead: its requests died with it."""

from __future__ import annotations

from controller.store.codec import decode, encode
from controller.store.sqlite import Database

ALIVE = 3.0  # seconds since the last report

REPORT = """
INSERT INTO gateways VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET version = excluded.version, busy = excluded.busy, heard = excluded.heard
"""


class GatewayTable:
    def __init__(self, database: Database) -> None:
        self._database = database

    def report(self, worker: str, version: int, busy: frozenset[str], now: float) -> None:
        with self._database.write() as db:
            db.execute(REPORT, (worker, version, encode(busy), now))

    def leave(self, worker: str) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM gateways WHERE worker = ?", (worker,))

    def prune(self, before: float) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM gateways WHERE heard < ?", (before,))

    def drained(self, endpoint: str, version: int, now: float) -> bool:
        with self._database.read() as db:
            living = db.execute(
                "SELECT version, busy FROM gateways WHERE heard >= ?", (now - ALIVE,)
            ).fetchall()
        return all(
            row["version"] >= version and endpoint not in decode(frozenset[str], row["busy"])
            for row in living
        )
