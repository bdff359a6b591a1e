"""The boxes: which bucket holds which, how much is in it, the uploads that were allowed and may be under way, and with
what the web process reaches the storage.

Room is given in one transaction that holds the write lock from its first moment, so that no two uploads, from
whichever processes, are promised the same bytes. An upload that has expired keeps no room; its row stays until a
measurement has settled it.

`changed` is stamped while the write lock is held: a listing that began later has seen the change, whatever its author
waited for meanwhile, and one that began earlier is known to be out of date.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import replace

from controller.domain.names import AppName, ComponentName
from controller.domain.secret import Secret
from controller.domain.spec import Reclaim
from controller.domain.storage import BoxRecord, BoxState, Pending, Room, StorageAccess
from controller.store.sqlite import Database, damaged

ALL = "SELECT * FROM boxes ORDER BY app, box"
OF = "SELECT * FROM boxes WHERE app = ? ORDER BY box"
ONE = "SELECT * FROM boxes WHERE app = ? AND box = ?"
UPSERT = """
INSERT INTO boxes (app, box, bucket, capacity, reclaim, state, since, used, files, measured, changed)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (app, box) DO UPDATE SET bucket = excluded.bucket, capacity = excluded.capacity,
    reclaim = excluded.reclaim, state = excluded.state, since = excluded.since
"""
MEASURED = "UPDATE boxes SET used = ?, files = ?, measured = ? WHERE bucket = ?"
TOUCH = "UPDATE boxes SET changed = max(changed, ?) WHERE bucket = ?"
# An older link for the same key does not count: the one that asks takes over from it. `key` is NULL for an upload in
# parts, and where nobody asks. It is taken off the sum, not left out of it, so that the index alone makes the sum.
ROOM = """
SELECT capacity, used, (
    SELECT coalesce(sum(size), 0) FROM pending WHERE bucket = :bucket AND expires > :now AND size > 0
) - coalesce((
    SELECT size FROM pending WHERE bucket = :bucket AND upload = '' AND key = :key AND expires > :now
), 0) AS pending FROM boxes WHERE bucket = :bucket
"""
RESERVE = """
INSERT OR REPLACE INTO pending (bucket, key, size, created, expires, upload) VALUES (?, ?, ?, ?, ?, ?)
"""
PENDING = "SELECT * FROM pending WHERE :bucket IS NULL OR bucket = :bucket ORDER BY id"
TELL = "INSERT OR REPLACE INTO storage_access VALUES (1, ?, ?, ?, ?, ?)"


class BoxTable:
    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def all(self) -> tuple[BoxRecord, ...]:
        with self._database.read() as db:
            return self._records(db.execute(ALL).fetchall())

    def of(self, app: AppName) -> tuple[BoxRecord, ...]:
        with self._database.read() as db:
            return self._records(db.execute(OF, (app,)).fetchall())

    def get(self, app: AppName, box: ComponentName) -> BoxRecord | None:
        with self._database.read() as db:
            return next(iter(self._records(db.execute(ONE, (app, box)).fetchall())), None)

    def save(self, record: BoxRecord) -> None:
        """What is stored already takes no write lock. A bucket of another record is refused by the database: two
        boxes never share one, whatever the code does."""
        stored = self.get(record.app, record.box)
        if stored and stored == _with_contents_of(record, stored):
            return
        with self._database.write() as db:
            db.execute(UPSERT, _row(record))

    def forget(self, bucket: str) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM pending WHERE bucket = ?", (bucket,))
            db.execute("DELETE FROM boxes WHERE bucket = ?", (bucket,))

    def swap(self, one: BoxRecord, other: BoxRecord) -> None:
        """Uploads that are under way belong to their bucket and go with it. LookupError if a record is not there."""
        with self._database.write() as db:
            first, second = self.get(one.app, one.box), self.get(other.app, other.box)
            if first is None or second is None:
                raise LookupError(f"no record of {one.app}/{one.box} or {other.app}/{other.box}")
            # Removed first: no bucket may belong to two records, not even between two statements.
            db.execute("DELETE FROM boxes WHERE bucket IN (?, ?)", (first.bucket, second.bucket))
            exchanged = (
                replace(_with_contents_of(first, second), bucket=second.bucket),
                replace(_with_contents_of(second, first), bucket=first.bucket),
            )
            db.executemany(UPSERT, [_row(record) for record in exchanged])

    def measured(self, bucket: str, used: int, files: int, at: float, settled: Iterable[int]) -> None:
        """One transaction: no upload is ever counted in neither place."""
        with self._database.write() as db:
            db.execute(MEASURED, (used, files, at, bucket))
            _delete(db, settled)

    def touch(self, bucket: str) -> None:
        with self._database.write() as db:
            db.execute(TOUCH, (self._clock(), bucket))

    def reserve(self, upload: Pending, now: float) -> Room | int:
        """A bucket without a record has no room. A taken-over reservation gets a new id: a measurement under way that
        has seen the older upload must not settle the newer one. It keeps no less room than the older one, which may be
        stored by now and not yet counted."""
        key = None if upload.upload else upload.key
        with self._database.write() as db:
            room = _room(db, upload.bucket, now, key)
            if not room.takes(upload.size):
                return room
            size = max(upload.size, _taken_over(db, upload, now))
            row = (upload.bucket, upload.key, size, upload.created, upload.expires, upload.upload)
            reserved = db.execute(RESERVE, row).lastrowid
            db.execute(TOUCH, (self._clock(), upload.bucket))
        assert reserved is not None
        return reserved

    def room(self, bucket: str, now: float) -> Room:
        """A bucket without a record has none."""
        with self._database.read() as db:
            return _room(db, bucket, now)

    def pending(self, bucket: str | None = None) -> tuple[Pending, ...]:
        """Expired ones included, oldest first."""
        with self._database.read() as db:
            return tuple(_pending(row) for row in db.execute(PENDING, {"bucket": bucket}).fetchall())

    def upload(self, bucket: str, upload: str) -> Pending | None:
        if not upload:  # that is a link for a whole file
            return None
        query = "SELECT * FROM pending WHERE bucket = ? AND upload = ?"
        with self._database.read() as db:
            row = db.execute(query, (bucket, upload)).fetchone()
        return _pending(row) if row else None

    def release(self, ids: Iterable[int]) -> None:
        with self._database.write() as db:
            _delete(db, ids)

    def prune(self, before: float) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM pending WHERE expires < ?", (before,))

    def access(self) -> StorageAccess | None:
        with self._database.read() as db:
            row = db.execute("SELECT * FROM storage_access").fetchone()
        if row is None:
            return None
        return StorageAccess(
            internal_url=row["internal_url"],
            public_url=row["public_url"],
            access_key=row["access_key"],
            secret_key=Secret(row["secret_key"]),
            region=row["region"],
        )

    def tell_access(self, access: StorageAccess) -> None:
        """The same again writes nothing."""
        if self.access() == access:
            return
        secret = access.secret_key.reveal()
        row = (access.internal_url, access.public_url, access.access_key, secret, access.region)
        with self._database.write() as db:
            db.execute(TELL, row)

    def _records(self, rows: Iterable[sqlite3.Row]) -> tuple[BoxRecord, ...]:
        try:
            return tuple(_record(row) for row in rows)
        except ValueError as error:
            raise damaged(self._database.path, "box", error) from error


def _with_contents_of(record: BoxRecord, other: BoxRecord) -> BoxRecord:
    """`record` with what is known of the contents of the other's bucket."""
    return replace(record, used=other.used, files=other.files, measured=other.measured, changed=other.changed)


def _taken_over(db: sqlite3.Connection, upload: Pending, now: float) -> int:
    """Bytes that an older link for the same key has kept."""
    query = "SELECT size FROM pending WHERE bucket = ? AND upload = ? AND key = ? AND expires > ?"
    row = db.execute(query, (upload.bucket, upload.upload, upload.key, now)).fetchone()
    return int(row["size"]) if row else 0


def _room(db: sqlite3.Connection, bucket: str, now: float, key: str | None = None) -> Room:
    row = db.execute(ROOM, {"bucket": bucket, "now": now, "key": key}).fetchone()
    return Room(row["capacity"], row["used"], row["pending"]) if row else Room(0, 0, 0)


def _delete(db: sqlite3.Connection, ids: Iterable[int]) -> None:
    db.executemany("DELETE FROM pending WHERE id = ?", [(pending,) for pending in ids])


def _row(record: BoxRecord) -> tuple[object, ...]:
    declared = (record.app, record.box, record.bucket, record.capacity, record.reclaim, record.state)
    return (*declared, record.since, record.used, record.files, record.measured, record.changed)


def _record(row: sqlite3.Row) -> BoxRecord:
    return BoxRecord(
        app=AppName(row["app"]),
        box=ComponentName(row["box"]),
        bucket=row["bucket"],
        capacity=row["capacity"],
        reclaim=Reclaim(row["reclaim"]),
        state=BoxState(row["state"]),
        used=row["used"],
        files=row["files"],
        measured=row["measured"],
        since=row["since"],
        changed=row["changed"],
    )


def _pending(row: sqlite3.Row) -> Pending:
    return Pending(
        id=row["id"],
        bucket=row["bucket"],
        key=row["key"],
        size=row["size"],
        created=row["created"],
        expires=row["expires"],
        upload=row["upload"],
    )
