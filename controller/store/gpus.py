"""GPUs of components: which container has which, and which components wait for some. Written by the reconciler; the
runner reads it, too, since both lend from one pool.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable

from controller.domain.names import AppName, ComponentName
from controller.domain.runs.gpus import ASKED_WITHIN, GpuRequest, Lease
from controller.store.codec import decode
from controller.store.rows import RowKind, RowReader
from controller.store.sqlite import Database

_REFRESHED = ASKED_WITHIN / 3  # seconds after which an unchanged request is written again


def _lease(row: sqlite3.Row) -> Lease:
    gpus = decode(tuple[str, ...], row["gpus"])
    if row["share"] < 1:
        raise ValueError(f"no number of containers: {row['share']}")
    return Lease(row["workload"], AppName(row["app"]), ComponentName(row["component"]), gpus, row["share"])


def _request(row: sqlite3.Row) -> GpuRequest:
    if row["wanted"] < 1 or row["share"] < 1:
        raise ValueError(f"no request for GPUs: {row['wanted']} of {row['share']}")
    return GpuRequest(ComponentName(row["component"]), row["wanted"], row["share"])


LEASES = RowKind("the GPUs of", "gpus", ("workload",), _lease)
REQUESTS = RowKind("the request for GPUs of", "gpu_requests", ("app", "component"), _request)


class GpuTable:
    def __init__(self, database: Database, rows: RowReader) -> None:
        self._database = database
        self._rows = rows

    def leases(self) -> tuple[Lease, ...]:
        return self._rows.found(LEASES, "SELECT * FROM gpus ORDER BY workload")

    def save(self, lease: Lease) -> None:
        row = (lease.workload, lease.app, lease.component, json.dumps(lease.gpus), lease.share)
        with self._database.write() as db:
            db.execute(
                "INSERT OR REPLACE INTO gpus (workload, app, component, gpus, share) VALUES (?, ?, ?, ?, ?)",
                row,
            )

    def release(self, workload: str) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM gpus WHERE workload = ?", (workload,))

    def replace(self, app: AppName, leases: Iterable[Lease]) -> None:
        found = tuple(sorted(leases, key=lambda lease: lease.workload))
        if found == tuple(lease for lease in self.leases() if lease.app == app):
            return  # as almost always: no lock is needed
        with self._database.write() as db:
            db.execute("DELETE FROM gpus WHERE app = ?", (app,))
            for lease in found:
                self.save(lease)

    def requests(self, now: float) -> tuple[GpuRequest, ...]:
        return self._rows.found(
            REQUESTS,
            "SELECT * FROM gpu_requests WHERE at BETWEEN ? AND ? ORDER BY app, component",
            (now - ASKED_WITHIN, now + ASKED_WITHIN),
        )

    def ask(self, app: AppName, requests: Iterable[GpuRequest], now: float) -> None:
        wanted = {request.component: request for request in requests}
        query = "SELECT * FROM gpu_requests WHERE app = ?"
        with self._database.read() as db:
            rows = db.execute(query, (app,)).fetchall()
        fresh = all(abs(now - row["at"]) < _REFRESHED for row in rows)
        if (
            fresh
            and {request.component: request for request in self._rows.found(REQUESTS, query, (app,))}
            == wanted
        ):
            return
        with self._database.write() as db:
            db.execute("DELETE FROM gpu_requests WHERE app = ?", (app,))
            for request in wanted.values():
                row = (app, request.component, request.wanted, request.share, now)
                db.execute("INSERT INTO gpu_requests VALUES (?, ?, ?, ?, ?)", row)
