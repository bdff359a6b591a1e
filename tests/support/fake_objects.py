"""An object storage in memory: `FakeStorage`, `FakeObjects` and `FakeAdmin`, held to the contract suite of the real
ones (tests/contract/test_objects.py).

Its links lead to http://storage.test and are good for `FakeObjects.follow` alone. A test may set `down` (nothing
answers) and `full` (nothing more is taken) at any time, on any of the three.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import threading
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import BinaryIO
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.domain.storage.accounts import web_account
from controller.domain.storage.box import (
    ObjectPage,
    Part,
    PendingUpload,
    StorageAccess,
    StorageAccount,
    StoredObject,
)

PUBLIC_URL = "http://storage.test"
INTERNAL_URL = "http://storage.internal.test"
ROOT = "root"
ROOT_SECRET = Secret("root-secret")
_PIECE = 64 * 1024
_STATUS = {
    "ObjectMissing": 404,
    "BucketMissing": 404,
    "UploadMissing": 404,
    "StorageDenied": 403,
    "StorageFull": 507,
}


@dataclass
class _Upload:
    bucket: str
    key: str
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass
class FakeServer:
    """What several clients share. `min_part`: bytes that all parts of an upload but the last one need."""

    buckets: dict[str, dict[str, tuple[StoredObject, bytes]]] = field(default_factory=dict)
    uploads: dict[str, _Upload] = field(default_factory=dict)
    described: dict[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)
    accounts: dict[str, StorageAccount] = field(default_factory=dict)
    quotas: dict[str, int] = field(default_factory=dict)
    down: bool = False
    full: bool = False
    min_part: int = 5 * 2**20
    lock: threading.RLock = field(default_factory=threading.RLock)
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @contextmanager
    def call(self) -> Iterator[None]:
        with self.lock:
            if self.down:
                raise Transient(Reason.STORAGE_UNREACHABLE, "the storage is down")
            yield

    def secret(self, name: str) -> Secret | None:
        if name == ROOT:
            return ROOT_SECRET
        return self.accounts[name].secret if name in self.accounts else None

    def allows(self, name: str, bucket: str, write: bool) -> bool:
        if name == ROOT:
            return True
        grants = self.accounts[name].grants if name in self.accounts else ()
        return any(fnmatchcase(bucket, grant.bucket) and grant.write >= write for grant in grants)


class _Switches:
    """`down` and `full` of the server."""

    server: FakeServer

    @property
    def down(self) -> bool:
        return self.server.down

    @down.setter
    def down(self, value: bool) -> None:
        self.server.down = value

    @property
    def full(self) -> bool:
        return self.server.full

    @full.setter
    def full(self, value: bool) -> None:
        self.server.full = value


class FakeObjects(_Switches):
    """Implements `controller.ports.Objects`. `requests` counts the calls that would have reached a server."""

    def __init__(
        self, server: FakeServer | None = None, access_key: str = ROOT, secret_key: Secret = ROOT_SECRET
    ) -> None:
        self.server = server or FakeServer()
        self.requests = 0
        self._name = access_key
        self._secret = secret_key

    @classmethod
    def of(cls, access: StorageAccess, server: FakeServer) -> FakeObjects:
        return cls(server, access.access_key, access.secret_key)

    @contextmanager
    def _request(
        self, bucket: str = "", write: bool = False
    ) -> Iterator[dict[str, tuple[StoredObject, bytes]]]:
        self.requests += 1
        with self.server.call():
            if self.server.secret(self._name) != self._secret:
                raise Stalled(Reason.STORAGE_DENIED, "no such account, or another secret")
            if bucket and not self.server.allows(self._name, bucket, write):
                raise Stalled(Reason.STORAGE_DENIED, f"{self._name} may not use {bucket}")
            if bucket and bucket not in self.server.buckets:
                raise Stalled(Reason.BUCKET_MISSING, f"there is no bucket {bucket}")
            yield self.server.buckets.get(bucket, {})

    def ping(self) -> str:
        with self._request():
            return "fake"

    def buckets(self) -> frozenset[str]:
        with self._request():
            return frozenset(
                name for name in self.server.buckets if self.server.allows(self._name, name, write=False)
            )

    def create_bucket(self, bucket: str) -> None:
        with self._request():
            self._root_only(bucket)
            self.server.buckets.setdefault(bucket, {})

    def remove_bucket(self, bucket: str) -> None:
        with self._request():
            self._root_only(bucket)
            self.server.buckets.pop(bucket, None)

    def _root_only(self, bucket: str) -> None:
        if self._name != ROOT:
            raise Stalled(Reason.STORAGE_DENIED, f"{self._name} may not create and remove {bucket}")

    def stat(self, bucket: str, key: str) -> StoredObject | None:
        try:
            with self._request(bucket) as objects:
                return objects[key][0] if key in objects else None
        except Stalled as error:
            if error.reason == "BucketMissing":
                return None
            raise

    def page(
        self, bucket: str, prefix: str = "", after: str = "", limit: int = 0, folders: bool = False
    ) -> ObjectPage:
        limit = limit or 1000
        assert 1 <= limit <= 1000
        with self._request(bucket) as objects:
            entries: dict[str, StoredObject | None] = {}
            for key in sorted(objects):
                if key.startswith(prefix):
                    head, slash, _ = key[len(prefix) :].partition("/")
                    rolled_up = folders and bool(slash)
                    entries[prefix + head + "/" if rolled_up else key] = (
                        None if rolled_up else objects[key][0]
                    )
        names = list(entries)
        start = bisect_right(names, after)
        chosen = names[start : start + limit]
        return ObjectPage(
            tuple(found for name in chosen if (found := entries[name]) is not None),
            tuple(name for name in chosen if entries[name] is None),
            chosen[-1] if len(chosen) == limit else None,  # as real ones: an empty page may be the last
        )

    @contextmanager
    def open(self, bucket: str, key: str, etag: str = "") -> Iterator[Iterator[bytes]]:
        with self._request(bucket) as objects:
            if key not in objects:
                raise Stalled(Reason.OBJECT_MISSING, f"there is no {bucket}/{key}")
            found, content = objects[key]
            if etag and etag != found.etag:
                raise Stalled(Reason.OBJECT_CHANGED, f"{bucket}/{key} is another one by now")
        yield self._pieces(content)

    def _pieces(self, content: bytes) -> Iterator[bytes]:
        for start in range(0, len(content), _PIECE):
            with self.server.call():
                yield content[start : start + _PIECE]

    def put(
        self, bucket: str, key: str, content: BinaryIO, size: int, content_type: str = ""
    ) -> StoredObject:
        with self._request(bucket, write=True):
            pass
        body = b""
        while len(body) < size and (piece := content.read(size - len(body))):
            body += piece
        if len(body) < size:
            raise Stalled(Reason.UPLOAD_INCOMPLETE, f"{size - len(body)} bytes are missing at its end")
        with self._request(bucket, write=True):
            return self._store(bucket, key, body, hashlib.md5(body).hexdigest())

    @contextmanager
    def open_described(
        self, bucket: str, found: StoredObject
    ) -> Iterator[tuple[Mapping[str, str], Iterator[bytes]]]:
        with self.open(bucket, found.key, found.etag) as pieces:
            yield self.server.described.get((bucket, found.key), {}), pieces

    def put_described(
        self, bucket: str, key: str, content: BinaryIO, size: int, headers: Mapping[str, str]
    ) -> StoredObject:
        stored = self.put(bucket, key, content, size)
        self.server.described[bucket, key] = dict(headers)
        return stored

    def send_part(
        self, bucket: str, key: str, upload: str, number: int, content: BinaryIO, size: int
    ) -> Part:
        body = content.read(size)
        self.put_part(bucket, key, upload, number, body)
        return Part(number, size, hashlib.md5(body).hexdigest())

    def _store(self, bucket: str, key: str, body: bytes, etag: str) -> StoredObject:
        self._room()
        stored = StoredObject(key, len(body), etag, time.time())
        self.server.buckets[bucket][key] = (stored, body)
        return stored

    def _room(self) -> None:
        if self.server.full:
            raise Transient(Reason.STORAGE_FULL, "the disk of the storage is full")

    def copy(self, bucket: str, found: StoredObject, key: str, into: str = "") -> StoredObject:
        target = into or bucket
        with self.open_described(bucket, found) as (described, pieces):
            body = b"".join(pieces)
        with self._request(target, write=True):
            self.server.described[target, key] = described
            return self._store(target, key, body, found.etag)

    def begin_copy(self, bucket: str, found: StoredObject, key: str, into: str) -> str:
        with self.open_described(bucket, found) as (described, _):
            pass
        upload = self.begin_upload(into, key)
        self.server.described[into, key] = described
        return upload

    def copy_part(
        self, bucket: str, found: StoredObject, upload: PendingUpload, number: int, start: int, size: int
    ) -> Part:
        with self.open(bucket, found.key, found.etag) as pieces:
            body = b"".join(pieces)[start : start + size]
        self.put_part(upload.bucket, upload.key, upload.upload, number, body)
        return Part(number, size, hashlib.md5(body).hexdigest())

    def remove(self, bucket: str, keys: Iterable[str]) -> None:
        chosen = tuple(keys)
        with self._request(bucket, write=True) as objects:
            for key in chosen:
                objects.pop(key, None)

    def sign(
        self,
        method: str,
        bucket: str,
        key: str,
        lifetime: float,
        query: Mapping[str, str] | None = None,
    ) -> str:
        expires = f"{time.time() + max(1.0, lifetime):.3f}"
        asked = {**(query or {}), "X-Account": self._name, "X-Expires": expires}
        url = f"{INTERNAL_URL}/{quote(bucket)}/{quote(key)}?{urlencode(asked)}"
        return f"{url}&X-Signature={_signature(method, url, self._secret)}"

    def follow(self, method: str, url: str, content: bytes = b"") -> tuple[int, bytes]:
        """Do what a link allows, as its holder would: HTTP status and content of the answer."""
        signed, _, signature = url.rpartition("&X-Signature=")
        path, query = urlsplit(signed).path, dict(parse_qsl(urlsplit(signed).query))
        secret = self.server.secret(query.get("X-Account", ""))
        good = secret is not None and hmac.compare_digest(signature, _signature(method, signed, secret))
        if not good or float(query["X-Expires"]) < time.time():
            return 403, b"StorageDenied"
        bucket, _, key = unquote(path).lstrip("/").partition("/")
        holder = FakeObjects(self.server, query["X-Account"], secret or self._secret)
        try:
            return 200, holder._carry_out(method, bucket, key, query, content)
        except (Stalled, Transient) as error:
            return _STATUS.get(error.reason, 503), error.reason.encode()

    def _carry_out(self, method: str, bucket: str, key: str, query: dict[str, str], content: bytes) -> bytes:
        if method == "GET":
            with self.open(bucket, key) as pieces:
                return b"".join(pieces)
        if "uploadId" in query:
            self.put_part(bucket, key, query["uploadId"], int(query["partNumber"]), content)
            return b""
        with self._request(bucket, write=True):
            self._store(bucket, key, content, hashlib.md5(content).hexdigest())
        return b""

    def put_part(self, bucket: str, key: str, upload: str, number: int, content: bytes) -> None:
        with self._request(bucket, write=True):
            self._room()
            self._upload(bucket, key, upload).parts[number] = content

    def explain(self, status: int, body: bytes, doing: str) -> ControllerError:
        """Of the answers of `follow`."""
        reason = body.decode()
        if reason not in _STATUS:
            reason = "StorageUnreachable" if status >= 500 else "StorageRefused"
        kind = Transient if reason in ("StorageUnreachable", "StorageFull") else Stalled
        return kind(Reason(reason), f"{doing}: HTTP status {status}")

    def begin_upload(self, bucket: str, key: str) -> str:
        with self._request(bucket, write=True):
            upload = f"upload-{next(self.server.ids)}"
            self.server.uploads[upload] = _Upload(bucket, key)
            return upload

    def _upload(self, bucket: str, key: str, upload: str) -> _Upload:
        found = self.server.uploads.get(upload)
        if found is None or (found.bucket, found.key) != (bucket, key):
            raise Stalled(Reason.UPLOAD_MISSING, f"there is no upload {upload} of {bucket}/{key}")
        return found

    def uploads(self, bucket: str, key: str) -> tuple[str, ...]:
        with self._request(bucket):
            there = self.server.uploads.items()
            return tuple(id for id, each in there if (each.bucket, each.key) == (bucket, key))

    def parts(self, bucket: str, key: str, upload: str) -> tuple[Part, ...]:
        with self._request(bucket):
            found = self._upload(bucket, key, upload)
            return tuple(_part(number, found.parts[number]) for number in sorted(found.parts))

    def complete_upload(self, bucket: str, key: str, upload: str, parts: tuple[Part, ...]) -> StoredObject:
        with self._request(bucket, write=True):
            found = self._upload(bucket, key, upload)
            numbers = [part.number for part in parts]
            there = [_part(number, found.parts[number]) for number in numbers if number in found.parts]
            if not parts or [part.etag for part in there] != [part.etag for part in parts]:
                raise Stalled(Reason.UPLOAD_INCOMPLETE, "its parts differ from the given ones")
            if any(part.size < self.server.min_part for part in there[:-1]):
                raise Stalled(Reason.UPLOAD_INCOMPLETE, "a part is too small")
            digests = b"".join(bytes.fromhex(part.etag) for part in there)
            body = b"".join(found.parts[number] for number in numbers)
            stored = self._store(bucket, key, body, f"{hashlib.md5(digests).hexdigest()}-{len(parts)}")
            del self.server.uploads[upload]
            return stored

    def abort_upload(self, bucket: str, key: str, upload: str) -> None:
        with self.server.call():
            self.server.uploads.pop(upload, None)

    def close(self) -> None: ...


class FakeAdmin(_Switches):
    """Implements `controller.ports.StorageAdmin`."""

    def __init__(self, server: FakeServer | None = None) -> None:
        self.server = server or FakeServer()

    def set_quota(self, bucket: str, capacity: int) -> None:
        with self.server.call():
            self.server.quotas[bucket] = capacity

    def ensure_account(self, account: StorageAccount) -> None:
        with self.server.call():
            self.server.accounts[account.name] = account

    def remove_account(self, name: str) -> None:
        with self.server.call():
            self.server.accounts.pop(name, None)

    def accounts(self) -> frozenset[str]:
        with self.server.call():
            return frozenset(self.server.accounts)


class FakeStorage(_Switches):
    """Implements `controller.ports.Storage`. `with_admin=False`: one without accounts."""

    def __init__(self, instance: str = "prichal", with_admin: bool = True) -> None:
        self.server = FakeServer()
        self.instance = instance
        self._objects = FakeObjects(self.server)
        self._admin = FakeAdmin(self.server) if with_admin else None

    def objects(self) -> FakeObjects:
        return self._objects

    def admin(self) -> FakeAdmin | None:
        return self._admin

    def access(self) -> StorageAccess:
        if self._admin is None:
            return StorageAccess(INTERNAL_URL, PUBLIC_URL, ROOT, ROOT_SECRET)
        account = web_account(b"key", self.instance)
        self._admin.ensure_account(account)
        return StorageAccess(INTERNAL_URL, PUBLIC_URL, account.name, account.secret)

    def connect(self, access: StorageAccess) -> FakeObjects:
        """The factory that the web process is given."""
        return FakeObjects.of(access, self.server)

    def close(self) -> None: ...


def _part(number: int, content: bytes) -> Part:
    return Part(number, len(content), hashlib.md5(content).hexdigest())


def _signature(method: str, url: str, secret: Secret) -> str:
    return hmac.digest(secret.reveal().encode(), f"{method} {url}".encode(), "sha256").hex()
