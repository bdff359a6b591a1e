"""Copies folders and groups with all their files, several at once. Files that exist with the same size and
checksum are skipped, so that an interrupted copy can be resumed. Nothing is removed.

A file that cannot be copied does not affect others; an error that would affect all of them ends the copy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from controller.client.files.api import RemoteFile
from controller.client.files.client import FilesClient
from controller.client.files.local_files import Moved, is_same, usable
from controller.domain.errors import ControllerError, Stalled
from controller.domain.reasons import Reason
from controller.domain.storage.addresses import AddressInvalid, BoxAddress

AT_ONCE: Final = 4  # files
#: Failures of one file, which say nothing about others.
_OWN: Final = (
    Reason.ADDRESS_INVALID,
    Reason.CHECKSUM_MISMATCH,
    Reason.FILE_NOT_FOUND,
    Reason.LOCAL_FILE_CHANGED,
    Reason.LOCAL_FILE_UNUSABLE,
    Reason.REQUEST_REFUSED,
)


@dataclass(frozen=True)
class FileCopy:
    """`name` is relative to the folder or group. `size` in bytes counts once, though a relayed file moves
    twice.
    """

    name: str
    size: int
    is_there: Callable[[], bool]
    copy: Callable[[Moved], RemoteFile]


@dataclass(frozen=True)
class CopyTotals:
    """`bytes` are those of the copied files. `failed` has names with their errors."""

    copied: int = 0
    skipped: int = 0
    bytes: int = 0
    failed: tuple[tuple[str, ControllerError], ...] = field(default=())


def uploads(client: FilesClient, folder: Path, group: BoxAddress) -> list[FileCopy]:
    there = _listing(client, group)

    def job(name: str) -> FileCopy:
        path, known = folder / name, there.get(name)
        return FileCopy(
            name,
            _size(path),
            lambda: known is not None and is_same(path, known.size, known.etag),
            lambda moved: client.upload(path, _below(group, name), moved),
        )

    with usable(folder):
        return [job(name) for name in _walk(folder)]


def downloads(client: FilesClient, group: BoxAddress, folder: Path) -> list[FileCopy]:
    def is_there(file: RemoteFile) -> bool:
        _below(group, file.name)  # checked before a name from a server is used
        return is_same(folder / file.name, file.size, file.etag)

    def fetch(file: RemoteFile, moved: Moved) -> RemoteFile:
        target = folder / file.name
        client.make_folder(target.parent)
        return client.download(_below(group, file.name), target, moved)

    def job(file: RemoteFile) -> FileCopy:
        return FileCopy(file.name, file.size, lambda: is_there(file), lambda moved: fetch(file, moved))

    return [job(file) for file in _listing(client, group).values()]


def relays(client: FilesClient, source: BoxAddress, target: BoxAddress) -> list[FileCopy]:
    there = _listing(client, target)

    def job(file: RemoteFile) -> FileCopy:
        known = there.get(file.name)
        return FileCopy(
            file.name,
            file.size,
            lambda: known is not None and (known.size, known.etag) == (file.size, file.etag),
            lambda moved: client.relay(_below(source, file.name), _below(target, file.name), moved),
        )

    return [job(file) for file in _listing(client, source).values()]


def run(client: FilesClient, jobs: list[FileCopy], moved: Moved) -> CopyTotals:
    """Do all jobs; bytes of files that exist already count as moved. Raises errors that would affect every
    job.
    """
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="file") as pool:
        asked = {pool.submit(_do, job, moved): job for job in jobs}
        try:
            return _collect(asked)
        except BaseException:
            client.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _do(job: FileCopy, moved: Moved) -> bool:
    """Do a job, and return whether there was something to copy."""
    if job.is_there():
        moved(job.size)
        return False
    job.copy(moved)
    return True


def _collect(asked: dict[Future[bool], FileCopy]) -> CopyTotals:
    copied, skipped, size = 0, 0, 0
    failed: list[tuple[str, ControllerError]] = []
    for done in as_completed(asked):
        job = asked[done]
        try:
            is_copied = done.result()
        except Stalled as error:
            if error.reason not in _OWN:
                raise
            failed.append((job.name, error))
            continue
        copied, skipped = copied + is_copied, skipped + (not is_copied)
        size += job.size if is_copied else 0
    return CopyTotals(copied, skipped, size, tuple(sorted(failed, key=lambda each: each[0])))


def _listing(client: FilesClient, group: BoxAddress) -> dict[str, RemoteFile]:
    return {file.name: file for page in client.pages(group, recursive=True) for file in page.files}


def _walk(folder: Path) -> Iterator[str]:
    """Yield the relative paths of all files below. Links to folders are not followed and fail to be copied."""

    def fail(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=fail):
        folders.sort()
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in sorted(names + links):
            yield os.path.relpath(os.path.join(place, name), folder)


def _size(path: Path) -> int:
    """Return the size; 0 if it cannot be read: copying the file will show why."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _below(group: BoxAddress, name: str) -> BoxAddress:
    """Return the address of a name, which is valid in a folder, too: no empty segment, no `..`."""
    try:
        return group.below(name)
    except AddressInvalid as error:
        raise Stalled(Reason.ADDRESS_INVALID, str(error)) from error
