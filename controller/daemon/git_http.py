"""The Git service: `prichal git-http`. It takes requests of the web process on a Unix socket that only that process may
open, checks each one, and runs Git for it. It neither has the rights of the daemon nor listens on a network.

systemd opens the socket and starts the service with the first connection; without systemd the service makes the socket
itself, for processes of its own user.
"""

from __future__ import annotations

import logging
import os
import pwd
import socket
import threading
from dataclasses import dataclass

from controller.adapters.git_backend import GitBackend, bound_memory, refuse_busy
from controller.config import Settings
from controller.daemon.stop_signals import stop_on_signals
from controller.domain.errors import Stalled
from controller.domain.git_http import LONGEST, PREFIX, GitExchange, read_exchange
from controller.domain.reasons import Reason
from controller.notify import notify
from controller.unix_socket import inherited, listening

log = logging.getLogger(__name__)

MOST = 64  # exchanges at once; the web process bounds those of each person and repository
HEADER = 10.0  # seconds for a request
LOOK = 0.5  # seconds between looks whether the service is to stop
DRAIN = 75.0  # seconds that exchanges under way get then, as calls get from the web process
SHARED = 0o007  # umask: what is pushed belongs to the group of the repository, as over SSH


@dataclass(frozen=True)
class ServiceUsers:
    """Where no systemd opens the socket: the process begins as root, makes the socket for the user `web`, and becomes
    the user `service`."""

    service: str
    web: str


def run(settings: Settings, users: ServiceUsers | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code."""
    stop = threading.Event()
    stop_on_signals(stop)
    with _socket(settings) as listener:
        if users is not None:
            _become(users, settings)
        os.umask(SHARED)
        bound_memory()
        server = GitServer(GitBackend(settings.repositories, settings.git.max_repository), listener)
        log.info("git service started", extra={"repositories": settings.repositories})
        notify("READY=1")
        server.serve(stop)
        notify("STOPPING=1")
    server.drain(DRAIN)
    return 0


def _socket(settings: Settings) -> socket.socket:
    try:
        settings.state.mkdir(mode=0o750, parents=True, exist_ok=True)
        return inherited() or listening(settings.git_socket)
    except OSError as error:
        message = f"cannot listen on {settings.git_socket}: {error.strerror or error}"
        raise Stalled(Reason.HOSTING_FAILED, message) from error


def _become(users: ServiceUsers, settings: Settings) -> None:
    """Give the socket to the web process, and all rights of root up."""
    try:
        web, own = pwd.getpwnam(users.web), pwd.getpwnam(users.service)
        os.chown(settings.git_socket, web.pw_uid, web.pw_gid)
        os.initgroups(own.pw_name, own.pw_gid)
        os.setresgid(own.pw_gid, own.pw_gid, own.pw_gid)
        os.setresuid(own.pw_uid, own.pw_uid, own.pw_uid)
    except (KeyError, OSError) as error:
        message = f"cannot become the user {users.service} for the user {users.web}: {error}"
        raise Stalled(Reason.HOSTING_FAILED, message) from error


class GitServer:
    """Takes requests from a listening socket. Each one has a thread, which waits for Git's processes."""

    def __init__(self, backend: GitBackend, listener: socket.socket, most: int = MOST) -> None:
        self._backend = backend
        self._listener = listener
        self._most = most
        self._free = threading.BoundedSemaphore(most)
        self._hurry = threading.Event()

    def serve(self, stop: threading.Event) -> None:
        self._listener.settimeout(LOOK)
        while not stop.is_set():
            try:
                connection = self._listener.accept()[0]
            except TimeoutError:
                continue
            if self._free.acquire(blocking=False):
                threading.Thread(target=self._one, args=(connection,), name="exchange", daemon=True).start()
            else:
                with connection:
                    refuse_busy(connection)

    def drain(self, seconds: float) -> None:
        """Wait for exchanges under way, and end those that are left."""
        timer = threading.Timer(seconds, self._hurry.set)
        timer.start()
        for _ in range(self._most):
            self._free.acquire()
        timer.cancel()

    def _one(self, connection: socket.socket) -> None:
        try:
            with connection:
                self._answer(connection)
        except Exception:  # a bug, or no processes left: it ends this exchange alone
            log.exception("an exchange failed")
        finally:
            self._free.release()

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(HEADER)
        try:
            exchange = _read(connection)
        except (OSError, ValueError) as error:
            log.warning("a request of the web process is not understood: %s", error)
            return
        connection.settimeout(None)
        self._backend.serve(connection, exchange, self._hurry)


def _read(connection: socket.socket) -> GitExchange:
    """Read exactly the request: what follows is for Git. Raises OSError, ValueError."""
    (length,) = PREFIX.unpack(_exactly(connection, PREFIX.size))
    if length > LONGEST:
        raise ValueError(f"it has {length} bytes")
    return read_exchange(_exactly(connection, length))


def _exactly(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        piece = connection.recv(count - len(found))
        if not piece:
            raise ValueError("it is incomplete")
        found += piece
    return found
