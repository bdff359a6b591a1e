"""One client's connection: reads requests, has them answered, writes responses, until either side closes. A
thread each.

Plain blocking sockets whose timeouts the kernel keeps (SO_RCVTIMEO), so that a request costs one recv and one
send. The worker's clock may answer an overdue call on this socket from its own thread (``answer_overdue``);
from then on the connection's thread must not write any more, and does not: its handler raises ``CallerLeft``.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import os
import re
import select
import socket
import struct
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import BinaryIO, Optional, TypeVar

from . import http1, log, problems
from .compression import compress
from .config import ServingSettings
from .http1 import ClientDisconnected, HttpRequest, HttpResponse, RequestReader
from .problems import ServingProblem
from .streams import failure

BODY_TIMEOUT = 300.0  # seconds for a whole body, as long as its pieces keep coming
LARGE_BODY = 64 * 1024
MOST_PIECES = 1000  # that Linux sends at once
PROMPT, SLOW = (
    0.25,
    1.0,
)  # seconds for the next piece and for all of a request that holds a slot while it comes
LINGER_BYTES = 64 * 1024 * 1024
LINGER_TIMEOUT = 5

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_prefix = os.urandom(6).hex()
_counter = itertools.count(1)


class CallerLeft(Exception):
    """The request was answered by another thread; this one has nothing left to say."""


def request_id(request: HttpRequest) -> str:
    """The client's X-Request-ID if it is sound, else a new one."""
    given = request.headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return f"{_prefix}-{next(_counter):x}"


def renew_request_ids() -> None:
    """Called in a new worker process, so that two never make the same id."""
    global _prefix
    _prefix = os.urandom(6).hex()


Handler = Callable[[HttpRequest, "ClientConnection"], HttpResponse]
Received = TypeVar("Received", bytes, int)


def _nothing() -> None:
    pass


class ClientConnection:
    """``handle`` answers a request (raises ServingProblem or Abandoned); ``draining`` says that no more requests are
    wanted. Of a connection that was handed over: ``waited`` are the seconds that its first request waited for that,
    ``told`` means that its client knows, ``received`` counts requests that come slowly (1), and that are there or
    gone (-1), and ``begun`` tells the dispatcher that a call in a batch begins.
    """

    def __init__(
        self,
        sock: socket.socket,
        handle: Handler,
        settings: ServingSettings,
        draining: Callable[[], bool],
        waited: float = 0.0,
        received: Optional[Callable[[int], None]] = None,
        told: bool = False,
        begun: Callable[[], None] = _nothing,
    ) -> None:
        self._socket = sock
        self._handle = handle
        self._max_body = settings.max_body
        self._idle_timeout = settings.idle_timeout
        self._read_timeout = settings.read_timeout
        self._draining = draining
        self._reader = RequestReader(self._receive, self._receive_into)
        self._late = 0.0  # until when the request that is being read must be here; 0 = none is being read
        self._allowed = settings.read_timeout
        self.idle = True
        self.abandoned = False
        self._waited = waited
        self._told = told
        self._begun = begun
        self._received = received
        self._began = 0.0
        self._slow = False  # said so to ``received``
        self._streaming: Optional[HttpRequest] = None  # whose response has begun and has no end yet
        self._sending = False

    def serve(self) -> None:
        """Answer requests until the end; never raises."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._serve(lambda: True)

    def serve_handed(self) -> bool:
        """Answer the request that has begun to come, and those that are there behind it; True if the connection may
        have another one, which the dispatcher waits for."""
        return self._serve(lambda: self._reader.buffered)

    def _serve(self, go_on: Callable[[], bool]) -> bool:
        keep = False
        try:
            self._wait_at_most(self._idle_timeout)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(self._read_timeout))
            while (keep := self._one()) and go_on():
                pass
        except (OSError, ClientDisconnected, CallerLeft):
            keep = False  # the client left, or its call was answered by the clock: nobody to tell
        finally:
            if not keep:
                with contextlib.suppress(OSError):
                    # The client is to see the end even if another process holds a copy.
                    self._socket.shutdown(socket.SHUT_RDWR)
            self.shed()
        return keep

    def gone(self) -> bool:
        """Has the client closed the connection, or at least its own side of it? May be asked by any thread."""
        poll = select.poll()
        poll.register(self._socket, select.POLLRDHUP)
        return bool(poll.poll(0))

    def shed(self) -> None:
        """Close the socket in a process that the developer's code forked, since it belongs to the parent."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def stop_if_idle(self) -> None:
        """Make a connection that waits for a request end; one that has begun a request is served first."""
        if self.idle:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RD)

    def _one(self) -> bool:
        """Serve one request; False at the end of the connection."""
        self.idle, self._allowed = not self._reader.buffered, self._read_timeout
        if self._late:
            self._late = 0.0
            self._wait_at_most(self._idle_timeout)
        if self._draining():
            self.stop_if_idle()  # what has come already is served
        try:
            request = self._reader.head()
        except ServingProblem as problem:
            call_id = f"{_prefix}-{next(_counter):x}"
            return self._refuse(http1.problem_response(problem, call_id), call_id)
        if request is None:
            return False
        request.id = request_id(request)
        request.waited, self._waited = self._waited, 0.0
        request.told, self._told = self._told, False
        try:
            self._read_body(request)
            response = self._answer(request)
        except ServingProblem as problem:
            response = http1.problem_response(problem, request.id, request.path, request.headers)
            if http1.is_framing(problem.kind):
                return self._refuse(response, request.id)
        try:
            return self._respond(request, response)
        finally:
            self._all_here()
            if response.sent is not None:
                response.sent()

    def stream(self, request: HttpRequest, content_type: str, piece: bytes) -> None:
        """Send a piece of a response of unknown length, before the first one its head; an empty one is the end. Raises
        ClientDisconnected."""
        head = b""
        if self._streaming is None:
            request.close = request.close or self._draining()
            head = http1.render_stream(content_type, request, request.close)
        self._streaming, self._sending = request, True
        try:
            self._socket.sendall(head + http1.framed(piece, request))
        except OSError as error:
            raise ClientDisconnected from error
        finally:
            self._sending = False
        if not piece:
            self._streaming = None

    def tell(self, state: bytes) -> None:
        """Tell the gateway, ahead of the response, what becomes of the call. A client that is gone is noticed later."""
        with contextlib.suppress(OSError):
            self._socket.sendall(http1.interim(state))

    def begin(self) -> None:
        """Tell the dispatcher that the call waits no more, and goes to the function in a batch."""
        self._begun()

    def _respond(self, request: HttpRequest, response: HttpResponse) -> bool:
        if response.streamed:
            self.stream(request, response.content_type, b"")
            return not request.close
        if request.unread:  # nobody wanted its files
            return self._refuse(response, request.id)
        compress(request, response)
        close = request.close or self._draining()
        apart = response.size > LARGE_BODY  # which costs more to copy behind the head
        head = http1.render(response, request.id, close, apart or request.method == "HEAD")
        if apart and request.method != "HEAD":
            self._send_all([head, response.body, *response.more])
        else:
            self._socket.sendall(head)
        for file, size in response.files:
            self._send_file(file, size)
        return not close

    def _send_all(self, pieces: Sequence[http1.Piece]) -> None:
        """Send pieces one behind the other, without joining them."""
        for start in range(0, len(pieces), MOST_PIECES):
            some = pieces[start : start + MOST_PIECES]
            sent = self._socket.sendmsg(some)
            for piece in some:
                if sent < len(piece):
                    self._socket.sendall(memoryview(piece)[sent:])
                sent = max(0, sent - len(piece))

    def _send_file(self, file: BinaryIO, size: int) -> None:
        """Send a file from the file system's cache to the socket, without copying it into this process."""
        offset = 0
        while offset < size:
            sent = os.sendfile(self._socket.fileno(), file.fileno(), offset, size - offset)
            if not sent:
                raise ClientDisconnected  # the file became shorter: only the end of the connection can tell
            offset += sent

    def _answer(self, request: HttpRequest) -> HttpResponse:
        try:
            return self._handle(request, self)
        except (ServingProblem, CallerLeft, ClientDisconnected):
            raise
        except Exception:  # noqa: BLE001 -- a fault of ours is told as such and costs one answer, not the service
            log.write_line("the serving library failed", request=request.id)
            log.write(traceback.format_exc())
            problem = ServingProblem(
                problems.INTERNAL, "the serving library failed; the component's log says how"
            )
            return http1.problem_response(problem, request.id, request.path, request.headers)

    def _read_body(self, request: HttpRequest) -> None:
        expectation = request.headers.get(b"expect")
        if expectation is not None:
            if expectation.lower() != b"100-continue":
                raise ServingProblem(problems.EXPECTATION, "the only expectation understood is 100-continue")
            if request.length <= self._max_body and not self._reader.buffered:
                self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if request.length or request.chunked:
            self._allowed = BODY_TIMEOUT
            if self._late:
                self._late = time.monotonic() + BODY_TIMEOUT
            request.body = self._reader.body(request, self._max_body)
        if request.unread:
            # Of any size, and perhaps from a slow storage: only each piece has its time.
            self._allowed = math.inf
            self._late = math.inf if self._late else 0.0
            request.read = functools.partial(self._reader.behind, request)
            request.arrived = self._all_here
            self._comes_slowly()
        else:
            self._all_here()

    def _comes_slowly(self) -> None:
        if self._received is not None and not self._slow:
            self._slow = True
            self._received(1)

    def _all_here(self) -> None:
        if self._received is not None and self._slow:
            self._slow = False
            self._received(-1)

    def _receive(self, count: int) -> bytes:
        """recv for the reader. The first piece of a request may take its time, the rest must not linger."""
        if not self.idle:
            return self._receive_rest(count)
        try:
            data = self._socket.recv(count)
        except BlockingIOError:
            return b""  # idle for too long
        self.idle = False
        return data

    def _receive_into(self, room: memoryview) -> int:
        """Like ``_receive``, for the rest of a body."""
        return self._rest(lambda: self._socket.recv_into(room))

    def _receive_rest(self, count: int) -> bytes:
        return self._rest(lambda: self._socket.recv(count))

    def _rest(self, receive: Callable[[], Received]) -> Received:
        if not self._late:
            self._late = time.monotonic() + self._allowed
            self._began = time.monotonic()
            self._wait_at_most(self._read_timeout)
        if self._received is not None and not self._slow and not self._comes_at_once():
            self._comes_slowly()
        try:
            data = receive()
        except BlockingIOError:
            raise ServingProblem(
                problems.SLOW_REQUEST, f"nothing came for {self._read_timeout:g} s"
            ) from None
        if time.monotonic() > self._late:
            raise ServingProblem(problems.SLOW_REQUEST, "the request took too long to arrive")
        return data

    def _comes_at_once(self) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(1e3 * PROMPT)) and time.monotonic() - self._began < SLOW

    def _wait_at_most(self, seconds: float) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(seconds))

    def _refuse(self, response: HttpResponse, call_id: str) -> bool:
        """Answer, then read on for a while: closing with unread data would reset the connection and destroy
        the answer.
        """
        self._socket.sendall(http1.render(response, call_id, close=True))
        self._socket.shutdown(socket.SHUT_WR)
        self._wait_at_most(1)
        end, left = time.monotonic() + LINGER_TIMEOUT, LINGER_BYTES
        while left > 0 and time.monotonic() < end:
            data = self._socket.recv(1 << 18)
            if not data:
                break
            left -= len(data)
        return False

    def answer_overdue(self, response: HttpResponse, call_id: str) -> None:
        """Answer from another thread, without waiting for a client that does not read, and end the connection. A
        response that has begun ends with an event, or where it is cut if its reader is too slow.
        """
        self.abandoned = True
        answer = http1.render(response, call_id, close=True)
        if self._streaming is not None:
            pieces = (failure(bytes(response.body), self._streaming.path), b"")
            answer = b"".join([http1.framed(piece, self._streaming) for piece in pieces])
        with contextlib.suppress(OSError):
            if not self._sending:
                self._socket.send(answer, socket.MSG_DONTWAIT)
            self._socket.shutdown(socket.SHUT_WR)


def _timeval(seconds: float) -> bytes:
    """A C struct timeval."""
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))


def start(connection: ClientConnection, name: str, ended: Callable[[ClientConnection], None]) -> None:
    """Serve on a thread of its own. Raises RuntimeError if the system gives no more threads."""

    def run() -> None:
        try:
            connection.serve()
        finally:
            ended(connection)

    threading.Thread(target=run, name=name, daemon=True).start()
