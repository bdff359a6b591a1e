from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner, Result

from controller.cli.exits import exit_of
from controller.cli.main import prichal
from controller.domain.errors import ControllerError
from controller.store import SqliteStore, open_store


class Outcome(NamedTuple):
    code: int
    stdout: str
    stderr: str


class Machine:
    """A configuration with real folders, and the command line on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.platform = folder / "platform"
        self.platform.mkdir(mode=0o700)
        self.config = folder / "config.yaml"
        self.config.write_text(f"state: {self.state}\nplatform: {{path: {self.platform}}}\n")

    def run(self, *arguments: str, stdin: str | None = None) -> Outcome:
        """As `controller.cli.main.main` does it, with its output caught."""
        result = CliRunner().invoke(prichal, ["--config", str(self.config), *arguments], input=stdin)
        return Outcome(self._code(result), result.stdout, self._stderr(result))

    def _code(self, result: Result) -> int:
        if isinstance(result.exception, ControllerError):
            return exit_of(result.exception)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return int(result.return_value) if isinstance(result.return_value, int) else result.exit_code

    def _stderr(self, result: Result) -> str:
        return result.stderr + (str(result.exception) if isinstance(result.exception, ControllerError) else "")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def store(machine: Machine) -> Iterator[SqliteStore]:
    """The state as a running daemon keeps it: the heartbeat is fresh."""
    store = open_store(machine.state / "db" / "state.db")
    store.heartbeat(time.time() + 3600)
    yield store
    store.close()
