"""What the next passes would do (`domain.apps.previews`). They are asked for in the database of requests; the daemon
answers in a database beside the state, where it keeps the last `KEEP` of each app and `MOST` in all."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from controller.domain.apps.history import ManifestText
from controller.domain.apps.previews import AskedPreview, PlanPreview
from controller.domain.localizable import Localizable
from controller.domain.names import AppName
from controller.store.asked_queue import AskedQueue
from controller.store.codec import decode, encode
from controller.store.history import packed, unpacked
from controller.store.side_database import SideDatabase
from controller.store.sqlite import Database

KEEP: Final = 4
MOST: Final = 200
MOST_WAITING: Final = 1000
_FULL: Final = Localizable("too many plans are asked for already: try again soon")
_CREATE: Final = """CREATE TABLE IF NOT EXISTS previews (
    place INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, app TEXT NOT NULL, preview TEXT NOT NULL,
    manifests BLOB NOT NULL
) STRICT"""
_PRUNE: Final = """DELETE FROM previews WHERE place <= (SELECT max(place) FROM previews) - :most
    OR (app = :app AND place <= (
        SELECT place FROM previews WHERE app = :app ORDER BY place DESC LIMIT 1 OFFSET :keep))"""


def _asked(row: sqlite3.Row) -> AskedPreview:
    return AskedPreview(row["id"], AppName(row["app"]))


class PreviewTable:
    def __init__(self, database: Database, path: Path) -> None:
        self._asked = AskedQueue(database, "asked_previews", _asked, MOST_WAITING, _FULL)
        self._done = SideDatabase(path, (_CREATE,))

    def ask(self, app: AppName) -> str:
        return self._asked.ask(app=app)

    def begin(self) -> AskedPreview | None:
        return self._asked.begin()

    def finish(self, preview: PlanPreview, manifests: Iterable[ManifestText]) -> None:
        """One that cannot be kept counts as done, too: who waits for it asks again."""
        try:
            row = (preview.id, preview.app, encode(preview), packed(manifests))
            with self._done.writing() as db:
                db.execute("INSERT OR IGNORE INTO previews VALUES (NULL, ?, ?, ?, ?)", row)
                db.execute(_PRUNE, {"app": preview.app, "keep": KEEP, "most": MOST})
        finally:
            self._asked.end(preview.id)

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
