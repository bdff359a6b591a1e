"""One daemon per state folder, by an flock, which the kernel releases however its holder dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.domain.errors import Stalled
from controller.domain.reasons import Reason


@contextmanager
def only_one(private: Path) -> Iterator[None]:
    """Hold the lock of the folder. Raises Stalled `AlreadyRunning` with the other daemon's process id if it
    is taken.
    """
    descriptor = os.open(private / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            message = f"a daemon (process {holder}) already uses the state folder {private.parent}"
            raise Stalled(Reason.ALREADY_RUNNING, f"{message}; stop it or use another state folder") from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def holder(private: Path) -> int | None:
    """Return the process id of the running daemon, or None if none runs."""
    try:
        descriptor = os.open(private / "daemon.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.read(descriptor, 32).decode().strip() or 0)
    else:
        return None
    finally:
        os.close(descriptor)
