"""The connected repositories, as far as the web process may know them, and the webhooks that it has accepted
for them. Their secrets are in a separate file that operators cannot read (keys.py)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import replace

from controller.domain.apps.status import RepositoryRecord, WebhookDelivery
from controller.domain.people.pushes import PushUnderWay
from controller.domain.text import printable
from controller.store.codec import decode, encode
from controller.store.keys import Credentials
from controller.store.rows import RowKind, RowReader
from controller.store.sqlite import Database

KEEP_DELIVERIES = 1000  # per repository; a replay of an older one costs one pass that changes nothing

PRUNE = """
DELETE FROM deliveries WHERE repository = :repository AND rowid <=
(SELECT rowid FROM deliveries WHERE repository = :repository ORDER BY rowid DESC LIMIT 1 OFFSET :keep)
"""


KEEP_UNDER_WAY = 3600.0  # seconds; longer than any push lasts whose caller has left
PUSHED = "INSERT INTO pushes VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET author = excluded.author, at = excluded.at"
PRUNE_PUSHES = PRUNE.replace("deliveries", "pushes")
MOST_AUTHOR = 200  # characters


def _record(row: sqlite3.Row) -> RepositoryRecord:
    return decode(RepositoryRecord, row["record"])


def _delivery(row: sqlite3.Row) -> WebhookDelivery:
    return WebhookDelivery(row["id"], row["repository"], decode(tuple[int, ...], row["requests"]), row["at"])


def _name(text: str) -> str:
    """Return the name of a person as one line."""
    return " ".join(printable(text[:MOST_AUTHOR]).split())


def _record_with(record: RepositoryRecord, translate: Callable[[str], str]) -> RepositoryRecord:
    return replace(record, hook_secret=translate(record.hook_secret))


RECORDS = RowKind("the record of the repository", "repositories", ("name",), _record)
ACCEPTED = RowKind("the webhook", "deliveries", ("repository", "id"), _delivery)


class RepositoryTable:
    def __init__(
        self,
        database: Database,
        rows: RowReader,
        credentials: Credentials,
    ) -> None:
        self._database = database
        self._rows = rows
        self._credentials = credentials
        self._records = replace(RECORDS, read=lambda row: _record_with(_record(row), credentials.value))

    def all(self) -> tuple[RepositoryRecord, ...]:
        """Return all records, sorted by name."""
        return self._rows.found(self._records, "SELECT * FROM repositories ORDER BY name")

    def get(self, name: str) -> RepositoryRecord | None:
        with self._database.read() as db:
            row = db.execute("SELECT * FROM repositories WHERE name = ?", (name,)).fetchone()
        return self._rows.readable(self._records, row)

    def replace(self, records: Iterable[RepositoryRecord]) -> None:
        """Store exactly these records. Writes nothing if they are unchanged."""
        records = tuple(records)
        with self._database.read() as db:
            stored = dict(db.execute("SELECT name, record FROM repositories").fetchall())
        if self._texts(records) == stored:
            return
        with self._database.write() as db:
            db.execute("DELETE FROM repositories")
            db.executemany("INSERT INTO repositories VALUES (?, ?)", sorted(self._texts(records).items()))
            for table in ("deliveries", "pushes"):
                db.execute(f"DELETE FROM {table} WHERE repository NOT IN (SELECT name FROM repositories)")  # noqa: S608

    def _texts(self, records: Iterable[RepositoryRecord]) -> dict[str, str]:
        handle = self._credentials.handle
        return {record.name: encode(_record_with(record, handle)) for record in records}

    def handles(self) -> frozenset[str]:
        """Return the handles of credentials in all rows."""
        records = self._rows.found(RECORDS, "SELECT * FROM repositories")
        return frozenset(record.hook_secret for record in records) - {""}

    def remember(self, delivery: WebhookDelivery) -> bool:
        row = (delivery.repository, delivery.id, encode(delivery.requests), delivery.at)
        with self._database.write() as db:
            new = (
                db.execute("INSERT INTO deliveries VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", row).rowcount
                == 1
            )
            db.execute(PRUNE, {"repository": delivery.repository, "keep": KEEP_DELIVERIES})
        return new

    def prune(self, before: float) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM deliveries WHERE at < ?", (before,))
            db.execute("DELETE FROM pushes WHERE at < ?", (before,))
            db.execute("DELETE FROM pushes_under_way WHERE at < ?", (before,))

    def remember_push(self, repository: str, revision: str, by: str, at: float) -> None:
        with self._database.write() as db:
            db.execute(PUSHED, (repository, revision, _name(by), at))
            db.execute(PRUNE_PUSHES, {"repository": repository, "keep": KEEP_DELIVERIES})

    def save_push(self, push: PushUnderWay) -> None:
        row = (push.digest, push.hosted, _name(push.by), push.via, push.address, push.at)
        with self._database.write() as db:
            db.execute("DELETE FROM pushes_under_way WHERE at < ?", (push.at - KEEP_UNDER_WAY,))
            db.execute(
                "INSERT OR REPLACE INTO pushes_under_way VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, push.accepted, printable(push.told), push.left),
            )

    def push(self, digest: str) -> PushUnderWay | None:
        with self._database.read() as db:
            row = db.execute("SELECT * FROM pushes_under_way WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            return None
        names = ("digest", "hosted", "author", "via", "address", "at", "accepted", "told")
        return replace(PushUnderWay(*(row[name] for name in names)), left=bool(row["left"]))

    def forget_push(self, digest: str) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM pushes_under_way WHERE digest = ?", (digest,))

    def pusher(self, repository: str, revision: str) -> str:
        query = "SELECT author FROM pushes WHERE repository = ? AND revision = ?"
        with self._database.read() as db:
            row = db.execute(query, (repository, revision)).fetchone()
        return _name(row["author"]) if row else ""

    def delivery(self, repository: str, delivery_id: str) -> WebhookDelivery | None:
        query = "SELECT * FROM deliveries WHERE repository = ? AND id = ?"
        with self._database.read() as db:
            row = db.execute(query, (repository, delivery_id)).fetchone()
        return self._rows.readable(ACCEPTED, row)
