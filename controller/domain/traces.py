"""The context of a trace as W3C Trace Context passes it on: reading, writing, and the ids of runs. Pure.

What callers send is read strictly: a `traceparent` that does not keep to the rules counts as none, and takes its
`tracestate` with it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

#: The variable by which a command gets its context, as OpenTelemetry's specification names it.
TRACEPARENT: Final = "TRACEPARENT"
TRACESTATE: Final = "TRACESTATE"
MAX_STATE: Final = 512  # characters of a `tracestate`

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
_KEY = r"(?:[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}|[a-z][a-z0-9_*/-]{0,255})"
_MEMBER = re.compile(rf"({_KEY})=[ -+\--<>-~]{{0,255}}[!-+\--<>-~]")
_MEMBERS = 32
_LONGEST = 1024  # characters of a `traceparent` of a later version
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


@dataclass(frozen=True, slots=True)
class TraceContext:
    """`trace` and `span` are lower-case hexadecimal, `state` is a `tracestate`, "" for none."""

    trace: str
    span: str
    sampled: bool = False
    state: str = ""

    @property
    def parent(self) -> str:
        """Return the value of `traceparent`."""
        return f"00-{self.trace}-{self.span}-{'01' if self.sampled else '00'}"

    @property
    def lines(self) -> bytes:
        """Return the header lines of a request."""
        state = f"tracestate: {self.state}\r\n" if self.state else ""
        return f"traceparent: {self.parent}\r\n{state}".encode()


def read_context(parent: str, state: str = "") -> TraceContext | None:
    """Return the context that two header fields name; None if `traceparent` is malformed. A malformed `tracestate` is
    left out."""
    found = _PARENT.fullmatch(parent.strip(" \t")) if len(parent) <= _LONGEST else None
    if found is None:
        return None
    version, trace, span, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest) or trace == _NO_TRACE or span == _NO_SPAN:
        return None
    return TraceContext(trace, span, bool(int(flags, 16) & 1), read_state(state))


def read_state(state: str) -> str:
    """Return a `tracestate` without empty members; "" if it is malformed or too long."""
    members = [member for part in state.split(",") if (member := part.strip(" \t"))]
    found = [_MEMBER.fullmatch(member) for member in members]
    keys = {each[1] for each in found if each}
    joined = ",".join(members)
    if len(keys) < len(members) or len(members) > _MEMBERS or len(joined) > MAX_STATE:
        return ""
    return joined


def context_of_headers(headers: list[tuple[bytes, bytes]]) -> TraceContext | None:
    """Return the context of a request's header, names in lower case; None if there is none or it is malformed."""
    parents = [value for name, value in headers if name == b"traceparent"]
    if len(parents) != 1:
        return None
    states = [value for name, value in headers if name == b"tracestate"]
    return read_context(parents[0].decode("latin-1"), ",".join(each.decode("latin-1") for each in states))


def text_of(context: TraceContext | None) -> str:
    """Return a context as one text, as it is stored."""
    if context is None:
        return ""
    return f"{context.parent} {context.state}" if context.state else context.parent


def context_of_text(text: str) -> TraceContext | None:
    """Return what `text_of` was given; None for "" and for what it has not written."""
    parent, _, state = text.partition(" ")
    return read_context(parent, state)


def run_ids(run: str, caller: TraceContext | None) -> tuple[str, str]:
    """Return trace and span of a run. They follow from its id, so that a daemon that was restarted in the middle
    continues the same trace."""
    return caller.trace if caller else _derived(32, "trace", run), _derived(16, "run", run)


def attempt_id(run: str, stage: str, number: int) -> str:
    """Return the span of an attempt of a stage."""
    return _derived(16, "stage", run, stage, str(number))


def _derived(digits: int, *parts: str) -> str:
    return hashlib.sha256("\0".join(("prichal", *parts)).encode()).hexdigest()[:digits]
