"""`S3Objects`: buckets and objects at one S3 endpoint. The daemon and the web process each have one, with
their own accounts.

Bytes are streamed in both directions and not kept in memory: an object is sent in one request, authorized
like a link, since the SDK would read it into memory and split it. What the SDK has no public method for is asked by
`signed_requests`. No request is repeated, see `connection`.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from email.utils import parsedate_to_datetime
from itertools import count, islice
from types import MappingProxyType
from typing import BinaryIO, Final, Self
from xml.etree import ElementTree

from minio import Minio
from minio.commonconfig import CopySource
from minio.datatypes import (
    CompleteMultipartUploadResult,
    ListAllMyBucketsResult,
    ListMultipartUploadsResult,
    ListPartsResult,
    Object,
    parse_list_objects,
)
from minio.deleteobjects import DeleteObject
from minio.error import S3Error
from minio.xml import Element, SubElement, findtext, getbytes, unmarshal
from urllib3 import BaseHTTPResponse, Timeout

from controller.adapters.objects import connection
from controller.adapters.objects.connection import Endpoint, pool
from controller.adapters.objects.error_rules import (
    ErrorResponse,
    from_answer,
    from_body,
    from_response,
    translated,
)
from controller.adapters.objects.signed_requests import SignedRequests
from controller.domain.errors import ControllerError, Stalled
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.domain.storage.box import ObjectPage, Part, PendingUpload, StorageAccess, StoredObject
from controller.domain.storage.content_types import content_type_of
from controller.domain.storage.pages import FEWER, GOES_ON, MOST, begin_behind

PIECE: Final = 256 * 1024  # bytes that are read at once
_BATCH: Final = MOST  # keys or parts in one request
_XML: Final = {"Content-Type": "application/xml"}
_KEPT: Final = frozenset(
    ("content-type", "content-encoding", "content-disposition", "content-language", "cache-control")
)
_SKIPPED: Final = 100  # keys that a page may lack, see `S3Objects._listing`
_SEND_WITHIN: Final = 3600.0  # seconds that a request of our own may wait until the server reads its head


class _Walked(threading.local):
    """Where the last page of a listing that this thread reads has ended."""

    next: tuple[str, str, bool, str] | None = None
    until: float = 0.0


class S3Objects:
    """Implements `controller.ports.Objects`."""

    max_put = 5 * 2**30  # bytes in one request, as S3 allows; larger objects are put in parts
    put_part = 2**30  # bytes

    def __init__(
        self,
        internal_url: str,
        access_key: str,
        secret_key: Secret,
        region: str = "us-east-1",
    ) -> None:
        self._url = internal_url
        self._http = pool()
        self._impatient = pool(connection.PING, connection.PING)
        self._walks = count(secrets.randbelow(_BATCH))
        self._walked = _Walked()

        endpoint, account = Endpoint.of(internal_url), (internal_url, access_key, secret_key, region)
        self._requests = SignedRequests(self._http, *account)
        self._probe = SignedRequests(self._impatient, *account)
        # With a fixed region the SDK never asks where a bucket is: signing a link sends nothing.
        self._client = Minio(
            endpoint.address,
            access_key=access_key,
            secret_key=secret_key.reveal(),
            secure=endpoint.secure,
            region=region,
            http_client=self._http,
        )

    @classmethod
    def of(cls, access: StorageAccess) -> Self:
        return cls(access.internal_url, access.access_key, access.secret_key, access.region)

    def ping(self) -> str:
        with translated(Localizable("cannot reach the storage at {url}", url=self._url)):
            try:
                answer = self._probe.send("GET")
                unmarshal(ListAllMyBucketsResult, answer.data.decode())  # a web site answers, too
                headers = answer.headers
            except S3Error as error:
                if error.code != "AccessDenied":  # it knows us, but this account may not list buckets
                    raise
                headers = error.response.headers
        return headers.get("Server", "")

    def buckets(self) -> frozenset[str]:
        with translated(Localizable("cannot list the buckets of the storage")):
            return frozenset(bucket.name for bucket in self._client.list_buckets())

    def create_bucket(self, bucket: str) -> None:
        with translated(Localizable("cannot create the bucket {bucket}", bucket=bucket)):
            try:
                self._client.make_bucket(bucket)
            except S3Error as error:
                if error.code == "BucketAlreadyExists":  # ours, or at a public provider someone else's
                    self._client.bucket_exists(bucket)
                elif error.code != "BucketAlreadyOwnedByYou":
                    raise

    def remove_bucket(self, bucket: str) -> None:
        try:
            while found := self._listing(bucket, "", "", 1000, folders=False).objects:
                self.remove(bucket, (each.key for each in found))
            with translated(Localizable("cannot remove the bucket {bucket}", bucket=bucket)):
                self._client.remove_bucket(bucket)
        except Stalled as error:
            if error.reason != Reason.BUCKET_MISSING:
                raise

    def stat(self, bucket: str, key: str) -> StoredObject | None:
        with translated(Localizable("cannot find {bucket}/{key}", bucket=bucket, key=key)):
            try:
                return _stored(self._client.stat_object(bucket, key))
            except S3Error as error:
                if error.response.status == 404:
                    return None
                raise

    def page(
        self, bucket: str, prefix: str = "", after: str = "", limit: int = 0, folders: bool = False
    ) -> ObjectPage:
        """A thread that reads all pages goes on with its own listing for a while, see domain/storage/pages.py."""
        if limit:
            listing = self._listing(bucket, prefix, after, limit, folders)
        else:
            walked, now = self._walked, time.monotonic()
            is_fresh = walked.next != (bucket, prefix, folders, after) or now > walked.until
            if is_fresh:
                walked.until = now + GOES_ON
            most = _BATCH - 1 - next(self._walks) % FEWER
            listing = self._listing(bucket, prefix, after, most, folders, is_fresh)
            walked.next = None if listing.next is None else (bucket, prefix, folders, listing.next)
        # The JuiceFS gateway lists empty folders as objects without content, not even an empty one.
        objects = tuple(found for found in listing.objects if found.etag or not found.key.endswith("/"))
        return replace(listing, objects=objects)

    def _listing(
        self, bucket: str, prefix: str, after: str, limit: int, folders: bool, is_fresh: bool = True
    ) -> ObjectPage:
        """List one page. The SDK's listing fetches page after page, and does not return whether there is more.

        Exactly one page is requested, because the JuiceFS gateway reads the whole folder for each page that does not
        go on with an earlier listing. MinIO (2026-02) counts keys that it skips before a page as part of it if
        names begin with others: the page is too short, and marked as the last one. So only a much shorter page is
        considered the last at once; others are requested again with more than needed.
        """
        found, more = self._listed(bucket, prefix, after, limit, folders, is_fresh)
        if after and not more and len(found) >= limit - _SKIPPED:
            asked = min(limit + _SKIPPED, _BATCH)
            if asked > limit:
                found, more = self._listed(bucket, prefix, after, asked, folders, is_fresh)
            more = more or len(found) >= asked - _SKIPPED
        return _page(found[:limit], more or len(found) > limit)

    def _listed(
        self, bucket: str, prefix: str, after: str, asked: int, folders: bool, is_fresh: bool
    ) -> tuple[list[Object], bool]:
        """Return objects and folders by their keys, and whether the server has more."""
        query = {
            "list-type": "2",
            "prefix": prefix,
            "delimiter": "/" if folders else "",
            "max-keys": str(asked),
            "encoding-type": "url",  # keys may hold what XML cannot
            "start-after": begin_behind(after, prefix, folders, goes_on=not is_fresh),
        }
        with translated(Localizable("cannot list the bucket {bucket}", bucket=bucket)):
            found, truncated, _, _ = parse_list_objects(self._requests.send("GET", bucket, query=query))
        return sorted(found, key=lambda each: each.object_name or ""), bool(truncated)

    @contextmanager
    def open(self, bucket: str, key: str, etag: str = "") -> Iterator[Iterator[bytes]]:
        doing = Localizable("cannot read {bucket}/{key}", bucket=bucket, key=key)
        with translated(doing):
            response = self._client.get_object(bucket, key, request_headers=_if_match(etag))
        try:
            yield _pieces(response, doing)
        finally:
            response.close()

    @contextmanager
    def open_described(
        self, bucket: str, found: StoredObject
    ) -> Iterator[tuple[Mapping[str, str], Iterator[bytes]]]:
        """Yield the headers that an object was stored with, and its content. Raises as `open`."""
        doing = Localizable("cannot read {bucket}/{key}", bucket=bucket, key=found.key)
        with translated(doing):
            response = self._client.get_object(bucket, found.key, request_headers=_if_match(found.etag))
        try:
            yield _described(response.headers), _pieces(response, doing)
        finally:
            response.close()

    def put(
        self, bucket: str, key: str, content: BinaryIO, size: int, content_type: str = ""
    ) -> StoredObject:
        return self.put_described(bucket, key, content, size, {"content-type": content_type})

    def put_described(
        self, bucket: str, key: str, content: BinaryIO, size: int, headers: Mapping[str, str]
    ) -> StoredObject:
        """Store an object with what `open_described` has said about it."""
        if size <= self.max_put:
            answer = self._send(bucket, key, content, size, headers=headers)
            return _written(key, size, _etag(answer), answer.headers)
        upload = self.begin_upload(bucket, key, headers)
        try:
            parts = self._send_parts(bucket, key, upload, content, size)
            return self.complete_upload(bucket, key, upload, tuple(parts))
        except BaseException:
            with suppress(ControllerError):
                self.abort_upload(bucket, key, upload)
            raise

    def _send_parts(self, bucket: str, key: str, upload: str, content: BinaryIO, size: int) -> Iterator[Part]:
        for number, start in enumerate(range(0, size, self.put_part), start=1):
            length = min(self.put_part, size - start)
            yield self.send_part(bucket, key, upload, number, content, length)

    def send_part(
        self, bucket: str, key: str, upload: str, number: int, content: BinaryIO, size: int
    ) -> Part:
        """Store a part of an upload. Raises Stalled `UploadMissing`."""
        query = {"uploadId": upload, "partNumber": str(number)}
        return Part(number, size, _etag(self._send(bucket, key, content, size, query=query)))

    def _send(
        self,
        bucket: str,
        key: str,
        content: BinaryIO,
        size: int,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> BaseHTTPResponse:
        doing = Localizable("cannot write {bucket}/{key}", bucket=bucket, key=key)
        sent = {**headers, "content-type": headers.get("content-type") or content_type_of(key)}
        if query or not any(name.startswith("x-amz-meta-") for name in sent):
            url: str = self.sign("PUT", bucket, key, lifetime=_SEND_WITHIN, query=query)
            fields: Mapping[str, str] = sent
        else:
            url, fields = self._requests.head("PUT", bucket, key, sent)
        with translated(doing):
            answer = self._http.urlopen(
                "PUT",
                url,
                body=_Exactly(content, size, doing),
                headers={**fields, "Content-Length": str(size)},
                # The time for connecting limits what a new connection sends: urllib3 sets the other one when
                # it begins to read.
                timeout=Timeout(connect=connection.SILENCE, read=connection.SILENCE),
            )
        if answer.status != 200:
            raise from_response(answer, doing)
        return answer

    def copy(self, bucket: str, found: StoredObject, key: str, into: str = "") -> StoredObject:
        source = CopySource(bucket, found.key, match_etag=found.etag)
        with translated(Localizable("cannot copy {bucket}/{key}", bucket=bucket, key=found.key)):
            self._client.copy_object(into or bucket, key, source)
            return _stored(self._client.stat_object(into or bucket, key))

    def begin_copy(self, bucket: str, found: StoredObject, key: str, into: str) -> str:
        # A part names its source, an upload does not: so what describes the object is read and given again.
        doing = Localizable("cannot copy {bucket}/{key}", bucket=bucket, key=found.key)
        with translated(doing):
            try:
                there = self._client.stat_object(bucket, found.key)
            except S3Error as error:
                if error.response.status != 404:
                    raise
                message = Localizable("{doing}: there is no such object", doing=doing)
                raise Stalled(Reason.OBJECT_MISSING, message) from error
        if there.etag != found.etag:
            raise Stalled(Reason.OBJECT_CHANGED, Localizable("{doing}: it was replaced", doing=doing))
        return self.begin_upload(into, key, _described(there.metadata or {}))

    def copy_part(
        self, bucket: str, found: StoredObject, upload: PendingUpload, number: int, start: int, size: int
    ) -> Part:
        doing = Localizable("cannot copy {bucket}/{key}", bucket=bucket, key=found.key)
        source = CopySource(bucket, found.key, match_etag=found.etag).gen_copy_headers()
        span = {"x-amz-copy-source-range": f"bytes={start}-{start + size - 1}"}
        query = {"partNumber": str(number), "uploadId": upload.upload}
        with translated(doing):
            answer = self._requests.send("PUT", upload.bucket, upload.key, query, {**source, **span})
            etag = findtext(ElementTree.fromstring(answer.data), "ETag")  # noqa: S314 - from the storage
        if not etag:  # an error can come after the status of a success
            raise from_body(500, answer.data, doing)
        return Part(number, size, etag.strip('"'))

    def remove(self, bucket: str, keys: Iterable[str]) -> None:
        pending = iter(keys)
        while batch := tuple(islice(pending, _BATCH)):
            with translated(Localizable("cannot remove objects of {bucket}", bucket=bucket)):
                self._remove_batch(bucket, batch)

    def _remove_batch(self, bucket: str, keys: tuple[str, ...]) -> None:
        """Remove objects. With real folders, as behind the JuiceFS gateway, only the removal of a single key
        also removes folders that it leaves empty; folders that are not empty or do not exist are not affected
        anywhere.
        """
        if len(keys) == 1:
            self._client.remove_object(bucket, keys[0])
            return
        for fault in self._client.remove_objects(bucket, [DeleteObject(key) for key in keys]):
            if fault.code != "NoSuchKey":
                raise from_answer(
                    ErrorResponse(200, fault.code, fault.message or fault.code),
                    Localizable("cannot remove {bucket}/{name}", bucket=bucket, name=fault.name),
                )
        for folder in {key.rpartition("/")[0] for key in keys} - {""}:
            self._remove_empty(bucket, folder)

    def _remove_empty(self, bucket: str, folder: str) -> None:
        try:
            self._client.remove_object(bucket, f"{folder}/")
        except S3Error as error:
            if error.code != "XMinioInvalidObjectName":  # too long for MinIO, so it does not exist
                raise

    def sign(
        self,
        method: str,
        bucket: str,
        key: str,
        lifetime: float,
        query: Mapping[str, str] | None = None,
    ) -> str:
        with translated(Localizable("cannot sign a link to {bucket}/{key}", bucket=bucket, key=key)):
            return self._client.get_presigned_url(
                method,
                bucket,
                key,
                expires=timedelta(seconds=max(1.0, lifetime)),
                extra_query_params=dict(query or {}),
            )

    def explain(self, status: int, body: bytes, doing: str) -> ControllerError:
        return from_body(status, body, doing)

    def begin_upload(self, bucket: str, key: str, headers: Mapping[str, str] = MappingProxyType({})) -> str:
        with translated(Localizable("cannot begin an upload of {bucket}/{key}", bucket=bucket, key=key)):
            kind = headers.get("content-type") or content_type_of(key)
            sent = {**headers, "content-type": kind}
            answer = self._requests.send("POST", bucket, key, {"uploads": ""}, sent)
            return findtext(ElementTree.fromstring(answer.data), "UploadId", True) or ""  # noqa: S314 - as below

    def uploads(self, bucket: str, key: str) -> tuple[str, ...]:
        query = {"uploads": "", "prefix": key, "encoding-type": "url", "max-uploads": str(_BATCH)}
        with translated(Localizable("cannot list the uploads of {bucket}/{key}", bucket=bucket, key=key)):
            found = ListMultipartUploadsResult(self._requests.send("GET", bucket, query=query))
        return tuple(each.upload_id for each in found.uploads if each.object_name == key and each.upload_id)

    def parts(self, bucket: str, key: str, upload: str) -> tuple[Part, ...]:
        return tuple(self._parts(bucket, key, upload))

    def _parts(self, bucket: str, key: str, upload: str) -> Iterator[Part]:
        query = {"uploadId": upload, "max-parts": str(_BATCH)}
        while True:
            with translated(Localizable("cannot list the parts of {bucket}/{key}", bucket=bucket, key=key)):
                result = ListPartsResult(self._requests.send("GET", bucket, key, query))
            yield from (Part(part.part_number, part.size or 0, part.etag) for part in result.parts)
            if not result.is_truncated:
                return
            query["part-number-marker"] = result.next_part_number_marker or ""

    def complete_upload(self, bucket: str, key: str, upload: str, parts: tuple[Part, ...]) -> StoredObject:
        doing = Localizable("cannot complete the upload of {bucket}/{key}", bucket=bucket, key=key)
        try:
            with translated(doing):
                result = CompleteMultipartUploadResult(
                    self._requests.send("POST", bucket, key, {"uploadId": upload}, _XML, _part_list(parts))
                )
        except Stalled as error:
            # The JuiceFS gateway also says this of a missing part.
            if error.reason == Reason.UPLOAD_MISSING and self.parts(bucket, key, upload) != parts:
                raise Stalled(
                    Reason.UPLOAD_INCOMPLETE,
                    Localizable("{doing}: its parts differ from the given ones", doing=doing),
                ) from error
            raise
        if not result.etag:  # an error can come after the status of a success
            raise from_answer(
                ErrorResponse(500, "", Localizable("the storage ended its response with an error")), doing
            )
        size = sum(part.size for part in parts)
        return _written(key, size, result.etag, result.http_headers)

    def abort_upload(self, bucket: str, key: str, upload: str) -> None:
        with translated(Localizable("cannot abort the upload of {bucket}/{key}", bucket=bucket, key=key)):
            try:
                self._requests.send("DELETE", bucket, key, {"uploadId": upload})
            except S3Error as error:
                if error.code not in ("NoSuchUpload", "NoSuchBucket", "NoSuchKey"):
                    raise

    def close(self) -> None:
        self._http.clear()
        self._impatient.clear()


class _Exactly:
    """The next `size` bytes of a stream. A shorter stream is an error here: the server would wait for the
    rest.
    """

    def __init__(self, content: BinaryIO, size: int, doing: str) -> None:
        self._content = content
        self._left = size
        self._doing = doing

    def read(self, amount: int) -> bytes:
        piece = self._content.read(min(amount, self._left))
        self._left -= len(piece)
        if self._left and not piece:
            raise Stalled(
                Reason.UPLOAD_INCOMPLETE,
                Localizable(
                    "{doing}: {left} bytes are missing at its end", doing=self._doing, left=self._left
                ),
            )
        return piece


def _pieces(response: BaseHTTPResponse, doing: str) -> Iterator[bytes]:
    with translated(doing):
        yield from response.stream(
            PIECE, decode_content=False
        )  # as it was put, whatever its Content-Encoding


def _described(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers that belong to the object rather than to the response."""
    lower = {name.lower(): value for name, value in headers.items()}
    return {n: v for n, v in lower.items() if n in _KEPT or n.startswith("x-amz-meta-")}


def _stored(found: Object) -> StoredObject:
    modified = found.last_modified.timestamp() if found.last_modified else 0.0
    return StoredObject(found.object_name or "", found.size or 0, found.etag or "", modified)


def _page(found: list[Object], more: bool) -> ObjectPage:
    return ObjectPage(
        tuple(_stored(each) for each in found if each.size is not None),
        tuple(each.object_name or "" for each in found if each.size is None),
        found[-1].object_name if found and more else None,
    )


def _written(key: str, size: int, etag: str, headers: Mapping[str, str]) -> StoredObject:
    """Return what was written. `modified` is the time of the response: the storage's clock, as in listings."""
    date = headers.get("Date")
    return StoredObject(key, size, etag, parsedate_to_datetime(date).timestamp() if date else 0.0)


def _part_list(parts: tuple[Part, ...]) -> bytes:
    listed = Element("CompleteMultipartUpload")
    for part in parts:
        each = SubElement(listed, "Part")
        SubElement(each, "PartNumber", str(part.number))
        SubElement(each, "ETag", f'"{part.etag}"')
    return getbytes(listed)


def _if_match(etag: str) -> dict[str, str | list[str] | tuple[str]] | None:
    return {"If-Match": f'"{etag}"'} if etag else None


def _etag(answer: BaseHTTPResponse) -> str:
    return answer.headers.get("ETag", "").strip('"')
