"""Sockets in the file system, between two processes of ours. A path of any length will do, though the kernel takes 107
bytes: the folder is opened first, and the socket named below its descriptor.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BACKLOG = 64


def listening(path: Path) -> socket.socket:
    """Return a socket that only this user may connect to, in place of one that nobody listens on any more."""
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode) and not _is_served(path):
            path.unlink()
    made = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        with _short(path) as name:
            made.bind(name)
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    finally:
        os.umask(before)
    return made


def connected(path: Path) -> socket.socket:
    """Return a connection that does not block. Raises OSError at once if nobody accepts it."""
    made = socket.socket(socket.AF_UNIX)
    made.setblocking(False)
    try:
        with _short(path) as name:
            made.connect(name)
    except BaseException:
        made.close()
        raise
    return made


def inherited() -> socket.socket | None:
    """Return the socket that systemd has opened for this service (sd_listen_fds(3)), if it has."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    os.set_inheritable(3, False)
    return socket.socket(fileno=3)


def _is_served(path: Path) -> bool:
    try:
        connected(path).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def _short(path: Path) -> Iterator[str]:
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
