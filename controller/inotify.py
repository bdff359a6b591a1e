"""Folders whose files are watched for changes by inotify(7). Used by the store, which alone knows which files they are.

Only events of two kinds are asked for: attributes of a file have changed, or a file was moved into the folder. What has
happened is not kept: a descriptor is readable if something has. Python has no module for inotify, and the three calls
are made by ctypes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_ATTRIBUTES, _MOVED_HERE, _FOLDERS_ALONE = 0x4, 0x80, 0x0100_0000  # of inotify(7)
_EVENTS = 64 * 1024  # bytes that are read at once: some thousand events


class FolderEvents:
    """Owns a descriptor, which a child process does not get by exec. Not to be used by a child of a fork: both would
    read the same events."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """Raises OSError where there is no inotify, or no more of it for this user."""
        if not sys.platform.startswith("linux"):
            raise OSError(errno.ENOSYS, "this system has no inotify")
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = _checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._watched: dict[Path, int | None] = dict.fromkeys(folders)
        try:
            self.watch_again()
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        return self._descriptor

    def watch_again(self) -> None:
        """Watch the folders that are at the paths now. Does nothing for a folder that is watched already, or is
        missing. Raises OSError."""
        for folder, before in self._watched.items():
            now = self._watch(folder)
            if before is not None and now is not None and before != now:
                self._libc.inotify_rm_watch(self._descriptor, before)  # of a folder that was replaced
            self._watched[folder] = now

    def _watch(self, folder: Path) -> int | None:
        mask = _ATTRIBUTES | _MOVED_HERE | _FOLDERS_ALONE
        try:
            return _checked(self._libc.inotify_add_watch(self._descriptor, os.fsencode(folder), mask))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def clear(self) -> None:
        """Forget what has happened. If that is more than one read returns, the descriptor stays readable: nobody can
        keep this process busy here."""
        with suppress(BlockingIOError):
            os.read(self._descriptor, _EVENTS)

    def close(self) -> None:
        os.close(self._descriptor)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
