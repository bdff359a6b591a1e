"""Lists of what is kept on the engine (`domain.apps.image_lists`). They are asked for in the database of requests; the
daemon answers in a database beside the state, where it keeps the last `KEEP`."""

from __future__ import annotations

import logging
import secrets
from pathlib import Path
from typing import Final

from controller.domain.apps.image_lists import AskedImages, ImageList
from controller.domain.errors import Transient
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.store.beside import DatabaseBeside
from controller.store.codec import decode, encode
from controller.store.sqlite import Database

log = logging.getLogger(__name__)

KEEP: Final = 20
MOST_WAITING: Final = 100
_SHARED: Final = (
    "SELECT id FROM asked_images WHERE begun = 0 AND app = ? AND removes = ? ORDER BY place LIMIT 1"
)
_WAITS: Final = "SELECT 1 FROM asked_images WHERE begun = 0 LIMIT 1"
_NEXT: Final = "SELECT place, id, app, removes FROM asked_images WHERE begun = 0 ORDER BY place LIMIT ?"
_CREATE: Final = """CREATE TABLE IF NOT EXISTS image_lists (
    place INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, list TEXT NOT NULL
) STRICT"""
_PRUNE: Final = "DELETE FROM image_lists WHERE place <= (SELECT max(place) FROM image_lists) - ?"


class ImageListTable:
    def __init__(self, database: Database, path: Path) -> None:
        self._database = database
        self._done = DatabaseBeside(path, (_CREATE,))

    def ask(self, app: str = "", removes: bool = False) -> str:
        with self._database.write() as db:
            if shared := db.execute(_SHARED, (app, int(removes))).fetchone():
                return str(shared["id"])
            if db.execute("SELECT count(*) FROM asked_images").fetchone()[0] >= MOST_WAITING:
                told = Localizable("too many lists of images are asked for already: try again soon")
                raise Transient(Reason.QUEUE_FULL, told)
            id = secrets.token_hex(16)
            row = (id, app, int(removes))
            db.execute("INSERT INTO asked_images (id, app, removes) VALUES (?, ?, ?)", row)
        return id

    def begin(self) -> AskedImages | None:
        """Rows that no process of ours has written are deleted by their place: another column may be no text."""
        with self._database.read() as db:
            if db.execute(_WAITS).fetchone() is None:
                return None
        with self._database.write() as db:
            for row in db.execute(_NEXT, (MOST_WAITING,)).fetchall():
                asked = AskedImages(row["id"], row["app"], row["removes"] == 1)
                if asked.is_valid:
                    db.execute("UPDATE asked_images SET begun = 1 WHERE place = ?", (row["place"],))
                    return asked
                log.warning("an invalid request for a list of images was dropped")
                db.execute("DELETE FROM asked_images WHERE place = ?", (row["place"],))
        return None

    def finish(self, found: ImageList) -> None:
        """One that cannot be kept counts as done, too: who waits for it asks again."""
        try:
            with self._done.writing() as db:
                row = (found.id, encode(found))
                db.execute("INSERT OR IGNORE INTO image_lists VALUES (NULL, ?, ?)", row)
                db.execute(_PRUNE, (KEEP,))
        finally:
            with self._database.write() as db:
                db.execute("DELETE FROM asked_images WHERE id = ?", (found.id,))

    def recover(self) -> None:
        with self._database.write() as db:
            db.execute("UPDATE asked_images SET begun = 0")

    def get(self, id: str) -> ImageList | None:
        query = "SELECT list FROM image_lists WHERE id = ?"
        row = self._done.read(lambda db: db.execute(query, (id,)).fetchone())
        try:
            return decode(ImageList, str(row[0])) if row else None
        except ValueError:  # of another release
            return None
