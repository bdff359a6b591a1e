"""Reports of the gateway's workers: the route table that each has loaded, and the endpoints with calls in
progress. A worker without a recent report is considered dead: its requests have ended with it."""

from __future__ import annotations

from controller.store.codec import decode, encode
from controller.store.sqlite import Database

ALIVE = 3.0  # seconds since the last report
FUTURE = 3600.0  # seconds; reports farther in the future are wrong

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
            db.execute("DELETE FROM gateways WHERE heard < ? OR heard > ?", (before, before + FUTURE))

    def drained(self, endpoint: str, version: int, now: float) -> bool:
        with self._database.read() as db:
            living = db.execute(
                "SELECT version, busy FROM gateways WHERE heard >= ?", (now - ALIVE,)
            ).fetchall()
        return all(
            row["version"] >= version and endpoint not in _busy(row["busy"], endpoint) for row in living
        )


def _busy(text: str, asked: str) -> frozenset[str]:
    """Return the endpoints of a report. An unreadable one counts as busy; the worker's next report replaces
    it.
    """
    try:
        return decode(frozenset[str], text)
    except ValueError:
        return frozenset({asked})
