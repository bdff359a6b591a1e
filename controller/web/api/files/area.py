"""The operations of one caller in one area of a box: list, create links, delete. Used by the views of the files API;
bytes never pass here, links lead to the object proxy (`controller.web.objects`), which passes them on.

Every upload is allowed by the platform's accounting first (`store.boxes`), and none that would make a path both file
and group: not every storage can hold that, so none is asked to. Storage errors leave as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from controller.domain.errors import Stalled, Transient
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.storage.box import BoxRecord, BoxUsage, PendingUpload, StoredObject
from controller.domain.storage.keys import FilePath, ancestors
from controller.domain.storage.links import ObjectLink, link_key
from controller.ports import Objects, Store
from controller.web.api.files.publications import being_published, require_settled
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from controller.web.storage import StorageClient

MAX_PUT: Final = 5 * 2**30  # bytes in one request, as S3 allows
#: Uploads to a box that were allowed and have not arrived; each is a row that is added up.
MAX_AWAITED: Final = 10_000
MAX_STORED_KEY: Final = 1024  # bytes, as S3 allows
PAGE: Final = 1000  # objects of one listing
MAX_REMOVED: Final = 10_000  # files that one request deletes


@dataclass(frozen=True)
class FileLink:
    """`expires` in Unix seconds."""

    url: str
    expires: float


@dataclass(frozen=True)
class AreaPage:
    """A page of a listing, with names relative to the group; `next` is the `after` of the next page."""

    files: tuple[tuple[str, StoredObject], ...]
    groups: tuple[str, ...]
    next: str | None


@dataclass(frozen=True)
class BoxArea:
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
            detail = Localizable(
                "With your area before it, the path has more than {most} bytes.", most=MAX_STORED_KEY
            )
            raise RequestRefused(HttpProblem(ProblemKind.INVALID_PATH, detail))
        return key

    def page(self, group: FilePath, after: str, limit: int, recursive: bool, starts: str = "") -> AreaPage:
        """List what is in the group, as far as its name begins with `starts`."""
        prefix = self.key(group)
        if len((prefix + max(after, starts, key=len)).encode()) > MAX_STORED_KEY:
            raise RequestRefused(
                HttpProblem(
                    ProblemKind.BAD_REQUEST,
                    Localizable(
                        "after or prefix has more than {most} bytes with its group.", most=MAX_STORED_KEY
                    ),
                )
            )
        # Behind the prefix, so that no cursor leads out of the group.
        self.require_settled(prefix)
        half = tuple(being_published(self.store, self.record, self.now)) if recursive else ()
        page = self.objects.page(
            self.bucket, prefix + starts, prefix + after if after else "", limit, folders=not recursive
        )
        # S3 clients mark empty folders with an object whose key ends in a slash; it is not a file.
        shown = (o for o in page.objects if not o.key.endswith("/") and not o.key.startswith(half))
        files = tuple((o.key.removeprefix(prefix), o) for o in shown)
        groups = tuple(name.removeprefix(prefix).removesuffix("/") for name in page.prefixes)
        return AreaPage(files, groups, None if page.next is None else page.next.removeprefix(prefix))

    def find(self, path: FilePath) -> StoredObject:
        self.require_settled(self.key(path))
        found = self.objects.stat(self.bucket, self.key(path))
        if found is None:
            raise RequestRefused(_missing(path))
        return found

    def has(self, path: FilePath) -> bool:
        return self.objects.stat(self.bucket, self.key(path)) is not None

    def sign(
        self, method: str, path: FilePath, size: int = 0, upload: str = "", part: int = 0, save: bool = False
    ) -> FileLink:
        """Return a link. `size` is the most that may be sent; with 0 (not announced), the free space limits the
        body when it arrives. `save`: browsers save the file, and do not show it."""
        access, lifetime = self.storage.linked(), max(1, int(self.lifetime))
        link = ObjectLink(
            method, self.bucket, self.key(path), int(self.now), lifetime, size, upload, part, save
        )
        return FileLink(link.url(access.public_url, link_key(access.secret_key)), link.expires)

    def allow(self, path: FilePath, size: int) -> FileLink:
        """Return a link to upload a file in one piece. `size` 0: not announced."""
        if size > MAX_PUT:
            detail = f"A link takes {MAX_PUT} bytes; upload larger files in parts (POST with ?uploads&size=)."
            raise RequestRefused(HttpProblem(ProblemKind.TOO_LARGE, detail, extra={"limit": MAX_PUT}))
        self.storage.linked()  # before space is reserved in vain
        self.check_name(path)
        self.reserve(path, size, self.now + self.lifetime)
        return self.sign("PUT", path, size)

    def reserve(self, path: FilePath, size: int, expires: float, upload: str = "") -> None:
        wanted = PendingUpload(0, self.bucket, self.key(path), size, self.now, expires, upload)
        try:
            allowed = self.store.boxes.reserve(wanted, self.now, MAX_AWAITED)
        except Transient as error:
            if error.reason != Reason.TOO_MANY_UPLOADS:
                raise
            detail = (
                f"{error.message[:1].upper()}{error.message[1:]}: use the links, or wait until they expire."
            )
            raise RequestRefused(HttpProblem(ProblemKind.TOO_MANY_UPLOADS, detail, retry_after=60)) from error
        if isinstance(allowed, BoxUsage):
            raise RequestRefused(self.full(allowed, size))

    def check_name(self, path: FilePath) -> None:
        """Check that no group in the path is a file, that the file is not a group, that it has more than one
        segment, and that no run is publishing there."""
        key = self.key(path)
        self.require_settled(key)
        above = [self.prefix + text for text in ancestors(path.text) if "/" in text]
        stats = self.storage.start(lambda file: self.objects.stat(self.bucket, file), above)
        if self.objects.page(self.bucket, key + "/", limit=1).objects:
            raise RequestRefused(
                conflict(Localizable("{path} is a group; a file cannot have the same name.", path=path.text))
            )
        for file, found in zip(above, stats, strict=True):
            if found is not None:
                raise RequestRefused(
                    conflict(
                        Localizable(
                            "{path} is a file, so it can hold no files.", path=file.removeprefix(self.prefix)
                        )
                    )
                )

    def check_group_name(self, group: FilePath) -> None:
        """Check that a new group may have this name: that neither it nor a group in the path is a file, and that
        nothing is in it."""
        name = FilePath(group.text.removesuffix("/"), is_group=False)
        if self.objects.page(self.bucket, self.key(group), limit=1).objects:
            raise RequestRefused(conflict(Localizable("There is a folder {path} already.", path=group.text)))
        self.check_name(name)
        if self.has(name):
            raise RequestRefused(conflict(Localizable("There is a file {path} already.", path=name.text)))

    def move(self, path: FilePath, to: FilePath) -> StoredObject:
        """Move a file within the area, to a name that is free. It needs space for both until the first is removed,
        which stays if somebody has replaced it meanwhile."""
        found = self.find(path)
        self.check_name(to)
        if self.has(to):
            raise RequestRefused(conflict(Localizable("There is a file {path} already.", path=to.text)))
        self.reserve(to, found.size, self.now + self.lifetime)
        try:
            copied = self.objects.copy(self.bucket, found, self.key(to))
        except Stalled as error:
            if error.reason in (Reason.OBJECT_MISSING, Reason.OBJECT_CHANGED):
                raise RequestRefused(_missing(path)) from error
            raise
        gone = [found.key] if self.objects.stat(self.bucket, found.key) == found else []
        self.objects.remove(self.bucket, gone)
        self.store.boxes.removed(self.bucket, gone, self.now)  # which has the copy counted, too
        return copied

    def remove(self, path: FilePath) -> None:
        found = self.find(path)
        self.objects.remove(self.bucket, [found.key])
        self.store.boxes.removed(self.bucket, [found.key], self.now)

    def remove_group(self, group: FilePath) -> tuple[int, bool]:
        """Return how many files were deleted, and whether there are more."""
        prefix = self.key(group)
        self.require_settled(prefix, around=True)
        count = 0
        for keys in _batches(self.objects, self.bucket, prefix):
            if count + len(keys) > MAX_REMOVED:
                return count, True
            self.objects.remove(self.bucket, keys)
            self.store.boxes.removed(self.bucket, keys, self.now)
            count += len(keys)
        return count, False

    def require_settled(self, key: str, around: bool = False) -> None:
        require_settled(self.store, self.record, key, self.now, around)

    def full(self, usage: BoxUsage, size: int) -> HttpProblem:
        detail = Localizable(
            "Box {box} has {free} bytes free of {capacity}; {used} are stored, {pending} are kept for uploads under "
            "way, {size} more are asked for.",
            box=self.record.box,
            free=usage.free,
            capacity=usage.capacity,
            used=usage.used,
            pending=usage.pending,
            size=size or Localizable("some"),
        )
        numbers = {"capacity": usage.capacity, "used": usage.used, "pending": usage.pending}
        return HttpProblem(ProblemKind.BOX_FULL, detail, extra={**numbers, "free": usage.free, "size": size})


def _missing(path: FilePath) -> HttpProblem:
    return HttpProblem(ProblemKind.NOT_FOUND, Localizable("There is no file {path}.", path=path.text))


def conflict(detail: str) -> HttpProblem:
    return HttpProblem(ProblemKind.PATH_CONFLICT, detail)


def _batches(objects: Objects, bucket: str, prefix: str) -> Iterator[list[str]]:
    """Yield all keys below `prefix`, page by page; keys of a page may be deleted before the next one is read."""
    after: str | None = ""
    while after is not None:
        page = objects.page(bucket, prefix, after, PAGE)
        if page.objects:
            yield [found.key for found in page.objects]
        after = page.next
