"""The file of requests of other processes, as the daemon uses it. A process that may write it can also damage
it: fill it with garbage or with millions of rows, put a pipe or a link in its place, or lock it for ever.
None of that stops the daemon: it sets the file aside and creates a new one with the rows that it can read. If
that happens again soon, the daemon uses a file of its own for a while, which others cannot reach, and tries
the shared one again later. Links are never followed: SQLite opens a file without following them, and its path
is checked before. The folder is sticky, so that nobody but the daemon removes or renames what the daemon has
made there, and the journal is an empty file of the daemon's own: SQLite would roll a planted one back, and
then delete the file that its last page names."""

from __future__ import annotations

import errno
import logging
import os
import re
import sqlite3
import stat
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from controller.store import inbox

log = logging.getLogger(__name__)

MOST_BYTES = 2**30  # of the file, and of its log
MOST_ROWS = 100_000  # of a table
LONGEST_VALUE = 128 * 2**20  # bytes
FILE_MODE = 0o660
JOURNAL_MODE = 0o600
_UNBOUNDED = {"caller_keys"}  # in a file of one year; the daemon does not read them
_CARRIED = 10_000  # rows of a table
_READ_TIMEOUT = 5.0  # seconds for reading a file that may be damaged
_FIRST_PAUSE, _LONGEST_PAUSE = 10.0, 600.0  # seconds
_SOON = 3600.0  # seconds between two times
_LOGS = ("-wal", "-shm")
_JOURNAL = "-journal"  # that a database in WAL mode never has
_TRIES = 100  # to be faster than somebody who puts a journal there again and again

Rows = Mapping[str, Sequence[tuple[object, ...]]]
#: The identity of a file: device and inode.
Mark = tuple[int, int]


def shared_path(path: Path) -> Path:
    """Return the path of the database `asked`, in a folder that more users may write."""
    return path.parent / "asked" / "asked.db"


@dataclass(frozen=True)
class Place:
    """A file to attach. Another `mark` means another file."""

    path: Path
    mark: Mark | None


class SharedFile:
    """May be shared by threads."""

    def __init__(self, path: Path, own: Path) -> None:
        """`own` is the path of the daemon's own file, in a folder that others cannot write."""
        self.path = path
        self._own = own
        self._lock = threading.RLock()
        self._closed_until = 0.0  # monotonic
        self._last = -_SOON
        self._pause = 0.0
        self._known: Rows = {}  # the decisions of people that were read last
        self._notices: list[str] = []

    def place(self) -> Place:
        """Return the file to use now."""
        if time.monotonic() < self._closed_until:
            return Place(self._own, inspect_path(self._own)[1])
        problem, mark = guarded(self.path)
        if not problem:
            return Place(self.path, mark)
        self.set_aside(problem, mark)
        return (
            self.place()
            if time.monotonic() < self._closed_until
            else Place(self.path, inspect_path(self.path)[1])
        )

    def make_if_missing(self) -> None:
        """Create the file at the first start."""
        with self._lock:
            if inspect_path(self.path) == (_GONE, None):
                _make(self.path, {}, inbox.FIRST_WISH, self._own)

    @property
    def closed(self) -> bool:
        """Return whether the daemon uses a file of its own."""
        return time.monotonic() < self._closed_until

    def notices(self) -> tuple[str, ...]:
        """Return messages about what has been set aside since the last call."""
        with self._lock:
            found, self._notices = tuple(self._notices), []
        return found

    def remember(self, connection: sqlite3.Connection) -> str:
        """Check the size of the file and remember the decisions in it. Return why it cannot be used, or ""."""
        for table in inbox.TABLES:
            many = f"SELECT 1 FROM {inbox.NAME}.{table} LIMIT 1 OFFSET {MOST_ROWS}"  # noqa: S608
            if table not in _UNBOUNDED and connection.execute(many).fetchone():
                return f"its table {table} has more than {MOST_ROWS} rows"
        with suppress(OSError):
            if os.lstat(f"{self.path}-wal").st_size > MOST_BYTES:
                return f"its log has more than {MOST_BYTES} bytes"
        self._known = {table: _rows(connection, table) for table in inbox.DECISIONS}
        return ""

    def fault(self) -> str:
        """Return what is wrong with the content, by reading it without the state; "" if nothing is, if the
        file is locked, or if it is too large to check."""
        problem, _ = guarded(self.path)
        if problem:
            return problem
        try:
            with closing(_opened(self.path)) as connection:
                damage: str = connection.execute("PRAGMA main.quick_check(1)").fetchone()[0]
                connection.execute("PRAGMA user_version = 0")  # that it can be written
        except (sqlite3.Error, UnicodeDecodeError) as error:
            code = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
            return "" if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_INTERRUPT) else str(error)
        return "" if damage == "ok" else damage

    def set_aside(
        self, why: str, mark: Mark | None, first_wish: int = inbox.FIRST_WISH, unread: bool = False
    ) -> None:
        """Replace the file by a new one, unless another thread has done so: `mark` identifies the bad file.
        `unread`: do not read it, and copy the rows of the last time again."""
        with self._lock:
            problem, found = guarded(self.path)
            if found != mark or (mark is None and not problem):
                return
            now = time.monotonic()
            is_soon = now - self._last < _SOON
            self._pause = min(2 * self._pause or _FIRST_PAUSE, _LONGEST_PAUSE) if is_soon else 0.0
            self._last = now
            rows = {**self._known, **({} if problem else _readable(self._own if unread else self.path))}
            try:
                kept = self._move_away() if mark is not None or problem != _GONE else None
                _make(self.path, rows, first_wish, self._own)
            except (OSError, sqlite3.Error) as error:
                why, kept = f"{why}, and it cannot be replaced: {error}", None
                self._pause = self._pause or _FIRST_PAUSE
            if self._pause:
                _make(self._own, rows, first_wish, self._own)
                self._closed_until = time.monotonic() + self._pause
            self._report(why, kept)

    def distrust(self, seconds: float) -> None:
        """Set the file aside before it is opened, and ignore the shared one for this many seconds."""
        with self._lock:
            self._last, self._pause = time.monotonic(), seconds / 2
            problem, mark = inspect_path(self.path)
            if problem != _GONE:
                why = "the daemon was ended by a bus error: somebody had cut off the index of its log"
                self.set_aside(why, mark, unread=_is_recent(self._own))

    def _report(self, why: str, kept: Path | None) -> None:
        where = f" It is {kept} now." if kept else ""
        pause = f" It is not looked at for {self._pause:.0f} s." if self._pause else ""
        text = f"what others ask for ({self.path}) could not be used and was set aside: {why}.{where}{pause}"
        log.error("%s", text)
        self._notices = [*self._notices[-99:], text]

    def _move_away(self) -> Path:
        """Rename the file, which follows no link and takes no time. Only the newest one is kept."""
        aside = asides(self.path)
        for old in aside:
            _remove(old)
            for suffix in _LOGS:
                _remove(old.with_name(old.name + suffix))
        numbers = [int(found[1]) for old in aside if (found := _NUMBER.search(old.name))]
        kept = self.path.with_name(f"{self.path.name}.aside-{max([*numbers, 0]) + 1}")
        self.path.rename(kept)
        for suffix in _LOGS:
            with suppress(FileNotFoundError):
                (self.path.with_name(self.path.name + suffix)).rename(kept.with_name(kept.name + suffix))
        return kept


def damaged(error: UnicodeDecodeError) -> sqlite3.DatabaseError:
    """Return True for the error that Python's binding raises if SQLite reports a malformed schema and quotes
    invalid text."""
    found = sqlite3.DatabaseError(f"malformed: {error.object[:200]!r}")
    found.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return found


def _is_recent(path: Path) -> bool:
    with suppress(OSError):
        return time.time() - path.lstat().st_mtime < _SOON
    return False


def asides(path: Path) -> list[Path]:
    """Return the files that were set aside from the shared file at `path`."""
    found = path.parent.glob(f"{path.name}.aside-*")
    return sorted(each for each in found if not each.name.endswith(_LOGS))


_NUMBER = re.compile(r"-([1-9][0-9]{0,8})$")
_GONE = "it is gone"
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFDIR: "a folder",
    stat.S_IFSOCK: "a socket",
}


def inspect_path(path: Path) -> tuple[str, Mark | None]:
    """Return why it must not be opened, or ""; and the identity of the file."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return _GONE, None
    except OSError as error:
        return f"{error.strerror}", None
    mark = found.st_dev, found.st_ino
    kind = stat.S_IFMT(found.st_mode)
    if kind != stat.S_IFREG:
        return f"it is {_KINDS.get(kind, 'a device')}", mark
    if found.st_nlink > 1:
        return "the file has another name, too", mark
    if found.st_size > MOST_BYTES:
        return f"it has {found.st_size} bytes", mark
    return "", mark


def guarded(path: Path) -> tuple[str, Mark | None]:
    """The same, after it was made sure that SQLite finds no journal which others have put there."""
    problem, mark = inspect_path(path)
    if problem:
        return problem, mark
    try:
        _guard_journal(*_journal_of(path))
    except OSError as error:
        return f"its journal cannot be replaced ({error.strerror})", mark
    return "", mark


@lru_cache(16)
def _journal_of(path: Path) -> tuple[str, str]:
    """Return the path of the journal of a database, and of its folder; each use of a database asks for them."""
    return f"{path}{_JOURNAL}", str(path.parent)


def _guard_journal(journal: str, folder: str) -> None:
    """Put an empty file of our own in its place, unless it is there. Raises OSError."""
    owners = (os.geteuid(), os.stat(folder).st_uid)
    for _ in range(_TRIES):
        try:
            found = os.lstat(journal)
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.close(os.open(journal, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY, JOURNAL_MODE))
                return
            continue
        if stat.S_ISREG(found.st_mode) and not found.st_size and found.st_uid in owners:
            return
        log.error("somebody has put a journal beside %s, which is removed", journal)
        _take_away(Path(journal))
    raise OSError(errno.EEXIST, "somebody makes it again and again")


def _take_away(path: Path) -> None:
    """Remove a file, or rename a folder. Raises OSError."""
    try:
        path.unlink(missing_ok=True)
    except IsADirectoryError:
        path.rename(path.with_name(f"{path.name}.aside-{time.monotonic_ns()}"))


def _opened(path: Path) -> sqlite3.Connection:
    """Open the file without the state; long queries are interrupted."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=0.0, isolation_level=None)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
    connection.execute("PRAGMA trusted_schema = OFF")
    deadline = time.monotonic() + _READ_TIMEOUT
    connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
    return connection


def _rows(connection: sqlite3.Connection, table: str) -> Sequence[tuple[object, ...]]:
    query = f"SELECT * FROM {inbox.NAME}.{table} LIMIT {_CARRIED}"  # noqa: S608 - a constant of ours
    return [tuple(row) for row in connection.execute(query).fetchall()]


def _readable(path: Path) -> Rows:
    """Return some rows of each readable table."""
    found: dict[str, Sequence[tuple[object, ...]]] = {}
    try:
        with closing(_opened(path)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            for table in inbox.TABLES:
                with suppress(sqlite3.Error, UnicodeDecodeError):
                    query = f"SELECT * FROM {table} LIMIT {MOST_ROWS + 1}"  # noqa: S608 - a constant of ours
                    rows = connection.execute(query).fetchmany(_CARRIED)
                    found[table] = rows
    except (sqlite3.Error, UnicodeDecodeError) as error:
        log.info("nothing of %s can be read: %s", path, error)
    return found


def _make(path: Path, rows: Rows, first_wish: int, own: Path) -> None:
    """Create the file atomically: in the daemon's folder, then renamed."""
    draft = own.with_name(f".{own.name}.new")
    for each in (draft, *(draft.with_name(draft.name + suffix) for suffix in (*_LOGS, _JOURNAL))):
        _remove(each)
    with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN")
        inbox.make(connection, first_wish)
        for table in inbox.TABLES:
            for row in rows.get(table, ()):
                _insert(connection, table, row)
        connection.execute("COMMIT")
    for suffix in _LOGS:
        _remove(path.with_name(path.name + suffix))
    if path != own:
        with suppress(OSError):  # files that are moved into a set-gid folder do not get its group
            os.chown(draft, -1, path.parent.stat().st_gid)
        draft.chmod(FILE_MODE)
    draft.replace(path)


def _insert(connection: sqlite3.Connection, table: str, row: tuple[object, ...]) -> None:
    holes = ", ".join("?" * len(row))
    with suppress(sqlite3.Error):  # rows that do not fit are not copied
        connection.execute(f"INSERT OR IGNORE INTO {table} VALUES ({holes})", row)  # noqa: S608


def _remove(path: Path) -> None:
    """Remove the file. A folder may stay."""
    with suppress(OSError):
        path.unlink()
