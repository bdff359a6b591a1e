"""What a stage has made: looked through with suspicion, opened for the stages after it, published to a box.

Published are files, object by object, and then a manifest with their names, sizes and digests: where it lies, all of an
output is there. A folder that a container has written may hold anything: nothing of it is followed out of the folder.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from controller.domain.errors import Stalled, Transient
from controller.domain.groups import MANIFEST, manifest_head
from controller.domain.keys import KeyInvalid, parse_path
from controller.domain.names import ComponentName
from controller.domain.runs import OutputFile, Run, RunOutput
from controller.domain.storage import Pending, Room
from controller.domain.units import about_size
from controller.ports import Objects
from controller.runner.deps import Deps
from controller.runner.parallel import in_order
from controller.runner.signals import Signals
from controller.runner.verdict import FULL

RESERVED_FOR = 86400.0  # seconds at the most that room is kept for an output that is under way
SETTLED = (
    10.0  # seconds: so long before the manifest was written does the reservation claim to have been made
)


@dataclass(frozen=True)
class Found:
    """One file. `name` is relative to the variable's folder, `path` where its content lies."""

    name: str
    path: Path
    size: int  # bytes


# --- looking through --------------------------------------------------------------------------------------------


def open_up(folder: Path) -> None:
    """Let everybody read what a stage has made: the next one may run as another user. Stalled `OutputMissing` if there
    is no file, `OutputInvalid` for what cannot be looked through."""
    if not folder.is_dir() or folder.is_symlink():
        raise Stalled("OutputMissing", f"the output {folder.name!r} is no folder")
    if not sum(entry.is_file(follow_symlinks=False) or entry.is_symlink() for entry, _ in _walk(folder)):
        raise Stalled(
            "OutputMissing",
            f"the stage has put nothing into its output {folder.name!r}; its path is in the environment",
        )


def files_of(folder: Path) -> Iterator[Found]:
    """In a fixed order. Stalled `OutputInvalid` for what cannot be published."""
    for entry, path in _walk(folder):
        if entry.is_dir(follow_symlinks=False):
            continue
        name = str(path.relative_to(folder))
        content = _linked(folder, path) if entry.is_symlink() else path
        found = content.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise Stalled("OutputInvalid", f"{name!r} is no file but a pipe, a socket or a device")
        if name != MANIFEST:
            yield Found(name, content, found.st_size)


def _walk(folder: Path) -> Iterator[tuple[os.DirEntry[str], Path]]:
    """All below, at any depth, the entries of one folder in memory at a time. Everybody may read it afterwards."""
    pending = [folder]
    while pending:
        here = pending.pop()
        for entry in _entries(here):
            path = here / entry.name
            if entry.is_dir(follow_symlinks=False):
                pending.append(path)
            yield entry, path


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        _allow(folder, folder.lstat().st_mode, 0o555)
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                _allow(entry, os.lstat(entry).st_mode, 0o444)  # an entry would keep what it was told
    except OSError as error:
        place = str(folder)[:200]
        raise Stalled("OutputInvalid", f"cannot look through {place}: {error.strerror}") from error
    return entries


def _allow(path: os.PathLike[str], mode: int, wanted: int) -> None:
    if mode & wanted != wanted:
        os.chmod(path, stat.S_IMODE(mode) | wanted)


def _linked(folder: Path, link: Path) -> Path:
    """What a link stands for: a file of the same output. Nothing runs there any more, so it stays what it is."""
    with suppress(OSError):
        content = Path(os.path.realpath(link, strict=True))
        if content.is_relative_to(os.path.realpath(folder)) and not content.is_dir():
            return content
    name = str(link.relative_to(folder))
    raise Stalled(
        "OutputInvalid", f"{name!r} is a link that leads to no file of the same output: put the file itself"
    )


# --- publishing -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Publication:
    """One output on its way: into the `group` of an `area`, a prefix of keys in the bucket. Made by this `attempt`."""

    run: str
    stage: str
    attempt: int
    folder: Path
    bucket: str
    area: str
    group: str  # ends in `/`

    @property
    def prefix(self) -> str:
        return self.area + self.group

    @property
    def head(self) -> str:
        """Of its manifest."""
        return manifest_head(self.run, self.stage, self.attempt)

    def key(self, name: str) -> str:
        return self.prefix + name


def publication(
    deps: Deps, run: Run, stage: str, attempt: int, output: RunOutput, folder: Path
) -> Publication:
    """Stalled `OutputInvalid`: it has no place to go to."""
    box = output.box or next(iter(run.pipeline.boxes), "")
    record = deps.store.boxes.get(run.app, ComponentName(box))
    if record is None:
        raise Stalled("OutputInvalid", f"output {output.name!r}: there is no box {box!r}")
    try:
        group = parse_path(output.data.rstrip("/") + "/")
    except KeyInvalid as error:
        raise Stalled("OutputInvalid", f"output {output.name!r} ({output.data}): {error}") from error
    area = run.prefix(output.area)
    return Publication(run.maker(output.name), stage, attempt, folder, record.bucket, area, group.text)


def publish(deps: Deps, signals: Signals, output: Publication) -> None:
    """Put all of it into the box, the manifest last. What lies there under other names stays. Stalled `StorageFull` if
    the box does not take it, `OutputInvalid`; Transient `StateDiskFull`; otherwise as Objects. Raises Halted and
    Canceled."""
    objects = deps.storage.objects()
    reserved = _reserve(deps, output, total(output))
    done = False
    try:
        objects.remove(output.bucket, [output.key(MANIFEST)])
        upload(objects, signals, output)
        done = True
    finally:
        _settle(deps, reserved, done)


@contextmanager
def _translated(output: Publication) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"the output {output.folder.name!r}"
        if error.errno in FULL:
            raise Transient("StateDiskFull", f"no space left on this host to publish {what}") from error
        raise Stalled("OutputInvalid", f"cannot read {what}: {error}") from error


def total(output: Publication) -> int:
    """Bytes. Stalled `OutputInvalid`."""
    size = 0
    for found in files_of(output.folder):
        try:
            parse_path(output.group + found.name)
        except KeyInvalid as error:
            raise Stalled("OutputInvalid", f"{found.name!r} cannot be published: {error}") from error
        size += found.size
    return size


def _reserve(deps: Deps, output: Publication, size: int) -> Pending:
    now = deps.clock.now()
    asked = Pending(0, output.bucket, output.key(MANIFEST), max(size, 1), now, now + RESERVED_FOR)
    room = deps.store.boxes.reserve(asked, now)
    if isinstance(room, Room):
        raise Stalled(
            "StorageFull",
            f"the output {output.folder.name!r} has {about_size(size)}, and {about_size(room.free)} of "
            f"{about_size(room.capacity)} are free in the box: make room, or raise its `capacity`",
        )
    return replace(asked, id=room)


def _settle(deps: Deps, reserved: Pending, done: bool) -> None:
    """The room of a complete output is kept until a measurement has seen its manifest, which is told from an older one
    by its time; that of a broken one is given back."""
    boxes, now = deps.store.boxes, deps.clock.now()
    if done:
        boxes.reserve(replace(reserved, created=reserved.created - SETTLED), now)
    else:
        boxes.release([reserved.id])
    boxes.touch(reserved.bucket)


def upload(objects: Objects, signals: Signals, output: Publication) -> None:
    """The files, then the manifest. Errors as of `publish`."""
    with _translated(output):
        _upload(objects, signals, output)


def _upload(objects: Objects, signals: Signals, output: Publication) -> None:
    """The manifest grows on the disk: an output may have any number of files."""
    manifest = output.folder.with_name(f"{output.folder.name}{MANIFEST}")
    with manifest.open("w+b") as file:
        file.write(f'{output.head}, "files": ['.encode())
        separator = "\n"
        for sent in in_order(lambda found: _put(objects, output, found), files_of(output.folder)):
            signals.check()
            entry = {"name": sent.name, "size": sent.size, "sha256": sent.sha256}
            file.write(f"{separator}{json.dumps(entry, ensure_ascii=False)}".encode())
            separator = ",\n"
        file.write(b"\n]}\n")
        size = file.tell()
        file.seek(0)
        objects.put(output.bucket, output.key(MANIFEST), file, size, "application/json")


def _put(objects: Objects, output: Publication, found: Found) -> OutputFile:
    with open(os.open(found.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb", buffering=0) as file:
        hashed = _Hashed(file)
        objects.put(output.bucket, output.key(found.name), cast(BinaryIO, hashed), found.size)
    return OutputFile(found.name, found.size, hashed.digest)


class _Hashed(io.RawIOBase):
    """A file whose digest is known once it was read: hashing it apart would read it twice."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()

    @property
    def digest(self) -> str:
        return self._sha256.hexdigest()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        count = self._file.readinto(buffer) or 0
        self._sha256.update(memoryview(buffer)[:count])
        return count
