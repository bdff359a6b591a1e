"""What the supervisor itself answers while there is no worker: alive, and not ready for a stated reason.

Runs within the supervisor's one loop, without threads, so nothing here may block: each visitor sends one
request head, gets one answer and is read on for a moment, so that closing does not destroy the answer.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable

from . import http1, problems
from .http1 import Request, Response
from .metrics import Board
from .problems import Problem

MOST_VISITORS = 256
PATIENCE = 5.0  # seconds for a visitor's whole stay
LIVE = ("/health/live", "/v2/health/live")


class Visitor:
    """A connection: what came so far, when it must go, whether it was answered."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.received = b""
        self.deadline = time.monotonic() + PATIENCE
        self.answered = False


class Standin:
    """``reason`` tells why there is no worker; ``new_id`` makes request ids."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        listener: socket.socket,
        board: Board,
        reason: Callable[[], str],
        new_id: Callable[[Request], str],
    ) -> None:
        self._selector = selector
        self._listener = listener
        self._board = board
        self._reason = reason
        self._new_id = new_id
        self._visitors: set[Visitor] = set()
        self._on_duty = False

    def serve(self, on_duty: bool) -> None:
        """Accept visitors from now on, or leave them to the workers. Those inside are served to the end."""
        if on_duty == self._on_duty:
            return
        self._on_duty = on_duty
        if on_duty:
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        else:
            self._selector.unregister(self._listener)

    def turn_out_late(self, now: float) -> None:
        """Close the visitors whose time is over."""
        for visitor in [visitor for visitor in self._visitors if visitor.deadline <= now]:
            self._close(visitor)

    def leave(self) -> None:
        """In a forked worker: drop the supervisor's connections, which would else stay open for as long as
        the worker lives.
        """
        for visitor in self._visitors:
            visitor.socket.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return  # a worker was faster, or the visitor left
        if len(self._visitors) >= MOST_VISITORS:
            sock.close()
            return
        sock.setblocking(False)
        visitor = Visitor(sock)
        self._visitors.add(visitor)
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._read(visitor))

    def _read(self, visitor: Visitor) -> None:
        try:
            data = visitor.socket.recv(65536)
            if not data:
                self._close(visitor)
            elif not visitor.answered:
                visitor.received += data
                self._answer_if_complete(visitor)
        except BlockingIOError:
            return
        except OSError:
            self._close(visitor)

    def _answer_if_complete(self, visitor: Visitor) -> None:
        end = visitor.received.find(b"\r\n\r\n")
        if end < 0 and len(visitor.received) <= http1.MAX_HEAD:
            return
        request_id, without_body = "-", False
        try:
            if end < 0:
                raise Problem(
                    problems.LARGE_HEAD, f"the header fields are larger than {http1.MAX_HEAD} bytes"
                )
            request = http1.parse_head(visitor.received[: end + 2])
            request_id, without_body = self._new_id(request), request.method == "HEAD"
            response = self._respond(request)
        except Problem as problem:
            response = http1.problem_response(problem, request_id)
        self._board.rows[0].answered(response.status)
        visitor.answered = True
        visitor.socket.send(http1.render(response, request_id, close=True, without_body=without_body))
        visitor.socket.shutdown(socket.SHUT_WR)

    def _respond(self, request: Request) -> Response:
        if request.path in LIVE:
            return Response(200, b'{"live": true}')
        if request.path == "/metrics":
            return Response(200, self._board.text().encode(), "text/plain; version=0.0.4; charset=utf-8")
        raise Problem(problems.NOT_READY, self._reason(), retry_after=1)

    def _close(self, visitor: Visitor) -> None:
        self._visitors.discard(visitor)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(visitor.socket)
        visitor.socket.close()
