"""The Git service with one end of each connection in the test: what it takes, and when it refuses."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from controller.adapters.git_backend import GitBackend
from controller.daemon.git_http import GitServer
from controller.domain.git_http import PREFIX, GitExchange, GitService, write_exchange
from controller.unix_socket import connected, listening
from tests.support.waiting import wait_for

MOST = 2
REFS = GitExchange("demo", GitService.UPLOAD_PACK, True, "ivanov")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A service with one repository, which does two exchanges at once."""
    tmp_path = tmp_path_factory.mktemp("git")
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "demo.git")], check=True)
    (tmp_path / "link.git").symlink_to(tmp_path / "demo.git")
    (tmp_path / "empty.git").mkdir()
    stop, found = threading.Event(), tmp_path / "s"
    with listening(found) as listener:
        server = GitServer(GitBackend(tmp_path, 10**9), listener, most=MOST)
        thread = threading.Thread(target=server.serve, args=(stop,))
        thread.start()
        yield found
        stop.set()
        thread.join()
        server.drain(0.1)


def answered(path: Path, request: bytes) -> bytes:
    """What is said once earlier exchanges, whose callers have their answer, have ended here, too."""
    return wait_for(lambda: said(path, request), lambda found: not found.startswith(b"Status: 503 "))


def said(path: Path, request: bytes) -> bytes:
    with connected(path) as caller:
        caller.settimeout(30)
        found = b""
        with suppress(OSError):  # a service that refuses does not read, which resets the connection
            caller.sendall(request)
            caller.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            while piece := caller.recv(65536):
                found += piece
        return found


def test_refs(path: Path) -> None:
    answer = answered(path, write_exchange(REFS))
    assert b"Content-Type: application/x-git-upload-pack-advertisement\r\n" in answer
    assert b"# service=git-upload-pack\n" in answer


@pytest.mark.parametrize("name", ["missing", "link", "empty"])
def test_what_is_no_repository(path: Path, name: str) -> None:
    request = write_exchange(GitExchange(name, GitService.UPLOAD_PACK, True, "ivanov"))
    assert answered(path, request) == b"Status: 404 Not Found\r\n\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"\0",
        PREFIX.pack(5000) + bytes(5000),
        PREFIX.pack(9) + b"{}",
        PREFIX.pack(2) + b"{}",
        bytes(range(64)),
    ],
)
def test_what_is_no_request(path: Path, request_: bytes) -> None:
    assert answered(path, request_) == b""


def begun_push(path: Path) -> socket.socket | None:
    """A push that Git has begun to read; None if the service is still busy with earlier exchanges."""
    caller = connected(path)
    caller.settimeout(30)
    with suppress(OSError):
        caller.sendall(write_exchange(GitExchange("demo", GitService.RECEIVE_PACK, False, "ivanov")))
        if b"receive-pack-result" in caller.recv(65536):
            return caller
    caller.close()
    return None


def test_no_more_than_it_can_do(path: Path) -> None:
    callers = [wait_for(lambda: begun_push(path)) for _ in range(MOST)]
    with ExitStack() as stack:
        for caller in callers:
            assert caller is not None
            stack.enter_context(caller)
        assert said(path, write_exchange(REFS)).startswith(b"Status: 503 ")
