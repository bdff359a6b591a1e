"""What one caller may do in one area of a box: list, hand out links, delete. Used by the views of the files API; bytes
never pass here, they go straight between caller and storage.

Every upload is allowed by the platform's accounting first (`store.boxes`), and none that would make a path both file
and group: not every storage can hold that, so none is asked to. Storage errors leave as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from controller.domain.keys import FilePath, ancestors
from controller.domain.storage import BoxRecord, Pending, Room, StoredObject
from controller.ports import Objects, Store
from controller.web.problems import Kind, Problem, Refused
from controller.web.storage import StorageClient

MAX_PUT: Final = 5 * 2**30  # bytes in one request, as S3 allows
MAX_STORED_KEY: Final = 1024  # bytes, as S3 allows
PAGE: Final = 1000  # objects of one listing
MAX_REMOVED: Final = 10_000  # files that one request deletes


@dataclass(frozen=True)
class Link:
    """`expires` in Unix seconds."""

    url: str
    expires: float


@dataclass(frozen=True)
class Listing:
    """Names relative to the group; `next` is what to give as `after` for the rest."""

    files: tuple[tuple[str, StoredObject], ...]
    groups: tuple[str, ...]
    next: str | None


@dataclass(frozen=True)
class Area:
    """`prefix` is where its keys begin; `now` is the time of the request in Unix seconds."""

    store: Store
    storage: StorageClient
    objects: Objects
    record: BoxRecord
    prefix: str
    lifetime: float  # of links, seconds
    now: float

    @property
    def bucket(self) -> str:
        return self.record.bucket

    def key(self, path: FilePath) -> str:
        key = path.key(self.prefix)
        if len(key.encode()) > MAX_STORED_KEY:
            detail = f"With your area before it, the path has more than {MAX_STORED_KEY} bytes."
            raise Refused(Problem(Kind.INVALID_PATH, detail))
        return key

    def page(self, group: FilePath, after: str, limit: int, recursive: bool) -> Listing:
        prefix = self.key(group)
        # Behind the prefix, so that no cursor leads out of the group.
        page = self.objects.page(
            self.bucket, prefix, prefix + after if after else "", limit, folders=not recursive
        )
        # S3 clients mark empty folders with an object whose key ends in a slash; it is no file.
        files = tuple((o.key.removeprefix(prefix), o) for o in page.objects if not o.key.endswith("/"))
        groups = tuple(name.removeprefix(prefix).removesuffix("/") for name in page.prefixes)
        return Listing(files, groups, None if page.next is None else page.next.removeprefix(prefix))

    def find(self, path: FilePath) -> StoredObject:
        found = self.objects.stat(self.bucket, self.key(path))
        if found is None:
            raise Refused(_missing(path))
        return found

    def sign(self, method: str, path: FilePath, query: dict[str, str] | None = None) -> Link:
        url = self.objects.sign(method, self.bucket, self.key(path), self.lifetime, query)
        return Link(url, self.now + self.lifetime)

    def allow(self, path: FilePath, size: int) -> Link:
        """A link to upload a file in one piece. `size` 0: not announced."""
        if size > MAX_PUT:
            detail = f"A link takes {MAX_PUT} bytes; upload larger files in parts (POST with ?uploads&size=)."
            raise Refused(Problem(Kind.TOO_LARGE, detail, extra={"limit": MAX_PUT}))
        self.check_name(path)
        self.reserve(path, size, self.now + self.lifetime)
        return self.sign("PUT", path)

    def reserve(self, path: FilePath, size: int, expires: float, upload: str = "") -> None:
        wanted = Pending(0, self.bucket, self.key(path), size, self.now, expires, upload)
        allowed = self.store.boxes.reserve(wanted, self.now)
        if isinstance(allowed, Room):
            raise Refused(self.full(allowed, size))

    def check_name(self, path: FilePath) -> None:
        """No group on the way may be a file, and the file no group. One segment is never a file."""
        key = self.key(path)
        above = [self.prefix + text for text in ancestors(path.text) if "/" in text]
        stats = self.storage.start(lambda file: self.objects.stat(self.bucket, file), above)
        if self.objects.page(self.bucket, key + "/", limit=1).objects:
            raise Refused(_conflict(f"{path.text} is a group; a file cannot have the same name."))
        for file, found in zip(above, stats, strict=True):
            if found is not None:
                raise Refused(
                    _conflict(f"{file.removeprefix(self.prefix)} is a file, so it can hold no files.")
                )

    def remove(self, path: FilePath) -> None:
        found = self.find(path)
        self.objects.remove(self.bucket, [found.key])
        self._removed({found.key})

    def remove_group(self, group: FilePath) -> tuple[int, bool]:
        """How many files were deleted, and whether there are more of them."""
        prefix = self.key(group)
        count = 0
        for keys in _batches(self.objects, self.bucket, prefix):
            if count + len(keys) > MAX_REMOVED:
                return count, True
            self.objects.remove(self.bucket, keys)
            self._removed(set(keys))
            count += len(keys)
        return count, False

    def _removed(self, keys: set[str]) -> None:
        """What was kept for them is free at once, and the box is measured again soon."""
        kept = [p.id for p in self.store.boxes.pending(self.bucket) if p.key in keys and not p.upload]
        self.store.boxes.release(kept)
        self.store.boxes.touch(self.bucket)

    def full(self, room: Room, size: int) -> Problem:
        detail = (
            f"Box {self.record.box} has {room.free} bytes free of {room.capacity}; {room.used} are stored, "
            f"{room.pending} are kept for uploads under way, {size or 'some'} more are asked for."
        )
        numbers = {"capacity": room.capacity, "used": room.used, "pending": room.pending}
        return Problem(Kind.BOX_FULL, detail, extra={**numbers, "free": room.free, "size": size})


def _missing(path: FilePath) -> Problem:
    return Problem(Kind.NOT_FOUND, f"There is no file {path.text}.")


def _conflict(detail: str) -> Problem:
    return Problem(Kind.PATH_CONFLICT, detail)


def _batches(objects: Objects, bucket: str, prefix: str) -> Iterator[list[str]]:
    """All keys below `prefix`, in the listing's pages; what has been handed out may be gone by the next."""
    after: str | None = ""
    while after is not None:
        page = objects.page(bucket, prefix, after, PAGE)
        if page.objects:
            yield [found.key for found in page.objects]
        after = page.next
