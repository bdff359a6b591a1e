"""Each unexpected end is counted, and the platform's events report it without being filled."""

from __future__ import annotations

import ast
import inspect
import re
import threading
from contextlib import closing
from pathlib import Path

import pytest

from controller.daemon import restarts as restarts_module
from controller.daemon import run
from controller.daemon.restarts import RestartLog
from controller.domain.names import PLATFORM
from controller.guards import GuardedGroup
from tests.support.stores import open_store
from tests.support.waiting import wait_for

GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "operations.md"


def test_each_end_is_counted_and_the_first_one_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_store(tmp_path / "db" / "state.db")) as store:
        restarts = RestartLog(store)
        for _ in range(3):
            restarts.record("runner", "by RuntimeError")
        restarts.record("storage", "by SIGKILL")
        assert store.restarts() == {"runner": 3, "storage": 1}
        told = [(event.reason, event.message) for event in store.events.list(PLATFORM)]
        assert told == [
            ("Restarted", "runner has ended unexpectedly and is restarted: by RuntimeError"),
            ("Restarted", "storage has ended unexpectedly and is restarted: by SIGKILL"),
        ]
        monkeypatch.setattr(restarts_module, "_QUIET", 0.0)
        restarts.record("runner", "by itself")
        assert len(store.events.list(PLATFORM)) == 3


def test_a_thread_is_started_again_though_its_end_cannot_be_written_down(tmp_path: Path) -> None:
    """The state may be what the thread has failed at."""
    store = open_store(tmp_path / "db" / "state.db")
    store.close()
    for file in (tmp_path / "db").glob("state.db*"):
        file.unlink()
    stop, lives = threading.Event(), []

    def life(stop: threading.Event) -> None:
        lives.append(1)
        if len(lives) < 3:
            store.heartbeat(1.0)
        stop.wait()

    group = GuardedGroup(stop, RestartLog(store).record, first=0.001)
    group.thread("cron", life)
    wait_for(lambda: len(lives) == 3)
    stop.set()
    group.join(60.0)
    assert group.failed == ""


def test_the_guide_lists_every_thread_and_child_of_the_daemon() -> None:
    tree = ast.parse(inspect.getsource(run))
    threads = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "_threads")
    dicts = (node for node in ast.walk(threads) if isinstance(node, ast.Dict))
    names = {key.value for node in dicts for key in node.keys if isinstance(key, ast.Constant)}
    table = GUIDE.read_text().partition("## Automatic restarts")[2].partition("## ")[0]
    listed = set(re.findall(r"`([a-z]+)`", "".join(re.findall(r"(?m)^\| ([^|]*) \|", table))))
    assert len(names) >= 6
    assert {*names, "storage", "web"} <= listed
