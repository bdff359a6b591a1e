"""Sockets in the file system: closed to others, at paths of any length, and found again after a crash."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from controller.unix_socket import connected, inherited, listening


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / ("a" * 120)  # longer than the kernel takes
    folder.mkdir()
    return folder / "git.sock"


def test_both_ends(path: Path) -> None:
    with listening(path) as listener, connected(path) as caller:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with listener.accept()[0] as answering:
            caller.send(b"hello")
            assert answering.recv(9) == b"hello"


def test_after_a_crash(path: Path) -> None:
    listening(path).close()  # the file stays
    with pytest.raises(ConnectionRefusedError):
        connected(path)
    with listening(path), connected(path):
        pass


def test_a_second_one_is_refused(path: Path) -> None:
    with listening(path), pytest.raises(OSError, match="in use"):
        listening(path)


def test_what_is_no_socket_stays(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        listening(path)
    assert path.read_text() == "precious"


def test_nobody_is_there(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        connected(path)


def test_nothing_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert inherited() is None
