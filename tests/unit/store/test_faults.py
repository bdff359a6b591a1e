"""What can go wrong with the file: each fault is told with what to do, and nothing that was committed is lost."""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlite_utils

from controller.domain.apps.requests import Trigger
from controller.domain.apps.status import AppStatus
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.names import AppName
from controller.store import SqliteStore, error_rules, open_store
from controller.store.schema import migrations
from controller.store.sqlite import Database
from controller.store.version import VERSION

A = AppName("a")


def test_the_folder_and_the_files_belong_to_the_group(store: SqliteStore, path: Path) -> None:
    store.heartbeat(1.0)
    store.apps.set_suspended(A, True)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o2750
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.rglob("*")}
    assert modes == {
        "state.db": 0o640,
        "state.db-wal": 0o640,
        "state.db-shm": 0o640,
        "asked": 0o3770,
        "asked.db": 0o660,
        "asked.db-wal": 0o660,
        "asked.db-shm": 0o660,
        "asked.db-journal": 0o600,
    }


def test_the_version_is_the_number_of_migrations(store: SqliteStore, path: Path) -> None:
    assert len(migrations._migrations) == VERSION
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == VERSION
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    connection.close()


@pytest.mark.parametrize(("version", "next_step"), [(1, "m002_activity"), (2, "m003_boxes")])
def test_a_state_of_an_older_version_is_brought_up_to_date(path: Path, version: int, next_step: str) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrations.apply(sqlite_utils.Database(connection, execute_plugins=False), stop_before=next_step)
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("INSERT INTO facts VALUES ('heartbeat', 7)")
    with closing(open_store(path)) as store:
        assert store.last_heartbeat() == 7.0
        assert store.activity.of(A) == {}
        assert store.boxes.all() == ()
        assert store.boxes.access() is None
        assert store.routes.services() == ()


def test_runs_of_an_older_version_are_found_by_their_cause(path: Path) -> None:
    """A row that cannot be read has no cause, and hinders no upgrade."""
    open_store(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP INDEX runs_by_cause")
        connection.execute("ALTER TABLE runs DROP COLUMN cause")
        connection.execute("ALTER TABLE secret_changes_taken DROP COLUMN told")
        connection.execute("DELETE FROM _sqlite_migrations WHERE name = 'm016_causes'")
        connection.execute("PRAGMA user_version = 15")
        fields = "id, app, pipeline, state, priority, concurrency, created, version, run"
        for id, text in (
            ("a1", '{"cause":"schedule"}'),
            ("a2", '{"cause":"api"}'),
            ("a3", "no JSON"),
            ("a4", "{}"),
        ):
            row = (id, A, "train", "FAILED", 0, 1, 1.0, 0, text)
            connection.execute(f"INSERT INTO runs ({fields}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608
    open_store(path).close()
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT id, cause FROM runs ORDER BY id").fetchall()
    assert found == [("a1", "schedule"), ("a2", "api"), ("a3", ""), ("a4", "")]


def test_opening_again_keeps_everything(store: SqliteStore, path: Path) -> None:
    store.apps.save(AppStatus(A, failures=3))
    store.close()
    again = open_store(path)
    assert again.apps.status(A).failures == 3
    again.close()


def test_a_state_of_a_newer_version_is_refused(store: SqliteStore, path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    with pytest.raises(Stalled, match="newer version") as caught:
        open_store(path)
    assert caught.value.reason == "StateTooNew"


def test_a_file_that_is_no_database(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is not a database, it is a letter\n" * 100)
    with pytest.raises(Stalled, match="move the file") as caught:
        open_store(path)
    assert caught.value.reason == "StateCorrupt"


def test_a_damaged_page(store: SqliteStore, path: Path) -> None:
    store.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    with pytest.raises(Stalled) as caught, closing(open_store(path)) as damaged:
        damaged.apps.save(AppStatus(A))
    assert caught.value.reason == "StateCorrupt"


def test_damage_is_found_by_looking_for_it(store: SqliteStore, path: Path) -> None:
    store.apps.save(AppStatus(A, plan="x" * 20_000))
    assert store.damage() == ()
    store.close()
    with path.open("r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(os.urandom(4096))
    again = open_store(path)
    assert again.damage() != ()
    again.close()


@pytest.fixture
def folder_of_another_user() -> Iterator[Path]:
    """A folder that this process may read and not write, though the tests may run as root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        open_store(folder / "state.db").close()
        (folder / "state.db").chmod(0o444)
        folder.chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        yield folder
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


def test_a_state_that_may_not_be_written(folder_of_another_user: Path) -> None:
    with pytest.raises(Stalled, match="prichal doctor") as caught:
        open_store(folder_of_another_user / "state.db").heartbeat(1.0)
    assert caught.value.reason == "StateUnwritable"


def test_a_state_that_may_not_be_made(folder_of_another_user: Path) -> None:
    with pytest.raises(Stalled, match="prichal doctor") as caught:
        open_store(folder_of_another_user / "new" / "state.db")
    assert caught.value.reason == "StateUnwritable"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "db").write_text("a file where the folder should be")
    with pytest.raises(Stalled, match="prichal doctor") as caught:
        open_store(tmp_path / "db" / "state.db")
    assert caught.value.reason == "StateUnwritable"


def test_a_state_that_was_removed_under_a_running_process(store: SqliteStore, path: Path) -> None:
    store.close()
    for file in path.parent.glob("state.db*"):
        file.unlink()
    with pytest.raises(Stalled) as caught:
        store.heartbeat(1.0)
    assert caught.value.reason == "StateUnwritable"


def test_a_full_disk(store: SqliteStore, path: Path) -> None:
    database = Database(path)
    with database.read() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own way to have no room
    with pytest.raises(Transient) as caught, database.write() as connection:
        connection.execute("INSERT INTO apps (app, status) VALUES ('a', ?)", ("x" * 10**6,))
    assert caught.value.reason == "StateDiskFull"
    with database.read() as connection:
        assert not connection.in_transaction
    assert store.apps.all() == ()


def test_a_lock_that_is_never_let_go(store: SqliteStore, path: Path) -> None:
    holder, waiter = Database(path), Database(path)
    with waiter.read() as connection:
        connection.execute("PRAGMA busy_timeout = 1")
    with holder.write(), pytest.raises(Transient) as caught, waiter.write():
        pass
    assert caught.value.reason == "StateBusy"


def test_every_sqlite_error_is_translated_or_a_bug_of_ours() -> None:
    """The table of meanings covers what the machine can do to us; the rest only wrong code causes."""
    bugs = {
        "SQLITE_OK", "SQLITE_ERROR", "SQLITE_INTERNAL", "SQLITE_ABORT", "SQLITE_NOMEM", "SQLITE_INTERRUPT",
        "SQLITE_NOTFOUND", "SQLITE_EMPTY", "SQLITE_SCHEMA", "SQLITE_TOOBIG", "SQLITE_CONSTRAINT",
        "SQLITE_MISMATCH", "SQLITE_MISUSE", "SQLITE_NOLFS", "SQLITE_FORMAT", "SQLITE_RANGE", "SQLITE_NOTICE",
        "SQLITE_WARNING", "SQLITE_ROW", "SQLITE_DONE",
    }  # fmt: skip
    codes = {getattr(sqlite3, name): name for name in bugs}
    for code in range(29):
        error = sqlite3.OperationalError("made by a test")
        error.sqlite_errorcode = code | (3 << 8)  # an extended code of it
        known = error_rules.translate(error, Path("/var/lib/prichal/db/state.db"))
        assert (known is None) == (code in codes), f"result code {code}"
        assert known is None or "/var/lib/prichal/db/state.db" in str(known)


def test_a_failed_transaction_leaves_nothing(store: SqliteStore) -> None:
    def act() -> None:
        with store.transaction():
            store.requests.enqueue(A, Trigger.PUSH)
            store.apps.save(AppStatus(A))
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        act()
    assert store.requests.queued(A) is None
    assert store.apps.all() == ()


def test_a_nested_transaction_joins_the_outer_one(store: SqliteStore) -> None:
    def act() -> None:
        with store.transaction():
            with store.transaction():
                store.apps.save(AppStatus(A))
            raise RuntimeError("in the outer one")

    with pytest.raises(RuntimeError, match="outer"):
        act()
    assert store.apps.all() == ()


def test_the_failure_of_a_nested_transaction_takes_back_only_itself(store: SqliteStore) -> None:
    def act() -> None:
        with store.transaction():
            store.apps.save(AppStatus(A))
            raise RuntimeError("in the inner one")

    with store.transaction():
        store.requests.enqueue(A, Trigger.PUSH)
        with pytest.raises(RuntimeError, match="inner"):
            act()
    assert store.requests.queued(A) is not None
    assert store.apps.all() == ()


def test_errors_of_the_caller_stay_what_they_are(store: SqliteStore) -> None:
    with pytest.raises(FileNotFoundError), store.transaction():
        Path("/nowhere/at/all").read_text()


def test_changed_sees_the_commits_of_other_connections(store: SqliteStore, path: Path) -> None:
    other = open_store(path)
    assert store.changed(), "asked for the first time: it may have"
    assert not store.changed()
    store.heartbeat(1.0)
    assert not store.changed(), "its own commit is no news"
    other.heartbeat(2.0)
    assert store.changed()
    assert not store.changed()
    other.close()


def test_threads_share_a_store_and_see_each_other(store: SqliteStore) -> None:
    store.changed()
    failures: list[ControllerError] = []

    def write(name: str) -> None:
        try:
            for n in range(50):
                store.apps.save(AppStatus(AppName(name), failures=n))
        except ControllerError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(f"app-{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.changed()
    assert [status.failures for status in store.apps.all()] == [49] * 6
