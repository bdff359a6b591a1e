"""Traces: spans of what the platform does, as OpenTelemetry understands them. `sdk` exports them; without it, which
is the default, `OFF` takes its place, does nothing, and nothing of OpenTelemetry is imported.

Who makes a span names what is done in words of a fixed list and gives attributes of few values; nothing that a person
wrote, no path, query or message becomes one. A failed export is never noticed by what is traced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from controller.domain.errors import ControllerError
from controller.domain.traces import TraceContext

Value = str | int | bool | float
Attributes = Mapping[str, Value]


class SpanKind(StrEnum):
    INTERNAL = "INTERNAL"
    SERVER = "SERVER"
    CLIENT = "CLIENT"


class Span(Protocol):
    @property
    def context(self) -> TraceContext | None:
        """What others get as their parent; None while nothing is traced."""

    def set(self, name: str, value: Value) -> None:
        """Add an attribute."""

    def fail(self, kind: str) -> None:
        """Record that it failed. `kind` is one of few words, such as a reason or a status code."""

    def end(self, at: float | None = None) -> None:
        """End it, now or at a time in Unix seconds. Called once."""


@dataclass(frozen=True)
class SpanStart:
    """`parent` is None for a new trace, of which `link` may name another. `at`: Unix seconds, None for now. `ids` are
    trace and span, where they follow from something else than chance."""

    name: str
    kind: SpanKind = SpanKind.INTERNAL
    parent: TraceContext | None = None
    link: TraceContext | None = None
    at: float | None = None
    attributes: Attributes | None = None
    ids: tuple[str, str] | None = None


class Tracer(Protocol):
    @property
    def is_on(self) -> bool: ...

    def begin(self, start: SpanStart) -> Span:
        """Begin a span. Never blocks, and never fails."""

    def samples(self, trace: str) -> bool:
        """Return True if a new trace with this id is recorded."""

    def dropped(self) -> Mapping[str, int]:
        """Return how many spans were not exported since the beginning, by why: `queue-full`, `export-failed`."""

    def close(self) -> None:
        """Send what is left, and take no longer than some seconds for it."""


class _NoSpan:
    context: TraceContext | None = None

    def set(self, name: str, value: Value) -> None:
        pass

    def fail(self, kind: str) -> None:
        pass

    def end(self, at: float | None = None) -> None:
        pass


NO_SPAN: Final[Span] = _NoSpan()


class _Off:
    is_on = False

    def begin(self, start: SpanStart) -> Span:
        return NO_SPAN

    def samples(self, trace: str) -> bool:
        return False

    def dropped(self) -> Mapping[str, int]:
        return {}

    def close(self) -> None:
        pass


OFF: Final[Tracer] = _Off()

#: The span in progress, of this thread or task.
_current: ContextVar[Span] = ContextVar("prichal-span", default=NO_SPAN)


def current() -> TraceContext | None:
    """Return the context of the span in progress."""
    return _current.get().context


def enter(made: Span) -> None:
    """Make a span the one in progress, for who cannot use a block."""
    _current.set(made)


_NOTHING: Final = nullcontext(NO_SPAN)


def span(
    tracer: Tracer,
    name: str,
    attributes: Attributes | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: TraceContext | None = None,
) -> AbstractContextManager[Span]:
    """Record the block as a span, below `parent` or the span in progress. An exception marks it as failed, by its
    reason or its class, and without its message, which may quote anything."""
    return _recorded(tracer, name, attributes, kind, parent) if tracer.is_on else _NOTHING


@contextmanager
def _recorded(
    tracer: Tracer, name: str, attributes: Attributes | None, kind: SpanKind, parent: TraceContext | None
) -> Iterator[Span]:
    made = tracer.begin(SpanStart(name, kind, parent or current(), attributes=attributes))
    token = _current.set(made)
    try:
        yield made
    except BaseException as error:
        made.fail(kind_of(error))
        raise
    finally:
        _current.reset(token)
        made.end()


def kind_of(error: BaseException) -> str:
    """Return what failed in one word of few: the reason of an expected error, else the class."""
    return str(error.reason) if isinstance(error, ControllerError) else type(error).__name__
