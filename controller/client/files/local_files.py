"""Files of this machine that are uploaded or downloaded. Errors of the system become Stalled
`LocalFileUnusable`; a file that changes while it is read raises `LocalFileChanged`.

Links are followed as by `cp` and `curl -o`: the target is read or written, and the link stays. Devices, pipes
and open files of a process (`/dev/stdout`) are written to directly and never replaced by a file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, Self

from controller.client.files import checksums
from controller.client.files.checksums import Match
from controller.domain.errors import Stalled
from controller.domain.reasons import Reason

_LONGEST: Final = 255  # bytes of a name, on common file systems
_MOST_LINKS: Final = 40  # in a row, as Linux follows them

#: Called with the number of bytes as they move; a negative number means that bytes have to be moved again.
#: Several threads call it; an exception ends the transfer.
Moved = Callable[[int], None]


@contextmanager
def usable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"{error.filename or path}: {error.strerror or error}"
        raise Stalled(Reason.LOCAL_FILE_UNUSABLE, message) from error


@dataclass(frozen=True)
class LocalFile:
    """A regular file, open for reading, with its size (bytes) and time of last change (nanoseconds) at the
    opening. Threads may share it: every read names its position.
    """

    path: Path
    descriptor: int
    size: int
    modified: int

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        with usable(path):
            # Opening a pipe would wait for its other end.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise Stalled(
                    Reason.LOCAL_FILE_UNUSABLE, f"{path} is not a regular file; `-` uploads standard input"
                )
            yield cls(path, descriptor, found.st_size, found.st_mtime_ns)
        finally:
            os.close(descriptor)

    @property
    def version(self) -> str:
        """Return a text that changes with the content, as far as the file system shows."""
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
        return Stalled(Reason.LOCAL_FILE_CHANGED, f"{self.path} was changed while it was read; copy it again")


@dataclass
class SendingFile:
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
        """Undo the progress of bytes that have not arrived."""
        self.moved(-self.sent)
        self.sent = 0


class DownloadTarget(Protocol):
    """The target of a download. `key` identifies it to a later command that resumes it; empty if none can."""

    @property
    def key(self) -> str: ...

    @property
    def size(self) -> int:
        """The bytes that are there."""

    def empty(self) -> None: ...

    def append(self, piece: bytes) -> None: ...

    def compare(self, etag: str) -> Match: ...

    def finish(self) -> None: ...

    def discard(self) -> None: ...


@contextmanager
def opened(target: Path) -> Iterator[DownloadTarget]:
    """Yield the sink for this target: a stream, or the file that its links lead to."""
    with usable(target):
        stream = is_stream(target)
    if stream:
        with StreamTarget.open(target) as sink:
            yield sink
    else:
        with PartialFile.open(target) as partial:
            yield partial


def is_stream(path: Path) -> bool:
    """Return whether the path can only be written sequentially: a device, a pipe, or an open file of a
    process, such as /dev/stdout, also through links. Raises OSError.
    """
    end = _end_of_links(path)
    if _is_kernels(end):
        return not end.is_dir()
    return end.exists() and not end.is_file() and not end.is_dir()


def own_descriptor(path: Path) -> int | None:
    """Return the number of an open file of this process, for a path such as /dev/stdin or /dev/fd/63. Raises
    OSError.
    """
    end = _end_of_links(path)
    is_own = os.path.realpath(end.parent) == f"/proc/{os.getpid()}/fd" and end.name.isdecimal()
    return int(end.name) if is_own else None


def _end_of_links(path: Path) -> Path:
    """Follow a path link by link. Links of /proc show the former name of a file and are not followed."""
    for _ in range(_MOST_LINKS):
        if Path(os.path.realpath(path.parent)).parts[:2] == ("/", "proc") or not path.is_symlink():
            return path
        path = path.parent / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _is_kernels(path: Path) -> bool:
    """Return whether the path belongs to the kernel. Shared memory has files like any other folder."""
    parts = Path(os.path.realpath(path.parent)).parts
    return parts[:2] in (("/", "dev"), ("/", "proc")) and parts[:3] != ("/", "dev", "shm")


@dataclass
class StreamTarget:
    """A download to a stream. Written bytes cannot be undone, so the download fails if the object is
    replaced.
    """

    name: str
    descriptor: int
    size: int = 0
    key: str = ""
    _digest: hashlib._Hash = field(default_factory=lambda: hashlib.md5(usedforsecurity=False))

    @classmethod
    @contextmanager
    def open(cls, target: Path) -> Iterator[Self]:
        """Open the stream. A pipe without a reader is an error rather than a reason to wait."""
        with usable(target):
            own = own_descriptor(target)
            if own is not None:  # opened by its path, a file would be written from its start
                descriptor = os.dup(own)
            else:
                descriptor = os.open(target, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
                os.set_blocking(descriptor, True)
        try:
            yield cls(str(target), descriptor)
        finally:
            os.close(descriptor)

    def empty(self) -> None:
        if self.size:
            raise Stalled(
                Reason.LOCAL_FILE_UNUSABLE,
                f"{self.size} bytes were already written to {self.name}, but the download has to start again",
            )

    def append(self, piece: bytes) -> None:
        self._digest.update(piece)
        with usable(Path(self.name)):
            while piece:
                written = os.write(self.descriptor, piece)
                piece = piece[written:]
                self.size += written

    def compare(self, etag: str) -> Match:
        """Compare only the checksum of a whole object, since parts cannot be read again."""
        if not checksums.is_of_whole(etag):
            return Match.UNKNOWN
        return Match.SAME if self._digest.hexdigest() == etag else Match.OTHER

    def finish(self) -> None:
        pass

    def discard(self) -> None:
        pass


@dataclass(frozen=True)
class PartialFile:
    """A download under way, in `<name>.part` next to its target. A lock keeps other processes from writing
    it.
    """

    target: Path
    path: Path
    descriptor: int

    @classmethod
    @contextmanager
    def open(cls, target: Path) -> Iterator[Self]:
        """Open the file, which stays as it is at the end, unless it was finished or discarded."""
        with usable(target):
            target = Path(os.path.realpath(target))
            if target.exists() and not target.is_file():
                raise Stalled(Reason.LOCAL_FILE_UNUSABLE, f"{target} is a folder")
            path = target.with_name(_part_name(target.name))
            descriptor = _lock(path)
        try:
            yield cls(target, path, descriptor)
        finally:
            os.close(descriptor)

    @property
    def key(self) -> str:
        return str(self.path)

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
        """Rename the file to its target. After a failure of the machine there is either the old file or the
        complete new one.
        """
        with usable(self.target):
            if (
                self.target.exists()
                # the mode stays, as if the file were overwritten: a script stays executable, a private file
                # private
            ):
                os.fchmod(self.descriptor, stat.S_IMODE(self.target.stat().st_mode))
            os.fsync(self.descriptor)
            self.path.replace(self.target)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)


def is_same(path: Path, size: int, etag: str) -> bool:
    """Return whether `path` is a file with that content, as far as the ETag shows."""
    try:
        with LocalFile.open(path) as file:
            return file.size == size and file.compare(etag) is Match.SAME
    except Stalled:
        return False


def _part_name(name: str) -> str:
    """Return `<name>.part`, shortened if that is too long for a file name."""
    encoded = os.fsencode(name)
    if len(encoded) + len(".part") <= _LONGEST:
        return f"{name}.part"
    digest = hashlib.md5(encoded, usedforsecurity=False).hexdigest()[:12]
    return f"{encoded[:200].decode(errors='ignore')}.{digest}.part"


def _lock(path: Path) -> int:
    """Return a locked descriptor that appends. If the previous holder of the lock has renamed the file, open
    a new one.
    """
    import fcntl  # here, so that commands that copy nothing run on systems without it

    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor)):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            message = f"{path} is being written by another command"
            raise Stalled(Reason.LOCAL_FILE_UNUSABLE, message) from None
        os.close(descriptor)
