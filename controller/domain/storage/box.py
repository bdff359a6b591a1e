"""Boxes in the storage: buckets, their records, links, accounts, and the calculation of capacity. Pure. A
manifest declares a box, and a bucket has its data. The record connects them, so that data can outlive its
manifest (`kept`) and be connected to another box."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from controller.domain.apps.spec import Reclaim
from controller.domain.names import AppName, ComponentName
from controller.domain.secret import Secret
from controller.domain.volumes import Volume


class BoxState(StrEnum):
    BOUND = "bound"  # declared by a manifest
    KEPT = "kept"  # not declared any more; the data is kept, and cannot be accessed
    DELETING = "deleting"  # a person requested its deletion; the next pass deletes it
    COPYING = "copying"  # declared by a preview; its bucket is being filled with what a box of its app has

    @classmethod
    def _missing_(cls, value: object) -> BoxState | None:
        return cls.DELETING if value == "doomed" else None  # as release 0.1.0 wrote it


@dataclass(frozen=True)
class BoxRecord:
    """`used` and `files` are what the last measurement counted, at `measured` (Unix seconds, 0: never). `changed` is
    when an upload was last allowed or something removed: later than `measured`, the figures are out of date."""

    app: AppName
    box: ComponentName
    bucket: str
    capacity: int  # bytes
    reclaim: Reclaim = Reclaim.RETAIN
    state: BoxState = BoxState.BOUND
    used: int = 0  # bytes
    files: int = 0
    measured: float = 0.0
    since: float = 0.0  # Unix seconds of the last change of `state`
    changed: float = 0.0  # Unix seconds, 0: never


@dataclass(frozen=True)
class StoredObject:
    """An object of a bucket. `etag` has no quotes; for an object that was put in one piece it is the MD5 of
    its content in hex. `modified` is Unix seconds."""

    key: str
    size: int
    etag: str
    modified: float


@dataclass(frozen=True)
class ObjectPage:
    """Part of a listing in the order of the keys' UTF-8 bytes. `prefixes` are the folders of a listing by delimiter,
    each ending in `/`; `next` is the `after` of the next page, which may be empty; None at the end."""

    objects: tuple[StoredObject, ...] = ()
    prefixes: tuple[str, ...] = ()
    next: str | None = None


@dataclass(frozen=True)
class ModelPin:
    """A model resolved to content: `digest` (hex) is that of names, ETags and sizes of its objects. `key` is
    the file, or the folder ending in `/`. `volume` has it under its own `name` once it is
    `present`; the `objects` of a model that was already present are not known."""

    bucket: str
    key: str
    digest: str
    volume: Volume
    present: bool
    objects: tuple[StoredObject, ...] = ()

    @property
    def name(self) -> str:
        return self.key.rstrip("/").rpartition("/")[2]

    @property
    def size(self) -> int:
        """Return the size in bytes."""
        return sum(found.size for found in self.objects)


@dataclass(frozen=True)
class Part:
    """A part of an upload in parts. Numbers count from 1."""

    number: int
    size: int
    etag: str


@dataclass(frozen=True)
class PendingUpload:
    """An upload that was allowed and may be in progress: space is reserved for `size` bytes (0: not
    announced) until a measurement has counted the object, or until `expires`. `upload` is the storage's id of
    an upload in parts."""

    id: int
    bucket: str
    key: str
    size: int
    created: float  # Unix seconds
    expires: float
    upload: str = ""


@dataclass(frozen=True)
class Arrival:
    """A body that is being sent to the storage: an object, or with `upload` and `part` a part of one. Space
    for its `size` is reserved until it has arrived or failed, or until `until`, unless that was extended."""

    id: int
    bucket: str
    key: str
    size: int
    began: float  # Unix seconds
    until: float
    upload: str = ""
    part: int = 0


@dataclass(frozen=True)
class BoxUsage:
    """The use of a box, in bytes. `pending` is reserved for uploads that were allowed."""

    capacity: int
    used: int
    pending: int

    @property
    def free(self) -> int:
        return max(0, self.capacity - self.used - self.pending)

    def has_space_for(self, size: int) -> bool:
        """Return True if an upload of `size` bytes may begin. One of unknown size (0) needs a box that is not
        full."""
        return size <= self.free and self.used + self.pending < self.capacity


@dataclass(frozen=True)
class AccountGrant:
    """The permissions of an account for one bucket."""

    bucket: str
    write: bool = True


@dataclass(frozen=True)
class StorageAccount:
    """A user of the storage with exactly these grants. `name` is its access key."""

    name: str
    secret: Secret
    grants: tuple[AccountGrant, ...] = field(default=())


@dataclass(frozen=True)
class StorageAccess:
    """The web process' access to the storage. URLs are `http(s)://host[:port]`: links for users are signed
    for `public_url`, since a signature covers the host; the platform's own requests go to `internal_url`."""

    internal_url: str
    public_url: str
    access_key: str
    secret_key: Secret
    region: str = "us-east-1"
