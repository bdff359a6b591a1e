"""Copying folders and groups with all that is below them: several files at once; what is there already, with the same
size and checksum, is passed over, so that a copy that broke off goes on. Nothing is ever removed.

A file that cannot be copied does not keep the others from it; what would befall them all ends the copy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from controller.adapters.files_client.api import File
from controller.adapters.files_client.client import FilesClient
from controller.adapters.files_client.local import Moved, is_same, usable
from controller.domain.addresses import Address, AddressInvalid
from controller.domain.errors import ControllerError, Stalled

AT_ONCE: Final = 4  # files
#: Failures of one file, which say nothing of the next one.
_OWN: Final = (
    "AddressInvalid",
    "ChecksumMismatch",
    "FileNotFound",
    "LocalFileChanged",
    "LocalFileUnusable",
    "RequestRefused",
)


@dataclass(frozen=True)
class Job:
    """`name` is relative to the folder or group. `size` in bytes counts once, though a relayed file moves twice."""

    name: str
    size: int
    is_there: Callable[[], bool]
    copy: Callable[[Moved], File]


@dataclass(frozen=True)
class Totals:
    """`bytes` are those of the copied files. `failed` has a name and the reason each."""

    copied: int = 0
    skipped: int = 0
    bytes: int = 0
    failed: tuple[tuple[str, ControllerError], ...] = field(default=())


def uploads(client: FilesClient, folder: Path, group: Address) -> list[Job]:
    there = _listing(client, group)

    def job(name: str) -> Job:
        path, known = folder / name, there.get(name)
        return Job(
            name,
            _size(path),
            lambda: known is not None and is_same(path, known.size, known.etag),
            lambda moved: client.upload(path, _below(group, name), moved),
        )

    with usable(folder):
        return [job(name) for name in _walk(folder)]


def downloads(client: FilesClient, group: Address, folder: Path) -> list[Job]:
    def is_there(file: File) -> bool:
        _below(group, file.name)  # before anything is done with a name that a server sent
        return is_same(folder / file.name, file.size, file.etag)

    def fetch(file: File, moved: Moved) -> File:
        target = folder / file.name
        with usable(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        return client.download(_below(group, file.name), target, moved)

    def job(file: File) -> Job:
        return Job(file.name, file.size, lambda: is_there(file), lambda moved: fetch(file, moved))

    return [job(file) for file in _listing(client, group).values()]


def relays(client: FilesClient, source: Address, target: Address) -> list[Job]:
    there = _listing(client, target)

    def job(file: File) -> Job:
        known = there.get(file.name)
        return Job(
            file.name,
            file.size,
            lambda: known is not None and (known.size, known.etag) == (file.size, file.etag),
            lambda moved: client.relay(_below(source, file.name), _below(target, file.name), moved),
        )

    return [job(file) for file in _listing(client, source).values()]


def run(client: FilesClient, jobs: list[Job], moved: Moved) -> Totals:
    """Do all jobs; bytes of files that are there already count as moved. Raises what would befall every job."""
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="file") as pool:
        asked = {pool.submit(_do, job, moved): job for job in jobs}
        try:
            return _collect(asked)
        except BaseException:
            client.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _do(job: Job, moved: Moved) -> bool:
    """Whether there was something to copy."""
    if job.is_there():
        moved(job.size)
        return False
    job.copy(moved)
    return True


def _collect(asked: dict[Future[bool], Job]) -> Totals:
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
    return Totals(copied, skipped, size, tuple(sorted(failed, key=lambda each: each[0])))


def _listing(client: FilesClient, group: Address) -> dict[str, File]:
    return {file.name: file for page in client.pages(group, recursive=True) for file in page.files}


def _walk(folder: Path) -> Iterator[str]:
    """All that is below, but folders; relative. Links to folders are not followed and count as what cannot be
    copied."""

    def fail(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=fail):
        folders.sort()
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in sorted(names + links):
            yield os.path.relpath(os.path.join(place, name), folder)


def _size(path: Path) -> int:
    """0 for what cannot be looked at: copying it will tell why."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _below(group: Address, name: str) -> Address:
    """A name that passes here also leads nowhere else in a folder: no empty segment, no `..`."""
    try:
        return group.below(name)
    except AddressInvalid as error:
        raise Stalled("AddressInvalid", str(error)) from error
