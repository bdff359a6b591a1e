"""Contexts of traces as W3C Trace Context has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.traces import (
    MAX_STATE,
    TraceContext,
    attempt_id,
    context_of_headers,
    context_of_text,
    read_context,
    read_state,
    run_ids,
    text_of,
)

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("parent", "sampled"),
    [
        (GOOD, True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-02", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f" {GOOD}\t", True),
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-a-later-version-adds", True),
    ],
)
def test_what_is_read(parent: str, sampled: bool) -> None:
    assert read_context(parent) == TraceContext(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "00",
        "00-ab-cd-01",
        f"{TRACE}-{SPAN}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0g",
        f"cc-{TRACE}-{SPAN}-01.what",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 2000}",
        f"00-{TRACE}-{SPAN}-01\r\nx-forwarded-user: root",
        f"00-{TRACE[:-1]}\u0661-{SPAN}-01",
    ],
)
def test_what_is_malformed(parent: str) -> None:
    assert read_context(parent) is None


@pytest.mark.parametrize(
    ("state", "read"),
    [
        ("", ""),
        ("a=1", "a=1"),
        (" a=1 ,, b=2\t", "a=1,b=2"),
        ("tenant@system=x y", "tenant@system=x y"),
        ("a=1,a=2", ""),
        ("A=1", ""),
        ("a=", ""),
        ("a", ""),
        ("a=1=2", ""),
        ("a=\u00e9", ""),
        ("a=1\r\nx: 1", ""),
        (",".join(f"k{n}=1" for n in range(32)), ",".join(f"k{n}=1" for n in range(32))),
        (",".join(f"k{n}=1" for n in range(33)), ""),
        (f"a={'x' * 256},b={'x' * 256}", ""),
    ],
)
def test_states(state: str, read: str) -> None:
    assert read_state(state) == read
    context = read_context(GOOD, state)
    assert context is not None
    assert context.state == read, "a bad state does not spoil its parent"


def test_headers() -> None:
    parent = (b"traceparent", GOOD.encode())
    found = context_of_headers([(b"tracestate", b"a=1"), parent, (b"tracestate", b"b=2")])
    assert found == TraceContext(TRACE, SPAN, True, "a=1,b=2")
    assert found.lines == f"traceparent: {GOOD}\r\ntracestate: a=1,b=2\r\n".encode()
    assert context_of_headers([(b"tracestate", b"a=1")]) is None
    assert context_of_headers([parent, parent]) is None


@given(st.text(max_size=80), st.text(max_size=80))
def test_whatever_is_read_can_stand_in_a_header(parent: str, state: str) -> None:
    for context in (read_context(parent, state), read_context(GOOD, state), context_of_text(parent)):
        if context is not None:
            assert context.lines.isascii()
            assert context.lines.count(b"\r\n") == 1 + bool(context.state)
            assert len(context.state) <= MAX_STATE
            assert read_context(context.parent, context.state) == context
            assert context_of_text(text_of(context)) == context


def test_ids_of_runs_follow_from_the_run() -> None:
    trace, span = run_ids("00000000001aaaaaaaa", None)
    assert (trace, span) == run_ids("00000000001aaaaaaaa", None) != run_ids("00000000001aaaaaaab", None)
    assert read_context(f"00-{trace}-{span}-01")
    assert run_ids("00000000001aaaaaaaa", TraceContext(TRACE, SPAN)) == (TRACE, span)
    ids = {attempt_id("r", *of) for of in (("a", 1), ("a", 2), ("b", 1))} | {span}
    assert len(ids) == 4
