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

import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from controller.domain.errors import ControllerError, Stalled
from controller.domain.reasons import Reason
from controller.domain.text import storable
from controller.store import inbox, large_values
from controller.store.database_files import announce, claim_folder, leave_open
from controller.store.error_rules import (
    BUSY_TIMEOUT,
    SPOILT,
    UNSETTLED,
    SharedFileError,
    of_shared_file,
    primary_code,
    set_aside_error,
    translated,
)
from controller.store.shared_file import LONGEST_VALUE, Place, SharedFile, damaged, inspect_path, shared_path

log = logging.getLogger(__name__)

#: Seconds that the daemon waits for the file that others write, while it holds the lock of the state.
HELD = 5.0
#: Seconds within which another attempt of a guest to read finds the index of the log as a whole, if the daemon lives;
#: the gateway reads on its event loop.
_SETTLES = 0.1
_AGAIN = 0.002  # seconds between two attempts
_LOOK = 5.0  # seconds between two looks at how much others have written
_LOOK_THROUGH = 60.0  # seconds between two looks at all of it
WAL_LIMIT = 16 * 2**20  # bytes kept of the write-ahead log after a checkpoint
#: KiB of a database that a connection keeps in memory. Each thread has one to each database, and would keep four times
#: as much of the large values that it has read once; the kernel has the pages, too.
CACHE = 500


class _Connection(large_values.Connection):
    """A connection that stores texts which are not valid UTF-8 with U+FFFD. This is the last resort for texts
    that were not made `printable`: a lost character is better than a lost status. A statement that has found the index
    of the log in the middle of a change is run again.
    """

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        try:
            return super().execute(sql, _storable(parameters))
        # SQLite quotes a schema in its message, whatever the bytes of that are.
        except UnicodeDecodeError as error:
            raise damaged(error) from error
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode not in UNSETTLED or self.in_transaction:
                raise
        return self._again(sql, parameters)

    def _again(self, sql: str, parameters: Any) -> sqlite3.Cursor:
        deadline = time.monotonic() + _SETTLES
        while True:
            time.sleep(_AGAIN)
            try:
                return super().execute(sql, _storable(parameters))
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode not in UNSETTLED or time.monotonic() > deadline:
                    raise

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

    def __init__(self, connection: _Connection, place: Place) -> None:
        self.connection = connection
        self.place = place  # of `asked`
        self.process = os.getpid()
        self.seen: tuple[int, ...] | None = None  # data_versions at the last `changed()`
        self.schema: int | None = None  # the version of the schema of `asked` that was checked

    def __del__(self) -> None:
        self.connection.close()


_inherited: list[_Handle] = []  # connections of a parent process: they must be neither used nor closed here


class _ThreadState(threading.local):
    """`place`: where the file of others was last found. `depth`: how many uses of the connection are within each other
    at the moment."""

    place: Place
    handle: _Handle | None = None
    depth = 0


class Database:
    """The file at `path`, which must exist (`prepare`), together with the requests of other processes. A
    `guest` reads the state and writes requests; the owner writes both.
    """

    def __init__(self, path: Path, guest: bool = False) -> None:
        self.path = path
        self.guest = guest
        self.shared = SharedFile(shared_path(path), path.with_name("asked-own.db"))
        self._looked = self._looked_through = 0.0
        self._local = _ThreadState()
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
            rows = connection.total_changes
            try:
                yield connection
                connection.execute(commit)
            except BaseException:
                if connection.in_transaction:  # a full disk makes SQLite roll back by itself
                    connection.execute(rollback)
                    if nested:
                        connection.execute(commit)
                raise
            if not nested and connection.total_changes != rows:
                announce(self.shared.path if self.guest else self.path)

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
                self.shared.set_aside(why, place.mark, self._first_wish(self._local.handle))

    def close(self) -> None:
        with self._lock:
            for handle in self._handles:
                handle.connection.close()
        self._local = _ThreadState()
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
            except SharedFileError as error:
                self._set_aside(error, left)
        raise AssertionError

    def _sound_handle(self) -> _Handle:
        handle: _Handle | None = self._local.handle
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

    @contextmanager
    def _used(self) -> Iterator[None]:
        """Close this thread's connection after its last use if it keeps a large value."""
        self._local.depth += 1
        try:
            yield
        finally:
            self._local.depth -= 1
            if not self._local.depth:
                self._forget_large()

    def _forget_large(self) -> None:
        handle = self._local.handle
        if handle is not None and handle.connection.keeps_large and handle.process == os.getpid():
            self._local.handle = None

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
            except SharedFileError as error:
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
            with of_shared_file():
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
        with of_shared_file():
            version: int = connection.execute(_SCHEMA_VERSION).fetchone()[0]
            is_sound = version == handle.schema or inbox.is_sound(connection)
        if not is_sound:
            log.error("the schema of %s was changed from outside; it is restored", self.shared.path)
            self._put_right(connection)
        with of_shared_file():
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
            with of_shared_file():
                inbox.put_right(connection)
        finally:
            if connection.in_transaction:
                connection.execute("COMMIT")

    # --- what others did to their file ----------------------------------------------------------------------------

    @contextmanager
    def _watched(self, reading: bool = False) -> Iterator[None]:
        """Translate errors. One that others have caused is reported as such, and handled, so that it does not
        occur again. Readers wait only for the file of others."""
        with translated(self.path), self._used():
            try:
                yield
            except (sqlite3.Error, ControllerError, UnicodeDecodeError) as error:
                cause = error.__cause__ if isinstance(error, ControllerError) else error
                if isinstance(cause, UnicodeDecodeError):  # of a row that was being fetched
                    cause = damaged(cause)
                if isinstance(cause, sqlite3.Error) and self._are_others_to_blame(cause, reading):
                    raise set_aside_error(self.path, cause) from cause
                raise

    def _are_others_to_blame(self, error: sqlite3.Error, reading: bool) -> bool:
        """Return True if others have caused the error; the daemon then sets their file aside. Do not call it
        within a transaction, which ends with the same error."""
        code, handle = primary_code(error), self._local.handle
        if code in _OURS or (handle is not None and handle.connection.in_transaction):
            return False
        if self.guest:
            return code in SPOILT and bool(self.shared.fault())
        if handle is None:
            return False
        if self.shared.place() != handle.place:
            return True
        try:
            self._require_sound(handle)
            why = self._why(error, reading, handle.connection)
        except SharedFileError as found:
            why = str(found)
        except sqlite3.Error:  # of the state
            return False
        if why:
            self.shared.set_aside(why, handle.place.mark, self._first_wish(handle))
        return bool(why)

    def _why(self, error: sqlite3.Error, reading: bool, connection: sqlite3.Connection) -> str:
        """Return what is wrong with the file of others; "" if it is not the cause."""
        code = primary_code(error)
        if code == sqlite3.SQLITE_TOOBIG:
            return str(error)
        if code == sqlite3.SQLITE_BUSY:
            return _HELD if reading else ""
        if (why := self.shared.fault()) or code not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return why
        is_whole = connection.execute("PRAGMA main.quick_check(1)").fetchone()[0] == "ok"
        return str(error) if is_whole else ""

    def _set_aside(self, error: SharedFileError, tries_left: int) -> None:
        if self.guest or not tries_left or primary_code(error) in _OURS:
            raise error
        handle: _Handle | None = self._local.handle
        why = _HELD if primary_code(error) == sqlite3.SQLITE_BUSY else str(error)
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
# Errors of the machine, or of this program; never of what is in a file.
_OURS = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_CONSTRAINT}


def connect(path: Path, guest: bool = False, shared: Path | None = None) -> _Connection:
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
        with of_shared_file():
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
    folder = claim_folder(path)
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
        except SharedFileError as error:
            if not left or primary_code(error) in _OURS:
                raise
            shared.set_aside(str(error), place.mark)
    raise AssertionError


def _set_right(path: Path, place: Place) -> sqlite3.Connection:
    connection = connect(path, shared=place.path)
    try:
        connection.execute("PRAGMA main.journal_mode = WAL")
        with of_shared_file():
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
