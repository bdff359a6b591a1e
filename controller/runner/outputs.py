"""Publishing: the outputs of a stage are put into a group of a box. Called by `attempt` for what callers get,
and by `release` for the module's own data.

The files are published one by one, and then a manifest with their names, sizes and digests: if it exists, the
output is complete. Until then the group has a mark, which lists what runs have put there. After a crash the
next daemon, or the next publication, removes those of its files that are not part of the new output, once
that is complete. Files that callers have put into the group themselves stay.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from tempfile import TemporaryFile
from typing import BinaryIO, cast

from controller.domain.errors import Stalled, Transient
from controller.domain.localizable import Localizable
from controller.domain.names import ComponentName
from controller.domain.reasons import Reason
from controller.domain.runs.file_index import (
    FILE_INDEX,
    MARK,
    OURS,
    IndexedFile,
    index_head,
    under_way,
    unfinished,
    unfinished_head,
)
from controller.domain.runs.pipeline import mount_path
from controller.domain.runs.run import Run, RunOutput
from controller.domain.storage.box import BoxUsage, PendingUpload, StoredObject
from controller.domain.storage.keys import FileKeyInvalid, ancestors, parse_path
from controller.domain.units import about_size
from controller.ports import Objects
from controller.runner.concurrency import in_order
from controller.runner.contents import OutputContents, OutputFile
from controller.runner.deps import RunnerDeps
from controller.runner.failures import FULL
from controller.runner.listing import below, manifests
from controller.runner.signals import RunSignals, ShuttingDown

RESERVED_FOR = 86400.0  # seconds for which space is reserved at most for an output under way
SETTLED = 10.0  # seconds by which the reservation is dated before the manifest
Entry = Mapping[str, object]  # a file in a manifest


@dataclass(frozen=True)
class Publication:
    """One output to be published into the `group` of an `area`, a prefix of keys in the bucket. It was made
    by this `attempt` of a `run`, and is published `by` that run or by one that repeats it. `whole` means that
    all other files in the group are removed, including those of callers.
    """

    by: str
    run: str
    stage: str
    attempt: int
    name: str
    contents: OutputContents
    bucket: str
    area: str
    group: str  # ends in `/`
    whole: bool = False

    @property
    def prefix(self) -> str:
        return self.area + self.group

    @property
    def head(self) -> str:
        """The head of its manifest."""
        return index_head(self.run, self.stage, self.attempt)

    def key(self, name: str) -> str:
        return self.prefix + name


def publication(deps: RunnerDeps, run: Run, output: RunOutput, folder: Path) -> Publication:
    """Return what is to be published. Raises Stalled `OutputInvalid` if there is no place for it."""
    box = output.box or next(iter(run.pipeline.boxes), "")
    record = deps.store.boxes.get(run.app, ComponentName(box))
    if record is None:
        raise Stalled(
            Reason.OUTPUT_INVALID,
            Localizable("output {output!r}: there is no box {box!r}", output=output.name, box=box),
        )
    try:
        group = parse_path(output.data.rstrip("/") + "/")
    except FileKeyInvalid as error:
        raise Stalled(
            Reason.OUTPUT_INVALID,
            Localizable(
                "output {output!r} ({data}): {error}", output=output.name, data=output.data, error=error
            ),
        ) from error
    stage, maker = run.pipeline.made[output.name], run.maker(output.name)
    made_by = run if maker == run.id else deps.store.runs.get(run.app, maker) or run
    return Publication(
        by=run.id,
        run=maker,
        stage=stage,
        attempt=len(made_by.stage(stage).attempts),
        name=output.name,
        contents=OutputContents(folder, mount_path(run.pipeline.var(output.name))),
        bucket=record.bucket,
        area=run.prefix(output.area),
        group=group.text,
        whole=output in run.releases,
    )


@contextmanager
def guarded(deps: RunnerDeps, output: Publication) -> Iterator[None]:
    """Surround all attempts to publish an output: callers are kept out of the group from the first attempt
    until the output is complete or given up, also between attempts. A daemon that ends leaves that to the
    next one.
    """
    try:
        yield
    except ShuttingDown:
        raise
    except BaseException:
        give_up(deps, output)
        raise


def publish(deps: RunnerDeps, signals: RunSignals, output: Publication) -> None:
    """Publish an output when it is its turn. Nothing in the box changes before names and space are checked,
    and nothing of an older output is removed before the new one is complete. Raises Stalled `StorageFull` if
    the box is full, `OutputInvalid`; Transient `StateDiskFull`; otherwise errors as Objects; ShuttingDown,
    Canceled. Call it within `guarded`.
    """
    objects = deps.storage.objects()
    with _translated(output):
        size = _total(output)
        _guard(deps, output)  # first, so that the group does not change while it is read
        require_place(objects, output)
        before = _before(objects, output)
        stale, replaced, in_the_way = before.compare()
        reserved = _reserve(deps, output, size - replaced)
        _mark(objects, output, before)
        before.clear(signals, in_the_way)  # storages on folders do not accept a file in place of a folder
        with _manifest(output, output.head, _sent(objects, signals, output)) as (manifest, length):
            before.clear(signals, stale)
            _put_manifest(objects, output, FILE_INDEX, manifest, length)
        if not output.whole:
            objects.remove(output.bucket, [output.key(MARK)])
        _keep_reserved(deps, output, reserved)


@contextmanager
def _translated(output: Publication) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = Localizable("the output {output!r}", output=output.name)
        if error.errno in FULL:
            raise Transient(
                Reason.STATE_DISK_FULL, Localizable("no space left on this host to publish {what}", what=what)
            ) from error
        raise Stalled(
            Reason.OUTPUT_INVALID, Localizable("cannot read {what}: {error}", what=what, error=error)
        ) from error


# --- names and places -------------------------------------------------------------------------------------------


def _total(output: Publication) -> int:
    """Return the size in bytes. Raises Stalled `OutputInvalid`."""
    size = 0
    for found in output.contents.files():
        if (fault := _fault(output.group + found.name)) is not None:
            raise Stalled(
                Reason.OUTPUT_INVALID,
                Localizable("{found!r} cannot be published: {fault}", found=found.name, fault=fault),
            )
        size += found.size
    return size


def _fault(name: str) -> FileKeyInvalid | None:
    try:
        parse_path(name)
    except FileKeyInvalid as error:
        return error
    return None


def require_place(objects: Objects, output: Publication) -> None:
    """Raise Stalled `OutputInvalid` if there is a file in place of the group or a folder above it."""
    group = output.group.rstrip("/")
    for above in (*ancestors(group), group):
        if objects.stat(output.bucket, output.area + above):
            raise Stalled(
                Reason.OUTPUT_INVALID,
                Localizable(
                    "output {output!r} cannot be put into {group!r}: {above!r} is a file; remove "
                    "that file, or choose another group",
                    output=output.name,
                    group=output.group,
                    above=above,
                ),
            )


# --- what lies there already ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Before:
    """The group before the publication. `listed` has the files of runs, by name."""

    objects: Objects
    output: Publication
    listed: Mapping[str, tuple[IndexedFile, ...]]

    def compare(self) -> tuple[tuple[StoredObject, ...], int, tuple[StoredObject, ...]]:
        """Return the objects to remove, the bytes that are removed or overwritten, and those of the objects
        that obstruct new files. Raises Stalled `OutputInvalid` if an obstructing object has to stay.
        """
        stale: list[StoredObject] = []
        in_the_way: list[StoredObject] = []
        replaced = 0
        for found, name in self._files():
            if self._is_written_over(name):
                replaced += found.size
                continue
            goes, obstructs = self._goes(found, name), self._obstructs(name)
            if obstructs and not goes:
                raise Stalled(Reason.OUTPUT_INVALID, _obstructed(self.output, name))
            if goes:
                (in_the_way if obstructs else stale).append(found)
                replaced += found.size
        return tuple(stale), replaced, tuple(in_the_way)

    def clear(self, signals: RunSignals, stale: Iterable[StoredObject]) -> None:
        """Remove objects one by one: where folders are real, only that removes folders which become empty."""
        for _ in in_order(self._remove, stale):
            signals.check()

    def _remove(self, stale: StoredObject) -> None:
        """Remove an object, unless it was replaced meanwhile."""
        if not self.output.whole:
            found = self.objects.stat(self.output.bucket, stale.key)
            if found is None or found.etag != stale.etag:
                return
        self.objects.remove(self.output.bucket, [stale.key])

    def _files(self) -> Iterator[tuple[StoredObject, str]]:
        """Yield the objects with their names in the group."""
        for found in below(self.objects, self.output.bucket, self.output.prefix):
            name = found.key.removeprefix(self.output.prefix)
            if name not in OURS:
                yield found, name

    def _is_written_over(self, name: str) -> bool:
        """Return whether a new file has this name. Containers with their own account can put objects under
        any key.
        """
        return _fault(name) is None and S_ISREG(self.output.contents.mode_of(name))

    def _obstructs(self, name: str) -> bool:
        mode_of = self.output.contents.mode_of
        if _fault(name) is not None:
            return False
        return S_ISDIR(mode_of(name)) or any(S_ISREG(mode_of(above)) for above in ancestors(name))

    def _goes(self, found: StoredObject, name: str) -> bool:
        """Return whether the object is to be removed. A file with which a caller has replaced a published one
        belongs to the caller.
        """
        return self.output.whole or any(self._is(found, listed) for listed in self.listed.get(name, ()))

    def _is(self, found: StoredObject, listed: IndexedFile) -> bool:
        """Return whether the object is the listed file. Without a digest, its publication was interrupted."""
        return found.size == listed.size and (
            not listed.sha256 or listed.sha256 == _digest(self.objects, self.output.bucket, found)
        )


def _obstructed(output: Publication, name: str) -> str:
    return Localizable(
        "the output {output!r} conflicts with the file {group!r}: one has a file where the other has "
        "a folder; remove the file from the box, or choose another group",
        output=output.name,
        group=output.group + name,
    )


def _digest(objects: Objects, bucket: str, found: StoredObject) -> str:
    """Return the digest, or "" if the object has changed."""
    sha256 = hashlib.sha256()
    try:
        with objects.open(bucket, found.key, found.etag) as pieces:
            for piece in pieces:
                sha256.update(piece)
    except Stalled as error:
        if error.reason not in (Reason.OBJECT_CHANGED, Reason.OBJECT_MISSING):
            raise
        return ""
    return sha256.hexdigest()


def _before(objects: Objects, output: Publication) -> _Before:
    listed: defaultdict[str, tuple[IndexedFile, ...]] = defaultdict(tuple)
    for manifest in manifests(objects, output.bucket, output.prefix):
        for name, file in manifest.files or ():
            listed[name] = (*listed[name], file)
    return _Before(objects, output, listed)


def _mark(objects: Objects, output: Publication, before: _Before) -> None:
    """Mark the group, so that it is not read as this output nor as an older one until it is complete."""
    if output.whole:
        content = unfinished(output.head).encode()
        _put_manifest(objects, output, FILE_INDEX, io.BytesIO(content), len(content))
        return
    with _manifest(output, unfinished_head(output.head), _of_runs(output, before)) as (mark, size):
        _put_manifest(objects, output, MARK, mark, size)
    objects.remove(output.bucket, [output.key(FILE_INDEX)])


def _of_runs(output: Publication, before: _Before) -> Iterator[Entry]:
    """Yield the files that runs have put there, and those that are about to be."""
    for name, files in before.listed.items():
        yield from ({"name": name, "size": file.size, "sha256": file.sha256} for file in files)
    yield from ({"name": found.name, "size": found.size} for found in output.contents.files())


def _put_manifest(objects: Objects, output: Publication, name: str, content: BinaryIO, size: int) -> None:
    objects.put(output.bucket, output.key(name), content, size, "application/json")


@contextmanager
def _manifest(output: Publication, head: str, entries: Iterable[Entry]) -> Iterator[tuple[BinaryIO, int]]:
    """Yield a manifest as a temporary file, since an output may have any number of files."""
    with TemporaryFile(dir=output.contents.folder.parent) as file:
        file.write(f'{head}, "files": ['.encode())
        separator = "\n"
        for entry in entries:
            file.write(f"{separator}{json.dumps(entry, ensure_ascii=False)}".encode())
            separator = ",\n"
        file.write(b"\n]}\n")
        size = file.tell()
        file.seek(0)
        yield cast(BinaryIO, file), size


# --- files ------------------------------------------------------------------------------------------------------


def _sent(objects: Objects, signals: RunSignals, output: Publication) -> Iterator[Entry]:
    for entry in in_order(lambda found: _put(objects, output, found), output.contents.files()):
        signals.check()
        yield entry


def _put(objects: Objects, output: Publication, found: OutputFile) -> Entry:
    with open(output.contents.open(found.place), "rb", buffering=0) as file:
        hashed = _Hashed(file)
        objects.put(output.bucket, output.key(found.name), cast(BinaryIO, hashed), found.size)
    return {"name": found.name, "size": found.size, "sha256": hashed.digest}


class _Hashed(io.RawIOBase):
    """A file whose digest is computed while it is read, to avoid reading it twice."""

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


# --- room -------------------------------------------------------------------------------------------------------


def _under_way(deps: RunnerDeps, output: Publication, size: int = 0) -> PendingUpload:
    now = deps.clock.now()
    return PendingUpload(0, output.bucket, under_way(output.prefix, output.by), size, now, now + RESERVED_FOR)


def _guard(deps: RunnerDeps, output: Publication) -> None:
    deps.store.boxes.guard(_under_way(deps, output))


def _reserve(deps: RunnerDeps, output: Publication, size: int) -> PendingUpload:
    """Reserve space for what the output needs beyond what it replaces, which already counts."""
    asked = _under_way(deps, output, max(size, 0))
    usage = deps.store.boxes.reserve(asked, asked.created) if size > 0 else 0
    if isinstance(usage, BoxUsage):
        raise Stalled(
            Reason.STORAGE_FULL,
            Localizable(
                "the output {output!r} needs {size} more than what it replaces, but only {free} of "
                "{capacity} are free in the box: remove files, or raise its `capacity`",
                output=output.name,
                size=about_size(size),
                free=about_size(usage.free),
                capacity=about_size(usage.capacity),
            ),
        )
    return asked


def _keep_reserved(deps: RunnerDeps, output: Publication, reserved: PendingUpload) -> None:
    """Keep the space of a complete output reserved until a measurement has seen its manifest, in addition to
    what an earlier output still reserves.
    """
    boxes, now, key = deps.store.boxes, deps.clock.now(), output.key(FILE_INDEX)
    with deps.store.transaction():
        give_up(deps, output)
        if reserved.size:
            kept = sum(each.size for each in boxes.pending(output.bucket) if each.key == key)
            boxes.reserve(
                replace(reserved, key=key, size=reserved.size + kept, created=reserved.created - SETTLED), now
            )


def give_up(deps: RunnerDeps, output: Publication) -> None:
    """Let others into the group, and release the reserved space."""
    boxes, key = deps.store.boxes, under_way(output.prefix, output.by)
    boxes.release([each.id for each in boxes.pending(output.bucket) if each.key == key])
    boxes.touch(output.bucket)


def require_space(deps: RunnerDeps, objects: Objects, output: Publication) -> None:
    """Raise Stalled `StorageFull` before an output is made, if the box is full and the output would replace
    nothing.
    """
    usage = deps.store.boxes.usage(output.bucket, deps.clock.now())
    if not usage.has_space_for(0) and not objects.page(output.bucket, output.prefix, limit=1).objects:
        raise Stalled(
            Reason.STORAGE_FULL,
            Localizable(
                "the box has no space for the output {output!r}: all of its {capacity} are used; "
                "remove files, or raise its `capacity`",
                output=output.name,
                capacity=about_size(usage.capacity),
            ),
        )
