"""Files of this machine: one that is uploaded, and one that is being downloaded. Errors of the system leave as Stalled
`LocalFileUnusable`, a file that changes under our hands as `LocalFileChanged`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from controller.adapters.files_client import checksums
from controller.adapters.files_client.checksums import Match
from controller.domain.errors import Stalled

_LONGEST: Final = 255  # bytes of a name, on usual file systems

#: Told of bytes as they move; a negative number takes back what has to be moved once more. Called by several threads;
#: what it raises ends the transfer.
Moved = Callable[[int], None]


@contextmanager
def usable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"{error.filename or path}: {error.strerror or error}"
        raise Stalled("LocalFileUnusable", message) from error


@dataclass(frozen=True)
class LocalFile:
    """A regular file, open for reading, with the size (bytes) and time of its last change (nanoseconds) that it had
    then. For several threads at once: everything is read at positions that are named."""

    path: Path
    descriptor: int
    size: int
    modified: int

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        with usable(path):
            # A pipe would let us wait for its other end.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise Stalled("LocalFileUnusable", f"{path} is a folder, or no regular file")
            yield cls(path, descriptor, found.st_size, found.st_mtime_ns)
        finally:
            os.close(descriptor)

    @property
    def version(self) -> str:
        """Changes with the content, as far as the file system tells."""
        return f"{self.size} {self.modified}"

    def md5(self, start: int, length: int) -> bytes:
        with usable(self.path):
            return checksums.md5(self.descriptor, start, length).digest()

    def compare(self, etag: str) -> Match:
        with usable(self.path):
            return checksums.compare(self.descriptor, self.size, etag)

    def check_unchanged(self) -> None:
        found = os.fstat(self.descriptor)
        if (found.st_size, found.st_mtime_ns) != (self.size, self.modified):
            raise self.changed()

    def changed(self) -> Stalled:
        return Stalled("LocalFileChanged", f"{self.path} was changed while it was read; copy it once more")


@dataclass
class Sending:
    """`left` bytes of a file from `position` on, as the body of a request."""

    file: LocalFile
    position: int
    left: int
    moved: Moved
    sent: int = 0

    def read(self, amount: int) -> bytes:
        with usable(self.file.path):
            piece = os.pread(self.file.descriptor, min(amount, self.left), self.position)
        if self.left and not piece:
            raise self.file.changed()
        self.position += len(piece)
        self.left -= len(piece)
        self.sent += len(piece)
        self.moved(len(piece))
        return piece

    def take_back(self) -> None:
        """What was sent has not arrived."""
        self.moved(-self.sent)
        self.sent = 0


@dataclass(frozen=True)
class Partial:
    """A download under way, in `<name>.part` beside its target. It is locked: nobody else writes it meanwhile."""

    target: Path
    path: Path
    descriptor: int

    @classmethod
    @contextmanager
    def open(cls, target: Path) -> Iterator[Self]:
        """Left as it is at the end, unless it was finished or discarded."""
        path = target.with_name(_part_name(target.name))
        with usable(target):
            if target.exists() and not target.is_file():
                raise Stalled("LocalFileUnusable", f"{target} is a folder, or no regular file")
            descriptor = _lock(path)
        try:
            yield cls(target, path, descriptor)
        finally:
            os.close(descriptor)

    @property
    def size(self) -> int:
        return os.fstat(self.descriptor).st_size

    def empty(self) -> None:
        with usable(self.path):
            os.ftruncate(self.descriptor, 0)

    def append(self, piece: bytes) -> None:
        with usable(self.path):
            while piece:
                piece = piece[os.write(self.descriptor, piece) :]

    def compare(self, etag: str) -> Match:
        with usable(self.path):
            return checksums.compare(self.descriptor, self.size, etag)

    def finish(self) -> None:
        """Give it its name. After a failure of the machine, too, there is the old file or the whole new one."""
        with usable(self.target):
            os.fsync(self.descriptor)
            self.path.replace(self.target)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)


def is_same(path: Path, size: int, etag: str) -> bool:
    """Whether `path` is a file with that content, as far as the ETag tells."""
    try:
        with LocalFile.open(path) as file:
            return file.size == size and file.compare(etag) is Match.SAME
    except Stalled:
        return False


def _part_name(name: str) -> str:
    """`<name>.part`, shortened where no file can be called so."""
    encoded = os.fsencode(name)
    if len(encoded) + len(".part") <= _LONGEST:
        return f"{name}.part"
    digest = hashlib.md5(encoded, usedforsecurity=False).hexdigest()[:12]
    return f"{encoded[:200].decode(errors='ignore')}.{digest}.part"


def _lock(path: Path) -> int:
    """A descriptor that appends. Who held the lock before may have given the file its final name: then it is not
    ours."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor)):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            message = f"{path} is being written by another command"
            raise Stalled("LocalFileUnusable", message) from None
        os.close(descriptor)
