"""Wake-ups after commits: what is announced, files and folders that are replaced, many commits, and the lack of
inotify. What who waits may rely on is in tests/contract/test_commit_watches.py."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from controller.domain.apps.requests import Trigger
from controller.domain.names import AppName
from controller.inotify import FolderEvents
from controller.store import SqliteStore
from controller.store.commit_watch import InotifyCommitWatch, PollingCommitWatch, open_commit_watch
from controller.store.database_files import announce
from tests.support.stores import open_store

APP = AppName("demo")
FOR_EVER = 3600.0  # seconds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db" / "state.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(open_store(path)) as made:
        yield made


def is_readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class ExpectedError(Exception):
    pass


def test_only_what_was_committed_and_has_changed_something_wakes(store: SqliteStore, path: Path) -> None:
    with closing(FolderEvents([path.parent])) as events:
        store.heartbeat(1.0)
        assert is_readable(events.fileno())
        events.clear()
        with pytest.raises(ExpectedError), store.transaction():
            store.heartbeat(2.0)
            raise ExpectedError
        with store.transaction():
            pass
        with store.dry_run():
            store.requests.enqueue(APP, Trigger.PUSH)
        assert not is_readable(events.fileno())
        with store.transaction():
            store.heartbeat(3.0)
            assert not is_readable(events.fileno()), "nobody can see it yet"
        assert is_readable(events.fileno())


def test_many_commits_are_one_wake_up(path: Path, store: SqliteStore) -> None:
    with closing(InotifyCommitWatch(FolderEvents([path.parent]))) as watch:
        for number in range(500):
            store.heartbeat(float(number))
        watch.wait(FOR_EVER)
        assert not is_readable(watch.fileno())


def test_who_floods_the_watch_is_read_in_few_turns_and_nothing_is_forgotten(tmp_path: Path) -> None:
    """Neighbours that are equal are one event, so they are of two files. The kernel keeps as many as one setting says,
    and then reports that some are missing, which is an event, too."""
    files = [tmp_path / "one", tmp_path / "two"]
    for file in files:
        file.touch()
    with closing(InotifyCommitWatch(FolderEvents([tmp_path]))) as watch:
        for _ in range(20_000):
            for file in files:
                announce(file)
        turns = 0
        while is_readable(watch.fileno()):
            watch.clear()
            turns += 1
        assert 1 <= turns <= 40_000 // 1000
        announce(files[0])
        watch.wait(FOR_EVER)


def test_a_database_that_is_restored_in_its_place_wakes(
    path: Path, store: SqliteStore, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    with closing(InotifyCommitWatch(FolderEvents([path.parent]))) as watch:
        copy.replace(path)
        watch.wait(FOR_EVER)
        announce(path)
        watch.wait(FOR_EVER)


def test_a_folder_that_is_replaced_or_comes_later_is_watched_again(tmp_path: Path) -> None:
    folder, file = tmp_path / "db", tmp_path / "db" / "state.db"
    with closing(FolderEvents([folder])) as events:
        for turn in range(3):
            folder.mkdir()
            file.touch()
            events.watch_again()
            events.watch_again()
            events.clear()
            announce(file)
            assert is_readable(events.fileno())
            folder.rename(tmp_path / f"before-{turn}")
        folder.mkdir()
        events.watch_again()
        events.clear()
        for turn in range(3):
            announce(tmp_path / f"before-{turn}" / "state.db")
        assert not is_readable(events.fileno()), "folders of before are not watched any more"


def test_links_are_not_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.touch()
    os.utime(target, (1, 1))
    link.symlink_to(target)
    announce(link)
    announce(tmp_path / "missing")
    assert target.stat().st_mtime == 1


def test_many_watches_leave_no_descriptor(store: SqliteStore) -> None:
    store.commit_watch().close()
    before = descriptors()
    for _ in range(100):
        with closing(store.commit_watch()) as watch:
            watch.wait(0.0)
    assert descriptors() == before


def test_no_descriptor_is_left_by_one_that_cannot_be_opened(tmp_path: Path) -> None:
    before = descriptors()
    with pytest.raises(OSError):  # noqa: PT011 - ENAMETOOLONG
        FolderEvents([tmp_path / ("x" * 300)])
    assert descriptors() == before


PARENT_AND_CHILD = """
import os, sys
from contextlib import closing
from pathlib import Path
from controller.store import open_store

store = open_store(Path(sys.argv[1]))
with closing(store.commit_watch()) as watch:
    ready, told = os.pipe()
    child = os.fork()
    if not child:
        with closing(store.commit_watch()) as own:
            store.changed()
            os.write(told, b"x")
            while not store.changed():
                own.wait(3600.0)
        os._exit(0)
    os.read(ready, 1)
    store.changed()
    store.heartbeat(1.0)
    watch.wait(3600.0)
    assert os.waitpid(child, 0)[1] == 0
"""


def test_parent_and_child_of_a_fork_are_both_woken(path: Path) -> None:
    subprocess.run([sys.executable, "-c", PARENT_AND_CHILD, path], check=True)


WITHOUT_DESCRIPTORS = """
import logging, resource, sys
from pathlib import Path
from controller.store.commit_watch import open_commit_watch
import controller.inotify

logging.basicConfig()
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
watch = open_commit_watch((Path(sys.argv[1]),))
print(type(watch).__name__)
watch.wait(3600.0)
"""


def test_a_limit_that_is_reached_is_said_and_commits_are_polled(path: Path) -> None:
    """The kernel gives the same error for a limit of descriptors as for one of inotify's own."""
    command = [sys.executable, "-c", WITHOUT_DESCRIPTORS, str(path)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    assert found.stdout == "PollingCommitWatch\n"
    assert "raise fs.inotify.max_user_instances" in found.stderr


def test_a_folder_that_cannot_be_watched_is_polled(tmp_path: Path) -> None:
    with closing(open_commit_watch((tmp_path / ("x" * 300) / "state.db",))) as watch:
        assert isinstance(watch, PollingCommitWatch)
