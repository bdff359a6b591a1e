"""Images that apps follow: what is followed, what was found, and what was rolled back. Passes, the follower and people
each write their own columns."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Final

from controller.domain.apps.followed_images import FollowedImage, FollowRecord, FollowState
from controller.domain.apps.releases import Images
from controller.domain.names import AppName
from controller.store.codec import decode, encode
from controller.store.rows import RowKind, RowReader
from controller.store.sqlite import Database

_ALL: Final = "SELECT * FROM followed_images WHERE app = ifnull(:app, app) ORDER BY app, subject"
_DECLARE: Final = """
INSERT INTO followed_images (app, subject, image) VALUES (?, ?, ?)
ON CONFLICT (app, subject) DO UPDATE SET image = excluded.image
"""
_RENEW: Final = "UPDATE followed_images SET state = '{}', rejected = '' WHERE app = ? AND subject = ?"
_FORGET: Final = """
DELETE FROM followed_images WHERE app = :app AND subject NOT IN (SELECT value FROM json_each(:subjects))
"""


def _record(row: sqlite3.Row) -> FollowRecord:
    image, state = decode(FollowedImage, row["image"]), decode(FollowState, row["state"])
    return FollowRecord(AppName(row["app"]), image, state, row["rejected"], row["wanted"])


FOLLOWED: Final = RowKind("the followed image", "followed_images", ("app", "subject"), _record)


class ImageTable:
    def __init__(self, database: Database, rows: RowReader) -> None:
        self._database = database
        self._rows = rows

    def declare(self, app: AppName, images: Iterable[FollowedImage]) -> None:
        """Writes nothing if they are unchanged."""
        wanted = {image.subject: image for image in images}
        with self._database.read() as db:
            query = "SELECT subject, image FROM followed_images WHERE app = ?"
            found = dict(db.execute(query, (app,)).fetchall())
        texts = {subject: encode(image) for subject, image in wanted.items()}
        if texts == found:
            return
        with self._database.write() as db:
            for subject, text in sorted(texts.items()):
                db.execute(_DECLARE, (app, subject, text))
                if subject in found and not _is_same(found[subject], wanted[subject]):
                    db.execute(_RENEW, (app, subject))
            db.execute(_FORGET, {"app": app, "subjects": json.dumps(sorted(texts))})

    def of(self, app: AppName) -> tuple[FollowRecord, ...]:
        return self._rows.found(FOLLOWED, _ALL, {"app": app})

    def all(self) -> tuple[FollowRecord, ...]:
        return self._rows.found(FOLLOWED, _ALL, {"app": None})

    def save(self, record: FollowRecord, state: FollowState) -> bool:
        query = "UPDATE followed_images SET state = ? WHERE app = ? AND subject = ? AND image = ?"
        row = (encode(state), record.app, record.image.subject, encode(record.image))
        with self._database.write() as db:
            return db.execute(query, row).rowcount > 0

    def reject(self, app: AppName, images: Images) -> None:
        rejected = dict(images)
        changed = [each for each in self.of(app) if each.rejected != rejected.get(each.image.subject, "")]
        if changed:
            query = "UPDATE followed_images SET rejected = ? WHERE app = ? AND subject = ?"
            rows = [(rejected.get(each.image.subject, ""), app, each.image.subject) for each in changed]
            with self._database.write() as db:
                db.executemany(query, rows)

    def ask_now(self, app: AppName, at: float) -> None:
        if self.of(app):
            with self._database.write() as db:
                db.execute("UPDATE followed_images SET wanted = ? WHERE app = ?", (at, app))


def _is_same(stored: str, image: FollowedImage) -> bool:
    """Return True if the registry is asked the same question."""
    try:
        return decode(FollowedImage, stored).question == image.question
    except ValueError:  # of another release
        return False
