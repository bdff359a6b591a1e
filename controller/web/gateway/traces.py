"""Spans of calls in the gateway: the request as callers see it, and each exchange with a container or the storage. Used
by the ASGI application and the forwarder while tracing is on.

Attributes follow OpenTelemetry's conventions for HTTP, without those that quote a caller: paths, queries, addresses and
user agents are personal data or may hold secrets. Names of spans come from routes, of which there are few."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from controller.domain.traces import TraceContext, read_context
from controller.tracing import NO_SPAN, Span, SpanKind, SpanStart, Tracer, Value, current, enter, span
from controller.web.gateway.hosts import HostRedirect
from controller.web.gateway.router import (
    CallLookup,
    CallPart,
    Decision,
    ForwardCall,
    PlatformEndpoint,
    ServeService,
)

_METHODS: Final = frozenset(
    ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY")
)
_MODEL = re.compile(rb"/(v[12])/models/[^/]+(/versions/[^/]+)?(/.*)?")
_CALL = {
    CallPart.LIST: "/calls",
    CallPart.CALL: "/calls/{id}",
    CallPart.RESULT: "/calls/{id}/result",
    CallPart.EVENTS: "/calls/{id}/events",
}
_LINES = re.compile(rb"(?:\A|(?<=\r\n))traceparent: ([^\r\n]*)\r\n(?:tracestate: ([^\r\n]*)\r\n)?")


def route_of(decision: Decision | HostRedirect, page: str) -> str:
    """Return the route of a request, "" for what leads nowhere. `page` names a page of the platform."""
    match decision:
        case ForwardCall(target=target, path=path):
            return target.prefix.decode() + ("/{path}" if target.route.any_path else _known(path))
        case CallLookup(target=target, part=part):
            return target.prefix.decode() + _CALL[part]
        case ServeService(target=target):
            return target.prefix.decode() + "/{path}"
        case PlatformEndpoint():
            return page
        case _:
            return ""


@lru_cache(maxsize=256)
def _known(path: bytes) -> str:
    """Return a path of the serving library without names."""
    found = _MODEL.fullmatch(path)
    if found is None:
        return path.decode()
    version = "/versions/{version}" if found[2] else ""
    return f"/{found[1].decode()}/models/{{model}}{version}{(found[3] or b'').decode()}"


def _known_method(method: str) -> str:
    """Return a method as OpenTelemetry wants it: callers make up any, and there are to be few."""
    return method if method in _METHODS else "_OTHER"


def _named(method: str, route: str) -> str:
    return f"{'HTTP' if method == '_OTHER' else method} {route}".strip()


class RequestTrace:
    """The span of a request, which begins as soon as it is known whether its caller is believed. `caller` is the
    context that they sent, `trust` whose it is continued: `authenticated`, `all` or `none`."""

    __slots__ = ("_attributes", "_began", "_caller", "_span", "_tracer", "_trust")

    def __init__(
        self, tracer: Tracer, trust: str, caller: TraceContext | None, method: str, route: str
    ) -> None:
        self._tracer = tracer
        self._trust = trust
        self._caller = caller
        self._began = time.time()
        self._span: Span = NO_SPAN
        self._attributes: dict[str, Value] = {"http.request.method": _known_method(method)}
        if route:
            self._attributes["http.route"] = route

    def start(self, is_known: bool, **about: Value) -> None:
        """Begin the span, unless it has begun. A caller who is not believed gets a trace of ours, which names theirs
        as a link: they decide neither what is recorded nor under which id."""
        if self._span is not NO_SPAN:
            return
        believed = self._trust == "all" or (self._trust == "authenticated" and is_known)
        method, route = self._attributes["http.request.method"], self._attributes.get("http.route", "")
        name = _named(str(method), str(route))
        attributes = {**self._attributes, **{f"prichal.{key}": value for key, value in about.items()}}
        start = SpanStart(
            name,
            SpanKind.SERVER,
            parent=self._caller if believed else None,
            link=None if believed else self._caller,
            at=self._began,
            attributes=attributes,
        )
        self._span = self._tracer.begin(start)
        enter(self._span)

    @property
    def context(self) -> TraceContext | None:
        return self._span.context

    def end(self, status: int) -> None:
        self.start(is_known=False)
        if status:
            self._span.set("http.response.status_code", status)
        if status >= 500:
            self._span.fail(str(status))
        self._span.end()
        enter(NO_SPAN)


def storage_span(tracer: Tracer, method: str, url: str) -> AbstractContextManager[Span]:
    """Record a request with a presigned link. Its key names a file of somebody, and its query is a permission."""
    return exchange_span(tracer, method, urlsplit(url).netloc, template="/{bucket}/{key}")


@contextmanager
def exchange_span(
    tracer: Tracer, method: str, endpoint: str, attributes: dict[str, Value] | None = None, template: str = ""
) -> Iterator[Span]:
    """Record a request of the gateway to a container or the storage, below the span in progress."""
    if not tracer.is_on:
        yield NO_SPAN
        return
    name, about = _exchange(method, endpoint, template)
    with span(tracer, name, {**about, **(attributes or {})}, SpanKind.CLIENT) as made:
        yield made


def begin_storage_span(tracer: Tracer, method: str, endpoint: str, template: str) -> Span:
    """Begin the span of a request to the storage, which ends when its connection is let go of."""
    name, about = _exchange(method, endpoint, template)
    return tracer.begin(SpanStart(name, SpanKind.CLIENT, parent=current(), attributes=about))


def _exchange(method: str, endpoint: str, template: str) -> tuple[str, dict[str, Value]]:
    host, _, port = endpoint.rpartition(":")
    known = _known_method(method)
    about: dict[str, Value] = {"http.request.method": known, "server.address": host.strip("[]")}
    if port.isdigit():
        about["server.port"] = int(port)
    if template:
        about["url.template"] = template
    return _named(known, template), about


def answered_with(made: Span, status: int) -> None:
    """Record the status code of an answer; for who asked, 4xx is a failure, too."""
    if status:
        made.set("http.response.status_code", status)
    if status >= 400:
        made.fail(str(status))


def with_context(lines: bytes, context: TraceContext | None) -> bytes:
    """Return header lines with another context in place of the one that they have."""
    return lines if context is None else _LINES.sub(lambda _: context.lines, lines, count=1)


def context_of_lines(lines: bytes) -> TraceContext | None:
    """Return the context in header lines that the gateway has made."""
    found = _LINES.search(lines)
    return read_context(found[1].decode("latin-1"), (found[2] or b"").decode("latin-1")) if found else None
