"""Spans of calls in the gateway: whose trace is continued, and what they are called."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvloop

from controller.domain.traces import TraceContext
from controller.tracing import OFF, current
from controller.web.gateway.body import IncomingBody, RequestBody
from controller.web.gateway.forward import ForwardedCall, Forwarder, ResponseState
from controller.web.gateway.hosts import HostRedirect
from controller.web.gateway.pool import ConnectionPool
from controller.web.gateway.router import LOCAL, Router, find_route, not_found
from controller.web.gateway.traces import (
    RequestTrace,
    context_of_lines,
    exchange_span,
    route_of,
    storage_span,
    with_context,
)
from controller.web.problems import RequestRefused
from tests.support.gateway import Caller, NobodyWaits, component, make_api, make_route, response
from tests.support.tracing import KeptSpans

CALLER = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", True, "a=1")
LINES = b"accept: */*\r\n" + CALLER.lines + b"x-request-id: r1\r\n"


@pytest.mark.parametrize(
    ("trust", "is_known", "continued"),
    [
        ("authenticated", True, True),
        ("authenticated", False, False),
        ("all", True, True),
        ("all", False, True),
        ("none", True, False),
        ("none", False, False),
    ],
)
def test_whose_trace_is_continued(trust: str, is_known: bool, continued: bool) -> None:
    tracer = KeptSpans()
    trace = RequestTrace(tracer, trust, CALLER, "POST", "/demo/open/predict")
    trace.start(is_known, api="demo/open")
    trace.start(not is_known)
    assert current() == trace.context
    trace.end(200)
    (span,) = tracer.spans
    assert span.start.parent == (CALLER if continued else None)
    assert span.start.link == (None if continued else CALLER)
    assert span.name == "POST /demo/open/predict"
    assert span.attributes == {
        "http.request.method": "POST",
        "http.route": "/demo/open/predict",
        "http.response.status_code": 200,
        "prichal.api": "demo/open",
    }
    assert current() is None


@pytest.mark.parametrize(
    ("method", "route", "status", "name", "failure"),
    [
        ("GET", "", 404, "GET", ""),
        ("BREW", "", 405, "HTTP", ""),
        ("BREW", "/demo/own/{path}", 200, "HTTP /demo/own/{path}", ""),
        ("GET", "/-/", 503, "GET /-/", "503"),
        ("GET", "/-/", 499, "GET /-/", ""),
        ("GET", "/-/", 0, "GET /-/", ""),
    ],
)
def test_requests_that_nobody_has_admitted(
    method: str, route: str, status: int, name: str, failure: str
) -> None:
    tracer = KeptSpans()
    RequestTrace(tracer, "authenticated", None, method, route).end(status)
    (span,) = tracer.spans
    assert (span.name, span.failure, span.ended) == (name, failure, True)
    assert span.attributes["http.request.method"] == ("_OTHER" if method == "BREW" else method)
    assert span.attributes.get("http.response.status_code", 0) == status


TABLE = Router.build(
    1,
    [
        make_route(make_api("open"), any_path=False),
        make_route(make_api("own"), component="server", any_path=True),
    ],
)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/demo/open/predict", "/demo/open/predict"),
        ("/demo/open/v2/models/secret-name/infer", "/demo/open/v2/models/{model}/infer"),
        ("/demo/open/v2/models/a/versions/7/infer", "/demo/open/v2/models/{model}/versions/{version}/infer"),
        ("/demo/open/v1/chat/completions", "/demo/open/v1/chat/completions"),
        ("/demo/open/calls", ""),
        ("/demo/own/people/ann@example.org", "/demo/own/{path}"),
        ("/demo/own", "/demo/own/{path}"),
        ("/nobody/at/all", ""),
        ("/demo/open/nothing", ""),
    ],
)
def test_routes_have_no_names_of_callers(path: str, route: str) -> None:
    assert route_of(find_route(TABLE, "POST", path.encode()), "/-/") == route


@pytest.mark.parametrize(
    ("below", "route"),
    [
        ("", "/calls"),
        ("/id1", "/calls/{id}"),
        ("/id1/result", "/calls/{id}/result"),
        ("/id1/events", "/calls/{id}/events"),
    ],
)
def test_routes_of_async_calls(below: str, route: str) -> None:
    found = find_route(TABLE, "GET", b"/demo/open/calls" + below.encode())
    assert route_of(found, "/-/") == "/demo/open" + route


def test_routes_of_the_platform_itself() -> None:
    assert route_of(LOCAL, "/-/apps") == "/-/apps"
    assert route_of(HostRedirect(b"x"), "/-/apps") == ""
    assert route_of(not_found(), "/-/") == ""


def test_lines_get_another_context() -> None:
    other = TraceContext("a" * 32, "b" * 16)
    changed = with_context(LINES, other)
    assert changed == b"accept: */*\r\n" + other.lines + b"x-request-id: r1\r\n"
    assert context_of_lines(LINES) == CALLER
    assert context_of_lines(changed) == other
    assert context_of_lines(b"x-traceparent: 1\r\n") is None
    assert with_context(LINES, None) == LINES
    assert with_context(b"accept: */*\r\n", other) == b"accept: */*\r\n"


@pytest.mark.parametrize(
    ("method", "known", "name"),
    [("GET", "GET", "GET"), ("BREW", "_OTHER", "HTTP"), ("X" * 20, "_OTHER", "HTTP")],
)
def test_an_exchange_has_no_method_that_a_caller_made_up(method: str, known: str, name: str) -> None:
    tracer = KeptSpans()
    with exchange_span(tracer, method, "10.0.0.1:8000"):
        pass
    (span,) = tracer.spans
    assert (span.name, span.attributes["http.request.method"]) == (name, known)


def test_links_are_not_quoted() -> None:
    tracer = KeptSpans()
    with storage_span(tracer, "GET", "http://10.0.0.5:9000/bucket/ann/key?X-Amz-Signature=5ecret"):
        pass
    (span,) = tracer.spans
    assert span.name == "GET /{bucket}/{key}"
    assert span.attributes == {
        "http.request.method": "GET",
        "server.address": "10.0.0.5",
        "server.port": 9000,
        "url.template": "/{bucket}/{key}",
    }
    with storage_span(OFF, "GET", "http://10.0.0.5:9000/x"):
        assert current() is None


def forwarded(tracer: KeptSpans, status: bytes, drop: bool = False) -> list[bytes]:
    """Forward a call to a component, and return the header lines that it got."""
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(2)
        heads.append(head)
        if not drop:
            writer.write(response(b"{}").replace(b"200 OK", status, 1))

    async def scenario() -> None:
        async with asyncio.timeout(20), component(answer) as endpoint:
            target = next(
                iter(Router.build(1, [make_route(upstreams=(endpoint,), any_path=True)]).targets.values())
            )
            forwarder = Forwarder(
                ConnectionPool(1.0), lambda _: target, lambda _: None, NobodyWaits(), tracer
            )
            trace = RequestTrace(tracer, "all", CALLER, "POST", "/demo/open/{path}")
            trace.start(True)
            assert trace.context is not None
            caller: Any = Caller(b"{}")
            headers = {b"content-length": b"2"}
            body = RequestBody(IncomingBody(caller.receive, headers), headers, 10)
            await body.begin()
            call = ForwardedCall(target, "POST", b"/predict", with_context(LINES, trace.context), b"r1")
            answered = ResponseState()
            try:
                await forwarder.forward(call, body, caller.send, answered)
            except RequestRefused as refused:
                answered.status = refused.problem.code
            trace.end(answered.status)

    uvloop.run(scenario())
    return heads


@pytest.mark.parametrize(("status", "failure"), [(b"200 OK", ""), (b"422 No", "422"), (b"500 Oh", "500")])
def test_the_component_continues_the_span_of_its_call(status: bytes, failure: str) -> None:
    tracer = KeptSpans()
    (head,) = forwarded(tracer, status)
    server, client = tracer.spans
    assert client.start.parent == server.context
    assert client.context is not None
    assert client.context.trace == CALLER.trace
    assert head.count(b"traceparent") == 1
    assert client.context.lines in head
    assert client.failure == failure
    assert client.attributes["http.response.status_code"] == int(status[:3])
    assert client.attributes["prichal.app"] == "demo"
    assert all(span.ended for span in tracer.spans)


def test_a_component_that_drops_the_call() -> None:
    tracer = KeptSpans()
    forwarded(tracer, b"200 OK", drop=True)
    server, *clients = tracer.spans
    assert {span.failure for span in clients if span.name == "POST"} == {"ConnectionDropped"}
    assert server.failure == "502"
    assert all(span.ended for span in tracer.spans)
