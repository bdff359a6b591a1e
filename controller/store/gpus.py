"""GPUs of components: which container has which. Written by the reconciler; the runner reads it, too, since
both lend from one pool.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable

from controller.domain.names import AppName, ComponentName
from controller.domain.runs.gpus import Lease
from controller.store.codec import decode
from controller.store.rows import RowKind, RowReader
from controller.store.sqlite import Database


def _lease(row: sqlite3.Row) -> Lease:
    gpus = decode(tuple[str, ...], row["gpus"])
    return Lease(row["workload"], AppName(row["app"]), ComponentName(row["component"]), gpus)


LEASES = RowKind("the GPUs of", "gpus", ("workload",), _lease)


class GpuTable:
    def __init__(self, database: Database, rows: RowReader) -> None:
        self._database = database
        self._rows = rows

    def leases(self) -> tuple[Lease, ...]:
        return self._rows.found(LEASES, "SELECT * FROM gpus ORDER BY workload")

    def save(self, lease: Lease) -> None:
        row = (lease.workload, lease.app, lease.component, json.dumps(lease.gpus))
        with self._database.write() as db:
            db.execute("INSERT OR REPLACE INTO gpus VALUES (?, ?, ?, ?)", row)

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
