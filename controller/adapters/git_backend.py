"""Runs Git's own HTTP server, `git http-backend`, for one exchange. Its standard input is the connection itself, and
the kernel moves its output there (splice(2)), so that no byte of a push or clone passes through this process. Used
by the Git service alone (daemon/git_http.py).

Promises: Git sees an environment that is made here, whatever was asked; its memory is bounded; a push has no more
room than `git.maxRepository` leaves; when the caller has left, the processes end, and what a cut push has brought is
not kept, by Git's own quarantine.
"""

from __future__ import annotations

import logging
import os
import resource
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from controller.domain.git_http import PUSH_VARIABLE, GitExchange
from controller.domain.text import printable

log = logging.getLogger(__name__)

MEMORY = 1024 * 2**20  # bytes that each process may have, beside files that it maps
STREAMED = "64m"  # files above this size are not held in memory
PIECE = 2**20  # bytes that are moved at once
LINGERING = 1.0  # seconds for the last of the output
LEAVING = 20.0  # seconds that a push gets to end by itself once the caller has left
LOOK = 0.5  # seconds between looks whether the service is to stop
NEVER = float("inf")
KILLING = 10.0  # and after SIGTERM, before SIGKILL
TOLD = 2000  # bytes of what Git says when it fails
_BUSY, _GONE = b"503 Service Unavailable", b"404 Not Found"


@dataclass(frozen=True)
class GitBackend:
    """`repositories` is the folder of the hosted ones, `largest` the bytes that one may have."""

    repositories: Path
    largest: int

    def serve(self, connection: socket.socket, exchange: GitExchange, hurry: threading.Event) -> None:
        """Answer one exchange on the connection, and return when its processes have ended; `hurry` ends them."""
        path = self.repositories / f"{exchange.repository}.git"
        if path.is_symlink() or not (path / "objects").is_dir():
            refuse(connection, _GONE)
            return
        began = time.monotonic()
        process = self._start(connection, exchange, path)
        relay = threading.Thread(target=_relay, args=(process, connection), name="output", daemon=True)
        relay.start()
        grace = LEAVING if exchange.service.writes else 0.0
        code, told = _Supervision(process, connection, hurry, grace).until_the_end()
        relay.join(LINGERING)
        with suppress(OSError):  # children of hooks may hold the output, and the caller waits for the end
            connection.shutdown(socket.SHUT_RDWR)
        fields = {
            "repository": exchange.repository,
            "service": exchange.service.value,
            "user": exchange.user,
            "seconds": round(time.monotonic() - began, 2),
            "code": code,
        }
        log.log(logging.INFO if code == 0 else logging.WARNING, "git ended%s", told, extra=fields)

    def _start(self, connection: socket.socket, exchange: GitExchange, path: Path) -> subprocess.Popen[bytes]:
        room = max(self.largest - size_of(path / "objects"), 1) if exchange.service.writes else self.largest
        return subprocess.Popen(
            ["git", "http-backend"],  # noqa: S607 - where git is differs; PATH is that of the service
            env=environment(exchange, self.repositories, room),
            stdin=subprocess.DEVNULL if exchange.advertises else connection.fileno(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )


def bound_memory() -> None:
    """Bound what this process, and each one that it starts, may have of its own."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


def environment(exchange: GitExchange, repositories: Path, room: int) -> dict[str, str]:
    """Return all that the CGI program learns (RFC 3875). The length of a body is left out: it ends with the input."""
    name, service = exchange.repository, exchange.service.value
    request = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "GIT_PROJECT_ROOT": str(repositories),
        "GIT_HTTP_EXPORT_ALL": "1",
        "REQUEST_METHOD": "GET" if exchange.advertises else "POST",
        "PATH_INFO": f"/{name}.git/info/refs" if exchange.advertises else f"/{name}.git/{service}",
        "QUERY_STRING": f"service={service}" if exchange.advertises else "",
        "CONTENT_TYPE": "" if exchange.advertises else f"application/x-{service}-request",
        "REMOTE_USER": exchange.user,
        "GIT_PROTOCOL": exchange.protocol,
    }
    if exchange.push:
        request[PUSH_VARIABLE] = exchange.push
    own = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}
    options = {
        # Who creates a repository need not be who serves it. This Git opens no other one, and 2.39 knows it as ".".
        "safe.directory": "*",
        "http.receivepack": "true",
        "http.uploadpack": "true",
        "http.getanyfile": "false",
        "receive.maxInputSize": str(room),
        "core.bigFileThreshold": STREAMED,
        "pack.threads": "2",
    }
    if exchange.large:  # which a short list of large objects is, too
        options["receive.unpackLimit"] = "1"
    return {**own, **request, **dict(_as_environment(options))}


def _as_environment(options: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    yield "GIT_CONFIG_COUNT", str(len(options))
    for number, (key, value) in enumerate(options.items()):
        yield f"GIT_CONFIG_KEY_{number}", key
        yield f"GIT_CONFIG_VALUE_{number}", value


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder. What is removed meanwhile counts as nothing."""
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(root, name)).st_size
    return total


def refuse(connection: socket.socket, status: bytes) -> None:
    """Answer as a CGI program that refuses."""
    with suppress(OSError):
        connection.sendall(b"Status: %b\r\n\r\n" % status)


def refuse_busy(connection: socket.socket) -> None:
    refuse(connection, _BUSY)


def _relay(process: subprocess.Popen[bytes], connection: socket.socket) -> None:
    """Move Git's output to the caller. What a caller who has left does not take is discarded: a push that cannot write
    ends without removing what it has received."""
    assert process.stdout is not None
    with process.stdout:
        output = process.stdout.fileno()
        with suppress(OSError):
            while os.splice(output, connection.fileno(), PIECE):
                pass
        while os.read(output, PIECE):
            pass


class _Supervision:
    """Waits for the end of the processes of an exchange, and sees to it once the caller has left."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        connection: socket.socket,
        hurry: threading.Event,
        grace: float,
    ) -> None:
        assert process.stderr is not None
        self._process = process
        self._connection = connection
        self._errors = process.stderr
        self._told = b""
        self._deadline = NEVER
        self._hurry = hurry
        self._grace = grace
        self._signals = iter((signal.SIGTERM, signal.SIGKILL))

    def until_the_end(self) -> tuple[int, str]:
        """Return the exit code, and what Git has said about a failure."""
        watched = select.poll()
        watched.register(self._errors, select.POLLIN)
        watched.register(self._connection, 0)  # only its end
        ended = os.pidfd_open(self._process.pid)
        watched.register(ended, select.POLLIN)
        try:
            while self._process.poll() is None:
                self._look(watched)
        finally:
            os.close(ended)
            self._errors.close()
        code = self._process.returncode
        text = printable(self._told[-TOLD:].decode("utf-8", "replace").strip())
        return code, f": {text}" if code and text else ""

    def _look(self, watched: select.poll) -> None:
        pause = min(max(self._deadline - time.monotonic(), 0.0), LOOK)
        for descriptor, event in watched.poll(pause * 1000):
            if descriptor == self._errors.fileno():
                self._hear(watched)
            elif descriptor == self._connection.fileno() and event:
                watched.unregister(descriptor)
                self._deadline = time.monotonic() + self._grace
        if time.monotonic() >= self._deadline or (self._hurry.is_set() and self._deadline == NEVER):
            with suppress(ProcessLookupError, StopIteration):
                os.killpg(self._process.pid, next(self._signals))
            self._deadline = time.monotonic() + KILLING

    def _hear(self, watched: select.poll) -> None:
        said = os.read(self._errors.fileno(), 65536)
        self._told = (self._told + said)[-TOLD:]
        if not said:
            watched.unregister(self._errors)
