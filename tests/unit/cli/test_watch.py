"""`prichal status --watch`: shows the status whenever it changes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import pytest

from controller.cli import waiting
from controller.cli.exits import Exit
from controller.config import Settings
from controller.domain.apps.conditions import Condition, ConditionType
from controller.domain.apps.status import AppStatus
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.store import SqliteStore
from controller.web.api.platform.stored import StoredPlatform
from tests.support.stores import open_store
from tests.unit.cli.conftest import Machine

#: Together they take seconds.
pytestmark = pytest.mark.slow

DEMO = AppName("demo")


def save(store: SqliteStore, message: str, name: str = DEMO) -> None:
    # An old condition: its age in the output does not change while the test looks.
    condition = Condition(ConditionType.READY, True, Reason.READY, message, time.time() - 30 * 86400)
    store.apps.save(AppStatus(AppName(name), conditions=(condition,)))


@contextmanager
def watching(machine: Machine, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "controller", "status", *arguments, "--config", str(machine.config)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        yield process
        process.kill()


def until(process: subprocess.Popen[str], words: str) -> list[str]:
    """The lines up to the one with these words."""
    assert process.stdout is not None
    assert process.stderr is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError(f"it ended without {words!r}: {lines}, {process.stderr.read()}")


def test_in_a_pipe_one_status_comes_after_another(machine: Machine, store: SqliteStore) -> None:
    save(store, "first")
    with watching(machine, "--watch") as process:
        assert until(process, "first")[0].startswith("APP")
        save(store, "second")
        again = until(process, "second")
        assert again[0] == "\n"
        assert again[1].startswith("APP")
        process.send_signal(signal.SIGINT)
        assert process.wait() == Exit.INTERRUPTED


def test_one_app_is_watched_alone(machine: Machine, store: SqliteStore) -> None:
    save(store, "first")
    with watching(machine, "demo", "--watch", "-o", "json") as process:
        assert json.loads(until(process, "first")[-1])["state"] == "Ready"
        save(store, "of another", name="other")
        store.apps.set_suspended(DEMO, True)
        assert json.loads(until(process, "Suspended")[-1])["suspended"] is True


def test_the_end_of_the_daemon_is_told(machine: Machine, store: SqliteStore) -> None:
    save(store, "first")
    with watching(machine, "--watch") as process:
        until(process, "first")
        store.heartbeat(time.time() - 60)
        until(process, "does not run")


def test_a_terminal_draws_it_again(machine: Machine, store: SqliteStore) -> None:
    save(store, "first")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "controller", "status", "--watch", "--config", str(machine.config)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    shown = b""
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        while b"first" not in shown:
            shown += os.read(ours, 10_000)
        save(store, "second")
        while b"second" not in shown:
            shown += os.read(ours, 10_000)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == Exit.INTERRUPTED
    os.close(ours)
    assert b"\x1b[1A" in shown, "the cursor goes up"


def test_it_looks_again_only_after_a_change(
    machine: Machine, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_STALE", 3600.0)
    looked: list[int] = []
    asked: list[bool] = []

    class Watched:
        def changed(self) -> bool:
            asked.append(store.changed())
            if len(asked) == 3:
                other.apps.save(AppStatus(DEMO))
            return asked[-1]

    other = open_store(machine.state / "db" / "state.db")
    watched = StoredPlatform(Watched(), Settings())  # type: ignore[arg-type]
    reports = waiting.looks(watched, lambda: looked.append(len(asked)))
    assert len(list(islice(reports, 3))) == 3
    other.close()
    assert asked == [True, False, False, True], "once at the start, then after the change"
    assert looked == [0, 1, 4]


@pytest.mark.parametrize("arguments", [("--watch", "--check"), ("demo", "--check", "--watch")])
def test_a_command_without_an_end_has_no_verdict(machine: Machine, arguments: tuple[str, ...]) -> None:
    found = machine.run("status", *arguments)
    assert (found.code, "only one of --check and --watch" in found.stderr) == (Exit.USAGE, True)


def test_an_unknown_app_is_not_waited_for(machine: Machine, store: SqliteStore) -> None:
    assert machine.run("status", "nothing", "--watch").code == Exit.NOT_FOUND
