"""Connections and transactions. Every thread has its own connection, every write is `BEGIN IMMEDIATE`, and no
`sqlite3` error leaves this package untranslated.

Deferred transactions are not used, because one that reads and then writes cannot wait for the lock: what it
has read may be outdated, so SQLite fails it at once with "database is locked", whatever the busy timeout.
Taking the write lock first turns every conflict into a short wait.

With `synchronous=NORMAL` in WAL mode, a commit survives the death of any process; a loss of power may undo
the last commits, but never a part of one. That suffices: after a reboot the containers are observed again,
and the first poll replaces lost webhooks.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import stat
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from controller.domain.error_table import ErrorRule
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.reasons import Reason
from controller.domain.text import storable
from controller.store import inbox
from controller.store.shared_file import LONGEST_VALUE, Place, SharedFile, damaged, inspect_path

log = logging.getLogger(__name__)

BUSY_TIMEOUT = 15.0  # seconds; a write takes milliseconds, so a longer wait means that something is broken
#: Seconds that the daemon waits for the file that others write, while it holds the lock of the state.
HELD = 5.0
_LOOK = 5.0  # seconds between two looks at how much others have written
_LOOK_THROUGH = 60.0  # seconds between two looks at all of it
LOGS = ("-wal", "-shm")  # the files that SQLite creates next to a database
WAL_LIMIT = 16 * 2**20  # bytes kept of the write-ahead log after a checkpoint
#: KiB of a database that a connection keeps in memory. Each thread has one to each database, and would keep four times
#: as much of the large values that it has read once; the kernel has the pages, too.
CACHE = 500
#: Set-gid: the web process has another user and the same group; it reads.
FOLDER_MODE, FILE_MODE = 0o2750, 0o640
#: SQLite gives its -wal and -shm files the mode of the database.
SHARED_FOLDER_MODE, SHARED_FILE_MODE = 0o3770, 0o660


class _Connection(sqlite3.Connection):
    """A connection that stores texts which are not valid UTF-8 with U+FFFD. This is the last resort for texts
    that were not made `printable`: a lost character is better than a lost status.
    """

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        try:
            return super().execute(sql, _storable(parameters))
        # SQLite quotes a schema in its message, whatever the bytes of that are.
        except UnicodeDecodeError as error:
            raise damaged(error) from error

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        return super().executemany(sql, map(_storable, parameters))


def _storable(parameters: Any) -> Any:
    if isinstance(parameters, Mapping):
        return {name: _text(value) for name, value in parameters.items()}
    return tuple(map(_text, parameters))


def _text(value: Any) -> Any:
    return storable(value) if isinstance(value, str) else value


def _read_text(raw: bytes) -> str:
    """Decode leniently: otherwise a text that is not UTF-8 would fail every query that reads it."""
    return raw.decode("utf-8", "replace")


class _Handle:
    """One thread's connection, closed with the thread."""

    def __init__(self, connection: sqlite3.Connection, place: Place) -> None:
        self.connection = connection
        self.place = place  # of `asked`
        self.process = os.getpid()
        self.seen: tuple[int, ...] | None = None  # data_versions at the last `changed()`
        self.schema: int | None = None  # the version of the schema of `asked` that was checked

    def __del__(self) -> None:
        self.connection.close()


_inherited: list[_Handle] = []  # connections of a parent process: they must be neither used nor closed here


def shared_path(path: Path) -> Path:
    """Return the path of the database `asked`, in a folder that more users may write."""
    return path.parent / "asked" / "asked.db"


class _Shared(sqlite3.OperationalError):
    """The file of others is to blame for an error."""

    def __init__(self, error: sqlite3.Error) -> None:
        super().__init__(str(error))
        self.sqlite_errorcode = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)


@contextmanager
def _of_shared() -> Iterator[None]:
    try:
        yield
    except _Shared:
        raise
    except sqlite3.Error as error:
        raise _Shared(error) from error


class Database:
    """The file at `path`, which must exist (`prepare`), together with the requests of other processes. A
    `guest` reads the state and writes requests; the owner writes both.
    """

    def __init__(self, path: Path, guest: bool = False) -> None:
        self.path = path
        self.guest = guest
        self.shared = SharedFile(shared_path(path), path.with_name("asked-own.db"))
        self._looked = self._looked_through = 0.0
        self._local = threading.local()
        self._handles: weakref.WeakSet[_Handle] = weakref.WeakSet()
        self._lock = threading.Lock()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Yield this thread's connection. Fetch all rows at once: an open cursor would block checkpoints of
        the log.
        """
        with self._watched(reading=True):
            yield self._handle().connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Run a transaction that holds the write lock from its start. Within another one it is a savepoint:
        it is committed with the outer one, but its failure rolls back only itself.
        """
        with self._watched():
            connection, nested = self._begun()
            commit, rollback = _NESTED if nested else _OUTERMOST
            try:
                yield connection
                connection.execute(commit)
            except BaseException:
                if connection.in_transaction:  # a full disk makes SQLite roll back by itself
                    connection.execute(rollback)
                    if nested:
                        connection.execute(commit)
                raise

    def changed(self) -> bool:
        """Return whether another connection has committed since this thread's last call; true at the first
        call. Commits of this thread do not count, those of other threads of the process do.
        """
        with self._watched(reading=True):
            handle = self._handle()
            versions = tuple(handle.connection.execute(pragma).fetchone()[0] for pragma in _VERSIONS)
            handle.seen, before = versions, handle.seen
            return versions != before

    def damage(self) -> tuple[str, ...]:
        """Return the findings of `PRAGMA quick_check`, empty for an intact file."""
        try:
            with self.read() as connection:
                findings = [row[0] for row in connection.execute("PRAGMA quick_check").fetchall()]
        except Stalled as error:
            if error.reason != Reason.STATE_CORRUPT:
                raise
            return (str(error.__cause__),)
        return tuple(finding for finding in findings if finding != "ok")

    def check_shared(self) -> None:
        """Check the whole file of others: damage that this process does not notice could block all requests."""
        now = time.monotonic()
        if now - self._looked_through < _LOOK_THROUGH:
            return
        self._looked_through = now
        with self.read():
            place = self.shared.place()
            if place.path == self.shared.path and (why := self.shared.fault()):
                self.shared.set_aside(why, place.mark, self._first_wish(getattr(self._local, "handle", None)))

    def close(self) -> None:
        with self._lock:
            for handle in self._handles:
                handle.connection.close()
        self._local = threading.local()
        if not self.guest:
            leave_open(self.path)

    # --- connections ----------------------------------------------------------------------------------------------

    def _handle(self) -> _Handle:
        """Return this thread's connection. Changes by others to their file are corrected, or the file is set
        aside.
        """
        for left in reversed(range(_TRIES)):
            try:
                return self._sound_handle()
            except _Shared as error:
                self._set_aside(error, left)
        raise AssertionError

    def _sound_handle(self) -> _Handle:
        handle: _Handle | None = getattr(self._local, "handle", None)
        if handle is not None and handle.process != os.getpid():
            _inherited.append(handle)
            handle = None
        if handle is not None and handle.connection.in_transaction:
            return handle
        place = self._local.place = self._place()
        if handle is None or handle.place != place:
            handle = self._local.handle = _Handle(connect(self.path, self.guest, place.path), place)
            with self._lock:
                self._handles.add(handle)
        if not self.guest:
            self._require_sound(handle)
        return handle

    def _place(self) -> Place:
        """Return the file of others. Guests must notice, too, that the file was replaced."""
        path = self.shared.path
        return Place(path, inspect_path(path)[1]) if self.guest else self.shared.place()

    def _begun(self) -> tuple[sqlite3.Connection, bool]:
        """Yield a connection with a new transaction, and whether it is a savepoint within another one."""
        for left in reversed(range(_TRIES)):
            connection = self._handle().connection
            if connection.in_transaction:
                connection.execute("SAVEPOINT nested")
                return connection, True
            try:
                self._begin(connection)
            except _Shared as error:
                self._set_aside(error, left)
            else:
                return connection, False
        raise AssertionError

    def _begin(self, connection: sqlite3.Connection) -> None:
        """Begin a transaction with the locks of both files. The daemon takes that of the state first, so no
        other thread of the daemon can hold the lock of the other file."""
        if self.guest:
            connection.execute("BEGIN IMMEDIATE")
            return
        connection.execute("BEGIN")
        try:
            connection.execute(_LOCK_STATE)
            connection.execute(f"PRAGMA busy_timeout = {round(1000 * HELD)}")
            with _of_shared():
                connection.execute(_LOCK_SHARED)
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        finally:
            connection.execute(f"PRAGMA busy_timeout = {round(1000 * BUSY_TIMEOUT)}")

    def _require_sound(self, handle: _Handle) -> None:
        """Check `asked`: its writers could add triggers and views, which would be executed here."""
        connection = handle.connection
        with _of_shared():
            version: int = connection.execute(_SCHEMA_VERSION).fetchone()[0]
            is_sound = version == handle.schema or inbox.is_sound(connection)
        if not is_sound:
            log.error("the schema of %s was changed from outside; it is restored", self.shared.path)
            self._put_right(connection)
        with _of_shared():
            handle.schema = (
                connection.execute(_SCHEMA_VERSION).fetchone()[0] if version != handle.schema else version
            )
            if time.monotonic() - self._looked > _LOOK:
                self._looked = time.monotonic()
                if why := self.shared.remember(connection):
                    raise sqlite3.OperationalError(why)

    def _put_right(self, connection: sqlite3.Connection) -> None:
        self._begin(connection)
        try:
            with _of_shared():
                inbox.put_right(connection)
        finally:
            if connection.in_transaction:
                connection.execute("COMMIT")

    # --- what others did to their file ----------------------------------------------------------------------------

    @contextmanager
    def _watched(self, reading: bool = False) -> Iterator[None]:
        """Translate errors. One that others have caused is reported as such, and handled, so that it does not
        occur again. Readers wait only for the file of others."""
        with translated(self.path):
            try:
                yield
            except (sqlite3.Error, ControllerError, UnicodeDecodeError) as error:
                cause = error.__cause__ if isinstance(error, ControllerError) else error
                if isinstance(cause, UnicodeDecodeError):  # of a row that was being fetched
                    cause = damaged(cause)
                if isinstance(cause, sqlite3.Error) and self._are_others_to_blame(cause, reading):
                    raise _set_aside(self.path, cause) from cause
                raise

    def _are_others_to_blame(self, error: sqlite3.Error, reading: bool) -> bool:
        """Return True if others have caused the error; the daemon then sets their file aside. Do not call it
        within a transaction, which ends with the same error."""
        code, handle = _primary(error), getattr(self._local, "handle", None)
        if code in _OURS or (handle is not None and handle.connection.in_transaction):
            return False
        if self.guest:
            return code in _SPOILT and bool(self.shared.fault())
        if handle is None:
            return False
        if self.shared.place() != handle.place:
            return True
        try:
            self._require_sound(handle)
            why = self._why(error, reading, handle.connection)
        except _Shared as found:
            why = str(found)
        except sqlite3.Error:  # of the state
            return False
        if why:
            self.shared.set_aside(why, handle.place.mark, self._first_wish(handle))
        return bool(why)

    def _why(self, error: sqlite3.Error, reading: bool, connection: sqlite3.Connection) -> str:
        """Return what is wrong with the file of others; "" if it is not the cause."""
        code = _primary(error)
        if code == sqlite3.SQLITE_TOOBIG:
            return str(error)
        if code == sqlite3.SQLITE_BUSY:
            return _HELD if reading else ""
        if (why := self.shared.fault()) or code not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return why
        is_whole = connection.execute("PRAGMA main.quick_check(1)").fetchone()[0] == "ok"
        return str(error) if is_whole else ""

    def _set_aside(self, error: _Shared, tries_left: int) -> None:
        if self.guest or not tries_left or _primary(error) in _OURS:
            raise error
        handle: _Handle | None = getattr(self._local, "handle", None)
        why = _HELD if _primary(error) == sqlite3.SQLITE_BUSY else str(error)
        # Not the file that is there now: another thread may have replaced the one that failed.
        self.shared.set_aside(why, self._local.place.mark, self._first_wish(handle))

    def _first_wish(self, handle: _Handle | None) -> int:
        try:
            return inbox.next_wish(handle.connection) if handle else inbox.FIRST_WISH
        except sqlite3.Error:
            return inbox.FIRST_WISH


_VERSIONS = ("PRAGMA main.data_version", f"PRAGMA {inbox.NAME}.data_version")
_SCHEMA_VERSION = f"PRAGMA {inbox.NAME}.schema_version"
_OUTERMOST = ("COMMIT", "ROLLBACK")
_NESTED = ("RELEASE nested", "ROLLBACK TO nested")
# Statements that change nothing and need the lock for it.
_LOCK_STATE = "DELETE FROM main.facts WHERE 0"
_LOCK_SHARED = "DELETE FROM asked.touched WHERE 0"
_TRIES = 3
_HELD = "it was held locked for too long"
_SPOILT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_IOERR}
# Errors of the machine, or of this program; never of what is in a file.
_OURS = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_CONSTRAINT}


def _primary(error: sqlite3.Error) -> int:
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def connect(path: Path, guest: bool = False, shared: Path | None = None) -> sqlite3.Connection:
    """Open a connection. `isolation_level=None`: the driver begins no transactions. No file is created. A
    guest also reads the index of the write-ahead log, without being able to change it.
    """
    uri = f"{path.absolute().as_uri()}?mode={'ro&readonly_shm=1' if guest else 'rw'}"
    connection = sqlite3.connect(
        uri,
        uri=True,
        timeout=BUSY_TIMEOUT,
        isolation_level=None,
        check_same_thread=False,
        factory=_Connection,
    )
    try:
        connection.row_factory = sqlite3.Row
        connection.text_factory = _read_text
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
        _set_up(connection, "main")
        with _of_shared():
            uri = f"{(shared or shared_path(path)).absolute().as_uri()}?mode=rw"
            connection.execute(f"ATTACH ? AS {inbox.NAME}", (uri,))
            _set_up(connection, inbox.NAME)
    except BaseException:
        connection.close()
        raise
    return connection


def _set_up(connection: sqlite3.Connection, name: str) -> None:
    connection.execute(f"PRAGMA {name}.synchronous = NORMAL")
    connection.execute(f"PRAGMA {name}.cache_size = -{CACHE}")
    connection.execute(f"PRAGMA {name}.journal_size_limit = {WAL_LIMIT}")
    connection.execute(f"PRAGMA {name}.schema_version")  # reads the file, which detects damage


@contextmanager
def prepare(path: Path, shared: SharedFile) -> Iterator[sqlite3.Connection]:
    """Yield a connection to set up the files, which are created with their folders if missing. Other
    processes that open the store wait meanwhile, because the change to WAL mode ignores the busy timeout.
    """
    folder = _claim_folder(path)
    try:
        with translated(path):
            connection = _prepared(path, shared)
            try:
                yield connection
            finally:
                connection.close()
                leave_open(path)
    finally:
        os.close(folder)


def _prepared(path: Path, shared: SharedFile) -> sqlite3.Connection:
    """Prepare the file of others, or set it aside if it is unusable."""
    shared.make_if_missing()
    for left in reversed(range(_TRIES)):
        place = shared.place()
        try:
            return _set_right(path, place)
        except _Shared as error:
            if not left or _primary(error) in _OURS:
                raise
            shared.set_aside(str(error), place.mark)
    raise AssertionError


def _set_right(path: Path, place: Place) -> sqlite3.Connection:
    connection = connect(path, shared=place.path)
    try:
        connection.execute("PRAGMA main.journal_mode = WAL")
        with _of_shared():
            connection.execute(f"PRAGMA {inbox.NAME}.journal_mode = WAL")
            if not inbox.is_sound(connection):
                connection.execute("BEGIN IMMEDIATE")
                try:
                    inbox.put_right(connection)
                finally:
                    connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def unprepared(path: Path) -> Iterator[None]:
    """Prevent other processes from setting up the files meanwhile."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_SH)
        yield
    finally:
        os.close(folder)


def _claim_folder(path: Path) -> int:
    """Create missing files and folders, and return a locked descriptor of the folder of `path`. We create the
    files, since SQLite would apply the umask and exclude the group.
    """
    shared = shared_path(path)
    try:
        _make_folder(path.parent, FOLDER_MODE)
        folder = os.open(path.parent, os.O_RDONLY)
        fcntl.flock(folder, fcntl.LOCK_EX)
        _make_folder(shared.parent, SHARED_FOLDER_MODE)
        _make_file(path, FILE_MODE)
        for suffix in LOGS:
            _close(path.with_name(path.name + suffix), FILE_MODE)
        _make_sticky(shared.parent)
        _close(shared, SHARED_FILE_MODE)
    except OSError as error:
        raise _UNWRITABLE.error(_doing(path), str(error.strerror)) from error
    return folder


def _make_folder(path: Path, mode: int) -> None:
    if not path.exists():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
    _close(path, mode)


def _make_sticky(folder: Path) -> None:
    """An older version let all who write there remove what others have made."""
    found = folder.stat()
    if found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX:
        folder.chmod(stat.S_IMODE(found.st_mode) | stat.S_ISVTX)


def _make_file(path: Path, mode: int) -> None:
    if not path.exists():
        file = os.open(path, os.O_CREAT | os.O_RDWR)
        os.fchmod(file, mode)
        os.close(file)
    _close(path, mode)


def _close(path: Path, mode: int) -> None:
    """Remove rights that exceed the mode: an older version let the group write."""
    with suppress(FileNotFoundError):
        found = path.lstat()  # in a folder of others, a link may have replaced it
        if stat.S_ISLNK(found.st_mode):
            return
        if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) & ~mode:
            path.chmod(mode)


def leave_open(path: Path) -> None:
    """Create empty log and index files. SQLite removes them with the last connection, and read-only users
    cannot open the database without them. Called by the owner after it has closed the database.
    """
    with suppress(OSError):
        for suffix in LOGS:
            _make_file(path.with_name(path.name + suffix), FILE_MODE)


@contextmanager
def transaction(db: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
    """Run the block in a transaction of a connection that makes none by itself. Whatever fails, the commit
    included, leaves no transaction open."""
    db.execute(begin)
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


@contextmanager
def database_for(path: Path, dry_run: bool) -> Iterator[Path]:
    """Yield the path of a database, or for a dry run of a copy that is removed at the end of the block."""
    if not dry_run:
        yield path
        return
    with TemporaryDirectory() as place:
        copy = Path(place) / path.name
        if path.exists():
            with (
                translated(path),
                closing(sqlite3.connect(path)) as found,
                closing(sqlite3.connect(copy)) as made,
            ):
                found.backup(made)
        yield copy


@contextmanager
def translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        known = translate(error, path)
        if known is None:
            raise  # a wrong statement or a violated constraint is a bug, and raised as one
        raise known from error


def translate(error: sqlite3.Error, path: Path) -> ControllerError | None:
    """Return what an SQLite error means for the caller; None if only a bug can have caused it."""
    code = getattr(error, "sqlite_errorcode", None)  # extended code; the low byte is the primary one
    if isinstance(error, _Shared) and (code or 0) & 0xFF in _SPOILT:
        return _set_aside(path, error)
    rule = _MEANING.get((code or 0) & 0xFF)
    return None if rule is None else rule.error(_doing(path), f"SQLite: {error}")


def _set_aside(path: Path, error: sqlite3.Error) -> ControllerError:
    return _SET_ASIDE.error(f"cannot use what others ask for, at {shared_path(path)}", f"SQLite: {error}")


def _doing(path: Path) -> str:
    return f"cannot use the state at {path}"


_SET_ASIDE = ErrorRule(
    Transient,
    Reason.STATE_SET_ASIDE,
    "It was set aside and is tried again. The history of @platform and 'prichal doctor' say why",
)
_BUSY = ErrorRule(
    Transient, Reason.STATE_BUSY, f"Another process has held it locked for {BUSY_TIMEOUT:.0f} s; trying again"
)
_FULL = ErrorRule(Transient, Reason.STATE_DISK_FULL, "Free some space on that disk; trying again")
_IO = ErrorRule(Transient, Reason.STATE_IO_ERROR, "Check the disk; trying again")
_UNWRITABLE = ErrorRule(
    Stalled,
    Reason.STATE_UNWRITABLE,
    "The daemon's user must be able to write it, its group to read it and to write the files in the folder asked next "
    "to it; 'prichal doctor' shows what differs",
)
_CORRUPT = ErrorRule(
    Stalled,
    Reason.STATE_CORRUPT,
    "It is damaged. Stop prichal, move the file and its -wal and -shm away, and start again: what is deployed is found "
    "again from Git, the container engine and the storage; suspensions, the history of events and which kept box was "
    "adopted by which are lost",
)
#: By SQLite's primary result code.
_MEANING: dict[int, ErrorRule] = {
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_IOERR: _IO,
    sqlite3.SQLITE_PERM: _UNWRITABLE,
    sqlite3.SQLITE_AUTH: _UNWRITABLE,
    sqlite3.SQLITE_READONLY: _UNWRITABLE,
    sqlite3.SQLITE_CANTOPEN: _UNWRITABLE,
    sqlite3.SQLITE_CORRUPT: _CORRUPT,
    sqlite3.SQLITE_NOTADB: _CORRUPT,
}
