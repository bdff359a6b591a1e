"""Boxes as they lie in the storage: buckets, their records, links, accounts, and the arithmetic of capacity. Pure.

A box is what a manifest declares, a bucket is where its data lies. The record joins them, so that data can outlive its
manifest (`kept`) and be joined to another box again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from controller.domain.apps.spec import Reclaim
from controller.domain.names import AppName, ComponentName
from controller.domain.secret import Secret


class BoxState(StrEnum):
    BOUND = "bound"  # declared by a manifest
    KEPT = "kept"  # its manifest left Git or its app was disconnected; nobody can reach the data, nothing deletes it
    DOOMED = "doomed"  # a person asked for its deletion; gone with the next pass


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
    """One object of a bucket. `etag` has no quotes; of an object that was put in one piece it is the MD5 of its
    content in hex. `modified` is Unix seconds."""

    key: str
    size: int
    etag: str
    modified: float


@dataclass(frozen=True)
class ObjectPage:
    """Part of a listing in the order of the keys' UTF-8 bytes. `prefixes` are the folders of a listing by delimiter,
    each ending in `/`; `next` is what to give as `after` for the rest, which may be empty; None at the end."""

    objects: tuple[StoredObject, ...] = ()
    prefixes: tuple[str, ...] = ()
    next: str | None = None


@dataclass(frozen=True)
class ModelPin:
    """A model nailed to content: `digest` (hex) over names, ETags and sizes of its objects. `key` is the file, or the
    folder ending in `/`. `folder` holds it on this host under its own `name` once it is `present`; the `objects` of
    one that was present already are not known."""

    bucket: str
    key: str
    digest: str
    folder: Path
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
    """One part of an upload in parts. Numbers count from 1."""

    number: int
    size: int
    etag: str


@dataclass(frozen=True)
class PendingUpload:
    """An upload that was allowed and may be under way: room is kept for `size` bytes (0: not announced) until a
    measurement has counted the object, or until `expires`. `upload` is the storage's id of an upload in parts."""

    id: int
    bucket: str
    key: str
    size: int
    created: float  # Unix seconds
    expires: float
    upload: str = ""


@dataclass(frozen=True)
class Arrival:
    """A body that is on its way to the storage: an object, or with `upload` and `part` a part of one. Room is kept for
    all of its `size` until it has arrived or failed, or nobody has said before `until` that it still comes."""

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
    """What there is in a box, in bytes. `pending` is kept for uploads that were allowed."""

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
    """What an account may do with one bucket."""

    bucket: str
    write: bool = True


@dataclass(frozen=True)
class Account:
    """A user of the storage who reaches just what is granted. `name` is its access key."""

    name: str
    secret: Secret
    grants: tuple[AccountGrant, ...] = field(default=())


@dataclass(frozen=True)
class StorageAccess:
    """With what the web process reaches the storage. URLs are `http(s)://host[:port]`: links for users are signed for
    `public_url`, since a signature covers the host; what the platform fetches itself goes to `internal_url`."""

    internal_url: str
    public_url: str
    access_key: str
    secret_key: Secret
    region: str = "us-east-1"
