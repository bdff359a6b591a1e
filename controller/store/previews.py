"""What the next passes would do (`domain.apps.previews`). They are asked for in the database of requests; the daemon
answers in a database beside the state, where it keeps the last `KEEP` of each app and `MOST` in all."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from controller.domain.apps.history import ManifestText
from controller.domain.apps.previews import AskedPreview, PlanPreview
from controller.domain.errors import Transient
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.store.beside import DatabaseBeside
from controller.store.codec import decode, encode
from controller.store.history import packed, unpacked
from controller.store.sqlite import Database

log = logging.getLogger(__name__)

KEEP: Final = 4
MOST: Final = 200
MOST_WAITING: Final = 1000
_SHARED: Final = "SELECT id FROM asked_previews WHERE begun = 0 AND app = ? ORDER BY place LIMIT 1"
_WAITS: Final = "SELECT 1 FROM asked_previews WHERE begun = 0 LIMIT 1"
_NEXT: Final = "SELECT place, id, app FROM asked_previews WHERE begun = 0 ORDER BY place LIMIT ?"
_CREATE: Final = """CREATE TABLE IF NOT EXISTS previews (
    place INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, app TEXT NOT NULL, preview TEXT NOT NULL,
    manifests BLOB NOT NULL
) STRICT"""
_PRUNE: Final = """DELETE FROM previews WHERE place <= (SELECT max(place) FROM previews) - :most
    OR (app = :app AND place <= (
        SELECT place FROM previews WHERE app = :app ORDER BY place DESC LIMIT 1 OFFSET :keep))"""


class PreviewTable:
    def __init__(self, database: Database, path: Path) -> None:
        self._database = database
        self._done = DatabaseBeside(path, (_CREATE,))

    def ask(self, app: AppName) -> str:
        with self._database.write() as db:
            if shared := db.execute(_SHARED, (app,)).fetchone():
                return str(shared["id"])
            if db.execute("SELECT count(*) FROM asked_previews").fetchone()[0] >= MOST_WAITING:
                raise Transient(Reason.QUEUE_FULL, "too many plans are asked for already: try again soon")
            id = secrets.token_hex(16)
            db.execute("INSERT INTO asked_previews (id, app) VALUES (?, ?)", (id, app))
        return id

    def begin(self) -> AskedPreview | None:
        """Rows that no process of ours has written are deleted by their place: another column may be no text."""
        with self._database.read() as db:
            if db.execute(_WAITS).fetchone() is None:
                return None
        with self._database.write() as db:
            for row in db.execute(_NEXT, (MOST_WAITING,)).fetchall():
                asked = AskedPreview(row["id"], AppName(row["app"]))
                if asked.is_valid:
                    db.execute("UPDATE asked_previews SET begun = 1 WHERE place = ?", (row["place"],))
                    return asked
                log.warning("an invalid request for a preview was dropped")
                db.execute("DELETE FROM asked_previews WHERE place = ?", (row["place"],))
        return None

    def finish(self, preview: PlanPreview, manifests: Iterable[ManifestText]) -> None:
        """One that cannot be kept counts as done, too: who waits for it asks again."""
        try:
            row = (preview.id, preview.app, encode(preview), packed(manifests))
            with self._done.writing() as db:
                db.execute("INSERT OR IGNORE INTO previews VALUES (NULL, ?, ?, ?, ?)", row)
                db.execute(_PRUNE, {"app": preview.app, "keep": KEEP, "most": MOST})
        finally:
            with self._database.write() as db:
                db.execute("DELETE FROM asked_previews WHERE id = ?", (preview.id,))

    def recover(self) -> None:
        with self._database.write() as db:
            db.execute("UPDATE asked_previews SET begun = 0")

    def get(self, id: str) -> PlanPreview | None:
        found = self._column("preview", id)
        try:
            return decode(PlanPreview, str(found)) if found is not None else None
        except ValueError:  # of another release
            return None

    def manifests(self, id: str) -> tuple[ManifestText, ...] | None:
        found = self._column("manifests", id)
        return unpacked(found) if isinstance(found, bytes) else None

    def _column(self, name: str, id: str) -> object:
        query = f"SELECT {name} FROM previews WHERE id = ?"  # noqa: S608 - a column of ours
        row = self._done.read(lambda db: db.execute(query, (id,)).fetchone())
        return row[0] if row else None
