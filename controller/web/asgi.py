"""The ASGI application: what a gunicorn worker runs. It makes the objects of the worker and decides who answers a
request: a component (component_calls.py) or the platform itself (platform_endpoints.py). Every response carries
`X-Request-ID`; every error is a problem document."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import time
from functools import partial
from pathlib import Path

from controller.config import Settings
from controller.domain.apps.usage import Resource
from controller.domain.errors import ControllerError
from controller.domain.reasons import Reason
from controller.domain.routing.shares import TRANSFERS as MOST_TRANSFERS
from controller.domain.traces import context_of_headers
from controller.guards import GuardedStep
from controller.ports import Store
from controller.store import SqliteStore, open_guest_store
from controller.store.calls import CallTable
from controller.store.people import PeopleStore
from controller.store.request_metrics import RequestMetrics
from controller.tracing import OFF, Tracer
from controller.tracing.starting import start_tracing
from controller.web.api_admission import ApiAdmission
from controller.web.app import INTERNAL
from controller.web.async_calls.calls import AsyncCalls
from controller.web.async_calls.presence import WorkerPresence
from controller.web.auth import browsers
from controller.web.auth.call_passes import SHARED, is_by_pass, without_page
from controller.web.auth.people import Callers
from controller.web.call_files.calls import CallFileStaging
from controller.web.call_files.locations import FileLocations
from controller.web.call_files.presigned import PresignedClient
from controller.web.component_calls import CallForwarding, ComponentCalls
from controller.web.compression import compressing
from controller.web.gateway.activator import Activator
from controller.web.gateway.body import ARRIVED, CallerGone, IncomingBody, Message, Receive, Send
from controller.web.gateway.cors import CorsPolicy, CorsRequest
from controller.web.gateway.forward import Forwarder, ResponseState
from controller.web.gateway.headers import request_id, split
from controller.web.gateway.hosts import HostNames, HostRedirect
from controller.web.gateway.pool import ConnectionPool
from controller.web.gateway.proxies import TrustedProxies
from controller.web.gateway.router import (
    CallLookup,
    Decision,
    ForwardCall,
    PlatformEndpoint,
    Router,
    ServeService,
    find_route,
)
from controller.web.gateway.shares import WorkerShares
from controller.web.gateway.sockets import OpenSockets
from controller.web.gateway.traces import RequestTrace, route_of
from controller.web.gateway.upgrade import asks_for_socket
from controller.web.gateway.upstream import UpstreamError
from controller.web.gateway.watch import RouteWatch
from controller.web.inbound_request import InboundRequest
from controller.web.objects.listen import ObjectListener
from controller.web.objects.proxy import ObjectProxy
from controller.web.platform_endpoints import PlatformEndpoints
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from controller.web.refusals import answer_empty, refuse
from controller.web.share_report import ShareReport
from controller.web.storage import Connect, StorageClient
from controller.web.worker_context import WorkerContext
from controller.web.worker_counts import WorkerCounts
from controller.web.wsgi_bridge import page_of

log = logging.getLogger(__name__)

TRANSFERS = 60.0  # seconds that file transfers get when a worker stops
NOT_YET = (Reason.STATE_MISSING, Reason.STATE_UNWRITABLE, Reason.STATE_BUSY, Reason.STATE_SET_ASIDE)
STORE_TIMEOUT, STORE_PAUSE = 60.0, 0.1  # seconds to wait for the daemon, and between two checks
CALLER_LEFT = 499  # counted as this; nobody sees it


class Application:
    """The ASGI callable for gunicorn. Opens the store when the worker starts. `object_socket` takes requests for
    files; None if links are not served."""

    def __init__(
        self, settings: Settings, connect: Connect, object_socket: socket.socket | None = None
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._object_socket = object_socket
        self._gateway: GatewayApp | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._gateway is not None:
            await self._gateway.answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)

    def begin_stop(self) -> None:
        """Begin to stop: long polls and event streams end, all others continue."""
        if self._gateway is not None:
            self._gateway.watch.end_waits()
            self._gateway.begin_stop()
            self._gateway.objects.begin_stop()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            store = await _store_once_made(self._settings.database)
            tracer = start_tracing(self._settings.tracing, "prichal-web")
            gateway = GatewayApp(store, self._settings, self._connect, self._object_socket, tracer)
            await gateway.start()
        except (ControllerError, OSError) as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        self._gateway = gateway
        gc.freeze()  # objects loaded so far stay: full collections should skip them, because that would delay calls
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await gateway.stop()
        await asyncio.to_thread(tracer.close)
        store.close()
        await send({"type": "lifespan.shutdown.complete"})


async def _store_once_made(path: Path) -> SqliteStore:
    """Open the store once the daemon has created or migrated it, which takes a moment after an installation
    or upgrade."""
    for _ in range(int(STORE_TIMEOUT / STORE_PAUSE)):
        try:
            return open_guest_store(path)
        except ControllerError as error:
            if error.reason not in NOT_YET:
                raise
        await asyncio.sleep(STORE_PAUSE)
    return open_guest_store(path)


class GatewayApp:
    """The objects of one worker, from its start to its end, and the way of a request through them."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        connect: Connect,
        object_socket: socket.socket | None = None,
        tracer: Tracer = OFF,
    ) -> None:
        web = settings.web
        self._object_socket = object_socket
        self._loop = asyncio.get_running_loop()
        self._state = settings.state.absolute()
        self._hosts = HostNames(web.app_domain.encode()) if web.app_domain else None
        self._beat: asyncio.TimerHandle | None = None
        metrics = RequestMetrics()
        self._pool = ConnectionPool(web.connect_timeout)
        self.watch = RouteWatch(
            store, self._pool, lambda: self._shares.peaks(), lambda table: self._sockets.follow(table)
        )
        self._context = WorkerContext(
            store, settings, tracer, self.watch, TrustedProxies(web.trusted_proxies)
        )
        self._counts = WorkerCounts(self._context, metrics)
        self._sockets = OpenSockets(self.watch.resolve, metrics)
        people = PeopleStore(settings.people)
        callers = Callers(people, web, previews=store.branches.previews)
        self._admission = ApiAdmission(self._context, people)
        self._activator = Activator(store, self.watch, self._pool, metrics)
        self._storage = StorageClient(store, connect, serves_links=object_socket is not None)
        self._calls = WorkerShares("calls", web.queue_limit, web.per_app)
        self._components = self._component_calls()
        self.endpoints = PlatformEndpoints(
            self._context, self._admission, self._calls, people, callers, self._storage
        )
        self._object_proxy = self._proxy_of(self._storage)
        self.objects = ObjectListener(self._object_proxy)
        self._steps = self._guarded_steps()
        self._shares = self._reported_shares()

    def _component_calls(self) -> ComponentCalls:
        context, web, counts = self._context, self._context.settings.web, self._counts
        store, watch, activator = context.store, self.watch, self._activator
        forwarder = Forwarder(self._pool, watch.resolve, watch.went_idle, activator, context.tracer)
        places = FileLocations(store, self._storage, reserve_for=context.settings.storage.link_lifetime)
        links = PresignedClient(web.connect_timeout)
        self._staging = CallFileStaging(places, links, forwarder, web.max_body, context.tracer)
        forwarding = CallForwarding(context, forwarder, self._staging)
        self._async = AsyncCalls(
            CallTable(context.settings.async_calls, context.settings.call_limits, time.time),
            WorkerPresence(context.settings.async_calls.parent / "calls", watch.worker),
            watch,
            forwarding.forward_later,
            activator.called,
            store.webhooks.call_ended,
            counts.count,
        )
        return ComponentCalls(
            context,
            self._admission,
            counts,
            self._calls,
            activator,
            forwarder,
            forwarding,
            self._async,
            self._sockets,
        )

    def _proxy_of(self, storage: StorageClient) -> ObjectProxy:
        settings = self._context.settings
        return ObjectProxy(
            self._context.store,
            storage,
            settings.web.connect_timeout,
            settings.storage.abandon_after,
            partial(self._counts.count, "objects"),
            WorkerShares("transfers", MOST_TRANSFERS, settings.web.per_app),
            self._context.tracer,
            settings.tracing.trust_callers,
            is_embedded=settings.storage.backend == "embedded",
        )

    def _guarded_steps(self) -> tuple[GuardedStep, ...]:
        """Return what is done once a second. The failure of one keeps no other from being done."""
        counts = self._counts
        return (
            GuardedStep(
                "callers of WebSockets are not checked, and their bytes not counted", self._sockets.look
            ),
            GuardedStep(f"the gateway's counts cannot be written to {counts.file}", counts.write),
            GuardedStep("the daemon is not told which components are in use", self._activator.report),
            GuardedStep("what calls have left behind is not removed", self._staging.sweep),
            GuardedStep("connections to the storage are not closed", self._object_proxy.sweep),
        )

    def _reported_shares(self) -> ShareReport:
        """Return the limits of which the daemon is told how much of them apps take."""
        shares = (
            (Resource.CALLS, self._calls),
            (Resource.SOCKETS, self._components.open_sockets),
            (Resource.PASSWORD_CHECKS, self._admission.password_checks),
            (Resource.API_REQUESTS, self.endpoints.files.waiting),
            (Resource.API_REQUESTS, self.endpoints.flask.waiting),
            (Resource.TRANSFERS, self._object_proxy.transfers),
        )
        return ShareReport(shares, self._async.taken)

    async def start(self) -> None:
        self._counts.start()
        await self.watch.start()
        if self._object_socket is not None:
            await self.objects.start(self._object_socket)
        await self._async.start()
        self._tick()

    def _tick(self) -> None:
        """Write counters and called components once a second, off the hot path."""
        for step in self._steps:
            step()
        self._beat = self._loop.call_later(1.0, self._tick)

    async def stop(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
        await asyncio.gather(self._async.stop(TRANSFERS), self.objects.stop(TRANSFERS))
        self._object_proxy.close()
        self._sockets.stop()
        await self.watch.stop()
        await self._activator.stop()
        self._pool.close()
        self._admission.close()
        self._staging.close()
        self._storage.close()
        self.endpoints.close()
        await self._counts.close()

    def begin_stop(self) -> None:
        """Begin no more async calls, and close WebSockets."""
        self._async.begin_stop()
        self._sockets.begin_stop()

    # --- a request ---------------------------------------------------------------------------------------------

    async def answer(self, scope: Message, receive: Receive, send: Send) -> None:
        began = self._loop.time()
        special, lines = split(scope["headers"])
        identity = request_id(special.get(b"x-request-id"))
        request = InboundRequest(
            scope,
            special,
            lines,
            identity,
            IncomingBody(receive, special, scope.get(ARRIVED)),
            send,
            ResponseState(),
        )
        table = self.watch.table
        decision = self._decide(table, request)
        request.began = began
        self._counts.measure(request)
        _prepare(decision, request)
        if self._context.tracer.is_on:
            request.trace = self._request_trace(decision, request)
        cors = None if isinstance(decision, HostRedirect) else table.cors_of(scope["raw_path"])
        self._counts.begin(request)
        if is_by_pass(scope["headers"]) and not isinstance(decision, PlatformEndpoint | HostRedirect):
            cors, request.lines = SHARED, without_page(request.lines)
        try:
            if b"upgrade" in special and asks_for_socket(scope["http_version"], scope["headers"]):
                await self._open_socket(decision, request)
            # A preflight comes before anybody signs in.
            elif cors is None or not await _shared(cors, request):
                await self._dispatch(decision, request)
        except RequestRefused as refused:
            await self._refuse(refused.problem, request)
        except CallerGone:
            request.answered.status = request.answered.status or CALLER_LEFT
        except UpstreamError as error:
            # The response has begun: returning without its end makes the server close the connection, which is how
            # HTTP says that it is incomplete.
            log.warning(
                "a response broke off: %s", error, extra={"request": identity.decode(), "api": request.label}
            )
        except asyncio.CancelledError:
            request.answered.status = request.answered.status or CALLER_LEFT
            raise
        except Exception as error:  # a bug: it ends this request and nothing else
            fields = {"request": identity.decode(), "api": request.label}
            log.error("a request failed by a fault of the platform", exc_info=error, extra=fields)
            await self._refuse(HttpProblem(ProblemKind.INTERNAL, INTERNAL), request)
        finally:
            self._counts.end(request)

    def _request_trace(self, decision: Decision | HostRedirect, request: InboundRequest) -> RequestTrace:
        scope = request.scope
        caller = context_of_headers(scope["headers"]) if b"traceparent" in request.special else None
        route = route_of(decision, page_of(scope["path"]))
        return RequestTrace(
            self._context.tracer, self._context.settings.tracing.trust_callers, caller, scope["method"], route
        )

    async def _refuse(self, problem: HttpProblem, request: InboundRequest) -> None:
        await refuse(problem.without_paths(self._state), request)

    async def _redirect(self, moved: HostRedirect, request: InboundRequest) -> None:
        """Redirect to the app's own host."""
        scope = request.scope
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        scheme = self._context.origin(request).scheme.partition(b",")[0].strip()
        secure = b"s" if scheme == b"https" else b""
        place = b"http%b://%b%b%b" % (secure, moved.authority, scope["raw_path"], query)
        headers = [(b"location", place), (b"cache-control", b"no-store"), (b"content-length", b"0")]
        await answer_empty(request, 308, headers)

    def _decide(self, table: Router, request: InboundRequest) -> Decision | HostRedirect:
        path = request.scope["raw_path"]
        decision = find_route(table, request.scope["method"], path)
        return (
            decision
            if self._hosts is None
            else self._hosts.judge(self._context.origin(request).host, path, decision)
        )

    async def _open_socket(self, decision: Decision | HostRedirect, request: InboundRequest) -> None:
        if isinstance(decision, HostRedirect):
            await self._redirect(decision, request)
        else:
            await self._components.open_socket(decision, request)

    async def _dispatch(self, decision: Decision | HostRedirect, request: InboundRequest) -> None:
        match decision:
            case ForwardCall():
                await self._components.forward(decision, request)
            case CallLookup():
                await self._components.look_up(decision, request)
            case ServeService():
                await self.endpoints.serve(decision, request)
            case PlatformEndpoint():
                await self.endpoints.answer(request)
            case HostRedirect():
                await self._redirect(decision, request)
            case HttpProblem():
                await self._refuse(decision, request)


def _prepare(decision: Decision | HostRedirect, request: InboundRequest) -> None:
    """Set what the request is counted as, and the fields and coding of its response."""
    if isinstance(decision, ForwardCall):  # the frequent case
        request.label = decision.target.label
        return
    scope, send = request.scope, request.send
    if isinstance(decision, ServeService):
        request.label = decision.target.label
    elif isinstance(decision, PlatformEndpoint | CallLookup):
        # An async call counts for its API when it ends. How often its result is fetched says nothing about that.
        request.label = "platform"
    if isinstance(decision, PlatformEndpoint):
        request.send = browsers.with_browser_headers(compressing(send, scope), browsers.fields_for(scope))
    elif isinstance(decision, ServeService):
        request.send = browsers.with_browser_headers(compressing(send, scope), browsers.PRIVATE)
    elif isinstance(decision, CallLookup):
        request.send = compressing(send, scope)


async def _shared(cors: CorsPolicy, request: InboundRequest) -> bool:
    """Return True if the request was a preflight and has been answered. Else the response gets the headers of
    the rule."""
    asked = CorsRequest.by(request.scope["headers"])
    if request.scope["method"] != "OPTIONS" or asked.origin is None or asked.method is None:
        request.send = cors.sending(request.send, asked)
        return False
    await answer_empty(request, 204, cors.preflight(asked))
    return True
