"""The ASGI application: what a gunicorn worker runs. It decides who answers a request: a component, through
the forwarder; the live endpoints, on the event loop; or the Flask application, behind WSGI bridges in
threads: one for the files API, one for all else, so that a slow storage delays only files. Every response
carries `X-Request-ID`; every error is a problem document."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from controller.config import Settings, WebSettings
from controller.domain.apps.usage import Resource, TakenShare
from controller.domain.errors import ControllerError
from controller.domain.names import AppName, is_dns_label
from controller.domain.reasons import Reason
from controller.domain.routing.routes import ServiceKind
from controller.domain.routing.shares import TRANSFERS as MOST_TRANSFERS
from controller.domain.traces import TraceContext, context_of_headers, text_of
from controller.guards import GuardedStep
from controller.ports import Store
from controller.store import SqliteStore, open_guest_store
from controller.store.calls import CallTable
from controller.store.names import CallerNameTable
from controller.store.people import PeopleStore
from controller.store.request_metrics import RequestMetrics, worker_file
from controller.tracing import OFF, Tracer, span
from controller.tracing.starting import start_tracing
from controller.web.access_log import AccessEntry, AccessLog
from controller.web.api.platform.live import LiveEndpoints, client_info_of
from controller.web.api.runs.live import MAX_BODY, LiveRunApi
from controller.web.app import INTERNAL, create_app
from controller.web.async_calls.api import CallCaller
from controller.web.async_calls.calls import AsyncCalls
from controller.web.async_calls.presence import WorkerPresence
from controller.web.auth import browsers
from controller.web.auth.authenticate import AuthenticatedCaller, Authenticator
from controller.web.auth.call_passes import HEADER, SHARED, CallPasses, is_by_pass, without_page
from controller.web.auth.caller_names import CallerNames
from controller.web.auth.people import Callers
from controller.web.auth.schemes import header_value
from controller.web.call_files.calls import CallFileStaging
from controller.web.call_files.locations import FileLocations
from controller.web.call_files.presigned import PresignedClient
from controller.web.compression import compressing
from controller.web.context import CALL, ServiceCall, people_context
from controller.web.gateway.activator import Activator
from controller.web.gateway.body import (
    ARRIVED,
    CallerGone,
    IncomingBody,
    Message,
    Receive,
    RequestBody,
    Send,
)
from controller.web.gateway.coding import refuse_coded
from controller.web.gateway.cors import CorsPolicy, CorsRequest
from controller.web.gateway.forward import ForwardedCall, Forwarder, ResponseState
from controller.web.gateway.headers import host_for, lines_for, request_id, split
from controller.web.gateway.hosts import HostNames, HostRedirect
from controller.web.gateway.pool import ConnectionPool
from controller.web.gateway.proxies import RequestOrigin, TrustedProxies
from controller.web.gateway.router import (
    CallLookup,
    Decision,
    ForwardCall,
    PlatformEndpoint,
    PublishedApi,
    Router,
    ServeService,
    UpstreamTarget,
    find_route,
    may_be_async,
)
from controller.web.gateway.shares import WorkerShares
from controller.web.gateway.sockets import TAKE_OVER, OpenSockets, SocketCall
from controller.web.gateway.traces import RequestTrace, context_of_lines, route_of
from controller.web.gateway.upgrade import (
    LINES,
    SocketRequest,
    asks_for_socket,
    judge_handshake,
    judge_origin,
    without_credentials,
)
from controller.web.gateway.upstream import UpstreamError
from controller.web.gateway.watch import RouteWatch
from controller.web.git.callers import GitCallers
from controller.web.git.endpoint import GitBody, GitEndpoint, is_git
from controller.web.inbound_request import InboundRequest, measure_size, scope_of, track_status
from controller.web.methods import answer_for
from controller.web.objects.listen import ObjectListener
from controller.web.objects.proxy import ObjectProxy
from controller.web.pages.live import LivePages
from controller.web.pages.table import LIVE
from controller.web.platform_bodies import PlatformBodies
from controller.web.preferences import Preferences
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from controller.web.refusals import answer_empty, refuse, store_problem
from controller.web.storage import Connect, StorageClient
from controller.web.wsgi_bridge import WsgiBridge, page_of

log = logging.getLogger(__name__)

TRANSFERS = 60.0  # seconds that file transfers get when a worker stops
PASSES, PASSES_EACH = 32, 8  # passes that are checked at once, and of them for one API
DESCRIBED = (b"/openapi.json", b"/docs")  # paths for which a platform server gets the security schemes
NOT_YET = (Reason.STATE_MISSING, Reason.STATE_UNWRITABLE, Reason.STATE_BUSY, Reason.STATE_SET_ASIDE)
STORE_TIMEOUT, STORE_PAUSE = 60.0, 0.1  # seconds to wait for the daemon, and between two checks
PERIOD = 5.0  # seconds, as often as the daemon looks at what apps take of their shares
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
    """The objects of one worker, from its start to its end."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        connect: Connect,
        object_socket: socket.socket | None = None,
        tracer: Tracer = OFF,
    ) -> None:
        self._settings = settings
        self._store = store
        self._tracer = tracer
        self._access = _access_log(settings)
        self._object_socket = object_socket
        self._loop = asyncio.get_running_loop()
        self._pool = ConnectionPool(settings.web.connect_timeout)
        self._meter = RequestMetrics()
        self.watch = RouteWatch(
            store, self._pool, self._taken_shares, lambda table: self._sockets.follow(table)
        )
        self._sockets = OpenSockets(self.watch.resolve, self._meter)
        self._auth = Authenticator(time.monotonic, owners=CallerNames(CallerNameTable(settings.names)))
        self._activator = Activator(store, self.watch, self._pool, self._meter)
        self._forwarder = Forwarder(
            self._pool, self.watch.resolve, self.watch.went_idle, self._activator, tracer
        )
        people = PeopleStore(settings.people)
        self._callers = Callers(people, settings.web, previews=store.branches.previews)
        self._passes = CallPasses(people, settings.web)
        self._live = LiveEndpoints(store, settings, self.watch, self._callers)
        self._live_pages = LivePages(store, self.watch, self._callers, LIVE)
        self._storage = StorageClient(store, connect, serves_links=object_socket is not None)
        self._staging = self._staging_of(self._storage)
        self._object_proxy = self._proxy_of(self._storage)
        self.objects = ObjectListener(self._object_proxy)
        application = create_app(store, settings, self._storage)
        sign_in = people_context(application).sign_in
        self._git = GitEndpoint(store, settings, GitCallers(people, self._callers, sign_in, settings), people)
        self._flask = WsgiBridge(application)
        self._files = WsgiBridge(application)
        self._runs = LiveRunApi(store, settings.run_files, self.watch, self._flask.ask)
        self._proxies = TrustedProxies(settings.web.trusted_proxies)
        self._hosts = HostNames(settings.web.app_domain.encode()) if settings.web.app_domain else None
        self._state = settings.state.absolute()
        self._meter_file = worker_file(settings.request_counts, os.getpid())
        self._beat: asyncio.TimerHandle | None = None
        self._async = self._async_calls()
        self._limit(settings.web)
        self._steps = self._guarded_steps()
        self._shares = self._reported_shares()
        self._next_period = 0.0

    def _staging_of(self, storage: StorageClient) -> CallFileStaging:
        settings = self._settings
        places = FileLocations(self._store, storage, reserve_for=settings.storage.link_lifetime)
        links = PresignedClient(settings.web.connect_timeout)
        return CallFileStaging(places, links, self._forwarder, settings.web.max_body, self._tracer)

    def _proxy_of(self, storage: StorageClient) -> ObjectProxy:
        settings = self._settings
        return ObjectProxy(
            self._store,
            storage,
            settings.web.connect_timeout,
            settings.storage.abandon_after,
            partial(self._count, "objects"),
            WorkerShares("transfers", MOST_TRANSFERS, settings.web.per_app),
            self._tracer,
            settings.tracing.trust_callers,
            is_embedded=settings.storage.backend == "embedded",
        )

    def _limit(self, web: WebSettings) -> None:
        """Bound what is in progress at once, and what of it one app, address or person may take."""
        self._pass_checks = WorkerShares("calls by pass", PASSES, PASSES_EACH)
        self._calls = WorkerShares("calls", web.queue_limit, web.per_app)
        self._open = WorkerShares("WebSockets", web.sockets, web.sockets_per_app)
        self._max_body = web.max_body
        self._bodies = PlatformBodies(self._store, self._callers, web.hook_max_body, self._origin)

    def _guarded_steps(self) -> tuple[GuardedStep, ...]:
        """Return what is done once a second. The failure of one keeps no other from being done."""
        return (
            GuardedStep(
                "callers of WebSockets are not checked, and their bytes not counted", self._sockets.look
            ),
            GuardedStep(f"the gateway's counts cannot be written to {self._meter_file}", self._write_meter),
            GuardedStep("the daemon is not told which components are in use", self._activator.report),
            GuardedStep("what calls have left behind is not removed", self._staging.sweep),
            GuardedStep("connections to the storage are not closed", self._object_proxy.sweep),
        )

    def _reported_shares(self) -> tuple[tuple[Resource, WorkerShares], ...]:
        """Return the limits of which the daemon is told how much of them apps take."""
        return (
            (Resource.CALLS, self._calls),
            (Resource.SOCKETS, self._open),
            (Resource.PASSWORD_CHECKS, self._auth.checks),
            (Resource.API_REQUESTS, self._files.waiting),
            (Resource.API_REQUESTS, self._flask.waiting),
            (Resource.TRANSFERS, self._object_proxy.transfers),
        )

    async def start(self) -> None:
        self._meter_file.parent.mkdir(parents=True, exist_ok=True)
        await self.watch.start()
        if self._object_socket is not None:
            await self.objects.start(self._object_socket)
        await self._async.start()
        self._report_metrics()

    async def stop(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
        await asyncio.gather(self._async.stop(TRANSFERS), self.objects.stop(TRANSFERS))
        self._object_proxy.close()
        self._sockets.stop()
        await self.watch.stop()
        await self._activator.stop()
        self._pool.close()
        self._auth.close()
        self._staging.close()
        self._storage.close()
        self._runs.close()
        if self._access is not None:
            await asyncio.to_thread(self._access.close)
        self._write_meter()

    def begin_stop(self) -> None:
        """Begin no more async calls, and close WebSockets."""
        self._async.begin_stop()
        self._sockets.begin_stop()

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
        if self._access is not None:
            request.send = measure_size(send, request)
        _prepare(decision, request)
        if self._tracer.is_on:
            request.trace = self._request_trace(decision, request)
        cors = None if isinstance(decision, HostRedirect) else table.cors_of(scope["raw_path"])
        self._meter.begin(label := request.label)
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
            log.warning("a response broke off: %s", error, extra={"request": identity.decode(), "api": label})
        except asyncio.CancelledError:
            request.answered.status = request.answered.status or CALLER_LEFT
            raise
        except Exception as error:  # a bug: it ends this request and nothing else
            fields = {"request": identity.decode(), "api": label}
            log.error("a request failed by a fault of the platform", exc_info=error, extra=fields)
            await self._refuse(HttpProblem(ProblemKind.INTERNAL, INTERNAL), request)
        finally:
            self._end_count(request)

    def _end_count(self, request: InboundRequest) -> None:
        if not request.counted:
            request.counted = True
            self._meter.end(request.label, request.answered.status, self._loop.time() - request.began)
            if self._access is not None:
                self._access.add(self._entry(request))
            if request.trace is not None:
                request.trace.end(request.answered.status)

    def _entry(self, request: InboundRequest) -> AccessEntry:
        scope = request.scope
        context = request.trace.context if request.trace is not None else None
        fields = {name: value for name, value in scope["headers"] if name in (b"referer", b"user-agent")}
        seconds = self._loop.time() - request.began
        return AccessEntry(
            time.time() - seconds,
            seconds,
            self._origin(request).caller.decode("latin-1"),
            request.user,
            scope["method"],
            scope["raw_path"].decode("utf-8", "surrogateescape"),
            f"HTTP/{scope['http_version']}",
            request.answered.status,
            request.size,
            fields.get(b"referer", b"").decode("utf-8", "surrogateescape"),
            fields.get(b"user-agent", b"").decode("utf-8", "surrogateescape"),
            request.identity.decode(),
            request.label,
            context.trace if context else "",
        )

    def _request_trace(self, decision: Decision | HostRedirect, request: InboundRequest) -> RequestTrace:
        scope = request.scope
        caller = context_of_headers(scope["headers"]) if b"traceparent" in request.special else None
        route = route_of(decision, page_of(scope["path"]))
        return RequestTrace(
            self._tracer, self._settings.tracing.trust_callers, caller, scope["method"], route
        )

    @staticmethod
    def _context(request: InboundRequest) -> TraceContext | None:
        """Return the context that who answers the request gets: that of its span, else the caller's own."""
        if request.trace is not None:
            return request.trace.context
        return context_of_headers(request.scope["headers"]) if b"traceparent" in request.special else None

    async def _refuse(self, problem: HttpProblem, request: InboundRequest) -> None:
        await refuse(problem.without_paths(self._state), request)

    def _origin(self, request: InboundRequest) -> RequestOrigin:
        peer = request.scope["client"]
        return self._proxies.origin(peer[0] if peer else "", request.scope["scheme"], request.special)

    async def _redirect(self, moved: HostRedirect, request: InboundRequest) -> None:
        """Redirect to the app's own host."""
        scope = request.scope
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        scheme = self._origin(request).scheme.partition(b",")[0].strip()
        secure = b"s" if scheme == b"https" else b""
        place = b"http%b://%b%b%b" % (secure, moved.authority, scope["raw_path"], query)
        headers = [(b"location", place), (b"cache-control", b"no-store"), (b"content-length", b"0")]
        await answer_empty(request, 308, headers)

    def _decide(self, table: Router, request: InboundRequest) -> Decision | HostRedirect:
        path = request.scope["raw_path"]
        decision = find_route(table, request.scope["method"], path)
        return (
            decision if self._hosts is None else self._hosts.judge(self._origin(request).host, path, decision)
        )

    async def _dispatch(self, decision: Decision | HostRedirect, request: InboundRequest) -> None:
        match decision:
            case ForwardCall():
                await self._forward(decision, request)
            case CallLookup():
                await self._look_up(decision, request)
            case ServeService():
                await self._serve(decision, request)
            case PlatformEndpoint():
                await self._answer_locally(request)
            case HostRedirect():
                await self._redirect(decision, request)
            case HttpProblem():
                await self._refuse(decision, request)

    # --- components --------------------------------------------------------------------------------------------

    async def _forward(self, decision: ForwardCall, request: InboundRequest) -> None:
        app = decision.target.route.app
        with self._calls.take(app, f"app {app}"):
            caller = await self._admit(decision.target, request)
            self._activator.called(decision.target)
            headers = request.scope["headers"]
            is_async = self._async.wants(headers) and may_be_async(decision, request.scope["method"])
            if request.incoming.more() and not is_async:
                await self._forwarder.ready(decision.target)
            body = RequestBody(request.incoming, request.special, self._max_body)
            await body.begin()
            call = self._call(decision, request, caller)
            if is_async:
                with store_problem(request):
                    await self._async.accept(call, caller.user, body, headers, track_status(request))
            else:
                await self._forward_call(call, caller.user, body, request.send, request.answered)

    async def _forward_call(
        self, call: ForwardedCall, user: str, body: RequestBody, send: Send, answered: ResponseState
    ) -> None:
        """Forward a call to the component, with the files that it names."""
        if call.method == "POST" and call.target.route.boxes and not call.target.route.any_path:
            await self._staging.forward(call, user, body, send, answered)
        else:
            await self._forwarder.forward(call, body, send, answered)

    async def _open_socket(self, decision: Decision | HostRedirect, request: InboundRequest) -> None:
        """Open a WebSocket to a component with a server of its own, and return when it has ended. Raises
        RequestRefused."""
        if isinstance(decision, HostRedirect):
            await self._redirect(decision, request)
            return
        wanted = judge_handshake(request.scope["method"], request.scope["headers"], decision)
        if isinstance(wanted, HttpProblem):
            raise RequestRefused(wanted)
        assert isinstance(decision, ForwardCall)
        self._judge_page(request)
        app = decision.target.route.app
        with self._open.take(app, f"app {app}"):
            caller = await self._admit(decision.target, request)
            self._activator.called(decision.target)
            call = self._call(decision, request, caller)
            opening = self._opening(wanted, request, caller.user, expires=bool(call.target.api.oidc_issuer))
            call = replace(call, lines=call.lines + LINES, respond=opening.respond, upgrade=True)
            body = RequestBody(request.incoming, request.special, self._max_body)
            await self._forwarder.forward(call, body, opening.sending(request.send), request.answered)

    def _judge_page(self, request: InboundRequest) -> None:
        """Refuse pages of other origins, or take what a browser sends along by itself for them. A sandboxed page of the
        platform's own shows its pass. Raises RequestRefused."""
        headers = request.scope["headers"]
        if is_by_pass(headers):
            return
        cors = self.watch.table.cors_of(request.scope["raw_path"])
        page = judge_origin(headers, self._origin(request).host, cors)
        if isinstance(page, HttpProblem):
            raise RequestRefused(page)
        if not page.credentials:
            request.lines = without_credentials(request.lines)
            if request.special.get(b"authorization", b"")[:6].lower() == b"basic ":
                request.special = {
                    name: value for name, value in request.special.items() if name != b"authorization"
                }

    def _opening(
        self, wanted: SocketRequest, request: InboundRequest, user: str, expires: bool
    ) -> SocketCall:
        async def admit(target: UpstreamTarget) -> str:
            return (await self._admit(target, request)).user

        return SocketCall(
            wanted,
            self._sockets,
            lambda: self.watch.table,
            request.scope[TAKE_OVER],
            admit,
            user,
            expires=expires or HEADER in request.special,
            opened=lambda: self._end_count(request),
        )

    async def _look_up(self, decision: CallLookup, request: InboundRequest) -> None:
        app, scope = decision.target.route.app, request.scope
        with self._calls.take(app, f"app {app}"), store_problem(request):
            caller = await self._admit(decision.target, request)
            asked = CallCaller(
                decision,
                caller.user,
                scope["method"],
                scope["query_string"],
                Preferences.of(scope["headers"]),
                client_info_of(scope).headers.get("last-event-id"),
            )
            await self._async.answer(asked, track_status(request))

    def _async_calls(self) -> AsyncCalls:
        settings = self._settings
        table = CallTable(settings.async_calls, settings.call_limits, time.time)
        presence = WorkerPresence(settings.async_calls.parent / "calls", self.watch.worker)
        called, tell = self._activator.called, self._store.webhooks.call_ended
        return AsyncCalls(table, presence, self.watch, self._forward_later, called, tell, self._count)

    async def _forward_later(
        self, call: ForwardedCall, user: str, body: RequestBody, send: Send, answered: ResponseState
    ) -> None:
        """Forward an async call, below the request that has brought it."""
        parent = context_of_lines(call.lines) if self._tracer.is_on else None
        with span(self._tracer, "async call", {"prichal.app": call.target.route.app}, parent=parent):
            await self._forward_call(call, user, body, send, answered)

    async def _admit(self, target: PublishedApi, request: InboundRequest) -> AuthenticatedCaller:
        if HEADER in request.special:
            caller = await self._admit_pass(target, request.special[HEADER], request)
        else:
            authorization = request.special.get(b"authorization")
            found = self._auth.recall(target, authorization)
            caller = found or await self._identified(target, authorization, request)
        request.user = caller.user
        if request.trace is not None:
            request.trace.start(bool(caller.user), api=target.label)
        return caller

    async def _identified(
        self, target: PublishedApi, authorization: bytes | None, request: InboundRequest
    ) -> AuthenticatedCaller:
        found = await self._auth.identify(target, authorization, self._origin(request).caller)
        if isinstance(found, HttpProblem):
            raise RequestRefused(found)
        return found

    async def _admit_pass(
        self, target: PublishedApi, text: bytes, request: InboundRequest
    ) -> AuthenticatedCaller:
        origin = CorsRequest.by(request.scope["headers"]).origin
        with self._pass_checks.take(target.label, f"API {target.label}"), store_problem(request):
            found = await asyncio.to_thread(self._passes.admit, target, text, origin)
        if isinstance(found, HttpProblem):
            raise RequestRefused(found)
        return found

    def _call(
        self, decision: ForwardCall, request: InboundRequest, caller: AuthenticatedCaller
    ) -> ForwardedCall:
        """Return the caller's header lines, with the gateway's identity headers in place of the caller's."""
        scope, target = request.scope, decision.target
        origin = self._origin(request)
        ours = (
            b"x-request-id: %b\r\nx-forwarded-for: %b\r\nx-forwarded-proto: %b\r\nx-forwarded-host: %b\r\n"
            b"x-forwarded-prefix: %b\r\n"
            % (request.identity, origin.address, origin.scheme, origin.host, target.prefix)
        )
        if target.api.pass_identity and caller.user:
            ours += b"x-forwarded-user: %b\r\n" % header_text(caller.user)
        if decision.path in DESCRIBED and not target.route.any_path:
            ours += b"x-prichal-security: %b\r\n" % header_value(target.api)
        if (context := self._context(request)) is not None:
            ours += context.lines
        query = scope["query_string"]
        path = b"%b?%b" % (decision.path, query) if query else decision.path
        lines = lines_for(target.prefix, request.lines) + ours
        return ForwardedCall(target, scope["method"], path, lines, request.identity, host_for(origin.host))

    # --- the platform's own ------------------------------------------------------------------------------------

    async def _serve(self, decision: ServeService, request: InboundRequest) -> None:
        """Pass the call of a service to the Flask application, which has it below its kind, not below its
        published path."""
        target = decision.target
        with self._calls.take(target.service.app, f"app {target.service.app}"):
            await self._answer_service(decision, await self._admit(target, request), request)

    async def _answer_service(
        self, decision: ServeService, caller: AuthenticatedCaller, request: InboundRequest
    ) -> None:
        target = decision.target
        trace = text_of(self._context(request))
        call = ServiceCall(target.service, caller.user, target.prefix.decode(), trace)
        scope = {**scope_of(request), "path": f"/{target.service.kind}/{decision.path}", CALL: call}
        if request.incoming.more():
            refuse_coded(request.scope["headers"])
        if target.service.kind is ServiceKind.FILES:
            await self._files.answer(scope, request, b"", call.service.app)  # none of them has a body
            return
        body = RequestBody(request.incoming, request.special, min(MAX_BODY, self._max_body))
        with store_problem(request):
            answered = await self._runs.answer(decision.path, scope, body, track_status(request))
        if not answered:
            await self._flask.answer(scope, request, b"", call.service.app)

    async def _answer_locally(self, request: InboundRequest) -> None:
        if (fields := browsers.preflight(request.scope)) is not None:
            await answer_empty(request, 204, list(fields))
            return
        if is_git(request.scope):
            await self._answer_git(request)
            return
        if request.incoming.more():
            refuse_coded(request.scope["headers"])
        scope = scope_of(request)
        with store_problem(request):
            for live in (self._live_pages, self._live):
                if live.takes(scope):
                    await answer_for(scope["method"], track_status(request), partial(live.answer, scope))
                    return
            content = await self._bodies.read(scope, request)
        await self._flask.answer(scope, request, content, page_of(scope["path"]))

    async def _answer_git(self, request: InboundRequest) -> None:
        scope, body = request.scope, GitBody(request.incoming, request.special)
        method, path, query, client = (
            scope["method"],
            scope["raw_path"],
            scope["query_string"],
            client_info_of(scope),
        )
        with store_problem(request):
            await answer_for(
                method,
                track_status(request),
                lambda send: self._git.answer(method, path, query, client, body, send),
            )

    # --- counting ----------------------------------------------------------------------------------------------

    def _report_metrics(self) -> None:
        """Write counters and called components once a second, off the hot path."""
        for step in self._steps:
            step()
        self._beat = self._loop.call_later(1.0, self._report_metrics)

    def _count(self, label: str, status: int, seconds: float) -> None:
        self._meter.observe(label, status, seconds)

    def _taken_shares(self) -> tuple[TakenShare, ...]:
        """Return the peaks of some seconds, for the report to the daemon."""
        found = tuple(
            TakenShare(AppName(name), resource, most)
            for resource, shares in self._shares
            for key, most in shares.peaks().items()
            if is_dns_label(name := key.decode() if isinstance(key, bytes) else str(key))
        )
        found += self._async.taken()
        if self._loop.time() >= self._next_period:
            self._next_period = self._loop.time() + PERIOD
            for _, shares in self._shares:
                shares.rotate()
        return found

    def _write_meter(self) -> None:
        if self._access is not None:
            self._meter.access_lines_dropped(self._access.dropped)
        self._meter.spans_dropped(self._tracer.dropped())
        self._meter.flush(self._meter_file)


def _access_log(settings: Settings) -> AccessLog | None:
    return None if settings.access_log == "off" else AccessLog(settings.access_log, settings.access_file)


def header_text(user: str) -> bytes:
    """Return a user's name as a header value: UTF-8, with unsafe characters percent-encoded."""
    if user.isascii() and user.isalnum():
        return user.encode()
    return b"".join(
        b"%c" % byte if 0x21 <= byte not in (0x7F, 0x25) else b"%%%02X" % byte for byte in user.encode()
    )


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
