"""HTTP/1.1 on the wire: framing, limits, and nothing that could smuggle a request past a proxy."""

from __future__ import annotations

import json
import re
import socket

import pytest

from tests.unit.serving.conftest import Serve
from tests.unit.serving.server import Server, read_all, read_response, text, text_function

BODY = json.dumps(text()).encode()
HEAD = b"Host: a\r\nContent-Type: application/json\r\n"
GOOD = b"POST /predict HTTP/1.1\r\n" + HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


def statuses(received: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def chunked(*sizes_and_data: tuple[bytes, bytes], trailer: bytes = b"\r\n") -> bytes:
    return b"".join(size + b"\r\n" + data + b"\r\n" for size, data in sizes_and_data) + b"0\r\n" + trailer


SMUGGLING = {
    "length and chunked": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "two equal lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "list of lengths": HEAD + b"Content-Length: 5, 5\r\n\r\nhello",
    "signed length": HEAD + b"Content-Length: +5\r\n\r\nhello",
    "negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "spaced length": HEAD + b"Content-Length: 1 2\r\n\r\n",
    "hexadecimal length": HEAD + b"Content-Length: 0x5\r\n\r\nhello",
    "unicode digits": HEAD + "Content-Length: ٥\r\n\r\n".encode(),
    "endless length": HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
    "blank before colon": HEAD + b"Content-Length : 5\r\n\r\nhello",
    "folded line": HEAD + b"X-A: b\r\n c\r\n\r\n",
    "bare line feed": HEAD + b"X-A: b\nX-B: c\r\n\r\n",
    "bare carriage return": HEAD + b"X-A: b\rX-B: c\r\n\r\n",
    "null byte": HEAD + b"X-A: b\0\r\n\r\n",
    "no colon": HEAD + b"X-A\r\n\r\n",
    "empty name": HEAD + b": b\r\n\r\n",
    "odd name": HEAD + b"X(A): b\r\n\r\n",
    "two hosts": HEAD + b"Host: b\r\n\r\n",
    "no host": b"Content-Length: 0\r\n\r\n",
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk size signed": HEAD + b"Transfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n",
    "chunk size hexadecimal prefix": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
    "chunk size empty": HEAD + b"Transfer-Encoding: chunked\r\n\r\n\r\na\r\n0\r\n\r\n",
    "chunk size huge": HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffff\r\na\r\n0\r\n\r\n",
    "chunk too long": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    "chunk ends with a line feed": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
    "chunk extension with a control": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;a=\x01\r\na\r\n0\r\n\r\n",
    "chunk line without end": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 1000,
    "trailer malformed": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX A: b\r\n\r\n",
}


@pytest.mark.parametrize("case", SMUGGLING)
def test_ambiguous_framing_is_400_and_the_connection_closes(echo: Server, case: str) -> None:
    received = echo.raw(b"POST /predict HTTP/1.1\r\n" + SMUGGLING[case] + GOOD)
    assert statuses(received) == [400]  # one answer: what follows was not read as a request
    assert b"Connection: close\r\n" in received
    assert b"application/problem+json" in received


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /docs HTTP/2.0", 505),
        (b"PRI * HTTP/2.0", 505),
        (b"GET /docs HTTP/0.9", 505),
        (b"GET /docs", 400),
        (b"GET  /docs HTTP/1.1", 400),
        (b"GET /do cs HTTP/1.1", 400),
        (b"GET docs HTTP/1.1", 400),
        (b"G\xc3\x89T /docs HTTP/1.1", 400),
        (b" GET /docs HTTP/1.1", 400),
        (b"GET /docs HTTP/1.1 ", 400),
        (b"GET /\x7f HTTP/1.1", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1", 414),
        (b"GET /docs HTTP/1.1\r\nX: " + b"a" * 40_000, 431),
        (b"GET /docs HTTP/1.1\r\n" + b"X: a\r\n" * 101 + b"Y: b", 431),
        (b"POST /predict HTTP/1.1\r\nTransfer-Encoding: gzip, chunked", 501),
        (b"POST /predict HTTP/1.1\r\nExpect: more", 417),
        (b"POST /predict HTTP/1.0\r\nTransfer-Encoding: chunked", 400),
        (b"GET http://a/health/live HTTP/1.1", 200),
        (b"GET /health/live?x=1 HTTP/1.1", 200),
        (b"GET /health/live HTTP/1.0", 200),
        (b"GET / HTTP/1.1", 404),
        (b"GET /predict HTTP/1.1", 405),
        (b"DELETE /docs HTTP/1.1", 405),
        (b"OPTIONS * HTTP/1.1", 404),
    ],
)
def test_request_lines(echo: Server, line: bytes, status: int) -> None:
    assert statuses(echo.raw(line + b"\r\nHost: a\r\n\r\n")) == [status]


def test_405_names_the_methods(echo: Server) -> None:
    assert echo.get("/predict").headers["allow"] == "POST, OPTIONS"
    assert echo.ask("PUT", "/docs").headers["allow"] == "GET, HEAD, OPTIONS"


def test_head_has_the_length_and_no_body(echo: Server) -> None:
    whole = echo.get("/openapi.json")
    received = echo.raw(b"HEAD /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b"Content-Length: %d\r\n" % len(whole.body) in received
    assert received.endswith(b"\r\n\r\n")


def test_keep_alive_and_pipelining_answer_in_order(echo: Server) -> None:
    bodies = [json.dumps({**text(f"n{i}"), "id": str(i)}).encode() for i in range(20)]
    requests = [
        b"POST /predict HTTP/1.1\r\n" + HEAD + b"Content-Length: %d\r\n\r\n" % len(b) + b for b in bodies
    ]
    with echo.connect() as sock, sock.makefile("rb") as stream:
        sock.sendall(b"".join(requests))
        replies = [read_response(stream) for _ in requests]
    assert [reply.json["id"] for reply in replies] == [str(i) for i in range(20)]
    assert [reply.outputs["text"] for reply in replies] == [f"n{i}" for i in range(20)]
    assert not any("connection" in reply.headers for reply in replies)


def test_a_request_in_single_bytes(echo: Server) -> None:
    with echo.connect() as sock, sock.makefile("rb") as stream:
        for i in range(len(GOOD)):
            sock.sendall(GOOD[i : i + 1])
        assert read_response(stream).outputs == {"text": "hi"}
        sock.sendall(b"\r\n" + GOOD)  # an empty line before a request is not an error
        assert read_response(stream).outputs == {"text": "hi"}


@pytest.mark.parametrize("option", [b"Connection: close\r\n", b"Connection: keep-alive, Close\r\n"])
def test_close_is_obeyed(echo: Server, option: bytes) -> None:
    request = b"GET /health/live HTTP/1.1\r\nHost: a\r\n" + option + b"\r\n"
    with echo.connect() as sock:
        sock.sendall(request * 2)
        assert statuses(read_all(sock)) == [200]


def test_http_1_0_closes(echo: Server) -> None:
    with echo.connect() as sock:
        sock.sendall(b"GET /health/live HTTP/1.0\r\n\r\n")
        assert statuses(read_all(sock)) == [200]


def test_chunked_bodies(echo: Server) -> None:
    pieces = [BODY[i : i + 7] for i in range(0, len(BODY), 7)]
    encoded = chunked(
        *[(b"%X ;name=value" % len(piece), piece) for piece in pieces], trailer=b"X-T: v\r\n\r\n"
    )
    request = b"POST /predict HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: Chunked\r\n\r\n" + encoded
    with echo.connect() as sock, sock.makefile("rb") as stream:
        sock.sendall(request + GOOD)
        assert read_response(stream).outputs == {"text": "hi"}
        assert read_response(stream).outputs == {"text": "hi"}


def test_expect_continue(echo: Server) -> None:
    head = b"POST /predict HTTP/1.1\r\n" + HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    with echo.connect() as sock, sock.makefile("rb") as stream:
        sock.sendall(head % len(BODY))
        assert stream.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert stream.readline() == b"\r\n"
        sock.sendall(BODY)
        assert read_response(stream).outputs == {"text": "hi"}


def test_expect_continue_for_a_body_that_is_too_large_is_413_at_once(echo: Server) -> None:
    head = b"POST /predict HTTP/1.1\r\n" + HEAD + b"Expect: 100-continue\r\nContent-Length: 100001\r\n\r\n"
    with echo.connect() as sock:
        sock.sendall(head)
        assert statuses(read_all_after_half_close(sock)) == [413]


def read_all_after_half_close(sock: socket.socket) -> bytes:
    first = sock.recv(1 << 16)  # the answer comes without the body having been sent
    sock.shutdown(socket.SHUT_WR)
    return first + read_all(sock)


@pytest.mark.parametrize("size", [100_001, 25_000_000])
def test_a_body_over_the_limit_is_413_even_for_a_client_that_sends_it_all(echo: Server, size: int) -> None:
    reply = echo.post(b"x" * size)
    assert reply.status == 413
    assert reply.json["limit"] == 100_000
    assert reply.headers["connection"] == "close"


def test_a_chunked_body_over_the_limit_is_413(echo: Server) -> None:
    encoded = chunked(*[(b"8000", b"x" * 0x8000)] * 4)
    received = echo.raw(
        b"POST /predict HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + encoded
    )
    assert statuses(received) == [413]


def test_a_body_of_exactly_the_limit_is_read(echo: Server) -> None:
    frame = len(json.dumps(text("")))
    assert echo.post(text("x" * (100_000 - frame))).status == 200
    assert echo.post(text("x" * (100_001 - frame))).status == 413


@pytest.mark.parametrize(
    "kind", ["text/plain", "", "application/json; charset=utf-16", "multipart/form-data"]
)
def test_another_content_type_is_415(echo: Server, kind: str) -> None:
    assert echo.ask("POST", "/predict", BODY, {"Content-Type": kind} if kind else {}).status == 415


@pytest.mark.parametrize(
    "kind", ["application/json; charset=UTF-8", "Application/JSON", "application/vnd.x+json"]
)
def test_content_types_that_are_json(echo: Server, kind: str) -> None:
    assert echo.ask("POST", "/predict", BODY, {"Content-Type": kind}).status == 200


@pytest.mark.parametrize("sent", ["abc", "a-b_c.d:e/f+g=@1", "x" * 128])
def test_a_sound_request_id_is_taken(echo: Server, sent: str) -> None:
    assert echo.post(text(), X_Request_ID=sent).headers["x-request-id"] == sent


@pytest.mark.parametrize("sent", ["", "a b", "x" * 129, "a;b", "é"])
def test_an_unsound_request_id_is_replaced(echo: Server, sent: str) -> None:
    got = echo.post(text(), X_Request_ID=sent).headers["x-request-id"]
    assert got != sent
    assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]+", got)


def test_the_date_is_an_http_date(echo: Server) -> None:
    date = echo.get("/health/live").headers["date"]
    assert re.fullmatch(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", date)


def test_more_calls_than_the_queue_takes_are_503(serve: Serve) -> None:
    body = 'while not os.path.exists("go"): time.sleep(0.01)\nreturn {"text": "ok"}'
    server = serve(text_function(body), concurrency=1, queue=1).ready()
    running, waiting = server.in_background(text()), server.in_background(text())
    while server.get("/health/ready").json["waiting"] < 1:
        pass
    refused = server.post(text())
    assert refused.status == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.json["retryAfter"] == 1
    assert "1 calls run and 1 wait" in refused.json["detail"]
    server.release()
    assert running.reply().status == waiting.reply().status == 200


def test_health_answers_while_every_slot_is_taken(serve: Serve) -> None:
    body = 'while not os.path.exists("go"): time.sleep(0.01)\nreturn {"text": "ok"}'
    server = serve(text_function(body), concurrency=1, queue=0).ready()
    running = server.in_background(text())
    while server.get("/health/ready").json["running"] < 1:
        pass
    assert server.get("/health/ready").status == 200  # taken by a call that moves
    assert "calls_in_flight 1" in server.get("/metrics").body.decode()
    server.release()
    assert running.reply().status == 200


def test_connections_beyond_the_most_are_turned_away(serve: Serve) -> None:
    server = serve(concurrency=1, queue=0).ready()
    most = 1 + 0 + 128
    sockets = [server.connect() for _ in range(most)]
    for sock in sockets:  # each is served, so none is still in the backlog
        sock.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")
    with server.connect() as late:
        assert statuses(read_all(late)) == [503]
    for sock in sockets:
        sock.close()


def test_sigterm_serves_what_runs_and_closes(serve: Serve) -> None:
    body = 'while not os.path.exists("go"): time.sleep(0.01)\nreturn {"text": "ok"}'
    server = serve(text_function(body)).ready()
    with server.connect() as idle, server.connect() as begun, server.connect() as busy:
        idle.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        assert idle.recv(1000).startswith(b"HTTP/1.1 200")
        busy.sendall(GOOD)
        begun.sendall(GOOD[:40])
        while server.get("/health/ready").json["running"] < 1:
            pass
        server.process.terminate()
        assert read_all(idle) == b""  # told the connection's end at once
        begun.sendall(GOOD[40:])
        server.release()
        for sock in (busy, begun):
            received = read_all(sock)
            assert statuses(received) == [200]
            assert b"Connection: close\r\n" in received
    assert server.stop() == 0
    assert server.lines()[-1] == "prichal: stopped"
    with pytest.raises(ConnectionRefusedError):
        server.connect()


def test_a_second_signal_does_not_wait(serve: Serve) -> None:
    server = serve(text_function("threading.Event().wait()")).ready()
    call = server.in_background(text())
    while server.get("/health/ready").json["running"] < 1:
        pass
    server.process.terminate()
    with pytest.raises(ConnectionRefusedError):
        while True:
            server.connect().close()
    server.process.terminate()
    assert server.wait_ended() == 0
    assert isinstance(call.result(), Exception)


def test_several_processes_share_the_port_and_the_metrics(serve: Serve) -> None:
    source = text_function('return {"text": str(os.getpid())}')
    server = serve(source, processes=2, concurrency=4).ready(times=2)
    seen: set[str] = set()
    count = 0
    while len(seen) < 2:
        seen.add(server.post(text()).outputs["text"])
        count += 1
    assert f'requests_total{{route="inference",code="200"}} {count}' in server.get("/metrics").body.decode()
    assert server.stop() == 0


def test_sigterm_during_set_up_ends_at_once(serve: Serve) -> None:
    server = serve("import threading; threading.Event().wait()")
    assert server.get("/health/live").status == 200
    assert server.stop() == 0
    assert server.lines()[-1] == "prichal: stopped"
