"""The object storage: buckets and their objects, its accounts and quotas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from controller.domain.errors import ControllerError
from controller.domain.storage.box import (
    ObjectPage,
    Part,
    PendingUpload,
    StorageAccess,
    StorageAccount,
    StoredObject,
)


class Objects(Protocol):
    """Buckets and their objects at one S3 endpoint, under one account. Thread-safe.

    Every call may raise Transient `StorageUnreachable` (down, restarting, too slow), Transient `StorageFull`
    (no room on its disk or within its quota), Stalled `StorageDenied` (this account may not), Stalled
    `BucketMissing`, Stalled `StorageRefused` (anything else that the server answers with an error of ours).
    Keys are texts that `domain.storage.keys` accepts."""

    def ping(self) -> str:
        """Return the server's name, as far as it is known. It waits a few seconds at most, and does not retry."""

    def buckets(self) -> frozenset[str]: ...

    def create_bucket(self, bucket: str) -> None:
        """Create the bucket; an existing one is fine."""

    def remove_bucket(self, bucket: str) -> None:
        """Remove the bucket with all its objects; a missing one is fine."""

    def stat(self, bucket: str, key: str) -> StoredObject | None:
        """Return None if there is no such object or bucket."""

    def page(
        self, bucket: str, prefix: str = "", after: str = "", limit: int = 0, folders: bool = False
    ) -> ObjectPage:
        """Return objects whose key starts with `prefix` and is greater than `after`, at most `limit`
        (1..1000) objects and prefixes together. With `folders`, keys with the same part up to the next `/`
        after `prefix` are one prefix.

        A page shows all that was written before it was asked for. Without `limit` the page has some hundred
        objects, and a thread that reads on from its end may see what was there at the first page: it is
        for callers who read all pages at once."""

    def open(self, bucket: str, key: str, etag: str = "") -> AbstractContextManager[Iterator[bytes]]:
        """Yield the content in pieces. Raises Stalled `ObjectMissing`; with `etag` also Stalled
        `ObjectChanged` if the object was replaced. An interrupted stream raises Transient
        `StorageUnreachable`."""

    def put(
        self, bucket: str, key: str, content: BinaryIO, size: int, content_type: str = ""
    ) -> StoredObject:
        """Store an object. Without `content_type`, it is guessed from the key."""

    def copy(self, bucket: str, found: StoredObject, key: str, into: str = "") -> StoredObject:
        """Copy an object of the bucket within the storage, as it was found, to `key` in the bucket `into` ("": the
        same one), with its content type and metadata. Stalled `ObjectMissing`, `ObjectChanged` if it was replaced."""

    def begin_copy(self, bucket: str, found: StoredObject, key: str, into: str) -> str:
        """Return the id of a new upload in parts to `key` in the bucket `into`, with content type and metadata of the
        object `found` of `bucket`, for `copy_part`. Raises as `copy`."""

    def copy_part(
        self, bucket: str, found: StoredObject, upload: PendingUpload, number: int, start: int, size: int
    ) -> Part:
        """Copy `size` bytes of an object of `bucket`, from `start` on, as part `number` of an upload. Raises as `copy`,
        and Stalled `UploadMissing`."""

    def remove(self, bucket: str, keys: Iterable[str]) -> None:
        """Remove the objects; missing ones are fine."""

    def sign(
        self,
        method: str,
        bucket: str,
        key: str,
        lifetime: float,
        query: Mapping[str, str] | None = None,
    ) -> str:
        """Return a link that permits `method` on the object for `lifetime` seconds. A client could do more
        with other header fields, so only the platform's own processes may have it. No request is sent."""

    def explain(self, status: int, body: bytes, doing: str) -> ControllerError:
        """Return the error for an unsuccessful answer to a link, for code that sends the request itself.
        `doing` begins the error's text ("cannot read x"). ObjectMissing and BucketMissing are distinguished
        for GET and PUT."""

    def begin_upload(self, bucket: str, key: str) -> str:
        """Return the id of a new upload in parts."""

    def uploads(self, bucket: str, key: str) -> tuple[str, ...]:
        """Return the ids of uploads in parts of this key that are neither completed nor aborted."""

    def parts(self, bucket: str, key: str, upload: str) -> tuple[Part, ...]:
        """Return the parts of the upload that have arrived, by number. Stalled `UploadMissing`."""

    def complete_upload(self, bucket: str, key: str, upload: str, parts: tuple[Part, ...]) -> StoredObject:
        """Complete the upload. Raises Stalled `UploadMissing`, `UploadIncomplete` (a part is missing or too
        small)."""

    def abort_upload(self, bucket: str, key: str, upload: str) -> None:
        """Remove it; a missing one is fine."""

    def close(self) -> None: ...


class StorageAdmin(Protocol):
    """Accounts and quotas, of storages that have them. Same errors as Objects."""

    def set_quota(self, bucket: str, capacity: int) -> None:
        """Set an additional limit in bytes, which may lag. Storages without quotas ignore it."""

    def ensure_account(self, account: StorageAccount) -> None:
        """Create the account, or give it exactly these grants and this secret."""

    def remove_account(self, name: str) -> None:
        """Remove it; a missing one is fine."""

    def accounts(self) -> frozenset[str]: ...


class Storage(Protocol):
    """The configured object storage, for the daemon. The embedded server is started by the first call that
    needs it."""

    def objects(self) -> Objects:
        """Return a client with all rights. Raises Transient `StorageUnreachable` while the embedded server
        does not answer, and Stalled `StorageDisabled` with `backend: none`."""

    def admin(self) -> StorageAdmin | None:
        """Return the admin client, or None if this storage has no accounts and quotas that we can set."""

    def access(self) -> StorageAccess:
        """Return the web process' account, which may read and write objects of all our buckets, and nothing else,
        if accounts can be made."""

    def close(self) -> None: ...
