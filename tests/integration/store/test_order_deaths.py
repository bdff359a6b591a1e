"""Making and deleting an app, with the process killed right before each thing that it changes: the web process while it
places the order, the daemon while it carries it out, the web process while it writes down the role. After a restart of
all, the app is there with its developer and complete, or nothing of it is left.

A process counts what it is going to change (Python's audit events for files, and each transaction), and ends itself
with SIGKILL at one of them. Modes of files are left out: they are set again by what is repeated.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from controller.config import Settings
from controller.domain.apps.orders import OrderState
from controller.domain.people.roles import Grant, Role
from controller.store import open_guest_store, open_store
from controller.store.people_file import PeopleFile
from controller.store.sqlite import Database
from tests.support.ordering import Host, settings_in

NAME = "pu-anna-pa-demo"
#: Audit events of Python that change files.
CHANGES = frozenset({"os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir"})
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Countdown:
    """Kills the process before its n-th change below a folder."""

    def __init__(self, folder: Path, fatal: int) -> None:
        self._folder = str(folder)
        self._left = fatal
        self.seen = 0

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES or (event == "open" and int(arguments[2] or 0) & WRITES):
            path = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | Path) else self._folder
            if path.startswith(self._folder) and not path.endswith(("-shm", "-wal", ".lock")):
                self.step()

    def step(self) -> None:
        self.seen += 1
        if self.seen == self._left:
            os.kill(os.getpid(), signal.SIGKILL)


def in_a_process(work: Callable[[], None], folder: Path, fatal: int = 0) -> int:
    """Run it in a process of its own, which is killed before its change number `fatal`; return how many there were, or
    0 if it was killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        countdown = Countdown(folder, fatal)
        sys.addaudithook(countdown.hook)
        count_transactions(countdown)
        status = 1
        try:
            work()
            os.write(writer, str(countdown.seen).encode())
            status = 0
        except BaseException:  # noqa: BLE001 - shown, and seen by the status
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    _, ended = os.waitpid(child, 0)
    told = os.read(reader, 100)
    os.close(reader)
    killed = os.WIFSIGNALED(ended) and os.WTERMSIG(ended) == signal.SIGKILL
    assert killed or os.waitstatus_to_exitcode(ended) == 0
    return int(told or b"0")


def count_transactions(countdown: Countdown) -> None:
    """Each that writes counts twice: before it begins, and before it is committed."""
    begin, opened = Database.write, PeopleFile.opened

    @contextmanager
    def write(self: Database) -> Iterator[Any]:
        countdown.step()
        with begin(self) as db:
            yield db
            countdown.step()

    @contextmanager
    def open_people(self: PeopleFile, write: bool = False) -> Iterator[Any]:
        with opened(self, write) as db:
            yield db
            if write:
                countdown.step()

    Database.write = write  # type: ignore[method-assign]
    PeopleFile.opened = open_people  # type: ignore[method-assign]


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings: Settings = settings_in(folder)

    def reset(self, source: Path) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(source, self.folder, symlinks=True)

    def web(self, work: Callable[[Host], None]) -> Callable[[], None]:
        def run() -> None:
            store = open_guest_store(self.settings.database)
            work(Host(self.settings, store))
            store.close()

        return run

    def daemon(self) -> None:
        store = open_store(self.settings.database)
        store.requests.recover()
        store.requests.claim(time.time())
        Host(self.settings, store).work()
        store.close()

    def everything(self) -> None:
        """All processes start again and go on until nothing is left to do; the limit on lost orders has passed."""
        self.daemon()
        store = open_store(self.settings.database)
        host = Host(self.settings, store)
        for promise in host.people.promises():
            if store.orders.get(promise.id) is None:
                host.people.drop_promise(promise)
        host.settle()
        store.close()


@pytest.fixture
def world(tmp_path: Path) -> World:
    """The daemon has run once, and anna has an account."""
    (tmp_path / "host").mkdir()
    world = World(tmp_path / "host")
    world.settings.repositories.mkdir(parents=True)

    def begin() -> None:
        open_store(world.settings.database).close()
        Host(world.settings, open_store(world.settings.database)).people.add("anna", 0.0)

    in_a_process(begin, tmp_path)
    return world


def steps_of(
    world: World, works: dict[str, Callable[[], None]], check: Callable[[], None], kept: Path
) -> int:
    """Kill each of the processes before each of its changes, restart all, and check. Return how often."""

    def restarted() -> None:
        world.everything()
        check()

    deaths = 0
    for name, work in works.items():
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(world.folder, kept, symlinks=True)
        number = in_a_process(work, world.folder)
        assert number, name
        for fatal in range(1, number + 1):
            world.reset(kept)
            assert in_a_process(work, world.folder, fatal) == 0, (name, fatal)
            in_a_process(restarted, world.folder)
            deaths += 1
        world.reset(kept)
        in_a_process(work, world.folder)
    return deaths


def test_an_app_is_whole_or_not_there(world: World, tmp_path: Path) -> None:
    def place(host: Host) -> None:
        host.place(host.order(NAME, 1), "anna")

    def check() -> None:
        host = Host(world.settings, open_store(world.settings.database))
        record = host.store.orders.get(f"{1:032x}")
        if record is None:
            assert (host.left(), host.people.grants(0.0)) == (set(), ())
        else:
            assert record.state is OrderState.DONE
            assert host.left() == {f"{NAME}.yaml", f"{NAME}.secret.yaml", f"{NAME}.git"}
            assert len(host.spec().apps) == 1
            assert "Dockerfile" in host.commit(NAME)
            assert host.people.grants(0.0) == (Grant("anna", Role.DEVELOPER, NAME),)
        assert (host.people.promises(), host.store.orders.unfinished()) == ((), ())

    works = {"place": world.web(place), "work": world.daemon, "settle": world.web(Host.settle)}
    assert steps_of(world, works, check, tmp_path / "kept") > 30


def test_an_app_is_deleted_as_a_whole(world: World, tmp_path: Path) -> None:
    def make() -> None:
        host = Host(world.settings, open_store(world.settings.database))
        host.place(host.order(NAME, 1), "anna")
        host.work()
        host.settle()

    in_a_process(make, world.folder)

    def place(host: Host) -> None:
        host.place(host.removal(NAME, 2))

    def check() -> None:
        host = Host(world.settings, open_store(world.settings.database))
        deleted = world.settings.repositories / "deleted"
        if host.store.orders.get(f"{2:032x}") is None:
            assert len(host.spec().apps) == 1
            assert host.people.grants(0.0) == (Grant("anna", Role.DEVELOPER, NAME),)
        else:
            assert host.found(2).state is OrderState.DONE
            assert (host.left(), host.people.grants(0.0)) == (set(), ())
            assert [path.name for path in deleted.iterdir()] == [f"{NAME}.{2:032x}.git"]
        assert (host.people.promises(), host.store.orders.unfinished()) == ((), ())

    works = {"place": world.web(place), "work": world.daemon, "settle": world.web(Host.settle)}
    assert steps_of(world, works, check, tmp_path / "kept") > 15
