"""Makes the calls that nobody waits for, in one worker of the gateway: claims them, forwards them like any other call,
and records how they ended.

A call is made at most once: it goes back into the queue only if the component certainly got nothing of it. If its
worker ends in between, another one ends it with an error. All claim from one database, which counts what runs."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from controller.domain.errors import ControllerError
from controller.domain.names import AppName
from controller.domain.routing.async_calls import (
    CANCELED,
    LOST,
    CallEnd,
    EndedCall,
    Key,
    absent_for_long,
    absent_since,
    end_of,
    pause,
)
from controller.guards import GuardedStep, report
from controller.store.calls import CallRequest, CallResult, CallTable, ClaimedCall
from controller.web.async_calls.news import CallNews
from controller.web.async_calls.presence import WorkerPresence
from controller.web.gateway.body import IncomingBody, Message, RequestBody, Send, once
from controller.web.gateway.forward import ForwardedCall, ResponseState, problem_of
from controller.web.gateway.router import Router, UpstreamTarget, dialect_of, not_found
from controller.web.gateway.upstream import UpstreamError
from controller.web.problems import CONTENT_TYPE, HttpProblem, ProblemKind, RequestRefused

log = logging.getLogger(__name__)

SWEEP: Final = 1.0  # seconds between two searches for old calls and for workers that have gone
UNSAVED: Final = 1.0  # seconds until an end that could not be recorded is tried again
MARGIN: Final = 2.0  # seconds that the gateway waits longer than the component
#: Fields of a response that belong to the connection, or that the gateway sets for each response.
_OF_CONNECTION: Final = frozenset((b"content-length", b"x-request-id", b"server", b"date"))
#: Problems with which the serving library refuses a call before the function runs.
_NOT_RUN: Final = ("urn:prichal:problem:queue-full", "urn:prichal:problem:not-ready")
#: Problems of the gateway after which the component has certainly got nothing.
_NOT_SENT: Final = frozenset(
    (ProblemKind.NOT_READY, ProblemKind.UPSTREAM_UNREACHABLE, ProblemKind.OVERLOADED)
)

#: Forwards a call on behalf of a user, with files of boxes if the component has any.
Forward = Callable[[ForwardedCall, str, RequestBody, Send, ResponseState], Awaitable[None]]
T = TypeVar("T")


class NotSent(Exception):
    """The call could not begin; `end` says why."""

    def __init__(self, end: CallEnd) -> None:
        super().__init__(end.message)
        self.end = end


class CallDispatcher:
    """`table_of_routes` returns the current one; `called` notes that a component is in use, `tell` tells the daemon the
    end of a call, and `count` counts an answered one by its API, status and seconds."""

    def __init__(
        self,
        table: CallTable,
        news: CallNews,
        presence: WorkerPresence,
        worker: str,
        table_of_routes: Callable[[], Router],
        forward: Forward,
        called: Callable[[UpstreamTarget], None],
        tell: Callable[[EndedCall], None],
        count: Callable[[str, int, float], None],
    ) -> None:
        self._table = table
        self._count = count
        self._tell = GuardedStep(
            "the daemon is not told the end of async calls", partial(self._tell_all, tell)
        )
        self._news = news
        self._presence = presence
        self._worker = worker
        self._routes = table_of_routes
        self._forward = forward
        self._called = called
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="async-calls")
        self._underway: dict[str, asyncio.Task[None]] = {}
        self._canceled: set[str] = set()
        self._ending: set[str] = set()  # calls whose end is being recorded, which cannot be canceled any more
        self._wake = asyncio.Event()
        self._main: asyncio.Task[None] | None = None
        self._next_sweep = 0.0
        self._stopping = False
        self._disk_is_low = False
        self._removed = GuardedStep("calls of removed components are not ended", self._end_removed)
        self._components_absent: dict[Key, float] = {}
        self._apps_absent: dict[AppName, float] = {}

    async def start(self) -> None:
        self._main = self._loop.create_task(self._work())

    def begin_stop(self) -> None:
        """Claim no more calls."""
        self._stopping = True
        self._wake.set()

    async def stop(self, timeout: float) -> None:
        """Wait for the calls under way, and end the rest with an error."""
        self.begin_stop()
        if self._main is not None:
            await asyncio.wait([self._main])
        if self._underway:
            await asyncio.wait(tuple(self._underway.values()), timeout=timeout)
        for task in self._underway.values():
            task.cancel()
        if self._underway:
            await asyncio.wait(tuple(self._underway.values()), timeout=UNSAVED)
        await self.in_thread(self._presence.leave)
        self._thread.shutdown(wait=True)

    def wake(self) -> None:
        """Look for calls now, because one was accepted here."""
        self._wake.set()

    async def in_thread(self, work: Callable[..., T], *args: object) -> T:
        """Do what writes the database, one after another."""
        return await self._loop.run_in_executor(self._thread, lambda: work(*args))

    # --- the loop ----------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        failing = False
        while not self._stopping:
            self._wake.clear()
            try:
                await self._pass()
                failing = False
            except Exception as error:  # noqa: BLE001 - reported, and tried again
                if not failing:
                    report("async calls are not made", error)
                failing = True
            await self._pause(UNSAVED if failing else SWEEP)

    async def _pause(self, seconds: float) -> None:
        change = self._loop.create_task(self._news.wait(seconds))
        wake = self._loop.create_task(self._wake.wait())
        await asyncio.wait((change, wake), return_when=asyncio.FIRST_COMPLETED)
        for task in (change, wake):
            task.cancel()
        await asyncio.wait((change, wake))

    async def _pass(self) -> None:
        if self._loop.time() >= self._next_sweep:
            self._next_sweep = self._loop.time() + SWEEP
            await self.in_thread(self._sweep, frozenset(self._underway))
        await self.in_thread(self._tell)
        if self._underway:
            for id in await self.in_thread(self._table.canceling, self._worker):
                self._cancel(id)
        while not self._stopping and (claimed := await self.in_thread(self._claim)):
            self._begin(claimed)

    def _sweep(self, underway: frozenset[str]) -> None:
        self._presence.enter()
        self._table.lose(self._worker, underway)
        for worker in self._table.workers():
            if self._presence.has_gone(worker) and (lost := self._table.lose(worker)):
                log.warning("a worker has ended in the middle of async calls", extra={"calls": lost})
        while not self._table.sweep():
            pass
        self._removed()
        self._presence.forget()

    def _end_removed(self) -> None:
        """End calls that wait for components that were removed, and remove all calls of deleted apps."""
        routes, now = self._routes(), self._loop.time()
        waiting, apps = self._table.waiting(), self._table.apps()
        self._components_absent = absent_since(self._components_absent, waiting, routes.components, now)
        self._apps_absent = absent_since(self._apps_absent, apps, routes.apps, now)
        for app, component in absent_for_long(self._components_absent, now):
            while ended := self._table.abandon(app, component):
                log.info("calls of a removed component have ended", extra={"app": app, "calls": ended})
        for app in absent_for_long(self._apps_absent, now):
            while removed := self._table.remove(app):
                log.info("calls of a deleted app were removed", extra={"app": app, "calls": removed})

    def _tell_all(self, tell: Callable[[EndedCall], None]) -> None:
        """A worker that is killed in between leaves it to another one, and the daemon knows what it has heard."""
        for ended in self._table.untold(self._worker):
            tell(ended)
            self._table.told(ended.call.id)

    def has_disk(self) -> bool:
        """Return True if enough of the disk is free for more calls. Says so in the log when that changes."""
        free, limits = self._table.free(), self._table.limits
        if limits.takes_calls(free) == self._disk_is_low:
            self._disk_is_low = not self._disk_is_low
            if self._disk_is_low:
                text = "no async calls begin: %.1f %% of the disk are free, but runs.minFree is %d"
                log.warning(text, free, limits.reserve)
            else:
                log.info("async calls begin again")
        return not self._disk_is_low

    def _claim(self) -> ClaimedCall | None:
        if not self.has_disk():
            return None
        routes = self._routes()
        return self._table.claim(self._worker, slots_of(routes), versions_of(routes))

    def _cancel(self, id: str) -> None:
        task = self._underway.get(id)
        if task is not None and id not in self._canceled | self._ending:
            self._canceled.add(id)
            task.cancel()

    def _begin(self, claimed: ClaimedCall) -> None:
        id = claimed.call.id
        task = self._loop.create_task(self._make(claimed))
        self._underway[id] = task
        task.add_done_callback(lambda _: self._ended(id))

    def _ended(self, id: str) -> None:
        del self._underway[id]
        self._canceled.discard(id)
        self._ending.discard(id)
        self._news.tell()
        self._wake.set()

    # --- one call ----------------------------------------------------------------------------------------------

    async def _make(self, claimed: ClaimedCall) -> None:
        id, result, began = claimed.call.id, None, self._loop.time()
        try:
            end, result = await self._outcome(claimed)
        except NotSent as error:
            self._ending.add(id)
            if await self._saved(self._table.requeue, id, self._worker, error.end, pause(claimed.attempts)):
                return
            end = CANCELED
        except asyncio.CancelledError:
            end = CANCELED if id in self._canceled else LOST
        except Exception as error:  # noqa: BLE001 - a bug ends this call alone
            report(f"async call {id} failed by a fault of the platform", error)
            end, result = _answered(HttpProblem(ProblemKind.INTERNAL, "See the web process' log."), claimed)
        self._ending.add(id)
        if result:
            call = claimed.call
            self._count(f"{call.app}/{call.api}", result.status, self._loop.time() - began)
        if result and not self._table.limits.keeps_result(len(result.body), self._table.free()):
            detail = (
                "The result was not kept: too little of the platform's disk is free. The function has run."
            )
            end, result = _answered(HttpProblem(ProblemKind.DISK_LOW, detail), claimed)
        await self._saved(self._table.end, id, self._worker, end, result)

    async def _saved(self, work: Callable[..., T], *args: object) -> T:
        """Record something, for as long as it takes: the disk may be full now. Only the end of the worker ends this,
        and then another worker finds the call."""
        told = False
        while True:
            try:
                return await self.in_thread(work, *args)
            except ControllerError as error:
                if not told:
                    log.error("the end of an async call cannot be recorded, trying again: %s", error)
                told = True
            await asyncio.sleep(UNSAVED)

    async def _outcome(self, claimed: ClaimedCall) -> tuple[CallEnd, CallResult | None]:
        """Return how the call ended, with the response. Raises NotSent."""
        call, sent = claimed.call, False

        def begun() -> None:
            nonlocal sent
            sent = True

        target = self._routes().targets.get((call.app.encode(), call.api.encode()))
        if target is None or target.route.component != call.component or target.route.any_path:
            raise NotSent(end_of(404, not_found().kind.slug, "The API is not published any more."))
        self._called(target)
        response = ResponseBuffer(self._table.limits.result)
        forwarded = _forwarded(target, claimed.request, begun)
        body = await _stored_body(claimed.request.body)
        try:
            await self._forward(forwarded, call.user, body, response.send, ResponseState())
        except RequestRefused as refused:
            problem = refused.problem
            if problem.kind in _NOT_SENT or (not sent and problem.code >= 500):
                raise NotSent(end_of(problem.code, problem.kind.slug, problem.detail)) from refused
            return _answered(problem, claimed)
        except UpstreamError as error:  # in the middle of the response
            return _answered(problem_of(target, error), claimed)
        result = response.result()
        if (why := refused_unread(result)) is not None:
            raise NotSent(end_of(result.status, "not-ready", why))
        return end_of(result.status), result


def slots_of(routes: Router) -> dict[Key, int]:
    """Return how many async calls each component takes at once: one slot of a container is left for callers who wait,
    if it has several. One that nobody repairs, since its app is suspended, takes calls as long as it has containers."""
    return {
        (route.app, route.component): max(1, route.concurrency - 1) * max(1, len(route.upstreams))
        for target in routes.targets.values()
        if (route := target.route).in_service
        and not route.any_path
        and (route.upstreams or not route.stalled)
    }


def versions_of(routes: Router) -> dict[Key, str]:
    """Return the version of each component that new calls go to. Those that an earlier one still makes take none of its
    slots."""
    return {
        (target.route.app, target.route.component): target.route.fingerprint
        for target in routes.targets.values()
    }


def _forwarded(target: UpstreamTarget, request: CallRequest, begun: Callable[[], None]) -> ForwardedCall:
    """Return the call with the time that it has as an async one."""
    seconds = target.route.async_timeout
    patient = replace(target, route=replace(target.route, timeout=seconds + MARGIN))
    lines = request.lines + b"x-prichal-timeout: %.3f\r\n" % seconds
    return ForwardedCall(patient, "POST", request.path, lines, request.identity, request.host, begun=begun)


async def _stored_body(content: bytes) -> RequestBody:
    length = {b"content-length": b"%d" % len(content)}
    body = RequestBody(IncomingBody(once(content), length), length, len(content))
    await body.begin()
    return body


def _answered(problem: HttpProblem, claimed: ClaimedCall) -> tuple[CallEnd, CallResult]:
    """Return the end of a call that the platform answered, with the problem as its result."""
    call, path = claimed.call, claimed.request.path.partition(b"?")[0]
    dialect = dialect_of(b"/%b/%b%b" % (call.app.encode(), call.api.encode(), path))
    document = problem.body(claimed.request.identity.decode(), dialect)
    result = CallResult(problem.code, ((b"content-type", CONTENT_TYPE.encode()),), document)
    return end_of(problem.code, problem.kind.slug, problem.detail), result


def refused_unread(result: CallResult) -> str | None:
    """Return why the serving library did not run the function; None if it did."""
    if result.status != 503 or not result.content_type.startswith(CONTENT_TYPE) or len(result.body) > 2**16:
        return None
    with suppress(ValueError, RecursionError):
        document = json.loads(result.body)
        if isinstance(document, dict) and document.get("type") in _NOT_RUN:
            return str(document.get("detail", ""))[:1000]
    return None


class ResponseBuffer:
    """Keeps a response of at most `most` bytes. Implements ASGI's `send`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._status = 0
        self._headers: tuple[tuple[bytes, bytes], ...] = ()
        self._pieces: list[bytes] = []

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = ((bytes(name), bytes(value)) for name, value in message["headers"])
            self._headers = tuple(header for header in headers if header[0].lower() not in _OF_CONNECTION)
            return
        data = bytes(message.get("body", b""))
        self._size += len(data)
        if self._size > self._most:
            detail = f"The result has more than {self._most} bytes."
            raise RequestRefused(
                HttpProblem(ProblemKind.RESULT_TOO_LARGE, detail, extra={"limit": self._most})
            )
        self._pieces.append(data)

    def result(self) -> CallResult:
        return CallResult(self._status, self._headers, b"".join(self._pieces))
