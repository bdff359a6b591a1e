from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from controller.web.async_calls.presence import WorkerPresence

_OTHER = """
import sys
from pathlib import Path
from controller.web.async_calls.presence import WorkerPresence
WorkerPresence(Path(sys.argv[1]), "2-bb").enter()
print("in", flush=True)
sys.stdin.read()
"""


def test_a_worker_is_there_until_it_ends_however_it_ends(tmp_path: Path) -> None:
    ours = WorkerPresence(tmp_path / "calls", "1-aa")
    ours.enter()
    command = [sys.executable, "-c", _OTHER, str(tmp_path / "calls")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert not ours.has_gone("2-bb")
        ours.forget()
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    assert ours.has_gone("2-bb")
    ours.forget()
    assert [path.name for path in (tmp_path / "calls").iterdir()] == ["1-aa.lock"]
    ours.leave()
    assert not list((tmp_path / "calls").iterdir())


@pytest.mark.parametrize("name", ["", "..", "../../x", "nobody", "1-aa/../2-bb", "9-cc"])
def test_names_that_no_worker_has(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "x.lock"
    outside.touch()
    presence = WorkerPresence(tmp_path / "calls" / "deep", "1-aa")
    presence.enter()
    assert presence.has_gone(name)
    assert outside.exists()
    presence.leave()


def test_a_file_that_somebody_removed_is_made_again(tmp_path: Path) -> None:
    ours, other = WorkerPresence(tmp_path, "1-aa"), WorkerPresence(tmp_path, "2-bb")
    ours.enter()
    (tmp_path / "1-aa.lock").unlink()
    ours.enter()
    assert not other.has_gone("1-aa")
    ours.leave()
    assert other.has_gone("1-aa")
    assert not ours.has_gone("1-aa")  # itself
