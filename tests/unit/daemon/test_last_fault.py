"""Who may write what others ask for can end the daemon by a bus error. It starts again, and works without it."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest

from controller.daemon import last_fault
from controller.daemon.last_fault import LastFault
from controller.domain.apps.requests import Trigger
from controller.domain.apps.status import AppStatus
from controller.domain.names import PLATFORM, AppName, ComponentName
from controller.store import open_guest_store
from controller.store.shared_file import shared_path
from tests.support.stores import open_store

DEMO = AppName("demo")


def daemon(path: Path, private: Path, harm: bool) -> int:
    """A life of the daemon, in a process of its own, and how it ended. `harm`: somebody cuts off the log's index."""
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        try:
            store = open_store(path, distrust=LastFault(private).begin())
            for number in range(3):
                store.activity.touch([(DEMO, ComponentName("c"))], float(number + 1))
                index = Path(f"{shared_path(path)}-shm")
                if harm and index.exists():
                    os.truncate(index, 0)
            store.heartbeat(time.time())
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_after_a_bus_error_the_daemon_does_without_what_others_ask_for(tmp_path: Path) -> None:
    path, private = tmp_path / "db" / "state.db", tmp_path / "private"
    private.mkdir()
    with closing(open_store(path)) as store:
        store.apps.save(AppStatus(DEMO))
        store.apps.set_suspended(DEMO, True)
    assert daemon(path, private, harm=False) == 0
    assert daemon(path, private, harm=True) == -signal.SIGBUS
    assert daemon(path, private, harm=True) == 0, "it does not look there now"
    fault = LastFault(private)
    assert fault.begin() == 0.0, "the last one ended well"
    fault.end()
    with closing(open_store(path)) as store:
        assert store.apps.status(DEMO).suspended
        told = [event.message for event in store.events.list(PLATFORM)]
        with closing(open_guest_store(path)) as guest:
            wish = guest.requests.enqueue(DEMO, Trigger.MANUAL)
            store.changed()
            claimed = store.requests.claim(time.time())
            assert claimed is not None
            assert wish
    assert told == []


def test_pauses_grow_with_each_fault_and_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "fault.log"
    pauses = []
    for _ in range(9):
        fault = LastFault(tmp_path)
        pauses.append(fault.begin())
        fault.end()
        with log.open("ab") as file:
            file.write(b"Fatal Python error: Bus error\n\nCurrent thread 0x1:\n")
    assert pauses == [0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 600.0, 600.0]
    monkeypatch.setattr(last_fault, "_SOON", 0.0)
    fault = LastFault(tmp_path)
    assert fault.begin() == 0.0, "what was long ago is forgotten"
    fault.end()


def test_another_fault_is_told_and_is_nobodys_doing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = LastFault(tmp_path)
    first.begin()
    first.end()
    with (tmp_path / "fault.log").open("ab") as file:
        file.write(b"Fatal Python error: Segmentation fault\n")
    again = LastFault(tmp_path)
    assert again.begin() == 0.0
    again.end()
    assert "ended by a fault: Fatal Python error: Segmentation fault" in caplog.text
