"""Copies of boxes, within the storage: the boxes of a preview begin with what those of its app have. Called by the
executor.

Level-triggered: what is to be copied is what the source has and the target has not, found by one walk over both in the
order of their keys. So a daemon that dies at any point goes on where it was, an object that is there already is not
copied again, and a large one goes on with its next part. A pass copies for some seconds and then makes way for others
(Waiting `CopyingBox`); how far it came is remembered in memory only, to spare the next one the beginning of the walk.

A source that does not fit is refused before anything is copied; if it grows meanwhile, what was copied is removed. Each
file is as it was when it was copied: what changes in the source behind the walk is not seen any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from typing import Final

from controller.domain.errors import Stalled, Superseded, Transient, Waiting
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.storage.box import BoxRecord, BoxState, PendingUpload, StoredObject
from controller.domain.units import about_size
from controller.ports import Boxes, Clock, Objects, Storage

PARALLEL: Final = 4
MOST_PARTS: Final = 10_000  # as S3 allows
_PAUSE: Final = 0.1  # seconds until the next pass goes on
_TRIES: Final = 5  # for an object that is replaced again and again
#: Somebody has changed an object, or ended our upload of it, between two requests.
_OVERTAKEN: Final = frozenset({Reason.OBJECT_MISSING, Reason.OBJECT_CHANGED, Reason.UPLOAD_MISSING})
_KEPT: Final = 30 * 86400.0  # seconds for which an upload in parts can go on


@dataclass(frozen=True)
class CopyPace:
    """`slice`: the seconds that one pass copies; `batch`: the objects that are listed and counted together. Objects of
    more than `whole` bytes are copied in parts of `part` bytes, each of which is soon done."""

    slice: float = 5.0
    batch: int = 200
    whole: int = 2**30
    part: int = 2**28


@dataclass(frozen=True)
class CopyProgress:
    """How far a walk has come: the last key, and what is copied up to it. `capacity` is that of the box when it
    began."""

    after: str = ""
    files: int = 0
    size: int = 0  # bytes
    capacity: int = 0  # bytes


@dataclass(frozen=True)
class CopyMemory:
    """What the daemon remembers of copies from one pass to the next. Without it they begin their walk again."""

    progress: dict[str, CopyProgress] = field(default_factory=dict)  # by bucket
    versions: dict[str, str] = field(default_factory=dict)  # the ETags of what uploads in parts are copies of
    pace: CopyPace = CopyPace()


@dataclass(frozen=True)
class BoxCopies:
    """Copies boxes. `set_quota` is called for each bucket that was created."""

    storage: Storage
    boxes: Boxes
    clock: Clock
    memory: CopyMemory
    set_quota: Callable[[BoxRecord], object]

    def copy(self, record: BoxRecord, source: BoxRecord, superseded: Callable[[], bool]) -> CopyProgress:
        """Copy until everything is there, and let the box be one like others. Raises Waiting `CopyingBox` when the time
        of this pass is over, Transient `BoxTooLarge`, Superseded, otherwise as Objects."""
        begun, until = self.clock.now(), self.clock.monotonic() + self.memory.pace.slice
        this = _Copy(self, self.storage.objects(), record, source, superseded, until)
        try:
            done = self._walk(this)
        except _TooLarge as error:
            self._give_up(record)
            raise Transient(Reason.BOX_TOO_LARGE, this.too_large()) from error
        except Stalled as error:
            self.memory.progress.pop(record.bucket, None)
            if error.reason != Reason.BUCKET_MISSING:
                raise
            raise Transient(error.reason, error.message) from error  # the next pass sees which one is gone
        self.memory.progress.pop(record.bucket, None)
        # A daemon that died right after it had completed one has left its record.
        self.boxes.release([upload.id for upload in self.boxes.pending(record.bucket)])
        self.boxes.measured(record.bucket, done.size, done.files, begun, ())
        self.boxes.save(replace(record, state=BoxState.BOUND, since=self.clock.now()))
        self.boxes.touch(record.bucket)
        return done

    def _walk(self, this: _Copy) -> CopyProgress:
        bucket = this.record.bucket
        done = self.memory.progress.get(bucket)
        if done is None or done.capacity != this.record.capacity:  # its quota is another one now
            # Kept at once: a pass whose time is over after the beginning must not have to repeat it.
            done = self.memory.progress[bucket] = self._begin(this)
        for so_far in this.walk(done):
            done = self.memory.progress[bucket] = so_far
        return done

    def _begin(self, this: _Copy) -> CopyProgress:
        """Check that everything fits, and create the bucket; both may have been done before."""
        this.require_fitting(this.size_of_source())
        self.boxes.save(replace(this.record, state=BoxState.COPYING, since=self.clock.now()))
        this.objects.create_bucket(this.record.bucket)
        self.set_quota(this.record)
        return CopyProgress(capacity=this.record.capacity)

    def _give_up(self, record: BoxRecord) -> None:
        """Remove what was copied."""
        self.memory.progress.pop(record.bucket, None)
        if self.boxes.get(record.app, record.box):
            remove_bucket(self.storage.objects(), self.boxes, record.bucket)


def remove_bucket(objects: Objects, boxes: Boxes, bucket: str) -> None:
    """Remove a bucket with everything in it, also uploads in parts, which no listing shows. Its record goes last, so
    that none of our buckets is ever unknown."""
    for upload in boxes.pending(bucket):
        if upload.upload:
            objects.abort_upload(bucket, upload.key, upload.upload)
    objects.remove_bucket(bucket)
    boxes.forget(bucket)


class _TooLarge(Exception):
    pass


class _Present:
    """What the target has already, asked for in the order of keys. Nobody else writes there, and an object appears as a
    whole, so one of the same size is the copy."""

    def __init__(self, listing: Iterator[StoredObject]) -> None:
        self._listing = listing
        self._next = next(listing, None)

    def has(self, found: StoredObject) -> bool:
        while self._next is not None and self._next.key < found.key:
            self._next = next(self._listing, None)
        return self._next is not None and (self._next.key, self._next.size) == (found.key, found.size)


@dataclass(frozen=True)
class _Copy:
    """One copy in one pass, which ends at `until` on the monotonic clock."""

    of: BoxCopies
    objects: Objects
    record: BoxRecord
    source: BoxRecord
    superseded: Callable[[], bool]
    until: float

    def require_fitting(self, size: int) -> None:
        if size > self.record.capacity:
            raise _TooLarge

    def too_large(self) -> str:
        return Localizable(
            "the box {box} of {app} has more than the {capacity} that this one may have: nothing is copied. Declare a "
            "larger capacity, within spec.previews.limits.storage, or let the boxes of previews be empty",
            box=self.source.box,
            app=self.source.app,
            capacity=about_size(self.record.capacity),
        )

    def size_of_source(self) -> int:
        """Return the bytes of the source, or of so many of its objects that they do not fit."""
        size = 0
        for found in self._listing(self.source.bucket, ""):
            size += found.size
            if size > self.record.capacity:
                break
        return size

    def walk(self, done: CopyProgress) -> Iterator[CopyProgress]:
        """Copy, and yield after each batch how far that is."""
        there = _Present(self._listing(self.record.bucket, done.after))
        after: str | None = done.after
        with ThreadPoolExecutor(PARALLEL, thread_name_prefix="copy") as pool:
            while after is not None:
                self._require_time(done)
                page = self.objects.page(self.source.bucket, after=after, limit=self.of.memory.pace.batch)
                size = sum(found.size for found in page.objects)
                self.require_fitting(done.size + size)
                missing = [found for found in page.objects if not there.has(found)]
                begun = [
                    pool.submit(copy_context().run, self._copy, found, done, number >= PARALLEL)
                    for number, found in enumerate(missing)
                ]
                copied = [each.result() for each in begun]
                size -= sum(found.size for found in missing)  # each of which may have another one now
                size += sum(each for each in copied if each is not None)
                done = replace(
                    done,
                    after=page.next or (page.objects[-1].key if page.objects else done.after),
                    files=done.files + len(page.objects) - copied.count(None),
                    size=done.size + size,
                )
                self.require_fitting(done.size)
                after = page.next
                yield done

    def _listing(self, bucket: str, after: str) -> Iterator[StoredObject]:
        start: str | None = after
        while start is not None:
            self._require_wanted()
            page = self.objects.page(bucket, after=start)
            yield from page.objects
            start = page.next

    def _require_wanted(self) -> None:
        if self.superseded():
            raise Superseded(
                Localizable("box {box}: its copy goes on with the next pass", box=self.record.box)
            )

    def _require_time(self, done: CopyProgress) -> None:
        self._require_wanted()
        if self.of.clock.monotonic() >= self.until:
            message = Localizable(
                "copying the box {box} of {app}: {files} files, {size} so far",
                box=self.source.box,
                app=self.source.app,
                files=done.files,
                size=about_size(done.size),
            )
            raise Waiting(Reason.COPYING_BOX, message, _PAUSE)

    def _copy(self, found: StoredObject, done: CopyProgress, may_wait: bool) -> int | None:
        """Copy an object as it is now. Return its bytes, or None if it is gone. The first ones of a batch may not wait
        for the next pass, so that each pass gets on, however long its listings take."""
        if may_wait:
            self._require_time(done)
        for attempt in range(_TRIES):
            try:
                if found.size > self.of.memory.pace.whole:
                    self._copy_in_parts(found, done)
                else:
                    self.objects.copy(self.source.bucket, found, found.key, self.record.bucket)
            except Stalled as error:
                if error.reason not in _OVERTAKEN:
                    raise
                if attempt == _TRIES - 1:  # it may be quieter at the next attempt
                    raise Transient(error.reason, error.message) from error
            else:
                return found.size
            now = self.objects.stat(self.source.bucket, found.key)
            if now is None:
                return None
            found = now
        return None

    def _copy_in_parts(self, found: StoredObject, done: CopyProgress) -> None:
        upload = self._upload(found)
        try:
            self._copy_missing_parts(found, upload, done)
        except Stalled:  # it was replaced, or somebody has aborted the upload: its parts are of no use
            self._abort(upload)
            raise
        self._forget(upload)

    def _copy_missing_parts(self, found: StoredObject, upload: PendingUpload, done: CopyProgress) -> None:
        parts = {part.number: part for part in self.objects.parts(upload.bucket, upload.key, upload.upload)}
        length = max(self.of.memory.pace.part, -(-found.size // MOST_PARTS))
        for number, start in enumerate(range(0, found.size, length), start=1):
            size = min(length, found.size - start)
            if number in parts and parts[number].size == size:
                continue
            self._require_time(done)
            parts[number] = self.objects.copy_part(self.source.bucket, found, upload, number, start, size)
        listed = tuple(parts[number] for number in sorted(parts))
        self.objects.complete_upload(upload.bucket, upload.key, upload.upload, listed)

    def _upload(self, found: StoredObject) -> PendingUpload:
        """Return the upload of this content that an earlier pass has begun, or a new one. Parts of two versions of an
        object must not be joined: one whose version is not known any more is aborted."""
        bucket, boxes, now = self.record.bucket, self.of.boxes, self.of.clock.now()
        for id in self.objects.uploads(bucket, found.key):
            known = boxes.upload(bucket, id)
            if known and self.of.memory.versions.get(id) == found.etag:
                return known
            self._abort(known or PendingUpload(0, bucket, found.key, 0, now, now, id))
        id = self.objects.begin_copy(self.source.bucket, found, found.key, bucket)
        self.of.memory.versions[id] = found.etag
        begun = PendingUpload(0, bucket, found.key, 0, now, now + _KEPT, id)
        boxes.guard(begun)
        return boxes.upload(bucket, id) or begun

    def _abort(self, upload: PendingUpload) -> None:
        self.objects.abort_upload(upload.bucket, upload.key, upload.upload)
        self._forget(upload)

    def _forget(self, upload: PendingUpload) -> None:
        self.of.boxes.release([upload.id])
        self.of.memory.versions.pop(upload.upload, None)
