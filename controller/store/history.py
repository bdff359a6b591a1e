"""What was applied to each app: revisions with who, when, plan, duration and outcome, what their images and models
were resolved to, and their manifests as text, in a database beside the state.

Bounded: `KEEP` entries of an app, each with at most `MOST_PLAN` characters of its plan and `MOST_MANIFESTS` bytes of
compressed manifests.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from controller.domain.apps.history import AppliedRevision, ManifestText
from controller.domain.localizable import as_stored, from_stored, shortened
from controller.domain.names import AppName, ComponentName
from controller.domain.text import storable
from controller.store.side_database import SideDatabase

KEEP: Final = 50  # of one app
MOST_PLAN: Final = 16_384
MOST_TOLD: Final = 8 * MOST_PLAN  # characters of what a message was made of
MOST_MANIFESTS: Final = 2**18
MOST_RESOLVED: Final = 2**16  # characters of what images and models were resolved to
MOST_TEXT: Final = 4 * 2**20  # bytes of manifests that are read back
_CREATE: Final = """CREATE TABLE IF NOT EXISTS passes (
    id INTEGER PRIMARY KEY AUTOINCREMENT, app TEXT NOT NULL, revision TEXT NOT NULL, subject TEXT NOT NULL,
    author TEXT NOT NULL, triggers TEXT NOT NULL, begun REAL NOT NULL, ended REAL NOT NULL, outcome TEXT NOT NULL,
    message TEXT NOT NULL, plan TEXT NOT NULL, manifests BLOB NOT NULL, person TEXT NOT NULL DEFAULT '',
    resolved TEXT NOT NULL DEFAULT '', images TEXT NOT NULL DEFAULT '',
    message_told TEXT NOT NULL DEFAULT '', plan_told TEXT NOT NULL DEFAULT ''
) STRICT"""
#: Columns that files of earlier releases do not have.
_ADDED: Final = ("person", "resolved", "images", "message_told", "plan_told")
_TEXTS: Final = ("message", "plan", "message_told", "plan_told")
_INDEX: Final = "CREATE INDEX IF NOT EXISTS passes_by_app ON passes (app, id)"
_INSERT: Final = """INSERT INTO passes (app, revision, subject, author, triggers, begun, ended, outcome, message, plan,
    manifests, person, resolved, images, message_told, plan_told)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_LIST: Final = """SELECT id, revision, subject, author, triggers, begun, ended, outcome, {}
    FROM passes WHERE app = ? ORDER BY id DESC LIMIT ?"""
_PRUNE: Final = """DELETE FROM passes WHERE app = :app AND id <= (
    SELECT id FROM passes WHERE app = :app ORDER BY id DESC LIMIT 1 OFFSET :keep)"""
_BETWEEN: Final = "\0"


class HistoryTable:
    def __init__(self, path: Path) -> None:
        self._database = SideDatabase(path, (_CREATE, _INDEX))

    def add(self, applied: AppliedRevision, manifests: Iterable[ManifestText]) -> None:
        """Called by the daemon alone."""
        resolved = json.dumps([applied.pins, applied.models])
        message, plan = (shortened(text, MOST_PLAN) for text in (applied.message, applied.plan))
        row = (
            applied.app,
            applied.revision,
            storable(applied.subject),
            storable(applied.author),
            ",".join(applied.triggers),
            applied.begun,
            applied.ended,
            applied.outcome,
            storable(message),
            storable(plan),
            packed(manifests),
            storable(applied.by),
            resolved if len(resolved) <= MOST_RESOLVED else "",
            json.dumps(applied.images) if applied.images else "",
            _told(message),
            _told(plan),
        )
        with self._database.writing() as db:
            for name in set(_ADDED) - _columns(db):
                db.execute(f"ALTER TABLE passes ADD COLUMN {name} TEXT NOT NULL DEFAULT ''")
            db.execute(_INSERT, row)
            db.execute(_PRUNE, {"app": applied.app, "keep": KEEP})

    def list(self, app: AppName, limit: int = KEEP) -> tuple[AppliedRevision, ...]:
        """Newest first."""
        return self._found(app, limit, _TEXTS)

    def releases(self, app: AppName) -> tuple[AppliedRevision, ...]:
        return self._found(app, KEEP, ())

    def _found(self, app: AppName, limit: int, texts: tuple[str, ...]) -> tuple[AppliedRevision, ...]:
        def query(db: sqlite3.Connection) -> list[tuple[object, ...]]:
            return db.execute(_LIST.format(_selected(db, texts)), (app, limit)).fetchall()

        return tuple(_applied(app, row) for row in self._database.read(query) or ())

    def manifests(self, app: AppName, id: int) -> tuple[ManifestText, ...] | None:
        """Return the manifests of an entry; None if they were too large to be kept."""
        query = "SELECT manifests FROM passes WHERE app = ? AND id = ?"
        row = self._database.read(lambda db: db.execute(query, (app, id)).fetchone())
        return unpacked(row[0]) if row else None

    def forget(self, app: AppName) -> None:
        """Called by the daemon alone."""
        if self._database.exists:
            with self._database.writing() as db:
                db.execute("DELETE FROM passes WHERE app = ?", (app,))


def _told(text: str) -> str:
    """Return what a message was made of; "" for other texts, and where it would take too much space."""
    told = as_stored(text) or ""
    return storable(told) if len(told) <= MOST_TOLD else ""


def packed(manifests: Iterable[ManifestText]) -> bytes:
    """Return manifests for a column, b"" if they are too large to be kept."""
    text = "".join(f"{each.path}{_BETWEEN}{each.text}{_BETWEEN}" for each in manifests)
    found = zlib.compress(text.encode("utf-8", "replace"))
    return found if len(found) <= MOST_MANIFESTS else b""


def unpacked(column: bytes) -> tuple[ManifestText, ...] | None:
    if not column:
        return None
    text = zlib.decompressobj().decompress(column, MOST_TEXT).decode("utf-8", "replace")
    parts = text.split(_BETWEEN)
    return tuple(ManifestText(path, content) for path, content in zip(parts[::2], parts[1::2], strict=False))


def _columns(db: sqlite3.Connection) -> frozenset[str]:
    return frozenset(str(row[1]) for row in db.execute("PRAGMA table_info(passes)").fetchall())


def _selected(db: sqlite3.Connection, texts: tuple[str, ...]) -> str:
    """Return what to select: "" for texts that nobody needs, and for columns that a file may not have yet."""
    present = _columns(db)
    wanted = ("person", "resolved", "images", *_TEXTS)
    return ", ".join(
        name if name in present and (name in texts or name not in _TEXTS) else "''" for name in wanted
    )


def _applied(app: AppName, row: tuple[object, ...]) -> AppliedRevision:
    id, revision, subject, author, triggers, begun, ended, outcome, *rest = row
    by, resolved, images, message, plan, message_told, plan_told = rest
    pins, models = json.loads(str(resolved)) if resolved else ((), ())
    return AppliedRevision(
        app,
        str(revision),
        str(subject),
        str(author),
        tuple(filter(None, str(triggers).split(","))),
        float(str(begun)),
        float(str(ended)),
        str(outcome),
        from_stored(str(message), message_told),
        from_stored(str(plan), plan_told),
        int(str(id)),
        str(by),
        tuple((str(reference), str(pin)) for reference, pin in pins),
        tuple((ComponentName(name), str(digest)) for name, digest in models),
        tuple((str(name), str(image)) for name, image in (json.loads(str(images)) if images else ())),
    )
