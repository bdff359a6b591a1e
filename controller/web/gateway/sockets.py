"""The open WebSockets of a gateway worker: made from handshakes that `forward` has sent, held until they end. Used by
the ASGI application, which has authenticated the caller; the route watcher passes every new table on.

Promises: a socket counts as a call to its container, so a rollout waits for it and nothing hibernates under it; when
traffic has left its container it stays open for the drain time, then the caller gets a close frame and the container
is still there; a caller who may not use the API any more is told within a minute, or at once if the rules changed; the
end of each socket is logged and counted."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from controller.domain.routing.sockets import GONE_DRAIN, RECHECK, CloseCode, open_for
from controller.guards import report
from controller.store.request_metrics import RequestMetrics
from controller.web.gateway.body import Message, Send
from controller.web.gateway.forward import ForwardedCall, ResponseState, headers_for, respond
from controller.web.gateway.router import Router, UpstreamTarget
from controller.web.gateway.tunnel import ComponentEnd, Tunnel
from controller.web.gateway.upgrade import LINES, SocketRequest
from controller.web.gateway.upstream import ProtocolError, UpstreamConnection
from controller.web.problems import RequestRefused

log = logging.getLogger(__name__)

#: The key of the ASGI scope with a function that hands the caller's connection over.
TAKE_OVER: Final = "prichal.take_over"
#: Gives the transport and what has arrived behind the request; the tunnel gets the rest.
TakeOver = Callable[[Tunnel], tuple[asyncio.Transport, bytes]]
#: Admits the caller to the target again and returns their name. Raises RequestRefused.
Admit = Callable[[UpstreamTarget], Awaitable[str]]
_REFUSED: Final = (401, 403)
_UNSAFE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_REASONS: Final = {
    CloseCode.SERVICE_RESTART: "Another version or worker takes new connections.",
    CloseCode.GOING_AWAY: "The component is going away.",
    CloseCode.POLICY: "You may not use this API any more.",
}


@dataclass(eq=False, slots=True)
class OpenSocket:
    """`expires`: the credentials may become invalid although the API's rules stay."""

    target: UpstreamTarget
    endpoint: str
    request_id: bytes
    user: str
    admit: Admit
    expires: bool
    tunnel: Tunnel
    since: float
    checked: float
    credentials: bytes
    left: float = 0.0  # when traffic left its container, if `leaves` is set
    leaves: asyncio.TimerHandle | None = None
    counted: list[int] = field(default_factory=lambda: [0, 0])  # bytes from and to the caller

    def is_due(self, now: float, current: UpstreamTarget) -> bool:
        """Return True if the caller has to be admitted again."""
        changed = current.credentials != self.credentials
        return changed or (self.expires and now - self.checked >= RECHECK)


class OpenSockets:
    """`resolve` returns a target of the current table, None once it is gone."""

    def __init__(
        self, resolve: Callable[[UpstreamTarget], UpstreamTarget | None], meter: RequestMetrics
    ) -> None:
        self._resolve = resolve
        self._meter = meter
        self._loop = asyncio.get_running_loop()
        self._open: set[OpenSocket] = set()
        self._checks: dict[str, asyncio.Task[None]] = {}  # by app
        self._stopping = False

    async def hold(self, new: OpenSocket, table: Router) -> None:
        """Return when the socket has ended. Cancelled when the caller's connection is lost."""
        self._open.add(new)
        self._meter.socket_opened(new.target.label)
        try:
            if self._stopping:
                self._close(new, CloseCode.SERVICE_RESTART)
            else:
                self._follow(new, table)
            await asyncio.shield(new.tunnel.ended)
        finally:
            self._open.discard(new)
            if new.leaves is not None:
                new.leaves.cancel()
            new.tunnel.leave()
            self._record(new)

    def follow(self, table: Router) -> None:
        """Apply a new table to all open sockets."""
        for each in tuple(self._open):
            self._follow(each, table)

    def look(self) -> None:
        """Check callers whose time has come, and count bytes. Called every second."""
        now = self._loop.time()
        due: set[str] = set()
        for each in self._open:
            self._count(each)
            current = self._resolve(each.target)
            if current is not None and each.is_due(now, current):
                due.add(each.target.route.app)
        for app in due - self._checks.keys():
            self._check(app)

    def begin_stop(self) -> None:
        """Close all sockets, because the worker stops: another one takes new connections."""
        self._stopping = True
        for each in tuple(self._open):
            self._close(each, CloseCode.SERVICE_RESTART)

    def stop(self) -> None:
        for task in self._checks.values():
            task.cancel()

    # --- where traffic goes --------------------------------------------------------------------------------------

    def _follow(self, each: OpenSocket, table: Router) -> None:
        now = self._resolve(each.target)
        if now is None and each.endpoint in table.endpoints:
            self._close(each, CloseCode.POLICY)  # the API is not published any more
            return
        if now is not None and now.credentials != each.credentials:
            self._check(each.target.route.app)
        if now is not None and each.endpoint in now.route.upstreams:
            if each.leaves is not None:
                each.leaves.cancel()
                each.leaves = None
        else:
            self._leave(each, now.route.drain if now is not None else GONE_DRAIN)

    def _leave(self, each: OpenSocket, drain: float) -> None:
        """Close the socket at the end of the drain time, which the newest table decides."""
        if each.leaves is None:
            each.left = self._loop.time()
        else:
            each.leaves.cancel()
        each.leaves = self._loop.call_at(each.left + open_for(drain), self._close_left, each)

    def _close_left(self, each: OpenSocket) -> None:
        is_gone = self._resolve(each.target) is None
        self._close(each, CloseCode.GOING_AWAY if is_gone else CloseCode.SERVICE_RESTART)

    @staticmethod
    def _close(each: OpenSocket, code: CloseCode) -> None:
        each.tunnel.close(code, _REASONS[code])

    # --- who may use it ------------------------------------------------------------------------------------------

    def _check(self, app: str) -> None:
        """Check the callers of an app one after another, as their passwords cost time."""
        if app in self._checks:
            return
        task = self._checks[app] = self._loop.create_task(self._check_all(app))
        task.add_done_callback(lambda _: self._checks.pop(app, None))

    async def _check_all(self, app: str) -> None:
        for each in [one for one in self._open if one.target.route.app == app]:
            current = self._resolve(each.target)
            if each not in self._open or current is None or not each.is_due(self._loop.time(), current):
                continue
            try:
                await self._check_one(each, current)
            except Exception as error:  # noqa: BLE001 - those of the other sockets are checked all the same
                report(f"the caller of a WebSocket of {each.target.label} cannot be checked", error)

    async def _check_one(self, each: OpenSocket, current: UpstreamTarget) -> None:
        """Close the socket of a caller who is refused. Without a verdict, because an issuer does not answer, say, it
        stays open until the next look."""
        try:
            user = await each.admit(current)
        except RequestRefused as refused:
            if refused.problem.code in _REFUSED:
                self._close(each, CloseCode.POLICY)
            return
        if user != each.user:
            self._close(each, CloseCode.POLICY)
        each.checked, each.credentials = self._loop.time(), current.credentials

    # --- counting ------------------------------------------------------------------------------------------------

    def _count(self, each: OpenSocket) -> None:
        received, sent = each.tunnel.received, each.tunnel.sent
        if [received, sent] != each.counted:
            self._meter.socket_bytes(each.target.label, received - each.counted[0], sent - each.counted[1])
            each.counted = [received, sent]

    def _record(self, each: OpenSocket) -> None:
        self._count(each)
        tunnel, seconds = each.tunnel, self._loop.time() - each.since
        how = tunnel.ended.result()
        self._meter.socket_ended(each.target.label, how, seconds)
        fields = {
            "request": each.request_id.decode(),
            "api": each.target.label,
            "end": str(how),
            "seconds": round(seconds, 3),
            "received": tunnel.received,
            "sent": tunnel.sent,
        }
        log.info(
            "a WebSocket ended",
            extra=fields if tunnel.code is None else {**fields, "code": tunnel.code.value},
        )


@dataclass(slots=True)
class SocketCall:
    """What `forward` does with the component's answer to a handshake. `opened` is called once the handshake is
    complete; `is_open` then tells that nothing may be sent by HTTP any more."""

    wanted: SocketRequest
    sockets: OpenSockets
    table: Callable[[], Router]
    take_over: TakeOver
    admit: Admit
    user: str
    expires: bool
    opened: Callable[[], None]
    is_open: bool = False

    def sending(self, send: Send) -> Send:
        """Return a `send` that sends nothing once the socket is open."""

        async def http(message: Message) -> None:
            if not self.is_open:
                await send(message)

        return http

    async def respond(
        self, connection: UpstreamConnection, call: ForwardedCall, send: Send, answered: ResponseState
    ) -> bytes:
        """Pass on an answer that is none of the WebSocket protocol, or join both connections until the socket ends."""
        if connection.status != 101:
            return await respond(connection, call, send, answered)
        head = self._head(connection, call)
        loop = asyncio.get_running_loop()
        tunnel = Tunnel(loop)
        component, sent = connection.take_over(ComponentEnd(tunnel, connection))
        tunnel.join(component)
        now = loop.time()
        new = OpenSocket(
            call.target, connection.endpoint, call.request_id, self.user, self.admit, self.expires, tunnel,
            since=now, checked=now, credentials=call.target.credentials,
        )  # fmt: skip
        try:
            caller, received = self.take_over(tunnel)
        except BaseException:
            tunnel.leave()
            raise
        answered.status, self.is_open = connection.status, True
        tunnel.begin(caller, head, received, sent)
        self.opened()
        await self.sockets.hold(new, self.table())
        return b""

    def _head(self, connection: UpstreamConnection, call: ForwardedCall) -> bytes:
        """Return the end of the handshake for the caller. Raises ProtocolError if the component did not accept it."""
        headers = headers_for(connection, call)
        if not self.wanted.is_accepted(connection.headers):
            connection.close()
            raise ProtocolError("it answered 101 to a WebSocket handshake that it was not sent")
        if any(_UNSAFE.search(part) for header in headers for part in header):
            connection.close()
            raise ProtocolError("a field of its handshake has a control character")
        lines = b"".join(
            b"%b: %b\r\n" % header for header in headers if header[0].lower() != b"content-length"
        )
        return b"HTTP/1.1 101 Switching Protocols\r\n%b%b\r\n" % (lines, LINES)
