from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from controller.cli.main import main
from controller.domain.apps import requests
from controller.domain.apps.requests import ReconcileRequest
from controller.store import SqliteStore
from tests.support.stores import open_store
from tests.support.wire_format import deviations


class Outcome(NamedTuple):
    code: int
    stdout: str
    stderr: str


class Machine:
    """A configuration with real folders, and the command line on it."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.platform = folder / "platform"
        self.platform.mkdir(mode=0o700)
        self.config = folder / "config.yaml"
        self.configure()

    def configure(self, *lines: str) -> None:
        self.config.write_text(
            "\n".join((f"state: {self.state}", f"platform: {{path: {self.platform}}}", *lines)) + "\n"
        )

    def run(self, *arguments: str, stdin: str = "") -> Outcome:
        outcome = run_here(*arguments, "--config", str(self.config), stdin=stdin)
        if "json" in arguments and arguments[:2] != ("config", "show"):  # whose keys are names of options
            assert [each for document in _documents(outcome.stdout) for each in deviations(document)] == []
        return outcome


def run_here(*arguments: str, stdin: str = "") -> Outcome:
    """Run a command with the environment's configuration."""
    with CliRunner().isolation(input=stdin) as (stdout, stderr, _):
        code = main(arguments)
    return Outcome(int(code), stdout.getvalue().decode(), stderr.getvalue().decode())


def _documents(text: str) -> Iterator[object]:
    """Yield the JSON values in a text, which is empty if the command failed."""
    decoder, place = json.JSONDecoder(), 0
    while place < len(text):
        document, place = decoder.raw_decode(text, place)
        place += len(text[place:]) - len(text[place:].lstrip())
        yield document


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def store(machine: Machine) -> Iterator[SqliteStore]:
    """The state as a running daemon keeps it: its heartbeat stays fresh for the test."""
    store = open_store(machine.state / "db" / "state.db")
    store.heartbeat(time.time() + 3600)
    yield store
    store.close()


@contextmanager
def worker(
    store: SqliteStore, work: Callable[[ReconcileRequest], str], revision: str = "abc123"
) -> Iterator[list[ReconcileRequest]]:
    """A thread in the daemon's place: takes requests and ends them at `revision` with the outcome that `work` gives.
    Yields what it has taken."""
    taken: list[ReconcileRequest] = []
    stop = threading.Event()

    def turn() -> None:
        while not stop.is_set():
            request = store.requests.claim(now=1e12)
            if request is None:
                stop.wait(0.005)
                continue
            taken.append(request)
            store.requests.finish(request.id, requests.Outcome(work(request)), "as the test says", revision)

    thread = threading.Thread(target=turn)
    thread.start()
    try:
        yield taken
    finally:
        stop.set()
        thread.join()
