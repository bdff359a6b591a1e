"""Where backups lie: a folder, or a bucket of any S3 server. A backup appears under its name as a whole or not at all:
in a folder by a rename, in a bucket by completing an upload in parts."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, cast

from controller.adapters.objects import S3Objects
from controller.adapters.objects.external import read_credentials
from controller.atomic import flush, replace_file
from controller.backup.archive import disk_full
from controller.config import Settings
from controller.domain.backups import Backup, created_at
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.reasons import Reason
from controller.domain.storage.box import Part

_FIRST_PART: Final = 16 * 2**20  # bytes
_GROWTH: Final = 2500  # parts after which they become four times as large: S3 takes 10,000, and so 3 TiB
_TRIES: Final = 3
_PAUSE: Final = 2.0  # seconds before a part is sent again; doubled each time


class BackupPlace(Protocol):
    """Raises Transient `BackupFailed` or what the storage raises, Stalled `UnknownBackup`."""

    def __str__(self) -> str:
        """Return where it is, for people."""

    def all(self) -> tuple[Backup, ...]:
        """Return the complete backups of this instance."""

    def draft(self, name: str) -> Any:
        """A context manager that yields a file to write to. The backup is there once the block has ended without an
        error."""

    def open(self, name: str) -> Any:
        """A context manager that yields a file to read from."""

    def remove(self, name: str) -> None: ...

    def sweep(self) -> None:
        """Remove what attempts that were cut have left. No other one may be under way."""

    def close(self) -> None: ...


def place_of(settings: Settings) -> BackupPlace:
    """Return the place that the settings name. Raises Stalled `BackupDisabled`."""
    to = settings.backup.to
    if not to:
        raise Stalled(
            Reason.BACKUP_DISABLED, "backup.to is not set in the configuration: name a folder or a bucket"
        )
    if not to.startswith("s3://"):
        return FolderPlace(Path(to), settings.instance)
    bucket, _, prefix = to.removeprefix("s3://").partition("/")
    if settings.backup.credentials is None:
        raise Stalled(Reason.BACKUP_DISABLED, "backup.to is a bucket: set backup.credentials, too")
    account = read_credentials(settings.backup.credentials, "backup.credentials")
    objects = S3Objects(settings.backup.endpoint, *account, settings.backup.region)
    return BucketPlace(objects, bucket, prefix, settings.instance, settings.backups / "upload")


class FolderPlace:
    """A folder, which is made if it is missing. Only its owner can read what is in it."""

    def __init__(self, folder: Path, instance: str) -> None:
        self._folder, self._instance = folder, instance

    def __str__(self) -> str:
        return str(self._folder)

    def all(self) -> tuple[Backup, ...]:
        with self._telling("cannot list the backups in"):
            if not self._folder.is_dir():
                return ()
            return tuple(self._found(entry) for entry in os.scandir(self._folder) if self._is_backup(entry))

    def _is_backup(self, entry: os.DirEntry[str]) -> bool:
        return created_at(self._instance, entry.name) is not None and entry.is_file(follow_symlinks=False)

    def _found(self, entry: os.DirEntry[str]) -> Backup:
        size = entry.stat(follow_symlinks=False).st_size
        return Backup(entry.name, created_at(self._instance, entry.name) or 0.0, size)

    @contextmanager
    def draft(self, name: str) -> Iterator[BinaryIO]:
        draft = self._folder / f".{name}.part"
        with self._telling("cannot write a backup to"):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file, self._telling("cannot write a backup to"):
                yield file
                file.flush()
                os.fsync(descriptor)
            with self._telling("cannot write a backup to"):
                os.rename(draft, self._folder / name)
                flush(self._folder)
        except BaseException:
            with suppress(OSError):
                draft.unlink()
            raise

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        try:
            file = (self._folder / name).open("rb")
        except FileNotFoundError:
            raise unknown(name, str(self)) from None
        with file, self._telling("cannot read a backup in"):
            yield file

    def remove(self, name: str) -> None:
        with self._telling("cannot remove a backup in"):
            (self._folder / name).unlink(missing_ok=True)

    def sweep(self) -> None:
        with self._telling("cannot remove what is incomplete in"):
            for path in self._folder.glob(".prichal-*.part"):
                name = path.name.removeprefix(".").removesuffix(".part")
                if created_at(self._instance, name) is not None:
                    path.unlink(missing_ok=True)

    def close(self) -> None:
        pass

    @contextmanager
    def _telling(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise disk_full(f"{doing} {self._folder}") from error
            if error.errno is None:
                raise
            text = f"{doing} {self._folder}: {error.strerror}"
            raise Transient(Reason.BACKUP_FAILED, text) from error


class BucketPlace:
    """A bucket, which has to be there. `journal` remembers the upload under way, for `sweep` after a crash."""

    def __init__(
        self,
        objects: S3Objects,
        bucket: str,
        prefix: str,
        instance: str,
        journal: Path,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._objects, self._bucket, self._instance = objects, bucket, instance
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._journal = journal
        self._pause = pause

    def __str__(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}"

    def all(self) -> tuple[Backup, ...]:
        found: list[Backup] = []
        after: str | None = ""
        while after is not None:
            page = self._objects.page(self._bucket, self._prefix, after, folders=True)
            for each in page.objects:
                name = each.key.removeprefix(self._prefix)
                created = created_at(self._instance, name)
                if created is not None:
                    found.append(Backup(name, created, each.size))
            after = page.next
        return tuple(found)

    @contextmanager
    def draft(self, name: str) -> Iterator[BinaryIO]:
        key = self._prefix + name
        upload = self._objects.begin_upload(self._bucket, key)
        try:
            replace_file(self._journal, f"{key}\n{upload}\n", durable=True)
            with _PartsFile(self._objects, self._bucket, key, upload, self._pause) as parts:
                yield cast(BinaryIO, parts)
                done = parts.finish()
            self._objects.complete_upload(self._bucket, key, upload, done)
        except BaseException:
            with suppress(ControllerError):
                self._objects.abort_upload(self._bucket, key, upload)
                self._journal.unlink(missing_ok=True)
            raise
        self._journal.unlink(missing_ok=True)

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        try:
            with self._objects.open(self._bucket, self._prefix + name) as pieces:
                yield cast(BinaryIO, PiecesFile(pieces))
        except Stalled as error:
            if error.reason == Reason.OBJECT_MISSING:
                raise unknown(name, str(self)) from None
            raise

    def remove(self, name: str) -> None:
        self._objects.remove(self._bucket, (self._prefix + name,))

    def sweep(self) -> None:
        try:
            key, upload = self._journal.read_text("utf-8").splitlines()
        except (OSError, ValueError):
            return
        self._objects.abort_upload(self._bucket, key, upload)
        self._journal.unlink(missing_ok=True)

    def close(self) -> None:
        self._objects.close()


class _PartsFile:
    """A file that is written in parts to a bucket. Each is kept on the disk until it has arrived."""

    def __init__(
        self, objects: S3Objects, bucket: str, key: str, upload: str, pause: Callable[[float], object]
    ) -> None:
        self._objects, self._where, self._pause = objects, (bucket, key, upload), pause
        self._done: list[Part] = []
        self._buffer: BinaryIO = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - closed at the end

    def __enter__(self) -> _PartsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._buffer.close()

    def write(self, piece: bytes) -> int:
        self._buffer.write(piece)
        if self._buffer.tell() >= _FIRST_PART * 4 ** (len(self._done) // _GROWTH):
            self._send()
        return len(piece)

    def flush(self) -> None:
        pass

    def finish(self) -> tuple[Part, ...]:
        if self._buffer.tell() or not self._done:
            self._send()
        return tuple(self._done)

    def _send(self) -> None:
        self._done.append(self._sent(self._buffer.tell(), len(self._done) + 1))
        self._buffer.seek(0)
        self._buffer.truncate()

    def _sent(self, size: int, number: int) -> Part:
        for tries in range(1, _TRIES):
            try:
                return self._send_once(size, number)
            except Transient:
                self._pause(_PAUSE * 2 ** (tries - 1))
        return self._send_once(size, number)

    def _send_once(self, size: int, number: int) -> Part:
        self._buffer.seek(0)
        return self._objects.send_part(*self._where, number, self._buffer, size)


class PiecesFile:
    """A file of pieces that come one after another."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = piece
        if size < 0:
            return b"".join((self.read(len(self._rest)), *self._pieces))
        found, self._rest = self._rest[:size], self._rest[size:]
        return found


def unknown(name: str, where: str) -> Stalled:
    return Stalled(Reason.UNKNOWN_BACKUP, f"there is no backup {name!r} in {where}; see: prichal backup list")
