"""`prichal up` as a newcomer starts it, in the current folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.engines import unique
from tests.support.platform import send
from tests.support.ports import free_port
from tests.support.waiting import wait_for

PRICHAL = Path(sys.executable).with_name("prichal")


class Up:
    """`prichal up` in a folder of its own."""

    def __init__(self, home: Path, here: Path) -> None:
        self.web, storage = free_port(), free_port()
        self.log = home / "log"
        config = here / "config.yaml"
        config.write_text(
            f"state: {home / 'state'}\ninstance: {unique('up')}\n"
            f"web: {{listen: '127.0.0.1:{self.web}', trustLoopback: true}}\n"
            f"storage: {{listen: '127.0.0.1:{storage}'}}\n"
            f"platform: {{path: {home / 'platform'}}}\n"
        )
        environment = {**os.environ, "PRICHAL_CONFIG": str(config)}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [PRICHAL, "up"], cwd=here, env=environment, stdout=log, stderr=log
            )

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return send("GET", f"http://127.0.0.1:{self.web}/-/readyz").status == 200
        except OSError:
            return False

    def web_process(self) -> int:
        """The arbiter, the one child that has children of its own."""
        for path in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            for child in path.read_text().split():
                if Path(f"/proc/{child}/task/{child}/children").read_text():
                    return int(child)
        return 0

    def metrics(self) -> str:
        return send("GET", f"http://127.0.0.1:{self.web}/-/metrics").body.decode()


@contextmanager
def up(home: Path, here: Path) -> Iterator[Up]:
    running = Up(home, here)
    try:
        wait_for(running.is_ready, limit=60.0)
        yield running
    finally:
        running.process.terminate()
        running.process.wait(60)


def test_python_files_in_the_current_folder_are_not_imported(tmp_path: Path) -> None:
    """Neither by the daemon nor by the web process that it starts."""
    here = tmp_path / "module"
    here.mkdir()
    for name in ("app", "flask", "gunicorn", "controller", "jwt", "sitecustomize", "logging"):
        (here / f"{name}.py").write_text(f"raise SystemExit('{name} of this folder was imported')\n")
    with up(tmp_path, here):
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=str)
def test_a_web_process_that_is_killed_is_started_again(tmp_path: Path, number: signal.Signals) -> None:
    with up(tmp_path, tmp_path) as running:
        killed = running.web_process()
        os.kill(killed, number)
        wait_for(lambda: running.web_process() not in (0, killed), limit=60.0)
        wait_for(running.is_ready, limit=60.0)
        assert "web ended " in running.log.read_text()
        assert 'prichal_restarts_total{part="web"} 1.0' in running.metrics()
        running.process.terminate()
        assert running.process.wait(60) == 0  # that one was asked for


def test_it_fails_if_the_web_process_cannot_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = tmp_path / "config.yaml"
        settings.write_text(
            f"state: {tmp_path / 'state'}\ninstance: {unique('up')}\n"
            f"web: {{listen: '127.0.0.1:{taken.getsockname()[1]}'}}\n"
            f"platform: {{path: {tmp_path / 'platform'}}}\n"
        )
        done = subprocess.run(
            [PRICHAL, "--config", settings, "up"], capture_output=True, text=True, timeout=100
        )
    assert done.returncode == 1
    assert "the process ends: web ended with code 1" in done.stderr


def test_the_web_process_does_not_outlive_a_killed_daemon(tmp_path: Path) -> None:
    with up(tmp_path, tmp_path) as running:
        web = running.web_process()
        running.process.kill()
        running.process.wait(60)
        wait_for(lambda: not Path(f"/proc/{web}").exists(), limit=60.0)
