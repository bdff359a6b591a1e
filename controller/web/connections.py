"""Connections of callers: gunicorn's own protocol, with less work for each request and with deadlines that it has not.
The worker's loop of gunicorn makes one for each connection (`server` puts it in place).

gunicorn serves each request in a task of its own, so that an application can go on behind its response, and sets a
timer for each pause between two requests. The gateway needs neither: a request is served in the task of its connection,
and a connection has one timer, which looks when it is due. Callers who do not read are not waited for without an end.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import sys
from contextlib import suppress
from typing import Any

from gunicorn.asgi import protocol
from gunicorn.asgi.protocol import ASGIProtocol, BodyReceiver, FlowControl
from gunicorn.workers import gasgi

from controller.web.gateway.body import ARRIVED, CallerGone, Message
from controller.web.gateway.sockets import TAKE_OVER
from controller.web.gateway.tunnel import Tunnel
from controller.web.ordinary_requests import OrdinaryRequest, RequestParser
from controller.web.reply import Reply

log = logging.getLogger(__name__)

LOOK, LONGEST_LOOK = 0.05, 5.0  # seconds before one looks for a caller who sends no more, first and later
PROBE = 15  # seconds between two packets by which the kernel asks the host of such a caller
HEADER = 30.0  # seconds that the header of a connection's first request may take
STALLED = 60.0  # seconds for which a caller may read nothing of a response that waits for them


class ConnectionProtocol(ASGIProtocol):  # type: ignore[misc]
    """gunicorn's own protocol, which waits for the header of a connection's first request without an end: a client
    that sends nothing, or a byte now and then, would hold connections for ever. Later ones have `KEEP_ALIVE`.

    It would read the frames of WebSockets, too, and hand whole messages to the application. The gateway passes bytes on
    instead: it takes the connection over, after its own handshake with a component."""

    _callback_parser: Any
    _body_receiver: Any
    _websocket: Tunnel | None
    _task: Any  # which serves the requests of this connection, one of which is the current one
    _current_request: Any
    _idle_until: float | None  # of the loop's time, None while a request is served
    _timer: asyncio.TimerHandle | None
    _timer_at: float
    _keepalive: float
    _reply: Reply | None  # of the request that is being served, if it was read here
    _begun: bool  # the response to one that was read by gunicorn
    _begun_stream: bool  # and it is one of unknown length
    _ended: bool  # the caller sends no more

    def connection_made(self, transport: Any) -> None:
        self._timer, self._timer_at = None, 0.0
        self._idle_until = None
        self._reply, self._begun, self._begun_stream = None, False, False
        self._ended = False
        super().connection_made(transport)
        self._wait_until(self.worker.loop.time() + HEADER)

    # --- time ----------------------------------------------------------------------------------------------------

    def _arm_keepalive_timer(self) -> None:
        if self._ended:
            self._keepalive_timeout()  # there will be no other request
        elif self._keepalive > 0:
            self._wait_until(self.worker.loop.time() + self._keepalive)

    def _cancel_keepalive_timer(self) -> None:
        self._idle_until = None
        if self._conn_lost_handled and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait_until(self, until: float) -> None:
        self._idle_until = until
        if self._timer is not None and self._timer_at > until:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer, self._timer_at = self.worker.loop.call_at(until, self._look), until

    def _look(self) -> None:
        self._timer = None
        if self._idle_until is None:
            return  # the next pause sets another one
        if self._idle_until > self.worker.loop.time():
            self._wait_until(self._idle_until)
        else:
            self._keepalive_timeout()

    # --- the end -------------------------------------------------------------------------------------------------

    def eof_received(self) -> bool:
        """The caller sends no more. One who has sent a whole request may have closed only their own side, as `nc` does,
        and wait for the answer. In the middle of a stream, whose next part may come late, they have left: nothing could
        be sent to see whether they are there. Return True to leave the connection open."""
        receiver = self._body_receiver
        if self._websocket is not None or receiver is None or not receiver._complete or self._streams():
            return False
        if not self._ended:
            self._ended = True
            self._begin_probes()
            self._look_in(LOOK, self._current_request)
        return True

    def _streams(self) -> bool:
        """Return True if a response of unknown length has begun."""
        if self._reply is not None:
            return self._reply.streams
        return self._begun_stream

    def _look_in(self, seconds: float, request: Any) -> None:
        self.worker.loop.call_later(seconds, self._look_for_caller, request, min(2 * seconds, LONGEST_LOOK))

    def _look_for_caller(self, request: Any, pause: float) -> None:
        """End the call of a caller who has closed the connection altogether: then their host refuses what is sent, such
        as an interim response. Nothing can be sent to a client of HTTP/1.0, nor in the middle of a response: these are
        noticed by probes."""
        if self._closed or self._current_request is not request:
            return
        if self._is_refused():
            self.transport.abort()
            return
        has_begun = self._begun if self._reply is None else self._reply.written
        if not has_begun and request.version >= (1, 1):
            self._safe_write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._look_in(pause, request)

    def _begin_probes(self) -> None:
        """Let the kernel ask whether the connection is known to the caller's host, which forgets one that was closed
        altogether after a minute, and refuses the next probe."""
        of_caller = self.transport.get_extra_info("socket")
        with suppress(OSError):  # a socket of this host, which needs none
            of_caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE)
            of_caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE)
            of_caller.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def _is_refused(self) -> bool:
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), 0)  # errors are always told
        return bool(poll.poll(0))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._task is None:
            self._let_go()
        else:
            self._task.add_done_callback(self._let_go)

    def _let_go(self, _: object = None) -> None:
        """Let go of all that refers to this connection in turn. It would be kept otherwise, with what has arrived of a
        body, until the interpreter looks for such cycles, which may be long after thousands of connections."""
        self._callback_parser = self._body_receiver = self._reply = self._current_request = self._task = None

    def _close_transport(self) -> None:
        if not self._closed:
            super()._close_transport()
            self._see_off(sys.maxsize)

    def _see_off(self, before: int) -> None:
        """Abort a connection that is being closed if the caller reads nothing of what is left."""
        left = 0 if self._conn_lost_handled else self.transport.get_write_buffer_size()
        if left >= before:
            self.transport.abort()
        elif left:
            self.worker.loop.call_later(STALLED, self._see_off, left)

    # --- requests ------------------------------------------------------------------------------------------------

    def _on_headers_complete(self) -> bool:
        self._reply, self._begun, self._begun_stream = None, False, False
        request = self._callback_parser.ordinary
        if request is None or self._is_ssl:
            return bool(super()._on_headers_complete())
        self._current_request = request
        self._body_receiver = JoinedBodyReceiver(request, self)
        self._request_ready.set()
        return False

    async def _serve_http_request(self, request: Any, sockname: Any, peername: Any) -> bool:
        """Return True if the connection can be used for another request."""
        if not isinstance(request, OrdinaryRequest):
            return bool(await self._handle_http_request(request, sockname, peername))
        scope = self._build_http_scope(request, sockname, peername)
        self._reply = reply = Reply(self, request.method == "HEAD", closes=self._ends())
        try:
            await self.app(scope, self._body_receiver.receive, reply.send)
        except asyncio.CancelledError:
            return False  # the caller has left
        except Exception:
            log.exception("a request failed by a fault of the platform")
        if not reply.started and not self._closed:
            self._send_error_response(500, "Internal Server Error")
        return reply.keeps_alive and not self._ends()

    def _send_response_start(self, status: int, headers: Any, *about: Any, **options: Any) -> None:
        self._begun = True
        self._begun_stream = any(name.lower() == b"transfer-encoding" for name, _ in headers)
        super()._send_response_start(status, headers, *about, **options)

    def _feed_callback_parser(self, data: bytes) -> bool:
        """Read what has arrived. Of a caller who sends no more, a request that is not whole never will be."""
        is_sound = bool(super()._feed_callback_parser(data))
        if self._ended and self._body_receiver is not None:
            if self._body_receiver._complete:
                self._look_in(LOOK, self._current_request)
            else:
                self._body_receiver.signal_disconnect()
        return is_sound

    def _ends(self) -> bool:
        """Return True if the connection ends with this request."""
        worker = self.worker
        return not (worker.alive and self._keepalive) or worker.nr + 1 >= worker.max_requests

    @property
    def left(self) -> bool:
        """Return True if the caller has left."""
        return bool(self._closed)

    @property
    def flow(self) -> Any:
        return self._flow_control

    def put(self, data: bytes) -> None:
        """Write a piece of a response."""
        self._safe_write(data)

    def _build_http_scope(self, request: Any, sockname: Any, peername: Any) -> Message:
        if isinstance(request, OrdinaryRequest) and self._scope_addresses is not None:
            scope = self._ordinary_scope(request)
        else:
            scope = super()._build_http_scope(request, sockname, peername)
            if request.may_upgrade():
                scope[TAKE_OVER] = self._take_over
        scope[ARRIVED] = self._body_receiver.arrived
        return scope

    def _ordinary_scope(self, request: OrdinaryRequest) -> Message:
        """Return what gunicorn would, which has noted the addresses with the first request."""
        _, _, server, client = self._scope_addresses
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": request.scheme,
            "path": request.path,
            "raw_path": request.raw_path,
            "query_string": request.query.encode(),
            "root_path": self._root_path,
            "headers": request.headers_bytes,
            "server": server,
            "client": client,
            "state": {},
        }

    # --- WebSockets ----------------------------------------------------------------------------------------------

    def _is_websocket_upgrade(self, request: Any) -> bool:
        return False

    def _take_over(self, tunnel: Tunnel) -> tuple[asyncio.Transport, bytes]:
        """End HTTP on this connection: `tunnel` gets what arrives from now on. Return the transport, and what has
        arrived behind the request."""
        if self._closed or self._ended:
            raise CallerGone
        early: bytes = self._callback_parser.remaining()
        self._callback_parser, self._websocket = None, tunnel
        self._keepalive = 0  # the connection ends with the application's call
        self._resume_reading()
        return self.transport, early

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._websocket is not None:
            self._websocket.pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._websocket is not None:
            self._websocket.resume_writing()

    def _send_error_response(self, status: int, message: str, extra_headers: Any = ()) -> None:
        if self._websocket is None:  # else gunicorn misses the response to a request that was none
            super()._send_error_response(status, message, extra_headers)


class JoinedBodyReceiver(BodyReceiver):  # type: ignore[misc]
    """gunicorn's own, which hands over what has arrived of a body in one piece: Git sends chunks of 8 KiB, and each
    message to the application costs more than its bytes. What waits is bounded as before, to some 256 KiB."""

    __slots__ = ()

    def arrived(self) -> Message | None:
        """Return the next message if nobody has to wait for it: what has arrived of the body."""
        return self._pop_chunk() if self._chunks and not self._disconnected else None

    def _pop_chunk(self) -> Any:
        if len(self._chunks) > 1:
            joined = b"".join(self._chunks)
            self._chunks.clear()
            self._chunks.append(joined)
        return super()._pop_chunk()


class CallerFlow(FlowControl):  # type: ignore[misc]
    """gunicorn's own, which waits without an end for a caller who reads nothing: their request would hold a place in
    the share of an app, or a thread, for as long as they like."""

    __slots__ = ()

    async def drain(self) -> None:
        left = self._transport.get_write_buffer_size()
        while self.write_paused:
            with suppress(TimeoutError):
                async with asyncio.timeout(STALLED):
                    await super().drain()
                return
            before, left = left, self._transport.get_write_buffer_size()
            if left >= before:
                self._transport.abort()
                self.resume_writing()


def install() -> None:
    """Let gunicorn make these connections, and their parsers and bodies."""
    gasgi.ASGIProtocol = ConnectionProtocol  # for each connection
    protocol.PythonProtocol = RequestParser
    protocol.FlowControl = CallerFlow
    protocol.BodyReceiver = JoinedBodyReceiver  # for each request
