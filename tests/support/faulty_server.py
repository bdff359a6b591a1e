"""Real HTTP servers in this process with injected faults, for tests of the clients of a platform's APIs."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.waiting import wait_for

#: Does something in the place of the right answer; False: the right answer is given all the same.
Fault = Callable[["FaultyHandler"], bool]


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    def fault(handler: FaultyHandler) -> bool:
        handler.body()
        handler.reply(code, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return True

    return fault


def after(condition: Callable[[], object], fault: Fault) -> Fault:
    """Not before something has happened."""

    def waiting(handler: FaultyHandler) -> bool:
        wait_for(condition)
        return fault(handler)

    return waiting


def cut(after: int) -> Fault:
    """The connection breaks after so many bytes, of the request's body or of the answer's."""

    def fault(handler: FaultyHandler) -> bool:
        if handler.command == "PUT":
            handler.rfile.read(after)
            handler.reset()
            return True
        handler.cut_after = after
        return False

    return fault


def lose_answer(handler: FaultyHandler) -> bool:
    """It is done, and nobody hears of it."""
    handler.cut_after = -1
    return False


def garble(handler: FaultyHandler) -> bool:
    """One bit is another one at the other end."""
    handler.garbled = True
    return False


class Gate:
    """Requests wait here until the test lets them go; `waiting` counts them."""

    def __init__(self) -> None:
        self.waiting = 0
        self.open = threading.Event()

    def __call__(self, handler: FaultyHandler) -> bool:
        self.waiting += 1
        self.open.wait(60)
        return False


class Orders:
    """`ordered` are faults by server and method, each for one request, in order; `seen` are the requests that
    came, as (server, method, path with query, headers)."""

    def __init__(self) -> None:
        self.ordered: list[tuple[str, str, Fault]] = []
        self.seen: list[tuple[str, str, str, dict[str, str]]] = []
        self.lock = threading.RLock()

    def order(self, server: str, method: str, *faults: Fault) -> None:
        self.ordered += [(server, method, fault) for fault in faults]

    def take(self, server: str, method: str) -> Fault | None:
        with self.lock:
            for index, (where, what, fault) in enumerate(self.ordered):
                if (where, what) == (server, method):
                    del self.ordered[index]
                    return fault
        return None

    def requests(self, server: str, method: str) -> list[str]:
        return [path for where, what, path, _ in self.seen if (where, what) == (server, method)]

    def headers(self, server: str, method: str) -> list[dict[str, str]]:
        return [headers for where, what, _, headers in self.seen if (where, what) == (server, method)]


class FaultyServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, orders: Orders, name: str, handler: type[FaultyHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.orders = orders
        self.name = name

    @contextmanager
    def serving(self) -> Iterator[None]:
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            self.server_close()
            thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients leave in the middle: that is what is tested."""


class FaultyHandler(BaseHTTPRequestHandler):
    """Subclasses define the `right_answer`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FaultyServer

    def answer(self) -> None:
        self.cut_after: int | None = None
        self.garbled = False
        self.left = int(self.headers.get("Content-Length", 0))
        orders, name = self.server.orders, self.server.name
        orders.seen.append((name, self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        fault = orders.take(name, self.command)
        if fault is None or not fault(self):
            self.right_answer()

    do_GET = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - names of the standard library

    def right_answer(self) -> None:
        raise NotImplementedError

    def body(self) -> bytes:
        """What has not been read of it yet."""
        left, self.left = self.left, 0
        return self.rfile.read(left)

    def reply(self, code: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        if self.cut_after == -1:
            self.reset()
            return
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.cut_after])
        if self.cut_after is not None:
            self.wfile.flush()
            self.close_connection = True

    def reset(self) -> None:
        """As a machine that dies, or a firewall that forgets."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass
