"""Forwards one call to a component and the response back, on the event loop. Called by the gateway after
routing and authentication. Promises: a call reaches at most one container, unless the first one certainly did
not run it, or its method is idempotent; while no container takes calls it waits, for as long as the component's
manifest says; bodies stream both ways with backpressure; when a caller
disconnects, the component's connection is closed; every failure before the response has begun becomes a
problem that says who failed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

from controller.domain.localizable import Localizable
from controller.tracing import OFF, Tracer, Value, span
from controller.web.gateway.body import CallerGone, OutgoingBody, Send
from controller.web.gateway.headers import Header, response_headers
from controller.web.gateway.pool import ConnectionPool
from controller.web.gateway.rewrite import PublicSite
from controller.web.gateway.router import UpstreamTarget, not_found
from controller.web.gateway.traces import answered_with, exchange_span, with_context
from controller.web.gateway.upstream import (
    CallRefused,
    ConnectionDropped,
    ProtocolError,
    UpstreamConnection,
    UpstreamError,
    UpstreamSilent,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

log = logging.getLogger(__name__)

CALL_STATE = b"x-prichal-call"  # the field in which the serving library tells what becomes of a call
TELL = b"x-prichal-call: tell\r\n"  # asks for it
ATTEMPTS = 4  # that reach a container
#: Methods that may be repeated without harm (RFC 9110 §9.2.2).
IDEMPOTENT = frozenset(("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"))
_METHODS_WITH_BODY = frozenset(("POST", "PUT", "PATCH"))


#: A function that passes a response on as it arrives, up to its last part, which it returns.
Respond = Callable[[UpstreamConnection, "ForwardedCall", Send, "ResponseState"], Awaitable[bytes]]


class ResponseState:
    """Records whether the response has begun: after that, no problem can be sent."""

    __slots__ = ("status",)

    def __init__(self) -> None:
        self.status = 0


async def respond(
    connection: UpstreamConnection, call: ForwardedCall, send: Send, answered: ResponseState
) -> bytes:
    headers = headers_for(connection, call)
    answered.status = connection.status
    await send({"type": "http.response.start", "status": connection.status, "headers": headers})
    if not (connection.buffered or connection.is_complete() or connection.field(b"content-length")):
        # A stream, whose first part may take long: the server would keep the header until then.
        await send({"type": "http.response.body", "body": b"", "more_body": True})
    data = await connection.read()
    if connection.is_complete():
        return data
    task = asyncio.current_task()
    while not connection.is_complete():
        connection.sending(task)
        await send({"type": "http.response.body", "body": data, "more_body": True})
        connection.sending(None)
        data = await connection.read()
    return data


def headers_for(connection: UpstreamConnection, call: ForwardedCall) -> list[Header]:
    """Return the header of the component's response for the caller."""
    endpoint = connection.endpoint
    return response_headers(
        connection.headers, call.request_id, lambda name, value: call.site(endpoint).rewrite(name, value)
    )


def _nothing() -> None:
    pass


@dataclass(slots=True)  # never changed; a frozen one takes longer to make, and each call makes one
class ForwardedCall:
    """The request to forward. `path` includes the query; `lines` are finished header lines; `host` is the
    caller's, empty if it cannot be passed on; `respond` has the response; `begun` is called right before the
    component may get something of the call; `upgrade`: the component may switch protocols."""

    target: UpstreamTarget
    method: str
    path: bytes
    lines: bytes
    request_id: bytes
    host: bytes = b""
    respond: Respond = respond
    begun: Callable[[], None] = _nothing
    upgrade: bool = False

    def site(self, endpoint: str) -> PublicSite:
        route = self.target.route
        endpoints = (endpoint, *route.upstreams)
        return PublicSite(
            self.target.prefix, self.path, self.host, endpoints, f"{route.app}.{route.component}"
        )


class WaitingCalls(Protocol):
    """Where calls wait for a component; the activator."""

    async def wake(self, target: UpstreamTarget) -> None:
        """Return when a hibernating target may have started. Raises RequestRefused."""

    def is_healing(self, target: UpstreamTarget) -> bool:
        """Return True if other calls wait for the target to take calls again."""

    async def heal(self, target: UpstreamTarget, deadline: float, why: str) -> None:
        """Return when the target may take calls again. Raises RequestRefused."""


class Forwarder:
    """`resolve` returns a target of the current table, None once it is gone; `on_idle` is called when an
    endpoint has no calls in progress any more."""

    def __init__(
        self,
        pool: ConnectionPool,
        resolve: Callable[[UpstreamTarget], UpstreamTarget | None],
        on_idle: Callable[[str], None],
        waiting: WaitingCalls,
        tracer: Tracer = OFF,
    ) -> None:
        self._pool = pool
        self._resolve = resolve
        self._on_idle = on_idle
        self._waiting = waiting
        self._tracer = tracer
        self._loop = asyncio.get_running_loop()

    async def awake(self, target: UpstreamTarget) -> UpstreamTarget:
        """Return the target of the current table, started if necessary. Raises RequestRefused."""
        found = self._resolve(target)
        while found is not None and found.route.asleep:
            with span(self._tracer, "wait for start"):
                await self._waiting.wake(found)
            found = self._resolve(target)
        if found is None:
            raise RequestRefused(not_found())
        return found

    async def ready(self, target: UpstreamTarget) -> None:
        """Wait until there is a container to send a call to, before its body is read. Raises RequestRefused."""
        found = await self.awake(target)
        if not found.route.upstreams or self._waiting.is_healing(found):
            await self._heal(found, self._loop.time() + found.route.patience, None)

    async def forward(
        self, call: ForwardedCall, body: OutgoingBody, send: Send, answered: ResponseState
    ) -> None:
        """Forward the call. Raises RequestRefused with the problem to answer, CallerGone, or UpstreamError
        once the response has begun."""
        tried: list[str] = []
        failure: UpstreamError | None = None
        attempts, deadline = 0, 0.0
        while attempts < ATTEMPTS:
            target = self._resolve(call.target)
            if target is None or target.route.asleep:
                target = await self.awake(call.target)
            # Nothing is awaited between reading the table and `enter`, so that an endpoint that was retired
            # and reported as idle never gets another call.
            endpoint = self._pool.choose(target.route.upstreams, tried)
            if endpoint is None or self._waiting.is_healing(target):
                deadline = deadline or self._loop.time() + target.route.patience
                await self._heal(target, deadline, failure)
                tried.clear()
                continue
            self._pool.enter(endpoint)
            outcome = await self._attempt(
                call, body, endpoint, send, answered, isinstance(failure, ConnectionDropped)
            )
            if isinstance(outcome, UpstreamError):
                failure = outcome
                if isinstance(outcome, UpstreamUnreachable | CallRefused):
                    tried.append(endpoint)
                attempts += _cost(call, outcome)
                continue
            # The component is free again, even if the caller reads the rest slowly.
            await send({"type": "http.response.body", "body": outcome, "more_body": False})
            return
        raise RequestRefused(problem_of(call.target, failure)) from failure

    async def _heal(self, target: UpstreamTarget, deadline: float, failure: UpstreamError | None) -> None:
        """Wait until a container takes calls, if that is to be expected. Raises RequestRefused."""
        if not target.route.patience and not target.route.stalled:
            raise RequestRefused(problem_of(target, failure)) from failure
        why = str(failure) if failure else Localizable("none of its containers is ready")
        with span(self._tracer, "wait for repair"):
            await self._waiting.heal(target, deadline, why)

    async def _attempt(
        self,
        call: ForwardedCall,
        body: OutgoingBody,
        endpoint: str,
        send: Send,
        answered: ResponseState,
        fresh: bool,
    ) -> bytes | UpstreamError:
        """Return the last part of the response, or a failure after which another attempt may be made."""
        exchange = self._recorded if self._tracer.is_on else self._exchange
        try:
            return await exchange(call, body, endpoint, send, answered, fresh)
        except UpstreamError as error:
            if isinstance(error, UpstreamSilent):
                self._pool.eject(endpoint)  # its node has gone, so that nothing even refuses the connection
            if answered.status:
                raise
            if not may_repeat(call, body, error):
                raise RequestRefused(problem_of(call.target, error)) from error
            return error
        finally:
            if self._pool.leave(endpoint):
                self._on_idle(endpoint)

    async def _recorded(
        self,
        call: ForwardedCall,
        body: OutgoingBody,
        endpoint: str,
        send: Send,
        answered: ResponseState,
        fresh: bool,
    ) -> bytes:
        """Try once, with a span for it that the component gets as its parent."""
        route = call.target.route
        about: dict[str, Value] = {"prichal.app": route.app, "prichal.component": route.component}
        with exchange_span(self._tracer, call.method, endpoint, about) as made:
            ours = replace(call, lines=with_context(call.lines, made.context))
            try:
                return await self._exchange(ours, body, endpoint, send, answered, fresh)
            finally:
                answered_with(made, answered.status)

    async def _exchange(
        self,
        call: ForwardedCall,
        body: OutgoingBody,
        endpoint: str,
        send: Send,
        answered: ResponseState,
        fresh: bool,
    ) -> bytes:
        """Try once on one connection; return the last part of the response's body, which is not sent yet."""
        connection = None if fresh else self._pool.idle(endpoint)
        if connection is None:
            connection = await self._pool.connect(endpoint)
        upload: asyncio.Task[None] | None = None
        try:
            data = _request(call, endpoint, body)
            call.begun()
            connection.begin(data, call.method == "HEAD", call.target.route.timeout, call.upgrade)
            if body.more():
                connection.pause_timeout(True)
                upload = self._loop.create_task(_upload(connection, body))
            await connection.head()
            if not call.target.route.any_path:
                _check_answer(connection, call)
            return await call.respond(connection, call, send, answered)
        finally:
            if upload is not None and not upload.done():
                upload.cancel()
                await asyncio.wait([upload])  # two readers of one body would lose each other's wake-up
                connection.close()
            if connection.end():
                self._pool.give_back(connection, self._loop.time())


def _check_answer(connection: UpstreamConnection, call: ForwardedCall) -> None:
    """Check the head of a response of the serving library. Raises CallRefused if it has no worker that could run
    the call, and ProtocolError for an answer to another call, which must not reach this caller. Refusals
    that it sends before it knows the request have their own ids."""
    if connection.status >= 400:
        if (
            connection.status == 503
            and connection.field(CALL_STATE) == b"refused"
            and call.target.route.patience
        ):
            raise CallRefused(Localizable("it has no worker that is ready"))
        return
    answered = connection.field(b"x-request-id")
    if answered is not None and answered != call.request_id:
        connection.close()
        raise ProtocolError(Localizable("it is the answer to another call"))


def may_repeat(call: ForwardedCall, body: OutgoingBody, error: UpstreamError) -> bool:
    """Return True if a failed call may be sent again: nothing was sent, or its body is still buffered, and either
    the component cannot have run it, or running it twice does no harm."""
    if isinstance(error, UpstreamUnreachable):
        return True
    if not isinstance(error, ConnectionDropped | CallRefused) or not body.is_buffered():
        return False
    return call.method in IDEMPOTENT or call.target.route.idempotent or _has_not_run(call, error)


def _has_not_run(call: ForwardedCall, error: UpstreamError) -> bool:
    """Return True if the component certainly did not run the call. What an own server has read is not known."""
    if isinstance(error, ConnectionDropped):
        return error.undelivered or (error.unread and not call.target.route.any_path)
    return isinstance(error, UpstreamUnreachable | CallRefused)


def _cost(call: ForwardedCall, error: UpstreamError) -> int:
    """Return how many of the attempts a failed one took. A call that may end its container ends at most two."""
    if isinstance(error, UpstreamUnreachable):
        return 0
    return 1 if _has_not_run(call, error) else ATTEMPTS // 2


def _request(call: ForwardedCall, endpoint: str, body: OutgoingBody) -> bytes:
    """Return the head and the available part of the body, for one write."""
    framing = body.framing() if body.more() or body.head or call.method in _METHODS_WITH_BODY else b""
    host = call.host or endpoint.encode()
    head = b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (call.method.encode(), call.path, host)
    route = call.target.route
    tell = TELL if route.patience and not route.any_path else b""
    return b"".join((head, call.lines, tell, framing, b"\r\n", body.frame(body.head)))


async def _upload(connection: UpstreamConnection, body: OutgoingBody) -> None:
    try:
        await body.send(connection)
        connection.pause_timeout(False)
    except (CallerGone, RequestRefused) as error:
        connection.fail(error)


def problem_of(target: UpstreamTarget, error: UpstreamError | None) -> HttpProblem:
    """Return the problem for the caller; addresses appear only in the log."""
    who = Localizable(
        "Component {component} of app {app}", component=target.route.component, app=target.route.app
    )
    extra = {"app": str(target.route.app), "component": str(target.route.component)}
    match error:
        case CallRefused():
            return HttpProblem(
                ProblemKind.NOT_READY,
                Localizable("{who} takes no calls: {error}.", who=who, error=error),
                retry_after=1,
                extra=extra,
            )
        case UpstreamTimeout():
            seconds = target.route.timeout
            detail = Localizable(
                "{who} did not answer within {seconds} s.", who=who, seconds=format(seconds, "g")
            )
            return HttpProblem(ProblemKind.UPSTREAM_TIMEOUT, detail, extra={**extra, "timeout": seconds})
        case ProtocolError():
            return HttpProblem(
                ProblemKind.UPSTREAM_GARBAGE,
                Localizable("{who} sent something that is not HTTP: {error}.", who=who, error=error),
                extra=extra,
            )
        case ConnectionDropped():
            return HttpProblem(
                ProblemKind.UPSTREAM_DIED,
                Localizable("{who} failed: {error}.", who=who, error=error),
                extra=extra,
            )
        case UpstreamUnreachable():
            detail = Localizable("{who} takes no connection at the moment ({error}).", who=who, error=error)
            return HttpProblem(ProblemKind.UPSTREAM_UNREACHABLE, detail, retry_after=1, extra=extra)
        case _:
            detail = Localizable("{who} has no version that is ready to take calls yet.", who=who)
            return HttpProblem(ProblemKind.NOT_READY, detail, retry_after=2, extra=extra)
