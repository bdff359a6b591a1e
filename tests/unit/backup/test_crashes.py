"""Killed before each step: a half-made backup is not taken for one, and a restore that was cut is told and made again.

A child process kills itself, as by `kill -9`, right before its Nth call of the operating system that changes something.
The calls are counted by an audit hook, so none is left out."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.backup.restore import restore, verify
from controller.config import Settings
from controller.daemon.run import serve
from controller.domain.errors import ControllerError
from controller.domain.reasons import Reason
from tests.support.backups import KEY, facts, install, maker_of, settings_of
from tests.support.fake_objects import FakeStorage
from tests.unit.backup.test_restore import opener

IDENTITIES = (KEY.identity,)
EVENTS = frozenset(
    {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.chown", "os.truncate", "os.link"}
    | {"sqlite3.connect", "shutil.rmtree"}
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def changes(event: str, arguments: tuple[object, ...]) -> bool:
    if event == "open":
        flags = arguments[2]
        return isinstance(flags, int) and bool(flags & _WRITES)
    return event in EVENTS


def in_child(work: Callable[[], object], die_before: int) -> tuple[bool, int]:
    """Run work in a fork, which is killed before its change of this number. Return whether it was, and else how many
    changes there were."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(read)
            seen = [0]

            def hook(event: str, arguments: tuple[object, ...]) -> None:
                if changes(event, arguments):
                    seen[0] += 1
                    if seen[0] == die_before:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(hook)
            work()
            os.write(write, str(seen[0]).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with open(read, "rb") as told:
        count = told.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True, 0
    assert os.waitstatus_to_exitcode(status) == 0, f"it failed before change {die_before}"
    return False, int(count)


@pytest.fixture
def storage() -> FakeStorage:
    return FakeStorage()


@pytest.fixture
def old(tmp_path: Path, storage: FakeStorage) -> Settings:
    settings = settings_of(tmp_path / "old")
    settings.state.parent.mkdir()
    install(settings, storage)
    return settings


@pytest.mark.slow
def test_killed_while_a_backup_is_made(old: Settings, storage: FakeStorage) -> None:
    making = maker_of(old, storage)
    listed: set[str] = set()
    number, whole = 0, 0
    while True:
        number += 1
        killed, whole = in_child(making.create, number)
        for backup in making.place.all():
            if backup.name not in listed:
                assert verify(opener(old, backup), IDENTITIES).objects == 2
                listed.add(backup.name)
        if not killed:
            break
    assert number == whole + 1
    assert whole > 20  # so many places were tried
    making.create()
    left = [path.name for path in Path(old.backup.to).iterdir() if not path.name.startswith("prichal-")]
    assert left == []
    assert [path for path in old.backups.iterdir() if path.is_dir()] == []


@pytest.mark.slow
def test_killed_while_one_is_restored(old: Settings, storage: FakeStorage, tmp_path: Path) -> None:
    before = facts(old, storage)
    made = maker_of(old, storage).create()

    def work(settings: Settings, there: FakeStorage) -> None:
        restore(settings, opener(old, made), IDENTITIES, storage=lambda key: there)

    number, killed, told = 0, True, 0
    while killed:
        number += 1
        new = settings_of(tmp_path / f"new{number}")
        new.state.parent.mkdir()
        killed, _ = in_child(lambda new=new: work(new, FakeStorage()), number)  # type: ignore[misc]
        if new.restore_marker.exists():
            told += 1
            with pytest.raises(ControllerError) as caught:
                serve(new, threading.Event())
            assert caught.value.reason == Reason.RESTORE_INCOMPLETE
        there = FakeStorage()
        if killed and (new.restore_marker.exists() or not new.database.exists()):
            work(new, there)
            assert facts(new, there) == before
            assert not new.restore_marker.exists()
        else:  # the last step was over
            assert facts(new, storage) == before
    assert told > 20
    assert number > 20
