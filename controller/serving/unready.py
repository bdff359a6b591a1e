"""Answers in the supervisor while there is no worker: alive, and not ready for a stated reason. If there are several,
it always answers for the state of the whole container, and what the dispatcher refuses.

Runs within the supervisor's one loop, without threads, so nothing here may block: each client sends one
request head, gets one answer, and its connection is read for a moment longer, so that closing does not
destroy the answer."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable
from typing import Optional

from . import http1, problems
from .http1 import HttpRequest, HttpResponse
from .metrics import SharedMetrics
from .problems import ServingProblem

MOST_CLIENTS = 256  # beside the calls that wait, all of which may have to be refused at once
CLIENT_TIMEOUT = 5.0  # seconds after which the connection of a client is closed
LIVE = ("/health/live", "/v2/health/live")
READY = ("/health/ready", "/v2/health/ready")
STATE_PATHS = ("/health/", "/v2/health/", "/metrics")
#: How requests begin that are answered here even if there are workers: one of them may not answer.
STATE = tuple(f"{method} {path}".encode() for method in ("GET", "HEAD") for path in STATE_PATHS)


class UnreadyClient:
    """A connection: what came so far, when it must go, whether it was answered."""

    def __init__(
        self, sock: socket.socket, problem: Optional[ServingProblem], record: Callable[[int], None]
    ) -> None:
        self.problem = problem  # None: that there is no worker
        self.record = record
        self.socket = sock
        self.received = b""
        self.deadline = time.monotonic() + CLIENT_TIMEOUT
        self.answered = False


class UnreadyResponder:
    """``reason`` says why calls cannot be answered, None if they can; ``new_id`` creates request ids; ``waiting``: how
    many calls the dispatcher may let wait."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        listener: socket.socket,
        board: SharedMetrics,
        reason: Callable[[], Optional[str]],
        new_id: Callable[[HttpRequest], str],
        waiting: int = 0,
    ) -> None:
        self._selector = selector
        self._listener = listener
        self._board = board
        self._reason = reason
        self._new_id = new_id
        self._most = MOST_CLIENTS + waiting
        self._clients: set[UnreadyClient] = set()
        self._on_duty = False

    def serve(self, on_duty: bool) -> None:
        """Start or stop accepting clients. Accepted ones are served to the end."""
        if on_duty == self._on_duty:
            return
        self._on_duty = on_duty
        if on_duty:
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        else:
            self._selector.unregister(self._listener)

    def close_expired(self, now: float) -> None:
        """Close the connections whose time is over."""
        for client in [client for client in self._clients if client.deadline <= now]:
            self._close(client)

    def close_in_child(self) -> None:
        """Close the supervisor's connections in a forked worker; they would otherwise stay open for as long as the
        worker lives."""
        for client in self._clients:
            client.socket.close()

    def _accept(self) -> None:
        if not self._on_duty:
            return  # relieved by what was told beside this client: a worker answers it
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return  # a worker was faster, or the client left
        self.take(sock, None, self._board.rows[0].answered)

    def take(
        self, sock: socket.socket, problem: Optional[ServingProblem], record: Callable[[int], None]
    ) -> None:
        """Answer a client's request with the problem, None: that there is no worker, and end the connection. ``record``
        counts the status. Requests for the state of the container are answered as such."""
        if len(self._clients) >= self._most:
            sock.close()
            return
        sock.setblocking(False)
        client = UnreadyClient(sock, problem, record)
        self._clients.add(client)
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._read(client))

    def _read(self, client: UnreadyClient) -> None:
        try:
            data = client.socket.recv(65536)
            if not data:
                self._close(client)
            elif not client.answered:
                client.received += data
                self._answer_if_complete(client)
        except BlockingIOError:
            return
        except OSError:
            self._close(client)

    def _answer_if_complete(self, client: UnreadyClient) -> None:
        end = client.received.find(b"\r\n\r\n")
        if end < 0 and len(client.received) <= http1.MAX_HEAD:
            return
        request_id, path, without_body = "-", None, False
        try:
            if end < 0:
                raise ServingProblem(
                    problems.LARGE_HEAD, f"the header fields are larger than {http1.MAX_HEAD} bytes"
                )
            request = http1.parse_head(client.received[: end + 2])
            request_id, path = self._new_id(request), request.path
            without_body = request.method == "HEAD"
            response = self._respond(request, client.problem)
        except ServingProblem as problem:
            response = http1.problem_response(problem, request_id, path)
        client.record(response.status)
        client.answered = True
        client.socket.send(http1.render(response, request_id, close=True, without_body=without_body))
        client.socket.shutdown(socket.SHUT_WR)

    def _respond(self, request: HttpRequest, problem: Optional[ServingProblem]) -> HttpResponse:
        if request.path in (*LIVE, "/metrics") and request.method not in ("GET", "HEAD"):
            return http1.other_method(request, "GET, HEAD")
        if request.path in LIVE:
            return HttpResponse(200, b'{"live": true}')
        if request.path == "/metrics":
            return HttpResponse(200, self._board.text().encode(), "text/plain; version=0.0.4; charset=utf-8")
        if problem is not None:
            raise problem
        reason = self._reason()
        if reason is not None:
            raise ServingProblem(problems.NOT_READY, reason, retry_after=1)
        if request.path in READY:
            return self._board.ready_response()
        if request.path.startswith(STATE_PATHS):
            raise ServingProblem(problems.NOT_FOUND, f"there is nothing at {request.path[:200]}")
        # Its connection was accepted while there was no worker, its request came when there was one.
        raise ServingProblem(problems.NOT_READY, "a worker has just become ready", retry_after=1)

    def _close(self, client: UnreadyClient) -> None:
        self._clients.discard(client)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(client.socket)
        client.socket.close()
