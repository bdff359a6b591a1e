"""Connections that linger, and faults of the library itself, over a pair of real sockets."""

from __future__ import annotations

import contextlib
import math
import selectors
import socket
import threading
from collections.abc import Iterator

import pytest

from controller.serving.config import ServingSettings
from controller.serving.connection import ClientConnection, Handler, request_id
from controller.serving.http1 import HttpRequest, HttpResponse
from controller.serving.metrics import SharedMetrics
from controller.serving.unready import UnreadyResponder
from tests.unit.serving.server import read_all

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"


def echo(request: HttpRequest, _: ClientConnection) -> HttpResponse:
    return HttpResponse(200, request.body)


@contextlib.contextmanager
def client(handle: Handler, settings: ServingSettings) -> Iterator[socket.socket]:
    """The other end of a connection that is being served; at the end its thread is, too."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname(), timeout=60)
        theirs, _ = listener.accept()
    thread = threading.Thread(target=ClientConnection(theirs, handle, settings, lambda: False).serve)
    thread.start()
    with ours:
        yield ours
    thread.join(60)
    assert not thread.is_alive()


QUICK = ServingSettings("a:b", idle_timeout=0.2, read_timeout=0.2)


def test_an_idle_connection_is_closed_without_a_word() -> None:
    with client(echo, QUICK) as sock:
        assert read_all(sock) == b""
    with client(echo, QUICK) as sock:
        sock.sendall(GET + b"\r\n")
        assert read_all(sock).count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "begun", [GET, GET + b"Content-Length: 5\r\n\r\nhel", GET + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel"]
)
def test_a_request_that_stops_arriving_is_408(begun: bytes) -> None:
    with client(echo, ServingSettings("a:b", read_timeout=0.2)) as sock:
        sock.sendall(begun)
        received = read_all(sock)
    assert received.startswith(b"HTTP/1.1 408 ")
    assert b"nothing came for 0.2 s" in received


def test_who_comes_while_a_worker_becomes_ready_is_left_to_it() -> None:
    """One look may tell the supervisor of a client and, before it, of a worker that is ready."""
    with socket.create_server(("127.0.0.1", 0)) as listener, selectors.DefaultSelector() as selector:
        listener.setblocking(False)
        board = SharedMetrics(1)
        responder = UnreadyResponder(selector, listener, board, lambda: "it is being set up", request_id)
        responder.serve(True)
        with socket.create_connection(listener.getsockname(), timeout=60):
            ((key, _),) = selector.select(60)
            responder.serve(False)
            key.data()
            theirs, _ = listener.accept()
            theirs.close()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/predict", b"503"),
        ("/v2/models/m/infer", b"503"),
        ("/docs", b"503"),
        ("/nothing", b"503"),
        ("/health/ready", b"200"),
        ("/v2/health/live", b"200"),
        ("/metrics", b"200"),
        ("/health/nothing", b"404"),
    ],
)
def test_who_came_before_a_worker_was_ready_and_asks_after_it_is_asked_to_come_again(
    path: str, status: bytes
) -> None:
    """The gateway sends a call again that was refused; it must not be told that there is nothing at its path."""
    with socket.create_server(("127.0.0.1", 0)) as listener, selectors.DefaultSelector() as selector:
        listener.setblocking(False)
        reason: str | None = "it is being set up"
        responder = UnreadyResponder(selector, listener, SharedMetrics(1), lambda: reason, request_id)
        responder.serve(True)
        with socket.create_connection(listener.getsockname(), timeout=60) as sock:
            _serve_one(selector)
            responder.serve(False)
            reason = None
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            _serve_one(selector)
            received = read_all(sock)
            responder.close_expired(math.inf)
    assert received.startswith(b"HTTP/1.1 " + status), received
    assert (b"x-prichal-call: refused" in received.lower()) == (status == b"503"), received


def _serve_one(selector: selectors.BaseSelector) -> None:
    ((key, _),) = selector.select(60)
    key.data()


def test_a_client_that_leaves_in_the_middle_is_let_go() -> None:
    for begun in (GET, GET + b"Content-Length: 5\r\n\r\nhel", GET + b"Content-Length: 5\r\n\r\nhello"):
        with client(echo, ServingSettings("a:b")) as sock:
            sock.sendall(begun)


def test_a_fault_of_the_library_is_a_500_and_the_connection_goes_on(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail_once(request: HttpRequest, connection: ClientConnection) -> HttpResponse:
        if request.path == "/fail":
            raise OSError("a bug")
        return echo(request, connection)

    with client(fail_once, ServingSettings("a:b")) as sock:
        sock.sendall(GET.replace(b"/ ", b"/fail ") + b"\r\n" + GET + b"Connection: close\r\n\r\n")
        received = read_all(sock)
    assert received.startswith(b"HTTP/1.1 500 ")
    assert b"urn:prichal:problem:internal" in received
    assert b"HTTP/1.1 200 OK" in received
    assert "OSError: a bug" in capfd.readouterr().err
