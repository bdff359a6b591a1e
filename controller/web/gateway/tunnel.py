"""One open WebSocket: passes bytes between a caller and a component in both directions, on the event loop. Made by
`sockets` after a handshake.

Promises: bytes are passed on as they arrive, in order, unread and unchanged; each direction holds at most a bounded
piece, because an end that does not read keeps the other one from being read; a close frame of the gateway's own stands
between two frames and is the last one; an end that does not finish the closing handshake is cut off."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from enum import StrEnum
from typing import Final

from controller.domain.routing.sockets import CloseCode
from controller.web.gateway.frames import FrameTracker, close_frame
from controller.web.gateway.upstream import UpstreamConnection

HANDSHAKE: Final = (
    1.5  # seconds in which an end has to finish the closing handshake; less than sockets.CLOSING
)
#: Frames in one piece (256 KiB at most) after which the component is not read from for a while: following many tiny
#: ones takes a processor's time, of which others need some, too.
MANY: Final = 8192
REST: Final = 0.02  # seconds
#: A peer that is gone without a word is found within two minutes, and one that reads nothing for as long is given up.
_KEEP_ALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 120_000),
)


class SocketEnd(StrEnum):
    """How a socket ended, as far as the gateway saw it."""

    CLOSED = "closed"  # by a closing handshake of both ends
    CALLER = "caller"  # the caller's connection was lost
    COMPONENT = "component"  # the component's connection was lost
    GATEWAY = "gateway"  # the gateway has closed it


class Tunnel:
    """`ended` is done when there is nothing to pass on any more, and says how that came; `code` is the gateway's own
    close code, if it has sent one. `received` and `sent` count bytes from and to the caller."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._caller: asyncio.Transport | None = None
        self._component: asyncio.Transport | None = None
        self._frames = FrameTracker()
        self._goodbye = b""  # the close frame that waits for the end of a frame
        self._said = False  # nothing may be sent to the caller any more
        self._slow = self._resting = self._paused = (
            False  # why the component is not read from, and whether it is
        )
        self._timer: asyncio.TimerHandle | None = None
        self.ended: asyncio.Future[SocketEnd] = loop.create_future()
        self.code: CloseCode | None = None
        self.received = 0
        self.sent = 0

    def join(self, component: asyncio.Transport) -> None:
        """Take the component's connection, which is not read from yet."""
        self._component = component
        self._paused = True
        _keep_alive(component)

    def begin(self, caller: asyncio.Transport, head: bytes, received: bytes, sent: bytes) -> None:
        """Send the end of the handshake to the caller, then what the component has `sent` after it, and to the
        component what was `received` from the caller."""
        self._caller = caller
        _keep_alive(caller)
        caller.write(head)
        if sent:
            self.from_component(sent)
        if received:
            self.feed_data(received)
        self._update()

    # --- from the caller; called by its connection ---------------------------------------------------------------

    def feed_data(self, data: bytes) -> None:
        self.received += len(data)
        if self._component is not None:
            self._component.write(data)

    def feed_eof(self) -> None:
        self._end(SocketEnd.CALLER)

    def pause_writing(self) -> None:
        """The caller does not read."""
        self._slow = True
        self._update()

    def resume_writing(self) -> None:
        self._slow = False
        self._update()

    # --- from the component; called by ComponentEnd --------------------------------------------------------------

    def from_component(self, data: bytes) -> None:
        if self._said or self._caller is None:
            return
        if self._goodbye and (cut := self._frames.until_end(data)) is not None:
            data = data[:cut]
        self.sent += len(data)
        self._frames.feed(data)
        self._caller.write(data)
        if self._goodbye:
            self._say_goodbye()
        if self._frames.frames > MANY and not self._resting:
            self._rest()

    def component_ended(self) -> None:
        """Tell the caller, if the component itself has not."""
        if self._component is None:
            return
        self._component = None
        if self._frames.closed or self._said or self._caller is None:
            self._end(SocketEnd.CLOSED)
        elif self._frames.between:
            self._goodbye = close_frame(CloseCode.BAD_GATEWAY, "The component ended the connection.")
            self.code = CloseCode.BAD_GATEWAY
            self._say_goodbye()
            self._cut_off_later(SocketEnd.COMPONENT)
            self._caller.write_eof()  # and wait for the caller's answer, or their end
        else:
            self._end(SocketEnd.COMPONENT)  # within a frame there is no place for another one

    def component_slow(self, is_slow: bool) -> None:
        if self._caller is None or self._caller.is_closing():
            return
        if is_slow:
            self._caller.pause_reading()
        else:
            self._caller.resume_reading()

    # --- the end -------------------------------------------------------------------------------------------------

    def close(self, code: CloseCode, reason: str) -> None:
        """Begin the closing handshake: the caller's answer goes to the component, which then closes."""
        if self.ended.done() or self._timer is not None:
            return
        if self._frames.closed:  # the component has begun it
            self._cut_off_later(SocketEnd.CLOSED)
            return
        self.code = code
        self._cut_off_later(SocketEnd.GATEWAY)
        self._goodbye = close_frame(code, reason)
        self._say_goodbye()

    def leave(self) -> None:
        """Close both connections after what was written to them. Called once `ended` is done, or the task that holds
        the socket ends."""
        self._end(SocketEnd.CALLER)
        if self._timer is not None:
            self._timer.cancel()
        for transport in (self._component, self._caller):
            if transport is not None:
                transport.close()
                self._loop.call_later(
                    HANDSHAKE, transport.abort
                )  # the other side may never read what is left
        self._caller = self._component = None

    def _say_goodbye(self) -> None:
        """Send the close frame if this is a place for it; else the end of the frame brings another opportunity."""
        if self._frames.closed:
            self._goodbye = b""
        elif self._frames.between and self._caller is not None:
            self._caller.write(self._goodbye)
            self.sent += len(self._goodbye)
            self._said, self._goodbye = True, b""
            self._update()

    def _cut_off_later(self, how: SocketEnd) -> None:
        self._timer = self._loop.call_later(HANDSHAKE, self._cut_off, how)

    def _cut_off(self, how: SocketEnd) -> None:
        if self._caller is not None and self._caller.get_write_buffer_size():
            self._caller.abort()  # nobody reads the rest
        self._end(how)

    def _end(self, how: SocketEnd) -> None:
        if not self.ended.done():
            self.ended.set_result(SocketEnd.GATEWAY if how is SocketEnd.CLOSED and self._said else how)

    # --- backpressure ----------------------------------------------------------------------------------------------

    def _rest(self) -> None:
        self._resting = True
        self._update()
        self._loop.call_later(REST, self._go_on)

    def _go_on(self) -> None:
        self._resting = False
        self._update()

    def _update(self) -> None:
        """Read from the component, or not."""
        if self._component is None or self._component.is_closing():
            return
        wanted = (self._slow or self._resting) and not self._said
        if wanted and not self._paused:
            self._component.pause_reading()
        elif self._paused and not wanted:
            self._component.resume_reading()
        self._paused = wanted


class ComponentEnd(asyncio.Protocol):
    """What asyncio tells about the component's connection. `connection` was it during the handshake, and still has
    to clean up."""

    def __init__(self, tunnel: Tunnel, connection: UpstreamConnection) -> None:
        self._tunnel = tunnel
        self._connection = connection

    def data_received(self, data: bytes) -> None:
        self._tunnel.from_component(data)

    def eof_received(self) -> None:
        self._tunnel.component_ended()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)
        self._tunnel.component_ended()

    def pause_writing(self) -> None:
        self._tunnel.component_slow(True)

    def resume_writing(self) -> None:
        self._tunnel.component_slow(False)


def _keep_alive(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        for level, option, value in _KEEP_ALIVE:
            with suppress(OSError):
                sock.setsockopt(level, option, value)
