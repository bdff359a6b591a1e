"""The proxy in front of the storage: links of the files API here, containers with an account in `accounts`. The
storage only gets requests that are built here: with the name that a link was signed for, a few allowed fields, and a
length that fits into the box.

Promises: a link is good for one method on one object until it expires, in one spelling; nothing is stored
without room in its box; bytes flow from socket to socket with backpressure; every refusal is a problem
document."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from typing import Final, TypeVar
from urllib.parse import quote

from controller.domain.errors import ControllerError
from controller.domain.routing.shares import TRANSFERS
from controller.domain.storage.box import StorageAccess
from controller.domain.storage.content_types import sent_type
from controller.domain.storage.links import LinkInvalid, ObjectLink, is_link, link_key, parse
from controller.domain.storage.sigv4 import Signer
from controller.domain.traces import read_context
from controller.ports import Store
from controller.tracing import OFF, Tracer
from controller.web.call_files.presigned import unreachable
from controller.web.gateway.body import CallerGone
from controller.web.gateway.headers import Header
from controller.web.gateway.shares import WorkerShares
from controller.web.gateway.traces import RequestTrace
from controller.web.gateway.upstream import UpstreamConnection, UpstreamError
from controller.web.objects import header_fields
from controller.web.objects.accounts import AccountApi, is_signed
from controller.web.objects.caller import CallerConnection, ObjectRequest
from controller.web.objects.checksums import Claim, Malformed, Mismatch, claim_of, compared
from controller.web.objects.conditions import condition_of
from controller.web.objects.reservations import TELL, Reservations
from controller.web.objects.storage import StorageRequests, whole
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from controller.web.splice import pass_on, pass_on_if, pieces_of, pour_if
from controller.web.storage import StorageClient, storage_problem

log = logging.getLogger(__name__)

THREADS: Final = 8  # for what blocks
FRESH: Final = 1.0  # seconds for which the daemon's record of the storage is used without reading it again
_ELEMENT = re.compile(rb"<(Code|Message)>([^<]{0,1000})</")
#: Problems for callers by the status of the storage's refusal; others are errors of the platform.
_KINDS: Final = {404: ProblemKind.NOT_FOUND, 416: ProblemKind.RANGE, 413: ProblemKind.TOO_LARGE}

T = TypeVar("T")


class ObjectProxy:
    """The proxy of one gateway worker; used only on its event loop. `observe` receives status and duration of each
    answer."""

    def __init__(
        self,
        store: Store,
        storage: StorageClient,
        connect_timeout: float,
        abandon_after: float = 86400.0,
        observe: Callable[[int, float], None] = lambda _status, _seconds: None,
        transfers: WorkerShares | None = None,
        tracer: Tracer = OFF,
        trust: str = "none",
        is_embedded: bool = False,
    ) -> None:
        """`trust` says whose traces are continued, see `RequestTrace`; `is_embedded` which storage it is."""
        self._tracer = tracer
        self._trust = trust
        self._traces: dict[
            CallerConnection, RequestTrace
        ] = {}  # of requests in progress, while tracing is on
        self.transfers = transfers or WorkerShares("transfers", TRANSFERS, TRANSFERS)  # by app
        self._store = store
        self._owners: Mapping[str, str] = {}  # apps by their buckets
        self._listed = -FRESH
        self._storage = storage
        self._reservations = Reservations(store, storage, abandon_after)
        self._requests = StorageRequests(connect_timeout, tracer)
        self._accounts = AccountApi(
            store, self._reservations, self._requests, self._in_thread, self._share_of_account, is_embedded
        )
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="gateway-objects")
        self._loop = asyncio.get_running_loop()
        self._observe = observe
        self._access: StorageAccess | None = None
        self._asked = 0.0
        self._told = 0.0

    def sweep(self) -> None:
        """Now and then: let go of connections that nobody uses, and say which bodies still come."""
        self._requests.sweep()
        if self._loop.time() - self._told >= TELL:
            self._told = self._loop.time()
            with suppress(RuntimeError):
                self._threads.submit(self._reservations.prolong)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._requests.close()

    async def answer(self, caller: CallerConnection, request: ObjectRequest) -> None:
        began = self._loop.time()
        if self._tracer.is_on:
            self._traces[caller] = self._trace_of(request)
        try:
            await self._answer(caller, request)
        except RequestRefused as refused:
            _refuse(caller, request, refused.problem)
        except ControllerError as error:
            _refuse(caller, request, _trouble(error, request))
        except (CallerGone, asyncio.CancelledError):
            raise
        except UpstreamError as error:  # the answer has begun: its end is missing
            log.warning("an answer of the storage broke off: %s", error, extra=_about(request))
            caller.close()
        except Exception as error:  # a bug: it ends this request and nothing else
            log.error("a request failed by a fault of the platform", exc_info=error, extra=_about(request))
            _refuse(
                caller, request, HttpProblem(ProblemKind.INTERNAL, "The platform failed; its log has more.")
            )
        finally:
            self._observe(caller.status or 499, self._loop.time() - began)
            if self._traces and (trace := self._traces.pop(caller, None)):
                trace.end(caller.status)

    def _trace_of(self, request: ObjectRequest) -> RequestTrace:
        """Names of files are somebody's, and queries are permissions: neither is in a span."""
        path, _, query = request.target.partition("?")
        is_known = is_link(query) or is_signed(request)
        route = ("/{bucket}/{key}" if "/" in path.strip("/") else "/{bucket}") if is_known else ""
        said = read_context(request.headers.get("traceparent", ""), request.headers.get("tracestate", ""))
        return RequestTrace(self._tracer, self._trust, said, request.method, route)

    async def _answer(self, caller: CallerConnection, request: ObjectRequest) -> None:
        query = request.target.partition("?")[2]
        if "service-worker" in request.headers:
            raise RequestRefused(
                HttpProblem(ProblemKind.LINK, "Stored files must not run as scripts of this host's pages.")
            )
        if is_signed(request) and not is_link(query):
            await self._accounts.answer(caller, request, await self._known())
            return
        if request.method == "OPTIONS" and "origin" in request.headers:
            _send(caller, request, 204, [*header_fields.SHARED, *header_fields.PREFLIGHT], b"")
            return
        if not is_link(query):
            raise RequestRefused(HttpProblem(ProblemKind.LINK, "Only links of the files API lead here."))
        access = await self._known()
        try:
            link = parse(request.method, request.target, link_key(access.secret_key), time.time())
        except LinkInvalid as error:
            raise RequestRefused(
                HttpProblem(ProblemKind.LINK, f"This request is refused: {error}.")
            ) from error
        with await self._share(caller, link.bucket, is_account=False):
            if link.method == "PUT":
                await self._upload(caller, request, link, access)
            else:
                await self._download(caller, request, link, access)

    async def _share_of_account(self, caller: CallerConnection, bucket: str) -> AbstractContextManager[None]:
        return await self._share(caller, bucket, is_account=True)

    async def _share(
        self, caller: CallerConnection, bucket: str, is_account: bool
    ) -> AbstractContextManager[None]:
        """Return the share of the app whose box it is, so that one app does not take all connections. Raises
        RequestRefused when it is entered."""
        if bucket not in self._owners and self._loop.time() - self._listed >= FRESH:
            self._owners = {box.bucket: box.app for box in await self._in_thread(self._store.boxes.all)}
            self._listed = self._loop.time()
        whose = self._owners.get(bucket, bucket)
        if self._traces and (trace := self._traces.get(caller)):
            # A link may be in anybody's hands.
            trace.start(is_known=is_account, app=whose)
        return self.transfers.take(whose, f"app {whose}")

    # --- links -------------------------------------------------------------------------------------------------

    async def _upload(
        self, caller: CallerConnection, request: ObjectRequest, link: ObjectLink, access: StorageAccess
    ) -> None:
        passed = _fields(request, header_fields.PUT_FIELDS)
        passed = {name: value for name, value in passed.items() if name not in header_fields.JUDGED}
        length = _length(request)
        claim = _claim(passed, length)
        arrival = await self._in_thread(self._reservations.admit, link, length)
        done = False
        condition = None if link.upload else condition_of(request.headers)  # parts are nothing yet

        async def allowed() -> None:
            if not link.upload:
                await self._in_thread(self._reservations.require_settled, link.bucket, [link.key])
            if condition is not None:
                await self._in_thread(
                    self._reservations.require_condition, link.bucket, link.key, condition, arrival
                )

        try:
            if condition is not None:  # before a large body is sent in vain
                await self._in_thread(self._reservations.require_condition, link.bucket, link.key, condition)
            if not length:  # the storage has all of it with the header
                await allowed()
            sent = await self._requests.send(
                access, _signer(access), "PUT", link.bucket, link.key, _part(link), passed, length=length
            )
            with self._requests.connected(sent, access) as storage:
                await self._take(caller, length, storage, claim, allowed)
                # Recorded before the answer is sent: callers who have it see the space that is left.
                done = True
                await self._record(self._reservations.stored, arrival)
                _send(caller, request, 200, [*header_fields.SHARED, *_without_length(storage)], b"")
        finally:
            if not done:
                await self._record(self._reservations.failed, arrival)

    async def _take(
        self,
        caller: CallerConnection,
        length: int,
        storage: UpstreamConnection,
        claim: Claim | None,
        allowed: Callable[[], Awaitable[None]],
    ) -> None:
        """Pass the body on; returns when the storage has it."""
        try:
            storage.pause_timeout(True)
            caller.welcome()
            if claim is None:
                await pass_on_if(caller, storage, length, allowed)
            elif length:
                with _compared(storage):
                    await pour_if(compared(pieces_of(caller, length), claim), storage, allowed)
            storage.pause_timeout(False)
            await storage.head()
            body = await whole(storage)
        except UpstreamError as error:
            raise unreachable(error) from error
        if storage.status not in (200, 201, 204):
            raise _told(storage, body)

    async def _record(self, work: Callable[..., None], *args: object) -> None:
        with suppress(RuntimeError):  # the worker has stopped; what is kept expires by itself
            await asyncio.shield(self._loop.run_in_executor(self._threads, work, *args))

    async def _download(
        self, caller: CallerConnection, request: ObjectRequest, link: ObjectLink, access: StorageAccess
    ) -> None:
        passed = _fields(request, header_fields.GET_FIELDS)
        asked = header_fields.with_if_range(passed)
        sent = await self._requests.send(access, _signer(access), "GET", link.bucket, link.key, "", asked)
        with self._requests.connected(sent, access) as storage:
            if asked == passed or storage.status != 412:
                await self._give(caller, request, link, storage)
                return
            await whole(storage)
        # The file is another one than the caller has a part of: all of it is sent.
        for_all = replace(request, headers=header_fields.without_range(request.headers))
        await self._download(caller, for_all, link, access)

    async def _give(
        self, caller: CallerConnection, request: ObjectRequest, link: ObjectLink, storage: UpstreamConnection
    ) -> None:
        if storage.status in (304, 412):
            headers = [*header_fields.SHARED, *_without_length(storage)]
            _send(caller, request, storage.status, headers, b"", length=storage.status != 304)
            await whole(storage)
            return
        if storage.status not in (200, 206):
            raise _told(storage, await whole(storage))
        found = [value for name, value in storage.headers if name.lower() == b"content-length"]
        if len(found) != 1 or not found[0].isdigit():
            raise _told(storage, b"")
        saved = header_fields.SAVED if link.save else ()
        headers = [*header_fields.SHARED, *saved, *_typed(storage.headers, link.key)]
        _begin(caller, request, storage.status, headers)
        storage.pause_timeout(True)
        if request.method != "HEAD":
            await pass_on(storage, caller, int(found[0]))

    # --- what is asked ------------------------------------------------------------------------------------------

    async def _known(self) -> StorageAccess:
        now = self._loop.time()
        if self._access is None or now - self._asked > FRESH:
            self._access = await self._in_thread(self._storage.access)
            self._asked = now
        return self._access

    async def _in_thread(self, work: Callable[..., T], *args: object) -> T:
        return await self._loop.run_in_executor(self._threads, work, *args)


def _fields(request: ObjectRequest, allowed: frozenset[str]) -> dict[str, str]:
    passed, wrong = header_fields.passed(request.headers, allowed)
    if wrong:
        raise RequestRefused(
            HttpProblem(
                ProblemKind.LINK, f"A link takes no field {wrong}: it is for one object and nothing else."
            )
        )
    return passed


def _length(request: ObjectRequest) -> int:
    """Return how long the file is that comes as it is. Raises RequestRefused."""
    if request.length is None or "content-length" not in request.headers:
        detail = "Say how long the file is (Content-Length)."
        raise RequestRefused(HttpProblem(ProblemKind.HTTP, detail, status=411, title="Length required"))
    if "aws-chunked" in request.headers.get("content-encoding", "").lower():
        raise RequestRefused(
            HttpProblem(ProblemKind.CONTENT_CODING, "A link takes the bytes of the file as they are.")
        )
    return request.length


def _claim(passed: Mapping[str, str], length: int) -> Claim | None:
    """Return the checksum in the header. Raises RequestRefused if an empty file has another one."""
    with _compared():
        claim = claim_of(passed)
        if claim is not None and not length:  # the storage would have all of it with the header
            claim.require()
    return claim


def _part(link: ObjectLink) -> str:
    """Return the query for a part of an upload; "" for a file that comes as a whole."""
    return f"partNumber={link.part}&uploadId={quote(link.upload, safe='-_.~')}" if link.upload else ""


def _signer(access: StorageAccess) -> Signer:
    return Signer(access.access_key, access.secret_key, access.region)


@contextmanager
def _compared(storage: UpstreamConnection | None = None) -> Iterator[None]:
    """What has another checksum than it says is refused, and the storage does not get its end."""
    try:
        yield
    except (Mismatch, Malformed) as error:
        if storage is not None:
            storage.close()
        code = "BadDigest" if isinstance(error, Mismatch) else "InvalidRequest"
        text = f"{error!s}."
        raise RequestRefused(
            HttpProblem(ProblemKind.HTTP, text, status=400, title="Bad checksum", extra={"code": code})
        ) from error


def _typed(headers: Iterable[Header], key: str) -> list[Header]:
    """Return the fields of the storage's answer, with the type that the file has."""
    found = header_fields.answered(headers)
    stored = next((value for name, value in found if name == b"content-type"), b"").decode("latin-1")
    kind = sent_type(stored, key).encode("latin-1")
    return [*(header for header in found if header[0] != b"content-type"), (b"content-type", kind)]


def _told(storage: UpstreamConnection, body: bytes) -> RequestRefused:
    """The storage's refusal: its words, and none of its addresses."""
    words = {name: text.decode("utf-8", "replace") for name, text in _ELEMENT.findall(body)}
    code, message = words.get(b"Code", ""), words.get(b"Message", "")
    status = storage.status
    if 400 <= status < 500 and status not in (401, 403):
        kind = _KINDS.get(status, ProblemKind.HTTP)
        return RequestRefused(
            HttpProblem(kind, message or "The storage refuses this.", status=status, extra={"code": code})
        )
    log.warning("the storage refused a request: %s %s %s", status, code, message)
    if status == 507 or code in ("XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded"):
        return RequestRefused(
            HttpProblem(ProblemKind.STORAGE_FULL, "The storage is full.", extra={"code": code})
        )
    if status in (401, 403):
        return RequestRefused(
            HttpProblem(
                ProblemKind.STORAGE_REFUSED, "The storage does not let the platform do this.", retry_after=5
            )
        )
    return RequestRefused(
        HttpProblem(
            ProblemKind.STORAGE_UNREACHABLE, "The storage failed; try again in a moment.", retry_after=5
        )
    )


def _trouble(error: ControllerError, request: ObjectRequest) -> HttpProblem:
    log.warning("the storage failed: %s", error, extra={**_about(request), "reason": error.reason})
    return storage_problem(error) or HttpProblem(
        ProblemKind.STORE_BUSY, "Try again in a moment.", retry_after=2
    )


def _about(request: ObjectRequest) -> dict[str, str]:
    """Never the target: its signature is what opens the storage."""
    return {"request": request.identity.decode()}


# --- answers ----------------------------------------------------------------------------------------------------


def _without_length(storage: UpstreamConnection) -> list[Header]:
    return [header for header in header_fields.answered(storage.headers) if header[0] != b"content-length"]


def _begin(caller: CallerConnection, request: ObjectRequest, status: int, headers: list[Header]) -> None:
    caller.begin(status, [*headers, *header_fields.SAFE, (b"x-request-id", request.identity)])


def _send(
    caller: CallerConnection,
    request: ObjectRequest,
    status: int,
    headers: list[Header],
    body: bytes,
    length: bool = True,
) -> None:
    framing = [(b"content-length", b"%d" % len(body))] if length and status != 204 else []
    _begin(caller, request, status, [*headers, *framing])
    if request.method != "HEAD":
        caller.write(body)


def _refuse(caller: CallerConnection, request: ObjectRequest, problem: HttpProblem) -> None:
    if caller.status:
        caller.close()  # the answer has begun; its missing end tells that it is incomplete
        return
    headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in problem.headers()]
    kept = [header for header in headers if header[0] != b"cache-control"]
    _send(
        caller, request, problem.code, [*header_fields.SHARED, *kept], problem.body(request.identity.decode())
    )
