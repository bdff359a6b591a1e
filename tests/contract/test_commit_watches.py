"""What both watches for commits promise to who waits, over a real database. No wait here ends by its time: a wake-up
that is lost is a test that hangs, which its own timeout ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from controller.domain.apps.requests import Trigger
from controller.domain.names import AppName
from controller.inotify import FolderEvents
from controller.ports import CommitWatch
from controller.store import SqliteStore, open_guest_store
from controller.store.commit_watch import InotifyCommitWatch, PollingCommitWatch
from controller.store.shared_file import shared_path
from tests.support.stores import open_store

APP = AppName("demo")
FOR_EVER = 3600.0  # seconds

MAKERS: dict[str, Callable[[Path], CommitWatch]] = {
    "inotify": lambda path: InotifyCommitWatch(FolderEvents([path.parent, shared_path(path).parent])),
    "polling": lambda path: PollingCommitWatch(),
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(open_store(tmp_path / "db" / "state.db")) as made:
        yield made


@pytest.fixture(params=MAKERS)
def watch(request: pytest.FixtureRequest, store: SqliteStore, tmp_path: Path) -> Iterator[CommitWatch]:
    with closing(MAKERS[request.param](tmp_path / "db" / "state.db")) as made:
        yield made


@contextmanager
def waiting(work: Callable[[], object]) -> Iterator[threading.Event]:
    """Run the work in a thread beside the block, which ends when it does."""
    begun = threading.Event()

    def run() -> None:
        begun.set()
        work()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    begun.wait()
    yield begun
    thread.join()


def until_changed(store: SqliteStore, watch: CommitWatch) -> None:
    while not store.changed():
        watch.wait(FOR_EVER)


def test_each_commit_of_another_thread_is_seen(store: SqliteStore, watch: CommitWatch) -> None:
    store.changed()
    for number in range(200):
        with waiting(lambda: until_changed(store, watch)):
            store.heartbeat(float(number))


def test_requests_of_other_processes_wake_the_daemon(
    store: SqliteStore, watch: CommitWatch, tmp_path: Path
) -> None:
    store.changed()

    def until_asked() -> None:
        while store.requests.queued(APP) is None:
            watch.wait(FOR_EVER)
            store.changed()

    with closing(open_guest_store(tmp_path / "db" / "state.db")) as guest, waiting(until_asked):
        guest.requests.enqueue(APP, Trigger.PUSH)


def test_a_commit_before_the_wait_counts(store: SqliteStore, watch: CommitWatch) -> None:
    store.heartbeat(1.0)
    watch.wait(FOR_EVER)


def test_a_thread_can_be_woken_before_and_while_it_waits(watch: CommitWatch) -> None:
    watch.wake()
    watch.wait(FOR_EVER)
    with waiting(lambda: watch.wait(FOR_EVER)):
        watch.wake()


def test_a_wait_ends_after_its_time(watch: CommitWatch) -> None:
    watch.wait(0.0)
    watch.wait(0.001)


def test_who_wakes_a_closed_watch_does_nothing(watch: CommitWatch) -> None:
    watch.close()
    watch.close()
    watch.wake()


def test_the_store_opens_one_with_inotify(store: SqliteStore) -> None:
    with closing(store.commit_watch()) as found:
        assert isinstance(found, InotifyCommitWatch)
