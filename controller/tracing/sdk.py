"""The tracer that exports spans by OpenTelemetry's SDK, over OTLP/HTTP. The only module that imports the SDK; it is
imported once tracing is on, in the process that makes spans, after its fork.

Spans are exported in batches by a thread. Its queue is bounded: while the receiver is away or slow, spans are dropped,
and what is traced waits for nothing. SIGKILL loses what has not been sent yet, a few seconds of it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Final

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace.span import TraceState

from controller import __version__
from controller.domain.traces import TraceContext
from controller.tracing import Span, SpanStart, Value

CLOSING: Final = 3.0  # seconds that the last batch gets when a process stops
_QUEUE: Final = 2048  # spans that wait, unless OTEL_BSP_MAX_QUEUE_SIZE says otherwise
TOLD: Final = 60.0  # seconds between two records of one kind about a receiver that fails

log = logging.getLogger(__name__)

_LIMITS = SpanLimits(
    max_span_attributes=32, max_events=0, max_links=4, max_span_attribute_length=256, max_attribute_length=256
)


class _SparseFilter(logging.Filter):
    """Lets one record of a kind pass in a minute: each lost batch would write several."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        kind = str(record.msg)[:200]
        if now - self._last.get(kind, float("-inf")) < TOLD:
            return False
        if len(self._last) > 100:
            self._last.clear()
        self._last[kind] = now
        return True


class _ChosenIds(RandomIdGenerator):
    """Ids by chance, unless the span that is being begun has chosen its own."""

    def __init__(self) -> None:
        self.chosen: ContextVar[tuple[str, str] | None] = ContextVar("prichal-ids", default=None)

    def generate_trace_id(self) -> int:
        chosen = self.chosen.get()
        return int(chosen[0], 16) if chosen else super().generate_trace_id()

    def generate_span_id(self) -> int:
        chosen = self.chosen.get()
        return int(chosen[1], 16) if chosen else super().generate_span_id()

    def is_trace_id_random(self) -> bool:
        return False


class _CountedExporter(SpanExporter):
    """Counts what is not exported. `admit` lets no more spans into the queue than it holds: the SDK would drop older
    ones by itself, and tell nobody how many."""

    def __init__(self, exporter: SpanExporter, most: int) -> None:
        self._exporter, self._most = exporter, most
        self._lock = threading.Lock()
        self._waiting = 0
        self._told = float("-inf")
        self.full = 0
        self.failed = 0

    def admit(self) -> bool:
        with self._lock:
            is_full = self._waiting >= self._most
            self.full += is_full
            self._waiting += not is_full
            is_told = is_full and time.monotonic() - self._told >= TOLD
            self._told = time.monotonic() if is_told else self._told
        if is_told:
            log.warning(
                "spans are dropped: %d wait already, since their receiver is away or slow", self._most
            )
        return not is_full

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._lock:
            self._waiting -= len(spans)
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            if result is not SpanExportResult.SUCCESS:
                with self._lock:
                    self.failed += len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class _Processor(BatchSpanProcessor):
    def __init__(self, counted: _CountedExporter, most: int) -> None:
        super().__init__(counted, max_queue_size=most)  # its other bounds: OTEL_BSP_*
        self._counted = counted

    def on_end(self, span: ReadableSpan) -> None:
        if span.context and span.context.trace_flags.sampled and self._counted.admit():
            super().on_end(span)


def _queue_size() -> int:
    text = os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE, "")
    return int(text) if text.isascii() and text.isdecimal() and int(text) > 0 else _QUEUE


class SdkTracer:
    """`endpoint` is a base URL, to which `/v1/traces` is added; "" for what the OTEL_* variables say, which also fill
    in what is not given otherwise. `ratio` is the share of new traces that are recorded."""

    is_on = True

    def __init__(self, service: str, endpoint: str, headers: Mapping[str, str], ratio: float | None) -> None:
        self._ids = _ChosenIds()
        sampler = None if ratio is None else ParentBased(TraceIdRatioBased(ratio))
        self._provider = TracerProvider(
            sampler=sampler,
            resource=_resource(service),
            shutdown_on_exit=False,  # it would wait for half a minute
            id_generator=self._ids,
            span_limits=_LIMITS,
        )
        self._sampler: Sampler = self._provider.sampler
        for name in (
            "opentelemetry.exporter.otlp.proto.http.trace_exporter",
            "opentelemetry.sdk._shared_internal",
        ):
            logger = logging.getLogger(name)
            if not any(isinstance(each, _SparseFilter) for each in logger.filters):
                logger.addFilter(_SparseFilter())
        exporter = OTLPSpanExporter(
            endpoint=f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None, headers=headers or None
        )
        most = _queue_size()
        self._exporter = _CountedExporter(exporter, most)
        self._provider.add_span_processor(_Processor(self._exporter, most))
        self._tracer = self._provider.get_tracer("prichal", __version__)

    def begin(self, start: SpanStart) -> Span:
        token = self._ids.chosen.set(start.ids)
        try:
            made = self._tracer.start_span(
                start.name,
                context=_parent(start.parent),
                kind=trace.SpanKind[start.kind.value],
                attributes=start.attributes,
                links=[trace.Link(_known(start.link))] if start.link else None,
                start_time=_nanoseconds(start.at),
                record_exception=False,
            )
        finally:
            self._ids.chosen.reset(token)
        return _SdkSpan(made)

    def samples(self, trace_id: str) -> bool:
        asked = self._sampler.should_sample(contexts.Context(), int(trace_id, 16), "run")
        return asked.decision is Decision.RECORD_AND_SAMPLE

    def dropped(self) -> Mapping[str, int]:
        return {"queue-full": self._exporter.full, "export-failed": self._exporter.failed}

    def close(self) -> None:
        """A receiver that does not answer must not hold up the end of the process."""
        closing = threading.Thread(target=self._provider.shutdown, name="tracing-close", daemon=True)
        with suppress(RuntimeError):  # no thread can be started any more
            closing.start()
            closing.join(CLOSING)


class _SdkSpan:
    def __init__(self, span: trace.Span) -> None:
        self._span = span
        known = span.get_span_context()
        self.context: TraceContext | None = TraceContext(
            f"{known.trace_id:032x}",
            f"{known.span_id:016x}",
            known.trace_flags.sampled,
            known.trace_state.to_header(),
        )

    def set(self, name: str, value: Value) -> None:
        self._span.set_attribute(name, value)

    def fail(self, kind: str) -> None:
        self._span.set_attribute("error.type", kind)
        self._span.set_status(trace.StatusCode.ERROR)

    def end(self, at: float | None = None) -> None:
        self._span.end(_nanoseconds(at))


def _resource(service: str) -> Resource:
    """Both processes have one name if OTEL_SERVICE_NAME gives one."""
    ours = {"service.namespace": "prichal", SERVICE_VERSION: __version__}
    if not os.environ.get("OTEL_SERVICE_NAME"):
        ours[SERVICE_NAME] = service
    return Resource.create(ours)


def _parent(context: TraceContext | None) -> contexts.Context:
    """Return a context with the parent alone: what the SDK knows of this thread does not count."""
    if context is None:
        return contexts.Context()
    return trace.set_span_in_context(trace.NonRecordingSpan(_known(context)), contexts.Context())


def _known(context: TraceContext) -> trace.SpanContext:
    return trace.SpanContext(
        int(context.trace, 16),
        int(context.span, 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(int(context.sampled)),
        trace_state=TraceState.from_header([context.state]) if context.state else None,
    )


def _nanoseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1e9)
