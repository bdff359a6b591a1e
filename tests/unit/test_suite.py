"""The promises of the test suite: a test that hangs or leaves something open fails alone, background jobs test the same
as others, and browsers are not disturbed by containers of other tests."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.waiting import wait_for
from tests.unit.conftest import SLOW

TESTS = Path(__file__).parents[1]
HANGING = """
import time
import pytest

@pytest.mark.timeout(1)
def test_that_waits():
    time.sleep(3600)

@pytest.mark.timeout(1)
def test_that_no_signal_reaches():
    sum(range(10**15))

def test_that_is_well():
    pass
"""
BLOCKED = """
import os
import pathlib
import time

def test_that_waits():
    pathlib.Path(os.environ["BEGUN"]).touch()
    time.sleep(3600)
"""
LEAKING = """
import socket

def test_that_fails():
    left = socket.create_server(("127.0.0.1", 0))
    assert left is None

def test_that_is_well():
    import gc
    gc.collect()
"""
SIGNALS = """
import subprocess
import sys

def test_programs_are_started_with_the_default_actions():
    shown = "import signal; print([signal.getsignal(n) == signal.SIG_IGN for n in (2, 3, 1)])"
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True)
    assert done.stdout == "[False, False, False]\\n"
"""


def xdist(_: Path) -> list[str]:
    return [sys.executable, "-m", "pytest", "-q", "-n", "1"]


def script(folder: Path) -> list[str]:
    """As `make check` and `make test` run unit tests."""
    return [str(TESTS.parent / "scripts" / "unit-tests"), str(folder / "results.xml")]


def run(
    folder: Path,
    source: str,
    ignored: tuple[signal.Signals, ...] = (),
    program: Callable[[Path], list[str]] = xdist,
) -> str:
    """The output of pytest with the suite's settings."""
    shutil.copy(TESTS / "conftest.py", folder)
    (folder / "test_it.py").write_text(source)
    arguments = [
        "--rootdir",
        str(folder),
        "-c",
        str(TESTS.parent / "setup.cfg"),
        str(folder),
    ]

    def ignore() -> None:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    return subprocess.run(
        [*program(folder), *arguments, "-p", "no:cacheprovider"],
        env={**os.environ, "PYTEST_XDIST_WORKER": ""},
        preexec_fn=ignore,
        capture_output=True,
        text=True,
    ).stdout


@pytest.mark.slow
@pytest.mark.parametrize("program", [xdist, script])
def test_a_test_that_hangs_fails_alone(tmp_path: Path, program: Callable[[Path], list[str]]) -> None:
    output = run(tmp_path, HANGING, program=program)
    assert re.search(r"FAILED .*::test_that_waits", output), output
    assert re.search(r"FAILED .*::test_that_no_signal_reaches", output), output
    assert "2 failed, 1 passed" in output, output


@pytest.mark.slow
def test_the_processes_of_an_interrupted_script_end_with_it(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(BLOCKED)
    begun = tmp_path / "begun"
    environ = {**os.environ, "PYTEST_XDIST_WORKER": "", "BEGUN": str(begun)}
    with subprocess.Popen([*script(tmp_path), str(tmp_path)], env=environ, stdout=subprocess.PIPE) as running:
        assert running.stdout
        wait_for(lambda: begun.exists() or running.poll() is not None, limit=120.0)
        running.terminate()
        running.stdout.read()  # ends when nobody has it any more
    assert running.returncode == 128 + signal.SIGTERM


@pytest.mark.slow
def test_sockets_that_a_failed_test_leaves_open_fail_no_other(tmp_path: Path) -> None:
    output = run(tmp_path, LEAKING)
    assert "1 failed, 1 passed" in output, output


@pytest.mark.slow
def test_programs_of_a_background_job_can_be_interrupted(tmp_path: Path) -> None:
    output = run(tmp_path, SIGNALS, (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP))
    assert "1 passed" in output, output


def test_all_modules_that_are_called_slow_are_there() -> None:
    assert {name for name in SLOW if not (TESTS / "unit" / name).exists()} == set()


def test_a_browser_sees_no_networks_of_other_tests() -> None:
    shown = (
        "import socket\n"
        "from tests.support.chromium import refuse_netlink\n"
        "refuse_netlink()\n"
        "socket.create_server(('127.0.0.1', 0)).close()\n"
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)"
    )
    done = subprocess.run([sys.executable, "-c", shown], cwd=TESTS.parent, capture_output=True, text=True)
    assert done.stderr.endswith("OSError: [Errno 97] Address family not supported by protocol\n"), done.stderr
