"""The prober against real HTTP servers on loopback, good ones and bad ones."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from controller.adapters.probe import DETAIL_LIMIT, HttpProber
from controller.domain.apps.smoke import MAX_FILE, SmokeAnswer, SmokeCase
from controller.domain.apps.spec import SmokeTest
from controller.ports import Readiness
from tests.support.specs import make


@contextmanager
def answering(raw: bytes) -> Iterator[str]:
    """`IP:PORT` of a server that reads one request and answers with these bytes."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with closing(connection):
                read = connection.recv(65536)
                while read.startswith(b"POST") and not read.endswith(CASE.request):
                    read += connection.recv(65536)  # the body comes apart from its head
                connection.sendall(raw)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield "127.0.0.1:{1}".format(*listener.getsockname())
        thread.join()


def answer(status: str, kind: str, body: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body.encode())}\r\n\r\n"
    return (head + body).encode()


def probe(raw: bytes) -> Readiness:
    with answering(raw) as endpoint:
        return HttpProber().probe(endpoint, "/ready", 5)


def test_200_is_ready() -> None:
    assert probe(answer("200 OK", "text/plain", "yes")) == Readiness(True)


@pytest.mark.parametrize(
    "status", ["204 No Content", "302 Found", "404 Not Found", "503 Service Unavailable"]
)
def test_everything_else_is_not(status: str) -> None:
    readiness = probe(answer(status, "text/html", "<p>no</p>"))
    assert readiness == Readiness(False, f"/ready answers {status[:3]}")


def test_a_problem_speaks_for_itself() -> None:
    problem = json.dumps({"title": "Not ready", "detail": "loading the\nmodel"})
    readiness = probe(answer("503 No", "application/problem+json", problem))
    assert readiness.detail == "/ready answers 503: loading the model"


@pytest.mark.parametrize("body", ["{", "[]", "3", '{"detail": 3}', "{}"])
def test_json_that_is_no_problem_is_passed_over(body: str) -> None:
    assert probe(answer("500 No", "application/json", body)).detail == "/ready answers 500"


def test_plain_text_is_cut() -> None:
    detail = probe(answer("500 No", "text/plain; charset=utf-8", "x" * 100_000)).detail
    assert detail == f"/ready answers 500: {'x' * DETAIL_LIMIT}"


@pytest.mark.parametrize("raw", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 ok\r\n\r\n"])
def test_what_does_not_speak_http_is_not_ready(raw: bytes) -> None:
    readiness = probe(raw)
    assert not readiness.ready
    assert readiness.detail.startswith("no HTTP answer: ")


def test_nobody_listens() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        endpoint = "127.0.0.1:{1}".format(*listener.getsockname())
    assert HttpProber().probe(endpoint, "/", 5) == Readiness(False, "it is not listening yet")


def test_a_server_that_never_answers() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        endpoint = "127.0.0.1:{1}".format(*listener.getsockname())
        assert HttpProber().probe(endpoint, "/", 0.05) == Readiness(False, "no answer within 0.05 s")


def test_a_server_that_dribbles_holds_nobody_up() -> None:
    done = threading.Event()
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        endpoint = "127.0.0.1:{1}".format(*listener.getsockname())

        def dribble() -> None:
            connection, _ = listener.accept()
            with closing(connection), suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while not done.wait(0.05):
                    connection.sendall(b"X: y\r\n")

        thread = threading.Thread(target=dribble, daemon=True)
        thread.start()
        assert HttpProber().probe(endpoint, "/", 0.3) == Readiness(False, "no answer within 0.3 s")
        done.set()
        thread.join()


def test_a_real_server() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        endpoint = f"127.0.0.1:{server.server_port}"
        assert HttpProber().probe(endpoint, "/", 5).ready
        assert not HttpProber().probe(endpoint, "/nowhere", 5).ready
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("endpoint", "path"), [("127.0.0.1:port", "/"), ("127.0.0.1:1", "/a b")])
def test_nonsense_does_not_raise(endpoint: str, path: str) -> None:
    assert not HttpProber().probe(endpoint, path, 1).ready


CASE = SmokeCase(make(SmokeTest, path="/score?all=1"), b'{"a": 1}', None)


def call(raw: bytes, timeout: float = 5) -> SmokeAnswer:
    with answering(raw) as endpoint:
        return HttpProber().call(endpoint, CASE, {"X-A": "b"}, timeout, lambda: False)


def test_a_smoke_test_gets_any_answer() -> None:
    assert call(answer("200 OK", "application/json", "[]")) == SmokeAnswer(200, b"[]")
    assert call(answer("500 No", "text/plain", "no")) == SmokeAnswer(500, b"no")
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\n\r\n"
    assert call(chunked) == SmokeAnswer(200, b"[1]")


def test_of_an_answer_with_files_only_the_json_is_read() -> None:
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Prichal-Files: 2; 0=3\r\n\r\n[]\x00\x01\x02"
    assert call(reply) == SmokeAnswer(200, b"[]")
    odd = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Prichal-Files: lots\r\n\r\n[]"
    assert call(odd) == SmokeAnswer(200, b"[]")


def test_a_large_answer_is_read_in_part() -> None:
    assert len(call(answer("200 OK", "text/plain", "x" * 3 * MAX_FILE)).body) == MAX_FILE + 1


@pytest.mark.parametrize("raw", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"])
def test_what_is_no_answer_to_a_smoke_test(raw: bytes) -> None:
    assert "the connection was cut" in call(raw).failure


def test_the_request_of_a_smoke_test() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        seen: list[bytes] = []

        def serve() -> None:
            connection, _ = listener.accept()
            with closing(connection):
                while not b"".join(seen).endswith(CASE.request):
                    seen.append(connection.recv(65536))
                connection.sendall(answer("200 OK", "application/json", "1"))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        HttpProber().call(
            "127.0.0.1:{1}".format(*listener.getsockname()), CASE, {"X-A": "b"}, 5, lambda: False
        )
        thread.join()
    head = b"".join(seen)
    assert head.startswith(b"POST /score?all=1 HTTP/1.1\r\n")
    assert b"\r\nX-A: b\r\n" in head
    assert b"\r\nAccept: application/json\r\n" in head


def test_a_smoke_test_without_an_answer_ends() -> None:
    prober = HttpProber()
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        endpoint = "127.0.0.1:{1}".format(*listener.getsockname())
        assert prober.call(endpoint, CASE, {}, 0.05, lambda: False).failure == "it took longer than 0.05 s"
        assert "the connection was cut" in prober.call(endpoint, CASE, {}, 60, lambda: True).failure
    assert prober.call(endpoint, CASE, {}, 5, lambda: False).failure == "it is not listening any more"


def test_what_asks_whether_to_give_up_may_fail() -> None:
    def fail() -> bool:
        raise ValueError("the database is gone")

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        endpoint = "127.0.0.1:{1}".format(*listener.getsockname())
        assert "the connection was cut" in HttpProber().call(endpoint, CASE, {}, 60, fail).failure
