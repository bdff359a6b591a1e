"""A tracer that keeps its spans in memory, for what makes spans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count

from controller.domain.traces import TraceContext
from controller.tracing import Span, SpanStart, Value


@dataclass
class KeptSpan:
    start: SpanStart
    context: TraceContext | None
    attributes: dict[str, Value]
    failure: str = ""
    ended: bool = False
    at: float | None = None

    @property
    def name(self) -> str:
        return self.start.name

    @property
    def parent(self) -> str:
        return self.start.parent.span if self.start.parent else ""

    def set(self, name: str, value: Value) -> None:
        assert not self.ended
        self.attributes[name] = value

    def fail(self, kind: str) -> None:
        assert not self.ended
        self.failure = kind

    def end(self, at: float | None = None) -> None:
        assert not self.ended, "a span ends once"
        self.ended, self.at = True, at


@dataclass
class KeptSpans:
    spans: list[KeptSpan] = field(default_factory=list)
    sampled: bool = True
    is_on: bool = True
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def begin(self, start: SpanStart) -> Span:
        number = next(self._numbers)
        parent = start.parent
        trace = parent.trace if parent else f"{number:032x}"
        span = f"{number:016x}"
        if start.ids:
            trace, span = start.ids
        state = parent.state if parent else ""
        sampled = parent.sampled if parent else self.sampled
        made = KeptSpan(start, TraceContext(trace, span, sampled, state), dict(start.attributes or {}))
        self.spans.append(made)
        return made

    def samples(self, trace: str) -> bool:
        return self.sampled

    def dropped(self) -> Mapping[str, int]:
        return {}

    def close(self) -> None:
        pass

    def named(self, name: str) -> list[KeptSpan]:
        return [span for span in self.spans if span.name == name]

    def children(self, span: KeptSpan) -> list[str]:
        assert span.context is not None
        return [each.name for each in self.spans if each.parent == span.context.span]
