"""Calls through a real gunicorn: what passes, what is refused, and how routes change under load."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from controller.domain.names import AppName
from tests.support.gateway import make_api
from tests.support.waiting import wait_for

from .conftest import Web, demo_route, echo

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ANN = "Basic " + base64.b64encode(b"ann:s3cret").decode()


def test_a_call_passes(web: Web) -> None:
    reply = web.ask(
        "POST", "/demo/open/predict?x=1", b'{"inputs": []}', x_request_id="call-1", traceparent=TRACE
    )
    assert reply.status == 200
    assert reply.headers["x-request-id"] == "call-1"
    seen = reply.json
    headers = {name.lower(): value for name, value in seen["headers"].items()}
    assert seen["line"] == "POST /predict?x=1 HTTP/1.1"
    assert seen["size"] == 14
    assert headers["host"] == "{}:{}".format(*web.address)
    assert headers["x-request-id"] == "call-1"
    assert headers["traceparent"] == TRACE
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-host"] == "{}:{}".format(*web.address)
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-prefix"] == "/demo/open"


def test_a_trace_that_is_malformed_does_not_pass(web: Web) -> None:
    reply = web.ask("POST", "/demo/open/predict", b"{}", traceparent="00-ab-cd-01", tracestate="a=1")
    assert not {"traceparent", "tracestate"} & {name.lower() for name in reply.json["headers"]}


def test_errors_are_problems_with_a_request_id(web: Web) -> None:
    for path in ("/demo/hidden/predict", "/demo/none/predict", "/nobody/at/all"):
        reply = web.ask("POST", path, b"{}")
        assert (reply.status, reply.headers["content-type"]) == (404, "application/problem+json")
        document = reply.json
        assert document["instance"] == f"urn:prichal:request:{reply.headers['x-request-id']}"
        document.pop("instance")
        assert document == {
            "type": "urn:prichal:problem:not-found",
            "title": "There is nothing at this path",
            "status": 404,
            "detail": "No API is published here.",
        }


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/demo/none/v2", 404),
        ("GET", "/demo/hidden/v2/models/net", 404),
        ("POST", "/demo/closed/v2/models/net/infer", 401),
        ("GET", "/demo/open/v2/../v2", 400),
        ("POST", "/demo/open/v2/models/net/infer", 413),
    ],
)
def test_clients_of_the_open_inference_protocol_find_the_error(
    web: Web, method: str, path: str, status: int
) -> None:
    reply = web.ask(method, path, b"x" * (2**20 + 1) if status == 413 else None)
    assert (reply.status, reply.json["error"]) == (status, reply.json["detail"])


SPOOFS = {
    "X-Forwarded-User": "root",
    "X-Remote-User": "root",
    "Remote-User": "root",
    "X-Auth-Request-User": "root",
    "UNIP-USER": "root",
    "X_Forwarded_User": "root",
    "UNIP_USER": "root",
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Prefix": "/evil",
}


def test_nobody_can_claim_to_be_someone(web: Web) -> None:
    for path, authorization, user in (
        ("/demo/open/x", "", None),
        ("/demo/closed/x", ANN, "ann"),
        ("/demo/closed/x", "Bearer t0ken", "ci"),
        ("/demo/closed/x", "Basic " + base64.b64encode("böb:pass".encode()).decode(), "böb"),
    ):
        reply = web.ask("GET", path, **SPOOFS, Authorization=authorization)
        headers = {name.lower(): value for name, value in reply.json["headers"].items()}
        assert "root" not in headers.values()
        assert (headers.get("x-forwarded-user") or "").encode("latin-1").decode() == (user or "")
        assert "authorization" not in headers
        assert headers["x-forwarded-for"] == "127.0.0.1"
        assert headers["x-forwarded-prefix"] == path.removesuffix("/x")


def test_a_closed_api(web: Web) -> None:
    before = len(web.component.seen)
    wrong = base64.b64encode(b"ann:wrong").decode()
    unknown = base64.b64encode(b"eve:s3cret").decode()
    for authorization in ("", f"Basic {wrong}", f"Basic {unknown}", "Bearer nope"):
        reply = web.ask("POST", "/demo/closed/predict", b"{}", Authorization=authorization)
        assert reply.status == 401
        assert reply.headers["www-authenticate"].startswith('Basic realm="/demo/closed"')
        assert reply.json["detail"] == "The credentials are missing or wrong."
    assert len(web.component.seen) == before


def head(*lines: str, path: str = "/demo/open/x") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: a", *lines, "", ""]).encode("latin-1")


SMUGGLED = b"GET /demo/closed/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        head("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n" + SMUGGLED,
        head("Transfer-Encoding: chunked", "Content-Length: 5") + b"0\r\n\r\n" + SMUGGLED,
        head("Content-Length: 0", "Content-Length: 50") + SMUGGLED,
        head("Content-Length: 0, 50") + SMUGGLED,
        head("Content-Length: +0") + SMUGGLED,
        head("Content-Length: 0x0") + SMUGGLED,
        head("Content-Length : 0") + SMUGGLED,
        head("Transfer-Encoding : chunked") + b"0\r\n\r\n" + SMUGGLED,
        head("Transfer-Encoding: xchunked") + b"0\r\n\r\n" + SMUGGLED,
        head("Transfer-Encoding: chunked, identity") + b"0\r\n\r\n" + SMUGGLED,
        head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + b"0\r\n\r\n" + SMUGGLED,
        head("X: a\r\n folded") + SMUGGLED,
        head("X: a\nTransfer-Encoding: chunked") + b"0\r\n\r\n" + SMUGGLED,
        head("Transfer-Encoding: chunked") + b"1;\nx\r\n\r\n" + SMUGGLED,
        head("Transfer-Encoding: chunked") + b"-1\r\n\r\n" + SMUGGLED,
        head("Transfer-Encoding: chunked") + b"0x1\r\na\r\n0\r\n\r\n" + SMUGGLED,
        b"POST /demo/open/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + SMUGGLED,
        b"POST /demo/open/x HTTP/9.9\r\nHost: a\r\n\r\n" + SMUGGLED,
        b"POST /demo/open/x\r\n\r\n" + SMUGGLED,
        b"POST /demo/open/ x HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED,
    ],
)
def test_a_request_that_reads_two_ways_is_refused(web: Web, request_bytes: bytes) -> None:
    """Either refused with the connection closed, or read in the one way that hides nothing."""
    before = len(web.component.seen)
    answer = web.raw(request_bytes)
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 501", b"HTTP/1.0 400", b"HTTP/1.1 505")), answer[
        :200
    ]
    assert b"\r\nHTTP/1." not in answer, "there is more than one answer"
    assert not any("smuggled" in line for line in web.component.seen[before:])


@pytest.mark.parametrize("coding", ["gzip, chunked", "gzip,chunked", "deflate, chunked", "identity, chunked"])
@pytest.mark.parametrize("path", ["/demo/open/x", "/demo/none/x", "/-/login", "/-/git/a.git/git-upload-pack"])
def test_other_transfer_codings_are_not_understood(web: Web, coding: str, path: str) -> None:
    before = len(web.component.seen)
    answer = web.raw(head(f"Transfer-Encoding: {coding}", path=path) + b"0\r\n\r\n" + SMUGGLED)
    assert answer.startswith(b"HTTP/1.1 501 Not Implemented\r\n"), answer[:200]
    assert answer.count(b"HTTP/1.1") == 1
    assert b"The only transfer coding that is understood is chunked" in answer
    assert len(web.component.seen) == before


def test_what_is_pipelined_is_authorised_on_its_own(web: Web) -> None:
    ordinary = b"GET /demo/open/first HTTP/1.1\r\nHost: a\r\n\r\n"
    last = b"GET /demo/closed/second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    answer = web.raw(ordinary + last)
    assert answer.count(b"HTTP/1.1 200") == 1
    assert answer.count(b"HTTP/1.1 401") == 1


@pytest.mark.parametrize(
    "path", ["//demo/open/x", "/demo/open/../closed/x", "/demo/open/%2e%2e/x", "/demo/open/a%2fb"]
)
def test_ambiguous_paths(web: Web, path: str) -> None:
    before = len(web.component.seen)
    assert web.ask("GET", path).status in (400, 404)
    assert len(web.component.seen) == before


def test_bodies_of_all_sizes(web: Web) -> None:
    for size in (0, 1, 65_535, 65_536, 300_000, 2**20):
        reply = web.ask("POST", "/demo/open/predict", b"x" * size)
        assert reply.json["size"] == size


def test_a_body_over_the_limit(web: Web) -> None:
    before = len(web.component.seen)
    reply = web.ask("POST", "/demo/open/predict", b"x" * (2**20 + 1))
    assert (reply.status, reply.json["limit"]) == (413, 2**20)
    assert len(web.component.seen) == before


def test_a_body_over_the_limit_is_not_asked_for(web: Web) -> None:
    with socket.create_connection(web.address, timeout=30) as sock:
        sock.sendall(head("Content-Length: 99999999", "Expect: 100-continue"))
        assert sock.recv(65536).startswith(b"HTTP/1.1 413")


def test_expect_100_continue(web: Web) -> None:
    with socket.create_connection(web.address, timeout=30) as sock:
        sock.sendall(head("Content-Length: 3", "Expect: 100-continue", "Connection: close"))
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"abc")
        answer = b""
        while part := sock.recv(65536):
            answer += part
    document = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert document["size"] == 3
    assert "expect" not in {name.lower() for name in document["headers"]}


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_caller_who_sends_no_more_gets_the_answer(web: Web, version: str) -> None:
    """As `nc` and some clients of HTTP/1.0 do it."""
    for request, size in ((f"GET /demo/open/x HTTP/{version}", 0), (f"POST /demo/open/x HTTP/{version}", 3)):
        with socket.create_connection(web.address, timeout=30) as sock:
            sock.sendall(f"{request}\r\nHost: a\r\nContent-Length: {size}\r\n\r\n{'a' * size}".encode())
            sock.shutdown(socket.SHUT_WR)
            answer = b""
            while part := sock.recv(65536):
                answer += part
        assert f"HTTP/{version} 200 OK".encode() in answer
        assert json.loads(answer.rpartition(b"\r\n\r\n")[2])["size"] == size


def test_a_caller_who_leaves_ends_the_component_s_call(web: Web) -> None:
    with socket.create_connection(web.address, timeout=30) as sock:
        sock.sendall(b"GET /demo/open/watch HTTP/1.1\r\nHost: a\r\n\r\n")
        assert web.component.held.acquire(timeout=30)
    assert web.component.left.wait(30)


def test_many_callers(web: Web) -> None:
    def call(number: int) -> bool:
        reply = web.ask(
            "POST", "/demo/closed/predict", b"x" * number, Authorization=ANN, x_request_id=f"c-{number}"
        )
        headers = {k.lower(): v for k, v in reply.json["headers"].items()}
        return bool(reply.json["size"] == number and headers["x-request-id"] == f"c-{number}")

    with ThreadPoolExecutor(32) as threads:
        assert all(threads.map(call, range(300)))


def test_a_route_switches_while_calls_are_under_way(web: Web) -> None:
    """No call fails; the retired endpoint is drained only when its last call has ended."""
    with echo("second") as second, echo("retired") as old, ThreadPoolExecutor(9) as threads:
        web.store.routes.switch(demo_route(old.endpoint))
        wait_for(lambda: web.ask("GET", "/demo/open/x").json["name"] == "retired")
        held = threads.submit(web.ask, "GET", "/demo/open/hold")
        assert old.held.acquire(timeout=30)

        stop = threading.Event()
        names: list[set[Any]] = []

        def keep_calling() -> None:
            mine: set[Any] = set()
            while not stop.is_set():
                reply = web.ask("POST", "/demo/open/predict", b"{}")
                mine.add(reply.json["name"] if reply.status == 200 else reply.status)
            names.append(mine)

        callers = [threads.submit(keep_calling) for _ in range(8)]
        version = web.store.routes.switch(demo_route(second.endpoint))
        wait_for(lambda: web.ask("GET", "/demo/open/x").json["name"] == "second")
        assert not web.store.gateways.drained(old.endpoint, version, time.time())
        old.letting_go.set()
        assert held.result().json["name"] == "retired"
        wait_for(lambda: web.store.gateways.drained(old.endpoint, version, time.time()))
        seen = len(old.seen)
        stop.set()
        for caller in callers:
            caller.result()
        assert len(old.seen) == seen, "a drained endpoint got another call"
        assert set().union(*names) <= {"retired", "second"}

        web.store.routes.switch(demo_route(web.component.endpoint))
        wait_for(lambda: web.ask("GET", "/demo/open/x").json["name"] == "first")


def test_a_withdrawn_route_is_gone(web: Web) -> None:
    route = demo_route(web.component.endpoint, component="other", apis=(make_api("passing"),))
    web.store.routes.switch(route)
    wait_for(lambda: web.ask("GET", "/demo/passing/x").status == 200)
    web.store.routes.withdraw(route.app, route.component)
    wait_for(lambda: web.ask("GET", "/demo/passing/x").status == 404)


def test_a_component_without_ready_version(web: Web) -> None:
    route = demo_route(component="waking", apis=(make_api("waking"),))
    web.store.routes.switch(route)
    wait_for(lambda: web.ask("GET", "/demo/waking/x").status == 503)
    reply = web.ask("GET", "/demo/waking/x")
    assert reply.headers["retry-after"] == "2"
    assert "waking" in reply.json["detail"]


def test_requests_are_counted(web: Web) -> None:
    def count() -> float:
        page = web.ask("GET", "/-/metrics").body.decode()
        line = 'prichal_gateway_requests_total{api="demo/open",code="200"} '
        return sum(float(text.removeprefix(line)) for text in page.splitlines() if text.startswith(line))

    before = count()
    for _ in range(10):
        web.ask("GET", "/demo/open/x")
    wait_for(lambda: count() >= before + 10)


def test_calls_to_a_component_that_is_asleep_wait_until_it_is_awake(web: Web) -> None:
    """Those of both workers, with their bodies; a caller who may not call wakes nobody."""
    version = web.store.routes.switch(demo_route(asleep=True, wake_within=30.0))
    path, body = "/demo/open/x", b"x" * 300_000
    try:
        wait_for(lambda: web.store.gateways.drained(web.component.endpoint, version, time.time()))
        assert web.ask("GET", "/demo/closed/x").status == 401
        assert web.store.requests.queued(AppName("demo")) is None
        with ThreadPoolExecutor(16) as threads:
            calls = [threads.submit(web.ask, "POST", path, body) for _ in range(16)]
            queued = wait_for(lambda: web.store.requests.queued(AppName("demo")))
            assert queued is not None
            assert queued.reasons == ("wake",)
            assert "classify" in web.store.activity.of(AppName("demo"))
            assert not any(call.done() for call in calls)
            assert web.ask("GET", "/-/healthz").status == 200, "nobody else has to wait"
            line = 'prichal_gateway_requests_waiting{api="demo/open",reason="asleep"} 16.0'
            wait_for(lambda: line in web.ask("GET", "/-/metrics").body.decode())
            web.store.routes.switch(demo_route(web.component.endpoint, wake_within=30.0))
            assert [(call.result().status, call.result().json["size"]) for call in calls] == [
                (200, len(body))
            ] * 16
    finally:
        web.store.routes.switch(demo_route(web.component.endpoint))


def test_a_component_that_does_not_wake_up_is_told(web: Web) -> None:
    web.store.routes.switch(demo_route(asleep=True, wake_within=0.2))
    try:
        reply = wait_for(lambda: web.ask("GET", "/demo/open/x"), lambda reply: reply.status == 503)
        assert reply.headers["retry-after"] == "5"
        assert (reply.json["type"], reply.json["component"]) == ("urn:prichal:problem:not-ready", "classify")
    finally:
        web.store.routes.switch(demo_route(web.component.endpoint))
