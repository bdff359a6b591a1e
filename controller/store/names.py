"""The account that owns each caller's name, by app. It is a separate database in the web process' folder:
only that process writes it, root may release names, and no other part uses it. It is opened for each query:
one per credential that a worker of the gateway does not remember, and one write per name."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from controller.domain.errors import Stalled
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.routing.caller_names import ClaimedName
from controller.domain.text import storable
from controller.store.error_rules import translated

MOST = 100_000  # names in one app
TIMEOUT = 5.0  # seconds to wait for another writer
CREATE = """
CREATE TABLE IF NOT EXISTS names (
    app TEXT NOT NULL, name TEXT NOT NULL, owner TEXT NOT NULL, since REAL NOT NULL, PRIMARY KEY (app, name)
) STRICT, WITHOUT ROWID
"""


class CallerNameTable:
    def __init__(self, path: Path) -> None:
        self._path = path

    def claim(self, app: AppName, name: str, owner: str, now: float) -> str:
        """Return the account that owns the name; if there was none, it is `owner` from now on. Raises
        Stalled, Transient."""
        key = (app, storable(name))
        with self._open() as db:
            found = db.execute("SELECT owner FROM names WHERE app = ? AND name = ?", key).fetchone()
            if found is not None:
                return str(found[0])
            if db.execute("SELECT count(*) FROM names WHERE app = ?", (app,)).fetchone()[0] >= MOST:
                raise Stalled(
                    Reason.TOO_MANY_NAMES,
                    f"{app} already has {MOST} names of callers: release unused ones with prichal name release",
                )
            db.execute(
                "INSERT INTO names VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", (*key, storable(owner), now)
            )
            (found,) = db.execute("SELECT owner FROM names WHERE app = ? AND name = ?", key)
        return str(found[0])

    def all(self, app: AppName | None = None) -> tuple[ClaimedName, ...]:
        if not self._path.exists():
            return ()
        with self._open() as db:
            query = "SELECT * FROM names WHERE ?1 IS NULL OR app = ?1 ORDER BY app, name"
            return tuple(ClaimedName(AppName(app), *rest) for app, *rest in db.execute(query, (app,)))

    def release(self, app: AppName, name: str) -> bool:
        """Release a name, and return whether an account owned it. The next account that uses it gets it and
        its files.
        """
        if not self._path.exists():
            return False
        with self._open() as db:
            return db.execute("DELETE FROM names WHERE app = ? AND name = ?", (app, name)).rowcount > 0

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with translated(self._path), closing(sqlite3.connect(self._path, timeout=TIMEOUT)) as db, db:
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'names'").fetchone():
                db.execute(CREATE)
            yield db
