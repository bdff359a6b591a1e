"""Tells whether a worker of the gateway still lives: each holds the lock of a file of its own, which the kernel
releases however the worker ends. No clock is involved. The dispatcher finds calls whose worker has gone by it."""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

_NAME = re.compile(r"[0-9]+-[0-9a-f]+")


class WorkerPresence:
    """`folder` belongs to the web process, `worker` is the name of this worker."""

    def __init__(self, folder: Path, worker: str) -> None:
        self._folder = folder
        self._worker = worker
        self._descriptor: int | None = None

    def enter(self) -> None:
        """Hold the lock. Called before this worker takes calls, and again in case somebody has removed the file."""
        path = self._path(self._worker)
        if self._descriptor is not None and _is_same(self._descriptor, path):
            return
        self.leave()
        self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_same(descriptor, path):
                self._descriptor = descriptor
                return
            os.close(descriptor)  # another worker took it for a file that was left over, and removed it

    def leave(self) -> None:
        if self._descriptor is None:
            return
        self._path(self._worker).unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = None

    def has_gone(self, worker: str) -> bool:
        """Return True if that worker has ended; its file is removed. Raises OSError."""
        if worker == self._worker:
            return False
        if not _NAME.fullmatch(worker):
            return True
        path = self._path(worker)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def forget(self) -> None:
        """Remove the files of workers that have ended without calls."""
        for path in self._folder.glob("*.lock"):
            self.has_gone(path.stem)

    def _path(self, worker: str) -> Path:
        return self._folder / f"{worker}.lock"


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
