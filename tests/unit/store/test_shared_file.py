"""Whatever others do to the file that they ask in: the daemon goes on, says so, and has a file again."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.domain.apps.requests import Outcome, Trigger
from controller.domain.apps.status import AppStatus, Rollback
from controller.domain.errors import ControllerError, Transient
from controller.domain.names import PLATFORM, AppName
from controller.store import SqliteStore, error_rules, open_guest_store, open_store, shared_file
from controller.store import sqlite as sqlite_module
from controller.store.inbox import FIRST_WISH, LAST_WISH
from controller.store.shared_file import asides, shared_path
from controller.store.sqlite import Database
from tests.support.waiting import wait_for

DEMO = AppName("demo")
NOW = 1_700_000_000.0


def clock() -> float:
    return NOW


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_module, "HELD", 0.2)
    monkeypatch.setattr(sqlite_module, "BUSY_TIMEOUT", 1.0)
    monkeypatch.setattr(sqlite_module, "_LOOK", 0.0)
    monkeypatch.setattr(sqlite_module, "_LOOK_THROUGH", 0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db" / "state.db"


@pytest.fixture
def owner(path: Path) -> Iterator[SqliteStore]:
    with closing(open_store(path, clock=clock)) as store:
        store.apps.save(AppStatus(DEMO))
        yield store


def as_web(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(shared_path(path), isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def turn(store: SqliteStore) -> None:
    """What the daemon does all the time: reads and writes of both files."""
    store.changed()
    store.heartbeat(NOW)
    store.apps.all()
    store.apps.save(AppStatus(DEMO, plan=f"plan {time.monotonic()}"))
    store.activity.of(DEMO)
    store.boxes.pending()
    store.repositories.replace(())
    store.requests.enqueue(DEMO, Trigger.POLL)
    store.prune()
    store.set_aside()
    with store.transaction():
        store.apps.status(DEMO)
    while request := store.requests.claim(NOW * 2):
        store.requests.finish(request.id, Outcome.READY, "", "")


def turns(store: SqliteStore, most: int) -> None:
    """As loops do it: what fails for now is tried again. It may not fail more often than `most` times."""
    for _ in range(most):
        try:
            turn(store)
        except Transient:
            continue
        return
    turn(store)


def require_service(path: Path, store: SqliteStore) -> None:
    """Others ask, and the daemon hears it."""
    with closing(open_guest_store(path, clock=clock)) as guest:
        wish = guest.requests.enqueue(DEMO, Trigger.MANUAL)
        store.changed()
        while request := store.requests.claim(NOW * 2):
            store.requests.finish(request.id, Outcome.READY, f"{request.app} is done", "")
        found = guest.requests.get(wish)
        assert found is not None
        assert found.message == "demo is done"


def garbage(file: Path) -> None:
    file.write_bytes(os.urandom(8192))


def torn(file: Path) -> None:
    """Its first page is whole."""
    with file.open("r+b") as content:
        content.seek(4096)
        content.write(b"\xff" * (file.stat().st_size - 4096))


def put(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def act(file: Path) -> None:
        file.unlink(missing_ok=True)
        make(file)

    return act


def large(file: Path) -> None:
    with file.open("r+b") as content:
        content.truncate(10 * 2**30)  # sparse


def linked(file: Path) -> None:
    """To a database of ours, in which nothing may be changed."""
    file.unlink()
    file.symlink_to("../state.db")


def with_rows(file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 150000)"
            " INSERT INTO activity SELECT 'demo', 'c' || i, 0 FROM n"
        )


def rebuilt(*statements: str) -> Callable[[Path], None]:
    """Another database in its place."""

    def act(file: Path) -> None:
        for each in file.parent.glob("asked.db*"):
            each.unlink()
        with closing(sqlite3.connect(file, isolation_level=None)) as db:
            for statement in statements:
                db.execute(statement)

    return act


SPOILT: dict[str, Callable[[Path], object]] = {
    "garbage": garbage,
    "a torn page": torn,
    "nothing in it": lambda file: file.write_bytes(b""),
    "cut off": lambda file: os.truncate(file, 5000),
    "removed": lambda file: file.unlink(),
    "a pipe": put(os.mkfifo),
    "a folder": put(os.mkdir),
    "a link to the state": linked,
    "a link to nothing": put(lambda file: file.symlink_to(file.with_name("nowhere"))),
    "a link to itself": put(lambda file: file.symlink_to(file)),
    "another name of the state": put(lambda file: os.link(file.parent.parent / "state.db", file)),
    "10 GiB": large,
    "too many rows": with_rows,
    "another encoding": rebuilt("PRAGMA encoding = 'UTF-16le'", "CREATE TABLE wishes (a)"),
    "a foreign schema": rebuilt("CREATE TABLE wishes (a)", "CREATE VIEW runs AS SELECT 1 AS id"),
    "an empty database": rebuilt("CREATE TABLE a (b)", "DROP TABLE a"),
    "its log a link": lambda file: put(lambda log: log.symlink_to("/etc/passwd"))(
        file.with_name("asked.db-wal")
    ),
}


def journal_of(victim: Path) -> bytes:
    """Of an interrupted transaction of several databases. Rolled back, it makes SQLite delete the file that it names
    as the one which holds them together (https://www.sqlite.org/fileformat.html#the_rollback_journal)."""
    magic, sector, page = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7", 512, 4096
    header = (magic + struct.pack(">IIIII", 0, 0, 2, sector, page)).ljust(sector, b"\0")
    name = os.fsencode(victim)
    checksum = sum(struct.unpack(f"{len(name)}b", name)) & 0xFFFFFFFF
    locked_page = 2**30 // page + 1
    return header + struct.pack(">I", locked_page) + name + struct.pack(">II", len(name), checksum) + magic


def planted(journal: Path, victim: Path) -> Path:
    """A journal in the same folder, by another name."""
    other = journal.with_name("other")
    other.write_bytes(journal_of(victim))
    return other


def folder_with_file(journal: Path, victim: Path) -> None:
    journal.mkdir()
    (journal / "file").write_text(victim.name)


JOURNALS: dict[str, Callable[[Path, Path], object]] = {
    "a journal": lambda journal, victim: journal.write_bytes(journal_of(victim)),
    "a link to one": lambda journal, victim: os.symlink(planted(journal, victim), journal),
    "another name of one": lambda journal, victim: os.link(planted(journal, victim), journal),
    "a pipe": lambda journal, victim: os.mkfifo(journal),
    "a folder with files": folder_with_file,
}


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "before it starts"])
@pytest.mark.parametrize("what", JOURNALS)
def test_a_planted_journal_deletes_nothing(
    path: Path, owner: SqliteStore, what: str, running: bool, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    turn(owner)
    shared = shared_path(path)
    if not running:
        owner.close()
    journal = shared.with_name("asked.db-journal")
    journal.unlink()
    JOURNALS[what](journal, victim)
    if running:
        thread = threading.Thread(target=turn, args=(owner,))
        thread.start()  # has a connection of its own
        thread.join()
        store = owner
    else:
        store = open_store(path, clock=clock)
    with closing(store):
        turn(store)
        require_service(path, store)
        assert victim.read_text() == "kept"
        found = journal.lstat()
        assert stat.S_ISREG(found.st_mode)
        assert not found.st_size
        assert not store.set_aside()


def test_a_planted_journal_is_a_danger(tmp_path: Path) -> None:
    """Else the test above shows nothing."""
    victim, path = tmp_path / "victim", tmp_path / "some.db"
    victim.write_text("deleted")
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE t (a)")
    path.with_name("some.db-journal").write_bytes(journal_of(victim))
    with closing(sqlite3.connect(path)) as db:
        db.execute("SELECT * FROM t").fetchall()
    assert not victim.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_others_cannot_replace_what_the_daemon_has_made(path: Path, owner: SqliteStore) -> None:
    turn(owner)
    folder = shared_path(path).parent
    child = os.fork()
    if not child:
        os._exit(replaced_as_another_user(folder))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (folder / "mine").exists()


def replaced_as_another_user(folder: Path) -> int:
    """How many files of the daemon another member of the group can remove, rename or replace; in a process of its
    own."""
    acts = (os.unlink, lambda name: os.rename(name, "other"), lambda name: os.replace("mine", name))
    done = 0
    os.chdir(folder)
    os.setgroups([])
    os.setgid(folder.stat().st_gid)
    os.setuid(65534)
    for act in acts:
        for name in ("asked.db", "asked.db-journal"):
            Path("mine").touch()
            try:
                act(name)
                done += 1
            except PermissionError:
                continue
    return done


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "before it starts"])
@pytest.mark.parametrize("what", SPOILT)
def test_what_is_spoilt_is_set_aside(path: Path, owner: SqliteStore, what: str, running: bool) -> None:
    turn(owner)
    before = path.parent.parent / "untouched"
    before.write_text("as it was")
    if running:
        SPOILT[what](shared_path(path))
        turns(owner, most=2)
        store = owner
    else:
        owner.close()
        SPOILT[what](shared_path(path))
        store = open_store(path, clock=clock)
    with closing(store):
        turn(store)
        assert store.apps.status(DEMO).plan.startswith("plan")
        require_service(path, store)
        assert store.damage() == ()
        with closing(open_guest_store(path, clock=clock)) as guest:
            assert guest.apps.status(DEMO).plan.startswith("plan"), "nothing was written through a link"
        store.set_aside()
        told = [event for event in store.events.list(PLATFORM) if event.reason == "StateSetAside"]
        put_right = what in ("a foreign schema", "an empty database", "nothing in it", "removed")
        assert put_right or "could not be used and was set aside" in told[-1].message


def test_a_lock_that_is_never_let_go(path: Path, owner: SqliteStore) -> None:
    with closing(sqlite3.connect(shared_path(path), isolation_level=None)) as web:
        web.execute("INSERT INTO decisions VALUES ('other', 1, '')")
        web.execute("BEGIN EXCLUSIVE")
        turn(owner)
        require_service(path, owner)
        assert owner.apps.status(AppName("other")).suspended, "what can be read is carried over"
    owner.set_aside()
    assert "held locked" in owner.events.list(PLATFORM)[-1].message


def test_all_threads_go_on(path: Path, owner: SqliteStore) -> None:
    """Each of them has the file open that is set aside."""
    failures: list[BaseException] = []
    start, over = threading.Barrier(5), threading.Event()

    def work() -> None:
        turn(owner)
        start.wait()
        while not over.is_set():
            try:
                owner.heartbeat(NOW)
                owner.apps.all()
                owner.apps.forget(AppName("other"))
            except Transient:
                continue
            except BaseException as error:  # noqa: BLE001 - for the test's own thread
                failures.append(error)
                return

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        start.wait()
        garbage(shared_path(path))
        wait_for(lambda: _is_served(path, owner), limit=60.0)
    finally:  # no connection may be closed that another thread uses
        over.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert [each.name for each in asides(shared_path(path))] == ["asked.db.aside-1"]


class LateDatabase(Database):
    """Its thread finds the damage while another one has already replaced the file."""

    found = False

    def _require_sound(self, handle: Any) -> None:
        if not self.found:
            self.found = True
            self.shared.set_aside("it is spoilt", handle.place.mark)
            raise error_rules.SharedFileError(sqlite3.DatabaseError("malformed"))
        super()._require_sound(handle)


def test_a_thread_that_comes_late_leaves_the_new_file_alone(path: Path, owner: SqliteStore) -> None:
    database = LateDatabase(path)
    with database.read() as db:
        assert db.execute("SELECT count(*) FROM asked.wishes").fetchone()[0] == 0
    database.close()
    assert [each.name for each in asides(shared_path(path))] == ["asked.db.aside-1"]


def _is_served(path: Path, store: SqliteStore) -> bool:
    try:
        turn(store)
        require_service(path, store)
    except (Transient, AssertionError):
        return False
    return True


def test_who_does_it_again_is_left_alone_for_a_while(
    path: Path, owner: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon converges at its usual speed, and looks again later."""
    monkeypatch.setattr(shared_file, "_FIRST_PAUSE", 2.0)
    rollback = Rollback("a" * 40, "b" * 40, "anna", NOW)
    for _ in range(2):
        turns(owner, most=2)
        owner.apps.set_suspended(DEMO, True)
        owner.apps.roll_back(DEMO, rollback)
        turn(owner)
        garbage(shared_path(path))
    turns(owner, most=2)
    for _ in range(20):
        garbage(shared_path(path))
        turn(owner)
        assert owner.apps.status(DEMO).suspended, "what people have decided stays in force"
        assert owner.apps.status(DEMO).rollback == rollback
    owner.set_aside()
    assert "is not looked at for" in owner.events.list(PLATFORM)[-1].message
    assert len(asides(shared_path(path))) == 1, "only the newest is kept"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        turns(owner, most=2)
        try:
            require_service(path, owner)
            break
        except (AssertionError, ControllerError):
            time.sleep(0.1)
    require_service(path, owner)


def test_a_flood_of_wishes_keeps_nobody_waiting(
    path: Path, owner: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {}) INSERT INTO {} SELECT {} FROM n"
    as_web(
        path,
        many.format(5_000, "wishes (app, reason, created, not_before)", "'app-' || i, 'manual', 0, 0"),
        many.format(5_000, "cancels", "'run-' || i, 'demo', 0"),
        many.format(5_000, "submissions", "'run-' || i, 'demo', 'x'"),
    )
    with caplog.at_level(logging.WARNING):
        begun = time.monotonic()
        owner.changed()
        owner.heartbeat(NOW)
        assert time.monotonic() - begun < 10, "it is taken by and by"
    assert len(caplog.records) < 50
    for _ in range(20):
        if not owner.changed() and not owner._untaken:
            break
    with closing(sqlite3.connect(path)) as db:
        (queued,) = db.execute("SELECT count(*) FROM requests WHERE state = 'queued'").fetchone()
        assert queued <= 1001
    require_service(path, owner)


@pytest.mark.parametrize("last", [LAST_WISH, LAST_WISH - 1, LAST_WISH + 5, 2**62])
def test_ids_of_wishes_do_not_run_out(path: Path, owner: SqliteStore, last: int) -> None:
    as_web(path, f"INSERT INTO wishes VALUES ({last}, 'demo', 'manual', 0, 0)")  # noqa: S608
    turn(owner)
    as_web(path, "INSERT INTO wishes (app, reason, created, not_before) VALUES ('demo', 'poll', 0, 0)")
    turn(owner)
    require_service(path, owner)


def test_ids_of_wishes_are_not_given_again(path: Path, owner: SqliteStore) -> None:
    """One that was taken counts once, also after the table was made again."""
    acts: tuple[Callable[[], None], ...] = (
        lambda: as_web(path, "DROP TABLE wishes"),
        lambda: garbage(shared_path(path)),
    )
    for act in acts:
        require_service(path, owner)
        act()
        turns(owner, most=2)
        with closing(open_guest_store(path, clock=clock)) as guest:
            assert guest.requests.enqueue(DEMO, Trigger.MANUAL) > FIRST_WISH
        require_service(path, owner)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    place=st.integers(0, 200_000),
    what=st.binary(min_size=1, max_size=200),
    file=st.sampled_from(["", "-wal"]),
)
def test_bytes_anywhere_stop_nothing(
    path: Path, owner: SqliteStore, monkeypatch: pytest.MonkeyPatch, place: int, what: bytes, file: str
) -> None:
    monkeypatch.setattr(shared_file, "_SOON", 0.0)  # the daemon would leave the file alone
    with closing(open_guest_store(path, clock=clock)) as guest:
        guest.requests.enqueue(DEMO, Trigger.MANUAL)
        guest.apps.set_suspended(DEMO, False)
        spoilt = shared_path(path).with_name(f"asked.db{file}")
        if spoilt.exists() and spoilt.stat().st_size:
            with spoilt.open("r+b") as content:
                content.seek(place % spoilt.stat().st_size)
                content.write(what)
    turns(owner, most=4)
    assert owner.last_heartbeat() == NOW


def test_a_guest_is_told_that_the_daemon_sees_to_it(path: Path, owner: SqliteStore) -> None:
    with closing(open_guest_store(path, clock=clock)) as guest:
        guest.requests.enqueue(DEMO, Trigger.MANUAL)
        garbage(shared_path(path))
        with pytest.raises(Transient) as caught:
            open_guest_store(path, clock=clock)
        assert caught.value.reason == "StateSetAside"
        turns(owner, most=2)
        assert guest.requests.enqueue(DEMO, Trigger.POLL) >= FIRST_WISH
    require_service(path, owner)


def test_what_can_be_read_is_carried_over(path: Path, owner: SqliteStore) -> None:
    with closing(open_guest_store(path, clock=clock)) as guest:
        guest.apps.set_suspended(AppName("other"), True)
        guest.activity.touch([(DEMO, "c")], 5.0)  # type: ignore[list-item]
    as_web(path, "INSERT INTO touched VALUES ('prichal.demo.box', 1)")
    with_rows(shared_path(path))
    turns(owner, most=2)
    assert len(asides(shared_path(path))) == 1
    assert owner.apps.status(AppName("other")).suspended
    with closing(sqlite3.connect(shared_path(path))) as db:
        assert db.execute("SELECT * FROM touched").fetchall() == [("prichal.demo.box", 1.0)]
