"""The ASGI application: what a gunicorn worker runs. It decides who answers a request: a component, through the
forwarder; the live endpoints, on the event loop; or the Flask application, behind WSGI bridges in threads: one for the
files API, one for all else, so that a slow storage holds up nothing but files.

Every response carries `X-Request-ID`; every error is a problem document. What is opened at the lifespan's start is
closed at its end.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from a2wsgi import WSGIMiddleware

from controller.config import Settings
from controller.domain.errors import ControllerError
from controller.domain.routes import ServiceKind
from controller.ports import Store
from controller.store import open_store
from controller.web.access.auth import Authenticator, Caller
from controller.web.app import create_app
from controller.web.context import CALL, ServiceCall
from controller.web.gateway.body import CallerGone, Incoming, Message, Receive, RequestBody, Send
from controller.web.gateway.decide import Forward, Published, Serve, decide
from controller.web.gateway.forward import Answered, Call, Forwarder
from controller.web.gateway.headers import Header, request_id, split
from controller.web.gateway.meter import Meter, worker_file
from controller.web.gateway.pool import Pool
from controller.web.gateway.proxies import TrustedProxies
from controller.web.gateway.sleepers import Sleepers
from controller.web.gateway.upstream import UpstreamError
from controller.web.gateway.watch import RouteWatch
from controller.web.platform.live import Live
from controller.web.problems import Kind, Problem, Refused
from controller.web.runs.live import MAX_BODY, LiveRuns
from controller.web.staging.calls import Staging
from controller.web.staging.links import Links
from controller.web.staging.places import Places
from controller.web.storage import Connect, StorageClient

log = logging.getLogger(__name__)

THREADS = 8  # that run Flask in one worker, behind each bridge
WAITING = 64  # requests that may wait for a bridge's threads
LINGER = 5.0  # seconds that the rest of a refused body is read and thrown away
LINGER_BYTES = 32 * 2**20
CALLER_LEFT = 499  # counted as this; nobody sees it


class Application:
    """The callable that gunicorn is given. Opens the store when the worker starts."""

    def __init__(self, settings: Settings, connect: Connect) -> None:
        self._settings = settings
        self._connect = connect
        self._gateway: Gateway | None = None

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
        """The worker was told to stop: answers that wait for news end, all others go on."""
        if self._gateway is not None:
            self._gateway.watch.end_waits()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            store = open_store(self._settings.database)
            gateway = Gateway(store, self._settings, self._connect)
            await gateway.start()
        except (ControllerError, OSError) as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        self._gateway = gateway
        gc.freeze()  # what is loaded now stays: full collections need not look at it, which would hold up calls
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await gateway.stop()
        store.close()
        await send({"type": "lifespan.shutdown.complete"})


@dataclass(slots=True)
class Inbound:
    """A request on its way through: what ASGI gave, and what was made of its header."""

    scope: Message
    special: dict[bytes, bytes]  # fields that the gateway acts on
    lines: list[bytes]  # header lines for the component
    identity: bytes  # the request id
    incoming: Incoming
    send: Send
    answered: Answered


class Gateway:
    """What one worker works with, from its start to its end."""

    def __init__(self, store: Store, settings: Settings, connect: Connect) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._pool = Pool(settings.web.connect_timeout)
        self.watch = RouteWatch(store, self._pool)
        self._auth = Authenticator(time.monotonic)
        self._sleepers = Sleepers(store, self.watch, self._pool)
        self._forwarder = Forwarder(self._pool, self.watch.resolve, self.watch.went_idle, self._sleepers.wake)
        self._live = Live(store, settings, self.watch)
        self._storage = StorageClient(store, connect)
        places = Places(store, self._storage, reserve_for=settings.storage.link_lifetime)
        links = Links(settings.web.connect_timeout)
        self._staging = Staging(places, links, self._forwarder, max_json=settings.web.max_body)
        application = create_app(store, settings, self._storage)
        self._flask = Bridge(application)
        self._files = Bridge(application)
        self._runs = LiveRuns(store, settings.run_files, self.watch, self._flask.ask)
        self._proxies = TrustedProxies(settings.web.trusted_proxies)
        self._meter = Meter()
        self._meter_file = worker_file(settings.state / "web", os.getpid())
        self._beat: asyncio.TimerHandle | None = None
        self._limit = settings.web.queue_limit
        self._max_body = settings.web.max_body
        self._forwarding = 0

    async def start(self) -> None:
        self._meter_file.parent.mkdir(parents=True, exist_ok=True)
        await self.watch.start()
        self._tell()

    async def stop(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
        await self.watch.stop()
        await self._sleepers.stop()
        self._pool.close()
        self._auth.close()
        self._staging.close()
        self._storage.close()
        self._runs.close()
        self._write_meter(self._meter_file)

    async def answer(self, scope: Message, receive: Receive, send: Send) -> None:
        began = self._loop.time()
        special, lines = split(scope["headers"])
        identity = request_id(special.get(b"x-request-id"))
        request = Inbound(scope, special, lines, identity, Incoming(receive, special), send, Answered())
        decision = decide(self.watch.table, scope["method"], scope["raw_path"])
        label = decision.target.label if isinstance(decision, Forward | Serve) else "-"
        try:
            if isinstance(decision, Forward):
                await self._forward(decision, request)
            elif isinstance(decision, Serve):
                await self._serve(decision, request)
            elif isinstance(decision, Problem):
                await _refuse(decision, request)
            else:
                label = "platform"
                await self._answer_locally(request)
        except Refused as refused:
            await _refuse(refused.problem, request)
        except CallerGone:
            request.answered.status = request.answered.status or CALLER_LEFT
        except UpstreamError as error:
            # The response has begun: returning without its end makes the server close the connection, which is how
            # HTTP says that it is incomplete.
            log.warning("a response broke off: %s", error, extra={"request": identity.decode(), "api": label})
        except asyncio.CancelledError:
            request.answered.status = request.answered.status or CALLER_LEFT
            raise
        finally:
            self._meter.observe(label, request.answered.status, self._loop.time() - began)

    # --- components --------------------------------------------------------------------------------------------

    async def _forward(self, decision: Forward, request: Inbound) -> None:
        if self._forwarding >= self._limit:
            detail = f"This gateway worker has {self._limit} calls under way."
            raise Refused(Problem(Kind.OVERLOADED, detail, retry_after=1))
        self._forwarding += 1
        try:
            caller = await self._admit(decision.target, request.special.get(b"authorization"))
            self._sleepers.called(decision.target)
            body = RequestBody(request.incoming, request.special, self._max_body)
            await body.begin()
            call = self._call(decision, request, caller)
            if call.method == "POST" and call.target.route.boxes and not call.target.route.any_path:
                await self._staging.forward(call, caller.user, body, request.send, request.answered)
            else:
                await self._forwarder.forward(call, body, request.send, request.answered)
        finally:
            self._forwarding -= 1

    async def _admit(self, target: Published, authorization: bytes | None) -> Caller:
        caller = self._auth.recall(target, authorization)
        if caller is not None:
            return caller
        found = await self._auth.identify(target, authorization)
        if isinstance(found, Problem):
            raise Refused(found)
        return found

    def _call(self, decision: Forward, request: Inbound, caller: Caller) -> Call:
        """The caller's header lines, and what the gateway says of him in place of what he said."""
        scope, target = request.scope, decision.target
        peer = scope["client"]
        origin = self._proxies.origin(peer[0] if peer else "", scope["scheme"], request.special)
        ours = (
            b"x-request-id: %b\r\nx-forwarded-for: %b\r\nx-forwarded-proto: %b\r\nx-forwarded-host: %b\r\n"
            b"x-forwarded-prefix: %b\r\n"
            % (request.identity, origin.address, origin.scheme, origin.host, target.prefix)
        )
        if target.api.pass_identity and caller.user:
            ours += b"x-forwarded-user: %b\r\n" % header_text(caller.user)
        query = scope["query_string"]
        path = b"%b?%b" % (decision.path, query) if query else decision.path
        return Call(target, scope["method"], path, b"".join(request.lines) + ours, request.identity)

    # --- the platform's own ------------------------------------------------------------------------------------

    async def _serve(self, decision: Serve, request: Inbound) -> None:
        """The Flask application finds a service below its kind, whatever path it is published at."""
        target = decision.target
        caller = await self._admit(target, request.special.get(b"authorization"))
        call = ServiceCall(target.service, caller.user, target.prefix.decode())
        scope = {**_scope(request), "path": f"/{target.service.kind}/{decision.path}", CALL: call}
        if target.service.kind is ServiceKind.FILES:
            await self._files.answer(scope, request)
            return
        body = RequestBody(request.incoming, request.special, min(MAX_BODY, self._max_body))
        with _store_trouble(request):
            answered = await self._runs.answer(decision.path, scope, body, _mark(request))
        if not answered:
            await self._flask.answer(scope, request)

    async def _answer_locally(self, request: Inbound) -> None:
        scope = _scope(request)
        if not self._live.takes(scope):
            await self._flask.answer(scope, request)
            return
        with _store_trouble(request):
            await self._live.answer(scope, _mark(request))

    # --- counting ----------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """Once a second, off the hot path: what was counted, and who was called."""
        self._write_meter(self._meter_file)
        self._sleepers.tell()
        self._staging.sweep()
        self._beat = self._loop.call_later(1.0, self._tell)

    def _write_meter(self, path: Path) -> None:
        try:
            self._meter.flush(path)
        except OSError as error:
            log.warning("the gateway's counts cannot be written to %s: %s", path, error.strerror)


class Bridge:
    """The Flask application behind threads of its own."""

    def __init__(self, application: Any) -> None:  # it describes WSGI in other types than the bridge
        self._wsgi: Any = WSGIMiddleware(application, workers=THREADS)
        self._waiting = 0

    async def answer(self, scope: Message, request: Inbound) -> None:
        """Raises Refused if too many wait already."""
        await self.ask(scope, request.incoming, _mark(request))
        if request.answered.status >= 400:
            await _linger(request)

    async def ask(self, scope: Message, receive: Receive, send: Send) -> None:
        if self._waiting >= WAITING:
            raise Refused(Problem(Kind.OVERLOADED, "Too many requests wait for an answer.", retry_after=1))
        self._waiting += 1
        try:
            await self._wsgi(scope, receive, send)
        finally:
            self._waiting -= 1


@contextmanager
def _store_trouble(request: Inbound) -> Iterator[None]:
    """On the event loop, where no view's error handler sees it."""
    try:
        yield
    except ControllerError as error:
        log.warning("the store failed: %s", error, extra={"request": request.identity.decode()})
        raise Refused(Problem(Kind.STORE_BUSY, "Try again in a moment.", retry_after=2)) from error


def header_text(user: str) -> bytes:
    """A user's name as a header value: UTF-8, with whatever could break the header percent-encoded."""
    if user.isascii() and user.isalnum():
        return user.encode()
    return b"".join(
        b"%c" % byte if 0x21 <= byte not in (0x7F, 0x25) else b"%%%02X" % byte for byte in user.encode()
    )


async def _refuse(problem: Problem, request: Inbound) -> None:
    if request.answered.status:
        return  # the response has begun; its end is missing, and the server closes the connection
    request.answered.status = problem.code
    identity = request.identity.decode()
    if problem.code >= 500:
        fields = {"request": identity, "path": request.scope["path"], "problem": problem.kind.slug}
        log.warning("refused: %s", problem.detail, extra=fields)
    document = problem.body(identity)
    headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in problem.headers()]
    headers += [*_ours(request), (b"content-length", b"%d" % len(document))]
    await request.send({"type": "http.response.start", "status": problem.code, "headers": headers})
    await request.send({"type": "http.response.body", "body": document, "more_body": False})
    await _linger(request)


def _ours(request: Inbound) -> list[Header]:
    return [(b"x-request-id", request.identity), (b"server", b"prichal")]


def _scope(request: Inbound) -> Message:
    """The request for an application of our own, under the id that was settled."""
    others = [header for header in request.scope["headers"] if header[0] != b"x-request-id"]
    return {**request.scope, "headers": [*others, (b"x-request-id", request.identity)]}


def _mark(request: Inbound) -> Send:
    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            request.answered.status = message["status"]
            message = {**message, "headers": [*message["headers"], *_ours(request)]}
        await request.send(message)

    return marked


async def _linger(request: Inbound) -> None:
    """Read a refused request's body for a while and throw it away: closing at once would reset the connection, and
    the caller, still sending, would never see why. A caller who waits for `100 Continue` sends nothing more."""
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
