"""A receiver of OTLP over HTTP that decodes what it gets, and answers with the status that the test has chosen."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

ERROR: Final = 2  # STATUS_CODE_ERROR


@dataclass(frozen=True)
class ReceivedSpan:
    """`parent` is "" for the first span of a trace, `links` are traces and spans."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]
    failed: bool
    seconds: float
    links: tuple[tuple[str, str], ...] = ()


@dataclass
class OtlpReceiver:
    port: int
    spans: list[ReceivedSpan] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    status: int = 200
    answering: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def named(self, name: str) -> list[ReceivedSpan]:
        return [span for span in self.spans if span.name == name]

    def children(self, span: ReceivedSpan) -> set[str]:
        return {each.name for each in self.spans if (each.trace, each.parent) == (span.trace, span.id)}

    def take(self, path: str, headers: dict[str, str], content: bytes) -> None:
        self.requests.append(headers)
        if self.status == 200:
            assert path.endswith("/v1/traces"), path
            self.spans += decoded(content)


def decoded(content: bytes) -> list[ReceivedSpan]:
    asked = ExportTraceServiceRequest.FromString(content)
    return [
        _span(span, next(a.value.string_value for a in group.resource.attributes if a.key == "service.name"))
        for group in asked.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def _span(span: WireSpan, service: str) -> ReceivedSpan:
    assert not span.events, "events quote messages of exceptions"
    assert not span.status.message, "messages quote what callers sent"
    return ReceivedSpan(
        service,
        span.name,
        WireSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        {each.key: getattr(each.value, each.value.WhichOneof("value") or "") for each in span.attributes},
        span.status.code == ERROR,
        (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
    )


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        receiver = self.server.receiver
        receiver.answering.wait(60)
        receiver.take(self.path, {name.lower(): value for name, value in self.headers.items()}, content)
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(receiver.status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    receiver: OtlpReceiver

    def handle_error(self, request: object, client_address: object) -> None:
        """Who exports may be killed in the middle."""


@contextmanager
def otlp_receiver() -> Iterator[OtlpReceiver]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        receiver = server.receiver = OtlpReceiver(server.server_port)
        receiver.answering.set()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield receiver
        finally:
            receiver.answering.set()
            server.shutdown()
            thread.join()
