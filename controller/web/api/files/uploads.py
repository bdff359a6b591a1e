"""Uploads in parts, for files that are large or must survive a broken connection: begun here, their parts sent
through links, completed here. An upload is identified by the storage's id and its reservation; no other state
exists."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.storage.box import Part, PendingUpload, StoredObject
from controller.domain.storage.keys import FilePath
from controller.web.api.files.area import MAX_PUT, BoxArea, FileLink
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

MAX_PARTS: Final = 10_000  # of one upload, as S3 allows
MAX_FILE: Final = 5 * 2**40  # bytes, as S3 allows
MIN_PART: Final = 16 * 2**20  # bytes; S3 takes 5 MiB, but every part costs a link and a round trip
STEP: Final = 2**20  # part sizes are whole mebibytes
FEW: Final = 20  # unfinished uploads that are listed, the newest ones
SHOWN: Final = 100  # numbers of missing parts that an error names


def part_size(size: int) -> int:
    """Return the size of each part but the last for a file of `size` bytes: the smallest within S3's limits."""
    least = -(-size // MAX_PARTS)
    return max(MIN_PART, -(-least // STEP) * STEP)


def part_count(size: int) -> int:
    return -(-size // part_size(size))


def absent(size: int, parts: Iterable[Part]) -> list[int]:
    """Return the numbers of the parts of `part_size` that are missing or have a wrong size."""
    step, count = part_size(size), part_count(size)
    there = {part.number: part.size for part in parts}
    return [
        n for n in range(1, count + 1) if there.get(n) != (step if n < count else size - step * (count - 1))
    ]


@dataclass(frozen=True)
class Unfinished:
    """An upload that waits for more of its bytes; `path` is that in the area."""

    path: str
    reserved: PendingUpload
    arrived: int  # bytes


def unfinished(area: BoxArea, group: FilePath) -> list[Unfinished]:
    """Return uploads into the group and below, or of a file and of those whose names begin as its own; each costs a
    question to the storage, so not more than a few."""
    kept = area.store.boxes.unfinished(area.bucket, area.key(group), area.now, FEW)
    arrived = area.storage.start(lambda each: _arrived(area, each), kept)
    return [
        Unfinished(each.key.removeprefix(area.prefix), each, size)
        for each, size in zip(kept, arrived, strict=True)
        if size is not None
    ]


def _arrived(area: BoxArea, found: PendingUpload) -> int | None:
    """Return None for an upload that was completed, whose space is reserved until the file is counted."""
    try:
        return sum(part.size for part in area.objects.parts(found.bucket, found.key, found.upload))
    except Stalled as error:
        if error.reason != Reason.UPLOAD_MISSING:
            raise
        return None


@dataclass(frozen=True)
class Uploads:
    """The uploads in parts of one file."""

    area: BoxArea
    path: FilePath

    def begin(self, size: int, abandon_after: float) -> str:
        """Return the id of a new upload, which has to be completed within `abandon_after` seconds."""
        area = self.area
        if not 1 <= size <= MAX_FILE:
            detail = Localizable(
                "size must be 1 to {most} bytes; an empty file is uploaded through a link.", most=MAX_FILE
            )
            raise RequestRefused(HttpProblem(ProblemKind.BAD_REQUEST, detail))
        usage = area.store.boxes.usage(area.bucket, area.now)
        if not usage.has_space_for(size):  # before the storage is asked for anything
            raise RequestRefused(area.full(usage, size))
        area.check_name(self.path)
        objects, key = area.objects, area.key(self.path)
        upload = objects.begin_upload(area.bucket, key)
        try:
            area.reserve(self.path, size, area.now + abandon_after, upload)
        except BaseException:
            objects.abort_upload(area.bucket, key, upload)
            raise
        return upload

    def find(self, upload: str) -> PendingUpload:
        found = self.area.store.boxes.upload(self.area.bucket, upload)
        if found is None or found.key != self.area.key(self.path):
            raise RequestRefused(unknown(self.path))
        return found

    def part_link(self, upload: str, number: int) -> FileLink:
        found = self.find(upload)
        return self.area.sign("PUT", self.path, min(found.size, MAX_PUT), upload, number)

    def parts(self, found: PendingUpload) -> tuple[Part, ...]:
        try:
            return self.area.objects.parts(found.bucket, found.key, found.upload)
        except Stalled as error:
            raise _refused(error, self.path) from error

    def complete(self, upload: str) -> StoredObject:
        """Complete the upload from all parts that have arrived. A repetition after a lost answer gives the same
        answer."""
        found = self.find(upload)
        try:
            return self._complete(found)
        except RequestRefused as refused:
            if refused.problem.kind is not ProblemKind.NOT_FOUND:
                raise
            stored = self._completed(found)
            if stored is None:
                raise
            return stored

    def abort(self, upload: str) -> None:
        found = self.find(upload)
        self.area.objects.abort_upload(found.bucket, found.key, upload)
        self.area.store.boxes.release([found.id])

    def _complete(self, found: PendingUpload) -> StoredObject:
        area, parts = self.area, self.parts(found)
        if sum(part.size for part in parts) != found.size:
            raise RequestRefused(_incomplete(found.size, parts))
        area.check_name(self.path)  # much may have happened since it began
        try:
            stored = area.objects.complete_upload(found.bucket, found.key, found.upload, parts)
        except Stalled as error:
            raise _refused(error, self.path) from error
        # The space stays reserved until a measurement, which this requests, has counted the file.
        area.store.boxes.touch(area.bucket)
        return stored

    def _completed(self, found: PendingUpload) -> StoredObject | None:
        stored = self.area.objects.stat(found.bucket, found.key)
        # The storage has a resolution of seconds.
        fits = stored is not None and stored.size == found.size and stored.modified >= int(found.created)
        return stored if fits else None


def unknown(path: FilePath) -> HttpProblem:
    return HttpProblem(
        ProblemKind.NOT_FOUND,
        Localizable("There is no such upload of {path}, or not any more. Begin a new one.", path=path.text),
    )


def _incomplete(size: int, parts: tuple[Part, ...]) -> HttpProblem:
    there, lacking = sum(part.size for part in parts), absent(size, parts)
    detail = Localizable("The parts have {there} bytes, {size} were announced.", there=there, size=size)
    return HttpProblem(
        ProblemKind.UPLOAD_INCOMPLETE, detail, extra={"size": size, "missing": lacking[:SHOWN]}
    )


def _refused(error: Stalled, path: FilePath) -> Exception:
    """Translate errors that the caller can fix; other errors stay as they are."""
    match error.reason:
        case Reason.UPLOAD_MISSING:
            return RequestRefused(unknown(path))
        case Reason.UPLOAD_INCOMPLETE:
            return RequestRefused(
                HttpProblem(
                    ProblemKind.UPLOAD_INCOMPLETE,
                    f"The storage considers the upload incomplete: {error.message}",
                )
            )
    return error
