"""`prichal run` through a real gunicorn with two workers, also while it is killed; the test plays the runner."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from controller.cli.exits import Exit
from controller.domain.routing.passwords import hash_token
from controller.domain.runs.run import RunState
from tests.support.gateway import APP
from tests.support.runs import RunDriver, all_pipelines, make_pipeline, one_pipeline
from tests.support.serve_web import settings_of
from tests.support.stores import open_store
from tests.support.waiting import wait_for

from .conftest import ROOT, Web, echo, serving


class Command(subprocess.Popen[str]):
    """`prichal run …` on somebody's machine, its output read as it comes."""

    def __init__(self, url: str, *arguments: str) -> None:
        variables = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "error",
            "PRICHAL_SERVER": url,
            "PRICHAL_TOKEN": "anns-token",
        }
        super().__init__(
            [sys.executable, "-m", "controller", "run", *arguments],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self.stdout is not None
        for line in self.stdout:
            self.lines.append(line.rstrip("\n"))

    def end(self) -> int:
        """The exit code; `complaint` has what went to standard error."""
        assert self.stderr is not None
        with self:
            self.complaint = self.stderr.read()
            self._reading.join()
        return self.returncode


@dataclass
class Machine:
    web: Web
    player: RunDriver

    def start(self, *arguments: str) -> Command:
        return Command("http://{}:{}".format(*self.web.address), *arguments)

    def begin(self) -> str:
        """Id of a run that is at work on its first stage."""
        command = self.start("start", "demo/train", "--input", "data=g/in.csv")
        assert command.end() == Exit.OK, command.complaint
        (address,) = command.lines
        id = address.rpartition("/")[2]
        self.player.begin(id)
        return id

    def restart(self) -> None:
        """The server dies at once, with all connections, and comes back."""
        process = self.web.process
        assert process is not None
        workers = self.web.workers()
        for pid in (process.pid, *workers):
            os.kill(pid, signal.SIGKILL)
        process.wait(30)
        wait_for(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in workers))
        self.web.start()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    state = tmp_path_factory.mktemp("state")
    tokens = (("ann", hash_token("anns-token")),)
    with closing(open_store(settings_of(state).database)) as store, echo("none") as component:
        store.runs.publish(APP, (make_pipeline(),))
        store.routes.publish(APP, (one_pipeline(tokens=tokens), all_pipelines(tokens=tokens)))
        with serving(state, store, component) as web:
            yield Machine(web, RunDriver(store, settings_of(state).run_files))


def test_logs_are_followed_over_the_servers_death(machine: Machine) -> None:
    id, player = machine.begin(), machine.player
    player.write(id, "fit", 1, b"1\n2\n")
    following = machine.start("logs", f"demo/train/{id}", "-f")
    alone = machine.start("logs", f"demo/train/{id}", "-f", "--stage", "fit")
    wait_for(lambda: following.lines == ["fit  | 1", "fit  | 2"] and alone.lines == ["1", "2"])
    machine.restart()
    player.write(id, "fit", 1, b"3\n" + b"x" * 200_000 + b"\n4")
    player.end_attempt(id, "fit", 0, RunState.SUCCEEDED)
    wait_for(lambda: "fit  | 4" in following.lines)
    player.begin(id, "tell")
    player.write(id, "tell", 1, "ö\n".encode())
    wait_for(lambda: "tell | ö" in following.lines)
    player.end_attempt(id, "tell", 3, RunState.FAILED, "ExitCode")
    player.to(id, RunState.FAILED, "ExitCode", "stage tell: exit code 3")
    assert alone.end() == Exit.OK, alone.complaint
    assert alone.lines == ["1", "2", "3", "x" * 200_000, "4"]
    assert following.end() == Exit.FAILED
    assert following.complaint == ""
    told = [line for line in following.lines if "x" not in line]
    assert told == ["fit  | 1", "fit  | 2", "fit  | 3", "fit  | 4", "tell | ö"]
    assert sum(line.count("x") for line in following.lines) == 200_000


def test_a_run_is_watched_over_the_servers_death(machine: Machine) -> None:
    watching = machine.start("start", "demo/pipelines/train", "--input", "data=g/in.csv", "--wait")
    wait_for(lambda: watching.lines)
    id = watching.lines[0].removeprefix("demo/pipelines/train/")
    machine.player.begin(id)
    machine.restart()
    machine.player.finish(id)
    assert watching.end() == Exit.OK, watching.complaint
    told = [line.split(" ", 1)[1] for line in watching.complaint.splitlines()]
    assert told[:3] == ["QUEUED", "fit QUEUED", "tell QUEUED"]
    assert told[3:6] == ["STARTING", "RUNNING", "fit STARTING"]
    assert told[-1] == "SUCCEEDED"


def test_ctrl_c_leaves_the_run_alone(machine: Machine) -> None:
    id = machine.begin()
    watching = machine.start("status", f"demo/train/{id}", "--watch")
    wait_for(lambda: any("RUNNING" in line for line in watching.lines))
    watching.send_signal(signal.SIGINT)
    assert watching.end() == Exit.INTERRUPTED
    assert f"prichal run status demo/train/{id} --watch" in watching.complaint
    shown = machine.start("status", f"demo/train/{id}", "-o", "json")
    assert shown.end() == Exit.OK
    assert json.loads("\n".join(shown.lines))["state"] == "RUNNING"
    machine.player.finish(id)


def test_a_log_is_read_as_it_is(machine: Machine) -> None:
    id = machine.begin()
    data = bytes(range(256)) * 5000
    machine.player.write(id, "fit", 1, data)
    command = [sys.executable, "-m", "controller", "run", "logs", f"demo/train/{id}", "--stage", "fit"]
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PRICHAL_SERVER": "http://{}:{}".format(*machine.web.address),
        "PRICHAL_TOKEN": "anns-token",
    }
    assert subprocess.run(command, env=variables, stdout=subprocess.PIPE, check=True).stdout == data
    machine.player.finish(id)
