"""The boxes: the bucket of each, how much is in it, and the uploads that were allowed and may be under way.
Uploads, and which buckets were changed, are written by other processes, too (`inbox`).

Space is reserved in a transaction that holds the write lock from its start, so that two uploads, from
whatever processes, are never promised the same bytes. An expired upload reserves no space; its row stays
until a measurement has settled it.

`changed` is set while the write lock is held: a listing that began later has seen the change, even if the
writer had to wait, and one that began earlier is known to be out of date.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from controller.domain.apps.spec import Reclaim
from controller.domain.errors import Transient
from controller.domain.integrity import require_integrity
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.runs.file_index import UnderWayMark
from controller.domain.storage.box import Arrival, BoxRecord, BoxState, BoxUsage, PendingUpload, StorageAccess
from controller.domain.storage.moves import GroupMove
from controller.store.keys import StorageKeys
from controller.store.sqlite import Database

BOXES = "SELECT boxes.*, touched.at AS touched FROM boxes LEFT JOIN touched USING (bucket)"
ALL = f"{BOXES} ORDER BY app, box"
OF = f"{BOXES} WHERE app = ? ORDER BY box"
ONE = f"{BOXES} WHERE app = ? AND box = ?"
UPSERT = """
INSERT INTO boxes (app, box, bucket, capacity, reclaim, state, since, used, files, measured, changed)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (app, box) DO UPDATE SET bucket = excluded.bucket, capacity = excluded.capacity,
    reclaim = excluded.reclaim, state = excluded.state, since = excluded.since
"""
MEASURED = "UPDATE boxes SET used = ?, files = ?, measured = ? WHERE bucket = ?"
TOUCH = "INSERT INTO touched (at, bucket) VALUES (?, ?) ON CONFLICT DO UPDATE SET at = max(at, excluded.at)"
# Reserved is what links were issued for, and what arrives beyond that, or has arrived and was not measured: several
# bodies for one name, or one without a link. The reservation of `key` does not count, since the caller takes it over.
# `key` is NULL for an upload in parts, and if there is no upload. It is subtracted from the sum rather than left out,
# so that the index alone gives the sum.
ROOM = """
SELECT capacity, used, (
    SELECT coalesce(sum(size), 0) FROM pending WHERE bucket = :bucket AND expires > :now AND size > 0
) - coalesce((
    SELECT size FROM pending WHERE bucket = :bucket AND upload = '' AND key = :key AND expires > :now
), 0) + (
    SELECT coalesce(sum(max(0, coming.size - coalesce(pending.size, 0))), 0) FROM (
        SELECT key, sum(size) AS size FROM arriving
        WHERE bucket = :bucket AND upload = '' AND until > :now AND key IS NOT :key GROUP BY key
    ) AS coming LEFT JOIN pending ON pending.bucket = :bucket AND pending.upload = ''
        AND pending.key = coming.key AND pending.expires > :now
) AS pending FROM boxes WHERE bucket = :bucket
"""
ARRIVE = """
INSERT INTO arriving (bucket, key, size, began, until, upload, part) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
COUNTED = "DELETE FROM arriving WHERE bucket = ? AND stored > 0 AND stored < ?"
REPLACED = """
DELETE FROM arriving WHERE bucket = ? AND upload = '' AND key = ? AND stored > 0 RETURNING size
"""
STORED = "UPDATE arriving SET stored = ?, until = ?, size = max(size, ?) WHERE id = ?"
COMING = """
SELECT coalesce(sum(size), 0) AS size FROM arriving WHERE bucket = ? AND upload = '' AND key = ? AND until > ?
"""
RESERVE = """
INSERT OR REPLACE INTO pending (bucket, key, size, created, expires, upload) VALUES (?, ?, ?, ?, ?, ?)
"""
GROW = "UPDATE pending SET size = max(0, size + ?) WHERE bucket = ? AND key = ? AND upload = ?"
PENDING = "SELECT * FROM pending WHERE :bucket IS NULL OR bucket = :bucket ORDER BY id"
UNFINISHED = """
SELECT * FROM pending
WHERE bucket = :bucket AND upload <> '' AND expires > :now AND substr(key, 1, length(:below)) = :below
ORDER BY id DESC LIMIT :most
"""
MOVES = """
SELECT * FROM moves
WHERE bucket = :bucket AND done = 0 AND substr(source, 1, length(:area)) = :area ORDER BY source LIMIT 100
"""
PUBLISHING = "SELECT key FROM pending WHERE bucket = ? AND expires > ? AND key LIKE '%.publishing.%'"

_RECLAIMS, _STATES = frozenset(Reclaim), frozenset(BoxState)


class BoxTable:
    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._keys = StorageKeys(database.path)

    def all(self) -> tuple[BoxRecord, ...]:
        with self._database.read() as db:
            return tuple(_record(row) for row in db.execute(ALL).fetchall())

    def of(self, app: AppName) -> tuple[BoxRecord, ...]:
        with self._database.read() as db:
            return tuple(_record(row) for row in db.execute(OF, (app,)).fetchall())

    def get(self, app: AppName, box: ComponentName) -> BoxRecord | None:
        with self._database.read() as db:
            row = db.execute(ONE, (app, box)).fetchone()
        return _record(row) if row else None

    def save(self, record: BoxRecord) -> None:
        """Save a record. If it is unchanged, no write lock is taken. The database refuses the bucket of
        another record: two boxes never share one, whatever the code does.
        """
        stored = self.get(record.app, record.box)
        if stored and stored == _with_contents_of(record, stored):
            return
        with self._database.write() as db:
            db.execute(UPSERT, _row(record))

    def forget(self, bucket: str) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM pending WHERE bucket = ?", (bucket,))
            db.execute("DELETE FROM arriving WHERE bucket = ?", (bucket,))
            db.execute("DELETE FROM touched WHERE bucket = ?", (bucket,))
            db.execute("DELETE FROM moves WHERE bucket = ?", (bucket,))
            db.execute("DELETE FROM boxes WHERE bucket = ?", (bucket,))

    def swap(self, one: BoxRecord, other: BoxRecord) -> None:
        """Exchange the buckets of two boxes. Uploads under way stay with their bucket. Raises LookupError if
        a record is missing.
        """
        with self._database.write() as db:
            first, second = self.get(one.app, one.box), self.get(other.app, other.box)
            if first is None or second is None:
                raise LookupError(f"no record of {one.app}/{one.box} or {other.app}/{other.box}")
            # Removed first: a bucket must never belong to two records, not even between two statements.
            db.execute("DELETE FROM boxes WHERE bucket IN (?, ?)", (first.bucket, second.bucket))
            exchanged = (
                replace(_with_contents_of(first, second), bucket=second.bucket),
                replace(_with_contents_of(second, first), bucket=first.bucket),
            )
            db.executemany(UPSERT, [_row(record) for record in exchanged])

    def measured(self, bucket: str, used: int, files: int, at: float, settled: Iterable[int]) -> None:
        """Store a measurement in one transaction, so that each upload is counted at all times."""
        with self._database.write() as db:
            db.execute(MEASURED, (used, files, at, bucket))
            db.execute(COUNTED, (bucket, at))
            _delete(db, settled)

    def touch(self, bucket: str) -> None:
        with self._database.write() as db:
            db.execute(TOUCH, (self._clock(), bucket))

    def reserve(self, upload: PendingUpload, now: float, most: int | None = None) -> BoxUsage | int:
        """Reserve space for an upload. A bucket without a record has none. A reservation that replaces
        another gets a new id, because a measurement in progress that has seen the older upload must not
        settle the newer one. It reserves at least as much as the older one, which may be stored and not
        counted yet."""
        key = None if upload.upload else upload.key
        with self._database.write() as db:
            usage = _usage(db, upload.bucket, now, key)
            if not usage.has_space_for(upload.size):
                return usage
            if most is not None:
                _require_few(db, upload, now, most)
            reserved = _reserve(db, upload, now)
            db.execute(TOUCH, (self._clock(), upload.bucket))
        return reserved

    def reserve_first(self, uploads: Sequence[PendingUpload], now: float, most: int) -> int:
        """Reserve in their order, and stop at the first one that does not fit."""
        if not uploads:
            return 0
        with self._database.write() as db:
            usage = _usage(db, uploads[0].bucket, now)
            room = most - _awaited(db, uploads[0], now)
            for number, upload in enumerate(uploads):
                if number >= room or not usage.has_space_for(upload.size):
                    break
                _reserve(db, upload, now)
                usage = replace(usage, pending=usage.pending + upload.size)
            else:
                number = len(uploads)
            db.execute(TOUCH, (self._clock(), uploads[0].bucket))
        return number

    def arrive(self, arrival: Arrival, now: float) -> BoxUsage | int:
        """Record an arriving upload, if the box is not full and has space for all uploads of that name."""
        with self._database.write() as db:
            if arrival.upload:  # its upload has reserved the space
                usage = _usage(db, arrival.bucket, now)
                if usage.used + usage.pending > usage.capacity:
                    return usage
            else:
                usage = _usage(db, arrival.bucket, now, arrival.key)
                coming = db.execute(COMING, (arrival.bucket, arrival.key, now)).fetchone()["size"]
                if not usage.has_space_for(coming + arrival.size):
                    return usage
            return _arrive(db, arrival)

    def announce(self, arrival: Arrival) -> int:
        with self._database.write() as db:
            return _arrive(db, arrival)

    def arriving(self, bucket: str, upload: str, now: float) -> tuple[Arrival, ...]:
        query = (
            "SELECT * FROM arriving WHERE bucket = ? AND upload = ? AND until > ? AND stored = 0 ORDER BY id"
        )
        with self._database.read() as db:
            rows = db.execute(query, (bucket, upload, now)).fetchall()
        return tuple(_arrival(row) for row in rows)

    def prolong(self, ids: Iterable[int], until: float) -> None:
        with self._database.write() as db:
            db.executemany("UPDATE arriving SET until = ? WHERE id = ?", [(until, each) for each in ids])

    def arrived(self, arrival: Arrival, until: float, now: float) -> None:
        """Record that the body has arrived. It still counts, in addition to other bodies for its name, and
        replaces earlier ones."""
        with self._database.write() as db:
            if arrival.upload:
                db.execute("DELETE FROM arriving WHERE id = ?", (arrival.id,))
            else:
                before = db.execute(REPLACED, (arrival.bucket, arrival.key)).fetchall()
                most = max((row["size"] for row in before), default=0)  # whichever of them came last
                db.execute(STORED, (now, until, most, arrival.id))
            db.execute(TOUCH, (self._clock(), arrival.bucket))

    def failed(self, arrival: Arrival) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM arriving WHERE id = ?", (arrival.id,))

    def guard(self, upload: PendingUpload) -> None:
        """Reserve the name, even if the box is full."""
        with self._database.write() as db:
            _reserve(db, upload, upload.created)

    def removed(self, bucket: str, keys: Iterable[str], before: float) -> None:
        gone = [(bucket, key) for key in keys]
        with self._database.write() as db:
            db.executemany("DELETE FROM pending WHERE bucket = ? AND upload = '' AND key = ?", gone)
            db.executemany(f"{COUNTED} AND key = ?", [(bucket, before, key) for _, key in gone])
            db.execute(TOUCH, (self._clock(), bucket))

    def usage(self, bucket: str, now: float) -> BoxUsage:
        """Return the space of a bucket; none without a record."""
        with self._database.read() as db:
            return _usage(db, bucket, now)

    def pending(self, bucket: str | None = None) -> tuple[PendingUpload, ...]:
        """Return the uploads, including expired ones, oldest first."""
        with self._database.read() as db:
            rows = db.execute(PENDING, {"bucket": bucket}).fetchall()
        return tuple(upload for row in rows if (upload := _pending(row)))

    def unfinished(self, bucket: str, below: str, now: float, most: int) -> tuple[PendingUpload, ...]:
        asked = {"bucket": bucket, "below": below, "now": now, "most": most}
        with self._database.read() as db:
            rows = db.execute(UNFINISHED, asked).fetchall()
        return tuple(upload for row in reversed(rows) if (upload := _pending(row)))

    def publishing(self, bucket: str, now: float) -> tuple[UnderWayMark, ...]:
        with self._database.read() as db:
            rows = db.execute(PUBLISHING, (bucket, now)).fetchall()
        return tuple(found for row in rows if (found := UnderWayMark.parse(row["key"])))

    def upload(self, bucket: str, upload: str) -> PendingUpload | None:
        if not upload:  # this is a link for a whole file
            return None
        query = "SELECT * FROM pending WHERE bucket = ? AND upload = ?"
        with self._database.read() as db:
            row = db.execute(query, (bucket, upload)).fetchone()
        return _pending(row) if row else None

    def release(self, ids: Iterable[int]) -> None:
        with self._database.write() as db:
            _delete(db, ids)

    def grow(self, bucket: str, key: str, upload: str, by: int, now: float) -> BoxUsage | None:
        """Reserve more or fewer bytes for an upload in parts, if the box has space; otherwise return the
        space there is. Raises LookupError if there is no such upload.
        """
        with self._database.write() as db:
            usage = _usage(db, bucket, now)
            if by > 0 and (by > usage.free or usage.used + usage.pending > usage.capacity):
                return usage
            changed = db.execute(GROW, (by, bucket, key, upload)).rowcount
            if not changed:
                raise LookupError(f"no upload {upload} of {key}")
        return None

    def grant(self, account: str, buckets: Iterable[str]) -> None:
        """Grant an account exactly these buckets."""
        with self._database.write() as db:
            db.execute("DELETE FROM grants WHERE account = ?", (account,))
            db.executemany("INSERT INTO grants VALUES (?, ?)", [(account, bucket) for bucket in buckets])

    def grants(self, account: str) -> frozenset[str]:
        with self._database.read() as db:
            rows = db.execute("SELECT bucket FROM grants WHERE account = ?", (account,)).fetchall()
        return frozenset(row["bucket"] for row in rows)

    def accounts(self, prefix: str) -> frozenset[str]:
        query = "SELECT DISTINCT account FROM grants WHERE substr(account, 1, ?) = ?"
        with self._database.read() as db:
            rows = db.execute(query, (len(prefix), prefix)).fetchall()
        return frozenset(row["account"] for row in rows)

    def save_move(self, move: GroupMove) -> None:
        row = (move.bucket, move.source, move.target, move.files, move.began, move.stepped)
        with self._database.write() as db:
            db.execute(
                "INSERT OR REPLACE INTO moves VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, move.moved, move.done)
            )

    def forget_move(self, bucket: str, source: str) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM moves WHERE bucket = ? AND source = ?", (bucket, source))

    def move(self, bucket: str, source: str) -> GroupMove | None:
        query = "SELECT * FROM moves WHERE bucket = ? AND source = ?"
        with self._database.read() as db:
            row = db.execute(query, (bucket, source)).fetchone()
        return _move(row) if row else None

    def moves(self, bucket: str, area: str) -> tuple[GroupMove, ...]:
        with self._database.read() as db:
            rows = db.execute(MOVES, {"bucket": bucket, "area": area}).fetchall()
        return tuple(_move(row) for row in rows)

    def prune(self, before: float) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM moves WHERE stepped < ?", (before,))
            db.execute("DELETE FROM pending WHERE expires < ?", (before,))
            db.execute("DELETE FROM arriving WHERE until < ?", (before,))

    def access(self) -> StorageAccess | None:
        return self._keys.read()

    def record_access(self, access: StorageAccess) -> None:
        """Store the access. Writes nothing if it is unchanged."""
        self._keys.write(access)


def _with_contents_of(record: BoxRecord, other: BoxRecord) -> BoxRecord:
    """Return `record` with the bucket of the other, and the figures of its content."""
    return replace(record, used=other.used, files=other.files, measured=other.measured, changed=other.changed)


def _require_few(db: sqlite3.Connection, upload: PendingUpload, now: float, most: int) -> None:
    """Raise Transient `TooManyUploads` if there are too many. Another link for the same file replaces the one
    before."""
    number = _awaited(db, upload, now)
    if number >= most:
        raise Transient(
            Reason.TOO_MANY_UPLOADS, f"{number} uploads of the box have been allowed and are awaited"
        )


def _awaited(db: sqlite3.Connection, upload: PendingUpload, now: float) -> int:
    """Return how many other uploads are awaited."""
    count = "SELECT count(*) FROM pending WHERE bucket = ? AND expires > ? AND NOT (upload = ? AND key = ?)"
    (number,) = db.execute(count, (upload.bucket, now, upload.upload, upload.key)).fetchone()
    return int(number)


def _reserve(db: sqlite3.Connection, upload: PendingUpload, now: float) -> int:
    size = max(upload.size, _taken_over(db, upload, now))
    row = (upload.bucket, upload.key, size, upload.created, upload.expires, upload.upload)
    reserved = db.execute(RESERVE, row).lastrowid
    assert reserved is not None
    return reserved


def _taken_over(db: sqlite3.Connection, upload: PendingUpload, now: float) -> int:
    """Return the bytes that an older link for the same key has reserved."""
    query = "SELECT size FROM pending WHERE bucket = ? AND upload = ? AND key = ? AND expires > ?"
    row = db.execute(query, (upload.bucket, upload.upload, upload.key, now)).fetchone()
    return int(row["size"]) if row else 0


def _usage(db: sqlite3.Connection, bucket: str, now: float, key: str | None = None) -> BoxUsage:
    row = db.execute(ROOM, {"bucket": bucket, "now": now, "key": key}).fetchone()
    return BoxUsage(row["capacity"], row["used"], row["pending"]) if row else BoxUsage(0, 0, 0)


def _delete(db: sqlite3.Connection, ids: Iterable[int]) -> None:
    db.executemany("DELETE FROM pending WHERE id = ?", [(pending,) for pending in ids])


def _row(record: BoxRecord) -> tuple[object, ...]:
    declared = (record.app, record.box, record.bucket, record.capacity, record.reclaim, record.state)
    return (*declared, record.since, record.used, record.files, record.measured, record.changed)


def _record(row: sqlite3.Row) -> BoxRecord:
    """Return a record. Unknown words are read as those that keep the data. No row is left out: a box without
    its record would get another bucket.
    """
    return BoxRecord(
        app=AppName(row["app"]),
        box=ComponentName(row["box"]),
        bucket=row["bucket"],
        capacity=row["capacity"],
        reclaim=Reclaim(row["reclaim"]) if row["reclaim"] in _RECLAIMS else Reclaim.RETAIN,
        state=BoxState(row["state"]) if row["state"] in _STATES else BoxState.KEPT,
        used=row["used"],
        files=row["files"],
        measured=row["measured"],
        since=row["since"],
        changed=row["changed"] if row["touched"] is None else max(row["changed"], row["touched"]),
    )


def _move(row: sqlite3.Row) -> GroupMove:
    names = ("bucket", "source", "target", "files", "began", "stepped", "moved")
    return replace(GroupMove(*(row[name] for name in names)), done=bool(row["done"]))


def _arrive(db: sqlite3.Connection, arrival: Arrival) -> int:
    row = (arrival.size, arrival.began, arrival.until, arrival.upload, arrival.part)
    begun = db.execute(ARRIVE, (arrival.bucket, arrival.key, *row)).lastrowid
    assert begun is not None
    return begun


def _arrival(row: sqlite3.Row) -> Arrival:
    names = ("id", "bucket", "key", "size", "began", "until", "upload", "part")
    return Arrival(*(row[name] for name in names))


def _pending(row: sqlite3.Row) -> PendingUpload | None:
    """Return an upload, or None if none of our processes could have written the row."""
    found = PendingUpload(
        id=row["id"],
        bucket=row["bucket"],
        key=row["key"],
        size=row["size"],
        created=row["created"],
        expires=row["expires"],
        upload=row["upload"],
    )
    try:
        require_integrity(found)
    except ValueError:
        return None
    return found
