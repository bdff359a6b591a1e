"""The files of the state and their folders: who may read and write them, a lock that keeps processes apart while one
sets them up, and how a commit is announced to processes that wait for one (`commit_watch`).
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from controller.store.error_rules import UNWRITABLE, doing
from controller.store.shared_file import shared_path

LOGS = ("-wal", "-shm")  # the files that SQLite creates next to a database
#: Set-gid: the web process has another user and the same group; it reads.
FOLDER_MODE, FILE_MODE = 0o2750, 0o640
#: SQLite gives its -wal and -shm files the mode of the database.
SHARED_FOLDER_MODE, SHARED_FILE_MODE = 0o3770, 0o660


@contextmanager
def unprepared(path: Path) -> Iterator[None]:
    """Prevent other processes from setting up the files meanwhile."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_SH)
        yield
    finally:
        os.close(folder)


def claim_folder(path: Path) -> int:
    """Create missing files and folders, and return a locked descriptor of the folder of `path`. We create the
    files, since SQLite would apply the umask and exclude the group.
    """
    shared = shared_path(path)
    try:
        _make_folder(path.parent, FOLDER_MODE)
        folder = os.open(path.parent, os.O_RDONLY)
        fcntl.flock(folder, fcntl.LOCK_EX)
        _make_folder(shared.parent, SHARED_FOLDER_MODE)
        _make_file(path, FILE_MODE)
        for suffix in LOGS:
            _close(path.with_name(path.name + suffix), FILE_MODE)
        _make_sticky(shared.parent)
        _close(shared, SHARED_FILE_MODE)
    except OSError as error:
        raise UNWRITABLE.error(doing(path), str(error.strerror)) from error
    return folder


def _make_folder(path: Path, mode: int) -> None:
    if not path.exists():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
    _close(path, mode)


def _make_sticky(folder: Path) -> None:
    """An older version let all who write there remove what others have made."""
    found = folder.stat()
    if found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX:
        folder.chmod(stat.S_IMODE(found.st_mode) | stat.S_ISVTX)


def _make_file(path: Path, mode: int) -> None:
    if not path.exists():
        file = os.open(path, os.O_CREAT | os.O_RDWR)
        os.fchmod(file, mode)
        os.close(file)
    _close(path, mode)


def _close(path: Path, mode: int) -> None:
    """Remove rights that exceed the mode: an older version let the group write."""
    with suppress(FileNotFoundError):
        found = path.lstat()  # in a folder of others, a link may have replaced it
        if stat.S_ISLNK(found.st_mode):
            return
        if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) & ~mode:
            path.chmod(mode)


def has_logs(path: Path) -> bool:
    """Return whether a process that may only read can open the database."""
    return all(path.with_name(path.name + suffix).exists() for suffix in LOGS)


def leave_open(path: Path) -> None:
    """Create empty log and index files. SQLite removes them with the last connection, and read-only users
    cannot open the database without them. Called by the owner after it has closed the database.
    """
    with suppress(OSError):
        for suffix in LOGS:
            _make_file(path.with_name(path.name + suffix), FILE_MODE)


def announce(path: Path) -> None:
    """Wake all who watch the folder of the database at `path` after a commit to it: inotify reports that the times of
    the file were set. The file is not opened for it, because to close it again would drop the locks that SQLite has on
    it. Links are not followed, and a failure is not reported: who waits looks now and then although nothing wakes them.
    """
    with suppress(OSError):
        os.utime(path, follow_symlinks=False)
