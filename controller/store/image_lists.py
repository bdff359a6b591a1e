"""Lists of what is kept on the engine (`domain.apps.image_lists`). They are asked for in the database of requests; the
daemon answers in a database beside the state, where it keeps the last `KEEP`."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from controller.domain.apps.image_lists import AskedImages, ImageList
from controller.domain.localizable import Localizable
from controller.store.asked_queue import AskedQueue
from controller.store.codec import decode, encode
from controller.store.side_database import SideDatabase
from controller.store.sqlite import Database

KEEP: Final = 20
MOST_WAITING: Final = 100
_FULL: Final = Localizable("too many lists of images are asked for already: try again soon")
_CREATE: Final = """CREATE TABLE IF NOT EXISTS image_lists (
    place INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, list TEXT NOT NULL
) STRICT"""
_PRUNE: Final = "DELETE FROM image_lists WHERE place <= (SELECT max(place) FROM image_lists) - ?"


def _asked(row: sqlite3.Row) -> AskedImages:
    return AskedImages(row["id"], row["app"], row["removes"] == 1)


class ImageListTable:
    def __init__(self, database: Database, path: Path) -> None:
        self._asked = AskedQueue(database, "asked_images", _asked, MOST_WAITING, _FULL)
        self._done = SideDatabase(path, (_CREATE,))

    def ask(self, app: str = "", removes: bool = False) -> str:
        return self._asked.ask(app=app, removes=int(removes))

    def begin(self) -> AskedImages | None:
        return self._asked.begin()

    def finish(self, found: ImageList) -> None:
        """One that cannot be kept counts as done, too: who waits for it asks again."""
        try:
            with self._done.writing() as db:
                row = (found.id, encode(found))
                db.execute("INSERT OR IGNORE INTO image_lists VALUES (NULL, ?, ?)", row)
                db.execute(_PRUNE, (KEEP,))
        finally:
            self._asked.end(found.id)

    def get(self, id: str) -> ImageList | None:
        query = "SELECT list FROM image_lists WHERE id = ?"
        row = self._done.read(lambda db: db.execute(query, (id,)).fetchone())
        try:
            return decode(ImageList, str(row[0])) if row else None
        except ValueError:  # of another release
            return None
