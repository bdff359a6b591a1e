"""Reports of the gateway's workers: the route table that each has loaded, the endpoints with calls in progress, and
how much of its shares apps take. A worker without a recent report is considered dead: its requests have ended with
it."""

from __future__ import annotations

from controller.domain.apps.usage import TakenShare
from controller.store.codec import decode, encode
from controller.store.sqlite import Database

ALIVE = 3.0  # seconds since the last report
FUTURE = 3600.0  # seconds; reports farther in the future are wrong

REPORT = """
INSERT INTO gateways VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET version = excluded.version, busy = excluded.busy, heard = excluded.heard
"""


#: Others may have written anything, of any size.
TAKEN = """
SELECT taken FROM shares WHERE heard BETWEEN :alive AND :now AND length(taken) <= 1048576 LIMIT 256
"""
_TABLES = ("gateways", "shares")


class GatewayTable:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._sharing: frozenset[str] = frozenset()  # workers whose last report had shares

    def report(
        self,
        worker: str,
        version: int,
        busy: frozenset[str],
        now: float,
        taken: tuple[TakenShare, ...] = (),
    ) -> None:
        with self._database.write() as db:
            db.execute(REPORT, (worker, version, encode(busy), now))
            if taken or worker in self._sharing:  # most of the time there is nothing
                db.execute("INSERT OR REPLACE INTO shares VALUES (?, ?, ?)", (worker, encode(taken), now))
        self._sharing = self._sharing | {worker} if taken else self._sharing - {worker}

    def leave(self, worker: str) -> None:
        with self._database.write() as db:
            for table in _TABLES:
                db.execute(f"DELETE FROM {table} WHERE worker = ?", (worker,))  # noqa: S608

    def prune(self, before: float) -> None:
        with self._database.write() as db:
            for table in _TABLES:
                db.execute(
                    f"DELETE FROM {table} WHERE heard < ? OR heard > ?",  # noqa: S608
                    (before, before + FUTURE),
                )

    def taken(self, now: float) -> tuple[TakenShare, ...]:
        """Return what living workers have reported. Unreadable reports are left out."""
        with self._database.read() as db:
            rows = db.execute(TAKEN, {"alive": now - ALIVE, "now": now + ALIVE}).fetchall()
        return tuple(share for row in rows for share in _shares(row["taken"]))

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


def _shares(text: str) -> tuple[TakenShare, ...]:
    try:
        return decode(tuple[TakenShare, ...], text)
    except ValueError:
        return ()
