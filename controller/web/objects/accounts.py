"""The S3 API for containers that use the account of their component. It checks their signature with a secret that the
storage does not know; `s3` parses the request, and a new request goes to the storage.

Promises: an account reaches the buckets that it was granted and no others; nothing is stored without room in
its box; a body whose signature or checksum does not fit is not stored."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from controller.domain.errors import ControllerError
from controller.domain.storage.accounts import component_secret
from controller.domain.storage.box import Arrival, StorageAccess
from controller.domain.storage.pages import FEWER
from controller.domain.storage.sigv4 import (
    UNSIGNED,
    SignatureInvalid,
    Signed,
    Signer,
    check_signature,
    read_signature,
    signing_key,
)
from controller.ports import Store
from controller.web.call_files.presigned import unreachable
from controller.web.gateway.headers import Header
from controller.web.gateway.upstream import UpstreamConnection, UpstreamError
from controller.web.objects import header_fields
from controller.web.objects.caller import CallerConnection, ObjectRequest
from controller.web.objects.checksums import FIELDS, Claim, Malformed, Mismatch, claim_of, compared
from controller.web.objects.chunks import ChunkedReader, ChunkFraming, ChunkSigner
from controller.web.objects.listings import for_embedded
from controller.web.objects.reservations import Reservations
from controller.web.objects.s3 import (
    MAX_XML,
    DeleteRequest,
    S3Error,
    S3Operation,
    S3Request,
    canonical_query,
    error_document,
    location,
    read_deletion,
    read_request,
    read_target,
    rebuilt_completion,
)
from controller.web.objects.storage import StorageRequests, whole
from controller.web.problems import ProblemKind, RequestRefused
from controller.web.splice import counting, pass_on, pass_on_if, pieces_of, pour_if

log = logging.getLogger(__name__)

_SIGNED_CHUNKS: Final = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
_STREAMS: Final = {
    _SIGNED_CHUNKS: (True, False),
    f"{_SIGNED_CHUNKS}-TRAILER": (True, True),
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER": (False, True),
}
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TAKING: Final = (S3Operation.PUT, S3Operation.PUT_PART)
_SAID: Final = frozenset((b"cache-control", b"content-disposition", b"content-language", b"expires"))
_ELEMENT = re.compile(rb"<(Code|Message|UploadId)>([^<]{0,1000})</")
_REFUSALS: Final = {
    ProblemKind.OVERLOADED: (503, "SlowDown"),
    ProblemKind.BOX_FULL: (507, "QuotaExceeded"),
    ProblemKind.STORAGE_FULL: (507, "QuotaExceeded"),
    ProblemKind.TOO_LARGE: (400, "EntityTooLarge"),
    ProblemKind.NOT_FOUND: (404, "NoSuchUpload"),
    ProblemKind.PUBLISHING: (409, "OperationAborted"),
}

InThread = Callable[..., Awaitable[Any]]


def is_signed(request: ObjectRequest) -> bool:
    """Return True if somebody with an account asks."""
    query = request.target.partition("?")[2]
    by_query = "X-Amz-Credential=" in query or "AWSAccessKeyId=" in query  # that of old, which is told so
    return request.headers.get("authorization", "").startswith("AWS") or by_query


@dataclass(frozen=True)
class _Reserved:
    """Room in a box for what comes: `length` bytes more for an `upload` in parts, or that of a `pending` object, which
    is None if a copy takes no room."""

    upload: str = ""
    length: int = 0
    pending: Arrival | None = None


class AccountApi:
    """The S3 API of one gateway worker. `in_thread` runs blocking code."""

    def __init__(
        self,
        store: Store,
        reservations: Reservations,
        requests: StorageRequests,
        in_thread: InThread,
        share: Callable[[CallerConnection, str], Awaitable[AbstractContextManager[None]]],
        is_embedded: bool = False,
    ) -> None:
        """`share` returns the share of the app that owns a bucket, for a caller whose account was verified;
        `is_embedded` says that the storage is the one that the platform brings along."""
        self._is_embedded = is_embedded
        self._store = store
        self._reservations = reservations
        self._requests = requests
        self._in_thread = in_thread
        self._share = share

    async def answer(self, caller: CallerConnection, request: ObjectRequest, access: StorageAccess) -> None:
        """Raises CallerGone, and UpstreamError once the answer has begun."""
        try:
            await self._answer(caller, request, access)
        except S3Error as error:
            _refuse(caller, request, error)
        except RequestRefused as refused:
            otherwise = (refused.problem.code, str(refused.problem.extra.get("code", "InternalError")))
            status, code = _REFUSALS.get(refused.problem.kind, otherwise)
            _refuse(caller, request, S3Error(status, code, refused.problem.detail))
        except ControllerError as error:
            log.warning("the storage failed: %s", error, extra={"reason": error.reason})
            _refuse(caller, request, S3Error(503, "SlowDown", "The storage does not answer at the moment."))

    async def _answer(self, caller: CallerConnection, request: ObjectRequest, access: StorageAccess) -> None:
        bucket, key, query = read_target(request.target)
        signed, payload = _checked(request, bucket, key, query, access)
        ask = read_request(request.method, bucket, key, query, request.headers)
        granted = await self._in_thread(self._store.boxes.grants, signed.access_key)
        if not granted:
            raise S3Error(403, "InvalidAccessKeyId", "There is no such account, or not any more.")
        if not {bucket, *(ask.source or (bucket,))[:1]} <= granted:
            raise S3Error(403, "AccessDenied", "This account may only use its connected boxes.")
        with await self._share(caller, bucket):
            await self._perform(caller, request, ask, access, signed, payload)

    async def _perform(
        self,
        caller: CallerConnection,
        request: ObjectRequest,
        ask: S3Request,
        access: StorageAccess,
        signed: Signed,
        payload: str,
    ) -> None:
        if ask.operation is S3Operation.CREATE_BUCKET:  # some clients begin with it
            raise S3Error(409, "BucketAlreadyOwnedByYou", "The box is there; manifests make boxes.")
        if ask.operation is S3Operation.LOCATION:
            _send(caller, request, 200, [], location(access.region))
        elif ask.operation in _TAKING:
            await self._take(caller, request, ask, access, signed, payload)
        elif ask.source is not None:
            await self._copy(caller, request, ask, access)
        else:
            await self._pass(caller, request, ask, access, payload)

    # --- what comes --------------------------------------------------------------------------------------------

    async def _take(
        self,
        caller: CallerConnection,
        request: ObjectRequest,
        ask: S3Request,
        access: StorageAccess,
        signed: Signed,
        payload: str,
    ) -> None:
        """An object, or a part of one."""
        chunks = _chunks(caller, request, signed, access, payload)
        length = request.length if chunks is None else int(request.headers["x-amz-decoded-content-length"])
        if length is None or (chunks is None and "content-length" not in request.headers):
            raise S3Error(411, "MissingContentLength", "Say how long the object is.")
        with _compared():
            body = _Body(length, chunks, claim_of(request.headers))
            if not length:  # the storage would have all of it with the header
                caller.welcome()
                await anext(body.pieces(caller), b"")
        reserved = await self._reserve(ask, length)

        async def allowed() -> None:
            if not reserved.upload:  # parts are nothing yet
                await self._require_settled(ask.bucket, [ask.key])
                await self._require_condition(ask, reserved.pending)

        async with self._given_back(ask, reserved) as stored:
            if not reserved.upload:  # before a large body is sent in vain
                await self._require_condition(ask)
            if not length:
                await allowed()
            digest = payload if chunks is None and _DIGEST.fullmatch(payload) else UNSIGNED
            connection = await self._send(access, ask, length=length, payload=digest)
            with self._requests.connected(connection, access) as storage:
                await _pour(caller, storage, body, allowed)
                _check(storage, await whole(storage))
                await stored()
                _send(caller, request, 200, _answered(storage, but=b"content-length"), b"")

    async def _copy(
        self, caller: CallerConnection, request: ObjectRequest, ask: S3Request, access: StorageAccess
    ) -> None:
        reserved = await self._reserve_copy(ask)
        async with self._given_back(ask, reserved) as stored:
            if not reserved.upload:
                await self._require_condition(ask, reserved.pending)
            with self._requests.connected(await self._send(access, ask), access) as storage:
                body = await whole(storage)
                _check(storage, body)
                # An error may come after the status of a success.
                if b"<Error>" in body[:1000]:
                    raise S3Error(500, "InternalError", "The storage could not copy it.")
                await stored()
                _send(caller, request, 200, _answered(storage, but=b"content-length"), body)

    async def _reserve(self, ask: S3Request, length: int) -> _Reserved:
        upload = ask.query.get("uploadId", "")
        if upload:
            await self._in_thread(self._reservations.grow, ask.bucket, ask.key, upload, length)
            return _Reserved(upload, length)
        return _Reserved(pending=await self._in_thread(self._reservations.put, ask.bucket, ask.key, length))

    async def _reserve_copy(self, ask: S3Request) -> _Reserved:
        upload, reserve = ask.query.get("uploadId", ""), self._reservations
        if upload:
            length = await self._in_thread(reserve.grow_by_copy, ask.bucket, ask.key, upload, ask.source)
            return _Reserved(upload, length)
        return _Reserved(pending=await self._in_thread(reserve.copy, ask.bucket, ask.key, ask.source))

    @asynccontextmanager
    async def _given_back(
        self, ask: S3Request, reserved: _Reserved
    ) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Give room back at the end, unless what is yielded was called, since the storage has all of it."""
        is_stored = False

        async def stored() -> None:
            nonlocal is_stored
            is_stored = True
            if reserved.pending is not None:
                await self._record(self._reservations.stored, reserved.pending)

        try:
            yield stored
        finally:
            if reserved.upload and not is_stored:
                where = (ask.bucket, ask.key, reserved.upload)
                await self._record(self._reservations.shrink, *where, reserved.length)
            elif reserved.pending is not None and not is_stored:
                await self._record(self._reservations.failed, reserved.pending)

    # --- all else ----------------------------------------------------------------------------------------------

    async def _pass(
        self,
        caller: CallerConnection,
        request: ObjectRequest,
        ask: S3Request,
        access: StorageAccess,
        payload: str,
    ) -> None:
        body, deletion = b"", None
        if ask.operation is S3Operation.DELETE_MANY:
            document = await _short_body(caller, request, payload)
            _require_claimed(request, document)
            deletion = read_deletion(document)
            body = deletion.document()
            await self._require_settled(ask.bucket, deletion.keys)
        elif ask.operation is S3Operation.COMPLETE:
            body = rebuilt_completion(await _short_body(caller, request, payload))
        async with self._changed(ask):
            await self._pass_on(caller, request, ask, access, body, deletion)

    async def _pass_on(
        self,
        caller: CallerConnection,
        request: ObjectRequest,
        ask: S3Request,
        access: StorageAccess,
        body: bytes,
        deletion: DeleteRequest | None,
    ) -> None:
        listing = None
        if ask.operation is S3Operation.LIST and self._is_embedded:
            listing = for_embedded(ask.query, time.time(), secrets.randbelow(FEWER))
            ask = replace(ask, query=listing.query)
        with self._requests.connected(await self._send(access, ask, body), access) as storage:
            if ask.operation is S3Operation.GET and storage.status in (200, 206):
                await _give(caller, request, storage)
                return
            if request.method == "HEAD" and storage.status < 300:
                _begin(caller, request, storage.status, _answered(storage))
                return
            answer = await whole(storage)
            if storage.status == 304:
                _begin(caller, request, 304, _answered(storage, but=b"content-length"))
                return
            _check(storage, answer)
            if listing is not None:
                answer = listing.answer(answer)
            if deletion is not None:
                answer = deletion.result(answer)
            if ask.operation is S3Operation.BEGIN:
                found = dict(_ELEMENT.findall(answer)).get(b"UploadId", b"").decode()
                await self._in_thread(self._reservations.begun, ask.bucket, ask.key, found)
            elif request.method in ("POST", "DELETE"):
                await self._record(self._reservations.changed, ask.bucket)
            empty = storage.status == 204
            _send(caller, request, storage.status, _answered(storage, but=b"content-length"), answer, empty)

    async def _send(
        self,
        access: StorageAccess,
        ask: S3Request,
        body: bytes = b"",
        length: int | None = None,
        payload: str = UNSIGNED,
    ) -> UpstreamConnection:
        headers = dict(ask.headers)
        method = _METHODS[ask.operation]
        if ask.operation is S3Operation.DELETE_MANY:
            headers["content-md5"] = _md5(body)
        if body:
            headers["content-type"] = "application/xml"
        signer = Signer(access.access_key, access.secret_key, access.region)
        query = canonical_query(ask.query)
        return await self._requests.send(
            access, signer, method, ask.bucket, ask.key, query, headers, body, length, payload
        )

    @asynccontextmanager
    async def _changed(self, ask: S3Request) -> AsyncIterator[None]:
        """Check what has to hold before an object is made of parts or deleted, and let others with a condition see
        that it changes until that has happened. Raises RequestRefused."""
        if ask.operation not in (S3Operation.COMPLETE, S3Operation.DELETE):
            yield
            return
        await self._require_settled(ask.bucket, [ask.key])
        if ask.condition is None:
            yield
            return
        arrival = await self._in_thread(self._reservations.announce, ask.bucket, ask.key)
        async with self._given_back(ask, _Reserved(pending=arrival)):
            await self._require_condition(ask, arrival)
            yield

    async def _require_condition(self, ask: S3Request, arrival: Arrival | None = None) -> None:
        if ask.condition is not None:
            where = (ask.bucket, ask.key, ask.condition, arrival)
            await self._in_thread(self._reservations.require_condition, *where)

    async def _require_settled(self, bucket: str, keys: Iterable[str]) -> None:
        await self._in_thread(self._reservations.require_settled, bucket, keys)

    async def _record(self, work: Callable[..., None], *args: object) -> None:
        with suppress(RuntimeError):  # the worker has stopped; what is kept expires by itself
            await asyncio.shield(asyncio.ensure_future(self._in_thread(work, *args)))


_METHODS: Final = {
    S3Operation.HEAD_BUCKET: "HEAD",
    S3Operation.HEAD: "HEAD",
    S3Operation.LIST: "GET",
    S3Operation.LIST_UPLOADS: "GET",
    S3Operation.LIST_PARTS: "GET",
    S3Operation.GET: "GET",
    S3Operation.PUT: "PUT",
    S3Operation.PUT_PART: "PUT",
    S3Operation.COPY: "PUT",
    S3Operation.COPY_PART: "PUT",
    S3Operation.DELETE_MANY: "POST",
    S3Operation.BEGIN: "POST",
    S3Operation.COMPLETE: "POST",
    S3Operation.ABORT: "DELETE",
    S3Operation.DELETE: "DELETE",
}


# --- signatures and bodies --------------------------------------------------------------------------------------


def _checked(
    request: ObjectRequest, bucket: str, key: str, query: dict[str, str], access: StorageAccess
) -> tuple[Signed, str]:
    """Return the account, and how the body is signed. Raises S3Error."""
    try:
        signed = read_signature(request.headers, query)
        payload = request.headers.get("x-amz-content-sha256", UNSIGNED if signed.lifetime else "")
        if not (payload == UNSIGNED or payload in _STREAMS or _DIGEST.fullmatch(payload)):
            raise SignatureInvalid("x-amz-content-sha256 is missing or unknown")
        unsigned = {name: value for name, value in query.items() if name != "X-Amz-Signature"}
        path = request.target.partition("?")[0]
        path = S3Request(S3Operation.GET, bucket, key, {}).path + (
            "/" if not key and path.endswith("/") else ""
        )
        secret = component_secret(access.secret_key, signed.access_key)
        check_signature(
            signed,
            secret,
            request.method,
            path,
            canonical_query(unsigned),
            request.headers,
            payload,
            time.time(),
        )
    except SignatureInvalid as error:
        raise S3Error(403, "SignatureDoesNotMatch", f"{str(error).capitalize()}.") from error
    return signed, payload


def _chunks(
    caller: CallerConnection, request: ObjectRequest, signed: Signed, access: StorageAccess, payload: str
) -> ChunkedReader | None:
    """Return the reader of a chunked body, or None if the body is the object itself. Raises S3Error."""
    if payload not in _STREAMS:
        if "aws-chunked" in request.headers.get("content-encoding", ""):
            raise S3Error(
                400, "InvalidRequest", "The body is framed, and x-amz-content-sha256 does not say so."
            )
        return None
    with_signatures, with_trailer = _STREAMS[payload]
    length = request.headers.get("x-amz-decoded-content-length", "")
    trailer = {name.strip().lower() for name in request.headers.get("x-amz-trailer", "").split(",")} - {""}
    if not (length.isascii() and length.isdigit() and len(length) < 17):
        raise S3Error(411, "MissingContentLength", "x-amz-decoded-content-length is missing.")
    if not trailer <= FIELDS or bool(trailer) != with_trailer:
        raise S3Error(400, "InvalidRequest", "x-amz-trailer names what is not known, or is missing.")
    signer = None
    if with_signatures:
        secret = component_secret(access.secret_key, signed.access_key)
        signer = ChunkSigner(signing_key(secret, signed.scope), signed.date, signed.scope, signed.signature)

    async def read() -> bytes:
        with counting(caller):
            return await caller.read()

    return ChunkedReader(read, int(length), signer, frozenset(trailer))


@dataclass(frozen=True)
class _Body:
    """The body of an object or a part. `chunks` is None if it is not framed; `claim` is the checksum in the
    header."""

    length: int
    chunks: ChunkedReader | None
    claim: Claim | None

    def pieces(self, caller: CallerConnection) -> AsyncIterator[bytes]:
        pieces = pieces_of(caller, self.length) if self.chunks is None else self.chunks.pieces()
        return compared(pieces, self.claim)


async def _pour(
    caller: CallerConnection,
    storage: UpstreamConnection,
    body: _Body,
    allowed: Callable[[], Awaitable[None]],
) -> None:
    """The body, and the header of the answer to it. What does not fit is cut off before its end, so that the storage
    has nothing of it. Raises S3Error."""
    try:
        storage.pause_timeout(True)
        caller.welcome()
        if body.chunks is None and body.claim is None:
            await pass_on_if(caller, storage, body.length, allowed)
        elif body.length:
            with _compared(storage):
                await pour_if(body.pieces(caller), storage, allowed)
        storage.pause_timeout(False)
        await storage.head()
    except UpstreamError as error:
        raise unreachable(error) from error


@contextmanager
def _compared(storage: UpstreamConnection | None = None) -> Iterator[None]:
    """What is not what it says is refused, and the storage does not get its end."""
    try:
        yield
    except (Mismatch, Malformed, ChunkFraming, SignatureInvalid) as error:
        if storage is not None:
            storage.close()
        status, code = _UNFIT[type(error)]
        raise S3Error(status, code, f"{str(error)[:1].upper()}{str(error)[1:]}.") from error


_UNFIT: Final = {
    Mismatch: (400, "BadDigest"),
    Malformed: (400, "InvalidRequest"),
    ChunkFraming: (400, "IncompleteBody"),
    SignatureInvalid: (403, "SignatureDoesNotMatch"),
}


async def _short_body(caller: CallerConnection, request: ObjectRequest, payload: str) -> bytes:
    """Read the body of a request whose document is parsed here. Raises S3Error."""
    if request.length is None or request.length > MAX_XML or payload in _STREAMS:
        raise S3Error(
            400, "InvalidRequest", f"The body is a document of {MAX_XML} bytes at most, in one piece."
        )
    caller.welcome()
    caller.pause_timeout(False)
    pieces = []
    while piece := await caller.read():
        pieces.append(piece)
    caller.pause_timeout(True)
    body = b"".join(pieces)
    if payload != UNSIGNED and _sha256(body) != payload:
        raise S3Error(400, "XAmzContentSHA256Mismatch", "The body is another one than was signed.")
    return body


def _require_claimed(request: ObjectRequest, body: bytes) -> None:
    with _compared():
        claim = claim_of(request.headers)
        if claim is not None:
            claim.update(body)
            claim.require()


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


# --- answers ----------------------------------------------------------------------------------------------------


def _check(storage: UpstreamConnection, body: bytes) -> None:
    """Raises S3Error with the storage's own words."""
    if storage.status < 300:
        return
    words = {name: text.decode("utf-8", "replace") for name, text in _ELEMENT.findall(body)}
    code, message = words.get(b"Code", ""), words.get(b"Message", "")
    if storage.status in (401, 403):  # it is the platform that is refused there
        log.warning("the storage refused a request: %s %s %s", storage.status, code, message)
        raise S3Error(503, "SlowDown", "The storage does not let the platform do this.")
    if storage.status == 404:
        code = code or "NoSuchKey"
    raise S3Error(storage.status, code or "InternalError", message or "The storage refuses this.")


async def _give(caller: CallerConnection, request: ObjectRequest, storage: UpstreamConnection) -> None:
    found = [value for name, value in storage.headers if name.lower() == b"content-length"]
    if len(found) != 1 or not found[0].isdigit():
        raise S3Error(502, "InternalError", "The storage does not tell how long the object is.")
    _begin(caller, request, storage.status, _answered(storage))
    storage.pause_timeout(True)
    await pass_on(storage, caller, int(found[0]))


def _answered(storage: UpstreamConnection, but: bytes = b"") -> list[Header]:
    meta = frozenset(
        lower for name, _ in storage.headers if (lower := name.lower()).startswith(b"x-amz-meta-")
    )
    return [header for header in header_fields.answered(storage.headers, _SAID | meta) if header[0] != but]


def _begin(caller: CallerConnection, request: ObjectRequest, status: int, headers: list[Header]) -> None:
    """A signed address may be opened in a browser: what an app has stored is not a page of this host there
    either. How long caches keep it is the app's own business: a 304 in which the storage leaves that out changes
    nothing of what the cache was told with the object."""
    told = {name for name, _ in headers} | ({b"cache-control"} if status == 304 else set())
    safe = [header for header in header_fields.SAFE if header[0] not in told]
    caller.begin(status, [*headers, *safe, (b"x-amz-request-id", request.identity)])


def _send(
    caller: CallerConnection,
    request: ObjectRequest,
    status: int,
    headers: list[Header],
    body: bytes,
    empty: bool = False,
) -> None:
    framing = [] if empty else [(b"content-length", b"%d" % len(body))]
    if body and not any(name == b"content-type" for name, _ in headers):
        framing.append((b"content-type", b"application/xml"))
    _begin(caller, request, status, [*headers, *framing])
    if not empty and request.method != "HEAD":
        caller.write(body)


def _refuse(caller: CallerConnection, request: ObjectRequest, error: S3Error) -> None:
    if caller.status:
        caller.close()  # the answer has begun; its missing end tells that it is incomplete
        return
    resource = request.target.partition("?")[0][:1024]
    body = error_document(error, resource, request.identity.decode())
    _send(caller, request, error.status, [(b"content-type", b"application/xml")], body)
