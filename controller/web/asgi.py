"""The ASGI application: what a gunicorn worker runs. It decides who answers a request: a component, through
the forwarder; the live endpoints, on the event loop; or the Flask application, behind WSGI bridges in
threads: one for the files API, one for all else, so that a slow storage delays only files. Every response
carries `X-Request-ID`; every error is a problem document."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from a2wsgi import WSGIMiddleware

from controller.config import Settings
from controller.domain.errors import ControllerError
from controller.domain.reasons import Reason
from controller.domain.routing.routes import ServiceKind
from controller.guards import GuardedStep
from controller.ports import Store
from controller.store import SqliteStore, open_guest_store
from controller.store.names import CallerNameTable
from controller.store.people import PeopleStore
from controller.web.api.platform.admission import FORM
from controller.web.api.platform.live import LiveEndpoints, client_info_of
from controller.web.api.runs.live import MAX_BODY, LiveRunApi
from controller.web.app import INTERNAL, create_app
from controller.web.auth import browsers
from controller.web.auth.admin import SAFE, ClientInfo
from controller.web.auth.authenticate import AuthenticatedCaller, Authenticator
from controller.web.auth.caller_names import CallerNames
from controller.web.auth.people import Callers
from controller.web.auth.schemes import header_value
from controller.web.call_files.calls import CallFileStaging
from controller.web.call_files.locations import FileLocations
from controller.web.call_files.presigned import PresignedClient
from controller.web.context import CALL, ServiceCall
from controller.web.gateway.activator import Activator
from controller.web.gateway.body import CallerGone, IncomingBody, Message, Receive, RequestBody, Send, once
from controller.web.gateway.coding import refuse_coded
from controller.web.gateway.cors import CorsPolicy, CorsRequest
from controller.web.gateway.forward import ForwardedCall, Forwarder, ResponseState
from controller.web.gateway.headers import Header, host_for, lines_for, request_id, split
from controller.web.gateway.hosts import HostNames, HostRedirect
from controller.web.gateway.pool import ConnectionPool
from controller.web.gateway.proxies import RequestOrigin, TrustedProxies
from controller.web.gateway.request_metrics import RequestMetrics, worker_file
from controller.web.gateway.router import (
    Decision,
    ForwardCall,
    PlatformEndpoint,
    PublishedApi,
    Router,
    ServeService,
    find_route,
    is_below_v2,
)
from controller.web.gateway.shares import WorkerShares
from controller.web.gateway.upstream import UpstreamError
from controller.web.gateway.watch import RouteWatch
from controller.web.objects.listen import ObjectListener
from controller.web.objects.proxy import ObjectProxy
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from controller.web.storage import Connect, StorageClient

log = logging.getLogger(__name__)

THREADS = 8  # that run Flask in one worker, behind each bridge
WAITING = 64  # requests that may wait for a bridge's threads
TRANSFERS = 60.0  # seconds that file transfers get when a worker stops
WAITING_EACH = 24  # of them for one app, or for one kind of the platform's own
SMALL_BODY = 2**20  # bytes of a request to the platform itself; webhooks have a limit of their own
HOOKS, HOOKS_EACH = 64, 4  # webhooks that are read at once, and of them for one repository
SMALL_FORM = 2**14  # bytes of a form, which is read before its sender is known
FORMS, FORMS_EACH = 64, 8  # forms that are read at once, and of them from one address
LINGER = 5.0  # seconds for which the rest of a refused body is read and discarded
LINGER_BYTES = 32 * 2**20
PAGES = frozenset(
    ("hooks", "healthz", "readyz", "metrics", "apps", "login")
)  # that have a share of their own
HOOK = re.compile(r"/-/hooks/([^/]+)")
DESCRIBED = (b"/openapi.json", b"/docs")  # paths for which a platform server gets the security schemes
NOT_YET = (Reason.STATE_MISSING, Reason.STATE_UNWRITABLE, Reason.STATE_BUSY, Reason.STATE_SET_ASIDE)
PATIENCE, LOOK = 60.0, 0.1  # seconds to wait for the daemon, and between two checks
CALLER_LEFT = 499  # counted as this; nobody sees it


class Application:
    """The ASGI callable for gunicorn. Opens the store when the worker starts. `door` receives requests for
    files; None if links are not served."""

    def __init__(self, settings: Settings, connect: Connect, door: socket.socket | None = None) -> None:
        self._settings = settings
        self._connect = connect
        self._door = door
        self._gateway: GatewayApp | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._gateway is not None:
            await self._gateway.answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await send(
                {"type": "websocket.close", "code": 1000}
            )  # no WebSockets here: the handshake gets a 403

    def begin_stop(self) -> None:
        """Begin to stop: long polls and event streams end, all others continue."""
        if self._gateway is not None:
            self._gateway.watch.end_waits()
            self._gateway.objects.begin_stop()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            store = await _visited(self._settings.database)
            gateway = GatewayApp(store, self._settings, self._connect, self._door)
            await gateway.start()
        except (ControllerError, OSError) as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        self._gateway = gateway
        gc.freeze()  # objects loaded so far stay: full collections should skip them, because that would delay calls
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await gateway.stop()
        store.close()
        await send({"type": "lifespan.shutdown.complete"})


async def _visited(path: Path) -> SqliteStore:
    """Open the store once the daemon has created or migrated it, which takes a moment after an installation
    or upgrade."""
    for _ in range(int(PATIENCE / LOOK)):
        try:
            return open_guest_store(path)
        except ControllerError as error:
            if error.reason not in NOT_YET:
                raise
        await asyncio.sleep(LOOK)
    return open_guest_store(path)


@dataclass(slots=True)
class InboundRequest:
    """A request in progress: the ASGI scope, and its parsed header."""

    scope: Message
    special: dict[bytes, bytes]  # fields that the gateway acts on
    lines: list[bytes]  # header lines for the component
    identity: bytes  # the request id
    incoming: IncomingBody
    send: Send
    answered: ResponseState


class GatewayApp:
    """The objects of one worker, from its start to its end."""

    def __init__(
        self, store: Store, settings: Settings, connect: Connect, door: socket.socket | None = None
    ) -> None:
        self._settings = settings
        self._door = door
        self._loop = asyncio.get_running_loop()
        self._pool = ConnectionPool(settings.web.connect_timeout)
        self.watch = RouteWatch(store, self._pool)
        self._auth = Authenticator(time.monotonic, owners=CallerNames(CallerNameTable(settings.names)))
        self._activator = Activator(store, self.watch, self._pool)
        self._forwarder = Forwarder(
            self._pool, self.watch.resolve, self.watch.went_idle, self._activator.wake
        )
        self._callers = Callers(PeopleStore(settings.people), settings.web)
        self._live = LiveEndpoints(store, settings, self.watch, self._callers)
        self._storage = StorageClient(store, connect, serves_links=door is not None)
        places = FileLocations(store, self._storage, reserve_for=settings.storage.link_lifetime)
        links = PresignedClient(settings.web.connect_timeout)
        self._staging = CallFileStaging(places, links, self._forwarder, max_json=settings.web.max_body)
        counted = partial(self._count, "objects")
        abandon_after = settings.storage.abandon_after
        self._face = ObjectProxy(store, self._storage, settings.web.connect_timeout, abandon_after, counted)
        self.objects = ObjectListener(self._face)
        application = create_app(store, settings, self._storage)
        self._flask = WsgiBridge(application)
        self._files = WsgiBridge(application)
        self._runs = LiveRunApi(store, settings.run_files, self.watch, self._flask.ask)
        self._proxies = TrustedProxies(settings.web.trusted_proxies)
        domain = settings.web.app_domain
        self._hosts = HostNames(domain.encode()) if domain else None
        self._meter = RequestMetrics()
        self._state = settings.state.absolute()
        self._meter_file = worker_file(settings.state / "web", os.getpid())
        self._beat: asyncio.TimerHandle | None = None
        self._calls = WorkerShares("calls", settings.web.queue_limit, settings.web.per_app)
        self._hooks = WorkerShares("webhooks", HOOKS, HOOKS_EACH)
        self._forms = WorkerShares("forms", FORMS, FORMS_EACH)
        self._store = store
        self._max_body = settings.web.max_body
        self._steps = (
            GuardedStep(f"the gateway's counts cannot be written to {self._meter_file}", self._write_meter),
            GuardedStep("the daemon is not told which components are in use", self._activator.report),
            GuardedStep("what calls have left behind is not removed", self._staging.sweep),
            GuardedStep("connections to the storage are not closed", self._face.sweep),
        )

    async def start(self) -> None:
        self._meter_file.parent.mkdir(parents=True, exist_ok=True)
        await self.watch.start()
        if self._door is not None:
            await self.objects.start(self._door)
        self._report_metrics()

    async def stop(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
        await self.objects.stop(TRANSFERS)
        self._face.close()
        await self.watch.stop()
        await self._activator.stop()
        self._pool.close()
        self._auth.close()
        self._staging.close()
        self._storage.close()
        self._runs.close()
        self._steps[0]()

    async def answer(self, scope: Message, receive: Receive, send: Send) -> None:
        began = self._loop.time()
        special, lines = split(scope["headers"])
        identity = request_id(special.get(b"x-request-id"))
        request = InboundRequest(
            scope, special, lines, identity, IncomingBody(receive, special), send, ResponseState()
        )
        table = self.watch.table
        decision = self._decide(table, request)
        label = decision.target.label if isinstance(decision, ForwardCall | ServeService) else "-"
        if isinstance(decision, PlatformEndpoint):
            label, request.send = "platform", browsers.with_browser_headers(send, browsers.OWN)
        elif isinstance(decision, ServeService):
            request.send = browsers.with_browser_headers(send, browsers.PRIVATE)
        cors = None if isinstance(decision, HostRedirect) else table.cors_of(scope["raw_path"])
        try:
            if cors is None or not await _shared(cors, request):  # a preflight comes before anybody signs in
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
            self._meter.observe(label, request.answered.status, self._loop.time() - began)

    async def _refuse(self, problem: HttpProblem, request: InboundRequest) -> None:
        await _refuse(problem.without_paths(self._state), request)

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
        request.answered.status = 308
        headers = [
            (b"location", place),
            (b"cache-control", b"no-store"),
            (b"content-length", b"0"),
            *_ours(request),
        ]
        await request.send({"type": "http.response.start", "status": 308, "headers": headers})
        await request.send({"type": "http.response.body", "body": b"", "more_body": False})
        await _linger(request)

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
            body = RequestBody(request.incoming, request.special, self._max_body)
            await body.begin()
            call = self._call(decision, request, caller)
            if call.method == "POST" and call.target.route.boxes and not call.target.route.any_path:
                await self._staging.forward(call, caller.user, body, request.send, request.answered)
            else:
                await self._forwarder.forward(call, body, request.send, request.answered)

    async def _admit(self, target: PublishedApi, request: InboundRequest) -> AuthenticatedCaller:
        authorization = request.special.get(b"authorization")
        caller = self._auth.recall(target, authorization)
        if caller is not None:
            return caller
        found = await self._auth.identify(target, authorization, self._origin(request).caller)
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
        call = ServiceCall(target.service, caller.user, target.prefix.decode())
        scope = {**_scope(request), "path": f"/{target.service.kind}/{decision.path}", CALL: call}
        if target.service.kind is ServiceKind.FILES:
            await self._files.answer(scope, request, b"", call.service.app)  # none of them has a body
            return
        if request.incoming.more():
            refuse_coded(request.scope["headers"])
        body = RequestBody(request.incoming, request.special, min(MAX_BODY, self._max_body))
        with _store_problem(request):
            answered = await self._runs.answer(decision.path, scope, body, _mark(request))
        if not answered:
            await self._flask.answer(scope, request, b"", call.service.app)

    async def _answer_locally(self, request: InboundRequest) -> None:
        if request.incoming.more():
            refuse_coded(request.scope["headers"])
        scope = _scope(request)
        with _store_problem(request):
            if self._live.takes(scope):
                await self._live.answer(scope, _mark(request))
                return
            content = await self._body(scope, request)
        await self._flask.answer(scope, request, content, page_of(scope["path"]))

    async def _body(self, scope: Message, request: InboundRequest) -> bytes:
        """Read the body for the Flask application here, because a slow caller would hold one of its threads. A
        body that will not be used, because the caller may not do this or the hook does not exist, is not read.
        Raises RequestRefused."""
        if not request.incoming.more():
            return b""
        if found := HOOK.fullmatch(scope["path"]):
            repository = self._store.repositories.get(found[1])
            if scope["method"] != "POST" or repository is None or not repository.hook_secret:
                return b""
            with self._hooks.take(repository.name, f"repository {repository.name}"):
                return await self._whole(request, self._settings.web.hook_max_body)
        if scope["method"] in SAFE:
            return b""
        caller = client_info_of(scope)
        if _is_form(caller):  # it says itself whose it is
            whose = self._origin(request).caller
            with self._forms.take(whose, whose.decode("latin-1")):
                return await self._whole(request, SMALL_FORM)
        if await asyncio.to_thread(self._callers.identify, caller) is None:
            return b""
        return await self._whole(request, SMALL_BODY)

    @staticmethod
    async def _whole(request: InboundRequest, limit: int) -> bytes:
        return await RequestBody(request.incoming, request.special, limit).whole()

    # --- counting ----------------------------------------------------------------------------------------------

    def _report_metrics(self) -> None:
        """Write counters and called components once a second, off the hot path."""
        for step in self._steps:
            step()
        self._beat = self._loop.call_later(1.0, self._report_metrics)

    def _count(self, label: str, status: int, seconds: float) -> None:
        self._meter.observe(label, status, seconds)

    def _write_meter(self) -> None:
        self._meter.flush(self._meter_file)


def _is_form(caller: ClientInfo) -> bool:
    media_type = caller.headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type == FORM and "authorization" not in caller.headers


class WsgiBridge:
    """Runs the Flask application in separate threads."""

    def __init__(self, application: Any) -> None:  # its types for WSGI differ from those of the bridge
        self._wsgi: Any = WSGIMiddleware(application, workers=THREADS)
        self._waiting = WorkerShares("requests to the platform itself", WAITING, WAITING_EACH)

    async def answer(self, scope: Message, request: InboundRequest, content: bytes, whose: str) -> None:
        """Answer a request. `content` is the body, `whose` the name of an app or a page. Raises
        RequestRefused if too many wait already."""
        await self._ask(whose, scope, once(content), _mark(request))
        if request.answered.status >= 400:
            await _linger(request)

    async def ask(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request for a service that has read the body itself. Raises RequestRefused."""
        call: ServiceCall = scope[CALL]
        await self._ask(call.service.app, scope, receive, send)

    async def _ask(self, whose: str, scope: Message, receive: Receive, send: Send) -> None:
        with self._waiting.take(whose, whose):
            await self._wsgi(scope, receive, send)


def page_of(path: str) -> str:
    """Return the page of the platform that a path names; no app has such a name."""
    page = path.split("/", 3)[2] if path.startswith("/-/") else ""
    return f"/-/{page}" if page in PAGES else "/-/"


@contextmanager
def _store_problem(request: InboundRequest) -> Iterator[None]:
    """Return the problem for an error of the store on the event loop, where no error handler of Flask applies."""
    try:
        yield
    except ControllerError as error:
        log.warning("the store failed: %s", error, extra={"request": request.identity.decode()})
        raise RequestRefused(
            HttpProblem(ProblemKind.STORE_BUSY, "Try again in a moment.", retry_after=2)
        ) from error


def header_text(user: str) -> bytes:
    """Return a user's name as a header value: UTF-8, with unsafe characters percent-encoded."""
    if user.isascii() and user.isalnum():
        return user.encode()
    return b"".join(
        b"%c" % byte if 0x21 <= byte not in (0x7F, 0x25) else b"%%%02X" % byte for byte in user.encode()
    )


async def _refuse(problem: HttpProblem, request: InboundRequest) -> None:
    if request.answered.status:
        return  # the response has begun; its end is missing, and the server closes the connection
    request.answered.status = problem.code
    identity = request.identity.decode()
    if problem.code >= 500:
        fields = {"request": identity, "path": request.scope["path"], "problem": problem.kind.slug}
        log.warning("refused: %s", problem.detail, extra=fields)
    document = problem.body(identity, below_v2=is_below_v2(request.scope["raw_path"]))
    headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in problem.headers()]
    headers += [*_ours(request), (b"content-length", b"%d" % len(document))]
    await request.send({"type": "http.response.start", "status": problem.code, "headers": headers})
    await request.send({"type": "http.response.body", "body": document, "more_body": False})
    await _linger(request)


async def _shared(cors: CorsPolicy, request: InboundRequest) -> bool:
    """Return True if the request was a preflight and has been answered. Else the response gets the headers of
    the rule."""
    asked = CorsRequest.by(request.scope["headers"])
    if request.scope["method"] != "OPTIONS" or asked.origin is None or asked.method is None:
        request.send = cors.sending(request.send, asked)
        return False
    request.answered.status = 204
    headers = [*cors.preflight(asked), *_ours(request)]
    await request.send({"type": "http.response.start", "status": 204, "headers": headers})
    await request.send({"type": "http.response.body", "body": b"", "more_body": False})
    await _linger(request)
    return True


def _ours(request: InboundRequest) -> list[Header]:
    return [(b"x-request-id", request.identity), (b"server", b"prichal")]


def _scope(request: InboundRequest) -> Message:
    """Return the ASGI scope for an application of our own, with the chosen request id."""
    others = [header for header in request.scope["headers"] if header[0] != b"x-request-id"]
    return {**request.scope, "headers": [*others, (b"x-request-id", request.identity)]}


def _mark(request: InboundRequest) -> Send:
    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            request.answered.status = message["status"]
            message = {**message, "headers": [*message["headers"], *_ours(request)]}
        await request.send(message)

    return marked


async def _linger(request: InboundRequest) -> None:
    """Read a refused request's body for a while and discard it: closing at once would reset the connection,
    and a caller who is still sending would not see the answer. A caller who waits for `100 Continue` sends
    nothing more."""
    incoming = request.incoming
    if b"expect" in request.special or not incoming.more():
        return
    left = LINGER_BYTES
    try:
        async with asyncio.timeout(LINGER):
            while left > 0:
                left -= len((await incoming()).get("body", b""))
                if not incoming.more():
                    return
    except TimeoutError:
        return
