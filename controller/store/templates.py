"""The templates that admins have added, as the daemon last fetched them: what a person may fill in. Their files stay in
the daemon's clones."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from controller.domain.templates import TemplateRecord
from controller.store.codec import decode, encode
from controller.store.rows import RowKind, RowReader
from controller.store.sqlite import Database


def _record(row: sqlite3.Row) -> TemplateRecord:
    return decode(TemplateRecord, row["record"])


TEMPLATES = RowKind("the template", "templates", ("name",), _record)


class TemplateTable:
    def __init__(self, database: Database, rows: RowReader) -> None:
        self._database = database
        self._rows = rows

    def all(self) -> tuple[TemplateRecord, ...]:
        """Return all records, sorted by name."""
        return self._rows.found(TEMPLATES, "SELECT * FROM templates ORDER BY name")

    def replace(self, records: Iterable[TemplateRecord]) -> None:
        """Store exactly these records. Writes nothing if they are unchanged."""
        wanted = {record.name: encode(record) for record in records}
        with self._database.read() as db:
            stored = dict(db.execute("SELECT name, record FROM templates").fetchall())
        if wanted != stored:
            with self._database.write() as db:
                db.execute("DELETE FROM templates")
                db.executemany("INSERT INTO templates VALUES (?, ?)", sorted(wanted.items()))
