"""The ASGI application: what a gunicorn worker runs. It decides who answers a request: a component, through the
forwarder; the live endpoints, on the event loop; or the Flask application, behind a WSGI bridge in threads.

Every response carries `X-Request-ID`; every error is a problem document. What is opened at the lifespan's start is
closed at its end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import Any

from a2wsgi import WSGIMiddleware

from controller.config import Settings
from controller.domain.errors import ControllerError
from controller.ports import Store
from controller.store import open_store
from controller.web.app import create_app
from controller.web.auth import Authenticator, Caller
from controller.web.body import CallerGone, Incoming, Message, Receive, RequestBody, Send
from controller.web.decide import Forward, Target, decide
from controller.web.forward import Answered, Call, Forwarder
from controller.web.headers import Header, request_id, split
from controller.web.live import Live
from controller.web.meter import Meter, worker_file
from controller.web.pool import Pool
from controller.web.problems import Kind, Problem, Refused
from controller.web.proxies import TrustedProxies
from controller.web.upstream import UpstreamError
from controller.web.watch import RouteWatch

log = logging.getLogger(__name__)

THREADS = 8  # that run Flask in one worker
WAITING = 64  # requests for Flask that may wait for a thread
LINGER = 5.0  # seconds that the rest of a refused body is read and thrown away
LINGER_BYTES = 32 * 2**20


class Application:
    """The callable that gunicorn is given. Opens the store when the worker starts."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
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
            gateway = Gateway(store, self._settings)
            await gateway.start()
        except (ControllerError, OSError) as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        self._gateway = gateway
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await gateway.stop()
        store.close()
        await send({"type": "lifespan.shutdown.complete"})


class Gateway:
    """What one worker works with, from its start to its end."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._pool = Pool(settings.web.connect_timeout)
        self.watch = RouteWatch(store, self._pool)
        self._auth = Authenticator(time.monotonic)
        self._forwarder = Forwarder(self._pool, self.watch.resolve, self.watch.went_idle)
        self._live = Live(store, settings, self.watch)
        application: Any = create_app(store, settings)  # the bridge describes WSGI in types of its own
        self._flask: Any = WSGIMiddleware(application, workers=THREADS)
        self._proxies = TrustedProxies(settings.web.trusted_proxies)
        self._meter = Meter()
        self._meter_file = worker_file(settings.state / "web", os.getpid())
        self._flush: asyncio.TimerHandle | None = None
        self._limit = settings.web.queue_limit
        self._max_body = settings.web.max_body
        self._forwarding = 0
        self._local = 0

    async def start(self) -> None:
        self._meter_file.parent.mkdir(parents=True, exist_ok=True)
        await self.watch.start()
        self._flush_meter()

    async def stop(self) -> None:
        await self.watch.stop()
        self._pool.close()
        self._auth.close()
        if self._flush is not None:
            self._flush.cancel()
        self._write_meter(self._meter_file)

    async def answer(self, scope: Message, receive: Receive, send: Send) -> None:
        began = self._loop.time()
        special, lines = split(scope["headers"])
        identity = request_id(special.get(b"x-request-id"))
        decision = decide(self.watch.table, scope["method"], scope["raw_path"])
        answered = Answered()
        incoming = Incoming(receive, special)
        label = "-"
        try:
            if isinstance(decision, Forward):
                label = decision.target.label
                await self._forward(decision, scope, special, lines, identity, incoming, send, answered)
            elif isinstance(decision, Problem):
                raise Refused(decision)
            else:
                label = "platform"
                await self._answer_locally(scope, special, identity, incoming, send, answered)
        except Refused as refused:
            await self._refuse(refused.problem, scope, special, identity, incoming, send, answered)
        except CallerGone:
            answered.status = answered.status or 499
        except UpstreamError as error:
            # The response has begun: returning without its end makes the server close the connection, which is how
            # HTTP says that it is incomplete.
            log.warning("a response broke off: %s", error, extra={"request": identity.decode(), "api": label})
        except asyncio.CancelledError:
            answered.status = answered.status or 499
            raise
        finally:
            self._meter.observe(label, answered.status, self._loop.time() - began)

    # --- components --------------------------------------------------------------------------------------------

    async def _forward(
        self,
        decision: Forward,
        scope: Message,
        special: dict[bytes, bytes],
        lines: list[bytes],
        identity: bytes,
        incoming: Incoming,
        send: Send,
        answered: Answered,
    ) -> None:
        if self._forwarding >= self._limit:
            detail = f"This gateway worker has {self._limit} calls under way."
            raise Refused(Problem(Kind.OVERLOADED, detail, retry_after=1))
        self._forwarding += 1
        try:
            target = decision.target
            authorization = special.get(b"authorization")
            caller: Caller | Problem | None = self._auth.recall(target, authorization)
            if caller is None:
                caller = await self._auth.identify(target, authorization)
            if isinstance(caller, Problem):
                raise Refused(caller)
            body = RequestBody(incoming, special, self._max_body)
            await body.begin()
            self._add_lines(lines, scope, special, target, caller, identity)
            query = scope["query_string"]
            path = b"%b?%b" % (decision.path, query) if query else decision.path
            call = Call(target, scope["method"], path, b"".join(lines), identity)
            await self._forwarder.forward(call, body, send, answered)
        finally:
            self._forwarding -= 1

    def _add_lines(
        self,
        lines: list[bytes],
        scope: Message,
        special: dict[bytes, bytes],
        target: Target,
        caller: Caller,
        identity: bytes,
    ) -> None:
        """What the gateway says of the caller, in place of what the caller said."""
        peer = scope["client"]
        origin = self._proxies.origin(peer[0] if peer else "", scope["scheme"], special)
        lines.append(
            b"x-request-id: %b\r\nx-forwarded-for: %b\r\nx-forwarded-proto: %b\r\nx-forwarded-host: %b\r\n"
            b"x-forwarded-prefix: %b\r\n"
            % (identity, origin.address, origin.scheme, origin.host, target.prefix)
        )
        if target.api.pass_identity and caller.user:
            lines.append(b"x-forwarded-user: %b\r\n" % header_text(caller.user))

    # --- the platform's own ------------------------------------------------------------------------------------

    async def _answer_locally(
        self,
        scope: Message,
        special: dict[bytes, bytes],
        identity: bytes,
        incoming: Incoming,
        send: Send,
        answered: Answered,
    ) -> None:
        others = [header for header in scope["headers"] if header[0] != b"x-request-id"]
        scope = {**scope, "headers": [*others, (b"x-request-id", identity)]}
        marked = _mark(send, identity, answered)
        if self._live.takes(scope):
            try:
                await self._live.answer(scope, marked)
            except ControllerError as error:
                log.warning("the store failed: %s", error, extra={"request": identity.decode()})
                raise Refused(Problem(Kind.STORE_BUSY, "Try again in a moment.", retry_after=2)) from error
            return
        if self._local >= WAITING:
            raise Refused(Problem(Kind.OVERLOADED, "Too many requests wait for an answer.", retry_after=1))
        self._local += 1
        try:
            await self._flask(scope, incoming, marked)
        finally:
            self._local -= 1
        if answered.status >= 400:
            await _linger(special, incoming)

    # --- errors ------------------------------------------------------------------------------------------------

    async def _refuse(
        self,
        problem: Problem,
        scope: Message,
        special: dict[bytes, bytes],
        identity: bytes,
        incoming: Incoming,
        send: Send,
        answered: Answered,
    ) -> None:
        if answered.status:
            return  # the response has begun; its end is missing, and the server closes the connection
        answered.status = problem.code
        if problem.code >= 500:
            fields = {"request": identity.decode(), "path": scope["path"], "problem": problem.kind.slug}
            log.warning("refused: %s", problem.detail, extra=fields)
        document = problem.body(identity.decode())
        headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in problem.headers()]
        headers += [
            (b"x-request-id", identity),
            (b"server", b"prichal"),
            (b"content-length", b"%d" % len(document)),
        ]
        await send({"type": "http.response.start", "status": problem.code, "headers": headers})
        await send({"type": "http.response.body", "body": document, "more_body": False})
        await _linger(special, incoming)

    # --- counting ----------------------------------------------------------------------------------------------

    def _flush_meter(self) -> None:
        self._write_meter(self._meter_file)
        self._flush = self._loop.call_later(1.0, self._flush_meter)

    def _write_meter(self, path: Path) -> None:
        try:
            self._meter.flush(path)
        except OSError as error:
            log.warning("the gateway's counts cannot be written to %s: %s", path, error.strerror)


def header_text(user: str) -> bytes:
    """A user's name as a header value: UTF-8, with whatever could break the header percent-encoded."""
    if user.isascii() and user.isalnum():
        return user.encode()
    return b"".join(
        b"%c" % byte if 0x21 <= byte not in (0x7F, 0x25) else b"%%%02X" % byte for byte in user.encode()
    )


def _mark(send: Send, identity: bytes, answered: Answered) -> Send:
    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            answered.status = message["status"]
            ours: list[Header] = [(b"x-request-id", identity), (b"server", b"prichal")]
            message = {**message, "headers": [*message["headers"], *ours]}
        await send(message)

    return marked


async def _linger(special: dict[bytes, bytes], incoming: Incoming) -> None:
    """Read a refused request's body for a while and throw it away: closing at once would reset the connection, and
    the caller, still sending, would never see why. A caller who waits for `100 Continue` sends nothing more."""
    if b"expect" in special or not incoming.more():
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
