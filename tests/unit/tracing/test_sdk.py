"""The tracer over OpenTelemetry's SDK, with a real receiver: what arrives, and that nobody waits for it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from controller.domain.errors import Transient
from controller.domain.reasons import Reason
from controller.domain.traces import TraceContext
from controller.tracing import NO_SPAN, OFF, SpanKind, SpanStart, current, span
from controller.tracing.sdk import SdkTracer
from tests.support.otlp import OtlpReceiver, otlp_receiver
from tests.support.ports import free_port
from tests.support.waiting import wait_for

CALLER = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", True, "a=1")


@pytest.fixture(autouse=True)
def exporters_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An exporter goes on for a while behind `close`, and what it does must not meet another test."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")  # of the ten seconds after which it gives up
    yield
    wait_for(
        lambda: (
            not [each for each in threading.enumerate() if each.name.startswith(("OtelBatch", "tracing-"))]
        )
    )


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with otlp_receiver() as made:
        yield made


@contextmanager
def tracer_to(url: str, ratio: float | None = 1.0, **headers: str) -> Iterator[SdkTracer]:
    made = SdkTracer("prichal-test", url, headers, ratio)
    try:
        yield made
    finally:
        made.close()


def test_spans_arrive_with_their_parents(receiver: OtlpReceiver) -> None:
    with tracer_to(receiver.url, authorization="Bearer t0ken") as tracer:
        with span(tracer, "outer", {"prichal.app": "demo"}, SpanKind.SERVER) as outer:
            with span(tracer, "inner") as inner:
                assert current() == inner.context
            assert current() == outer.context
        assert current() is None
    (found,), (below,) = receiver.named("outer"), receiver.named("inner")
    assert (found.service, found.kind, found.parent) == ("prichal-test", "SERVER", "")
    assert found.attributes == {"prichal.app": "demo"}
    assert receiver.children(found) == {"inner"}
    assert [each.failed for each in (found, below)] == [False, False]
    assert receiver.requests[0]["authorization"] == "Bearer t0ken"


def test_a_caller_is_continued_or_named(receiver: OtlpReceiver) -> None:
    with tracer_to(receiver.url) as tracer:
        below = tracer.begin(SpanStart("below", parent=CALLER))
        beside = tracer.begin(SpanStart("beside", link=CALLER))
        below.end()
        beside.end()
    assert below.context is not None
    assert (below.context.trace, below.context.state) == (CALLER.trace, "a=1")
    (told,) = receiver.named("beside")
    assert told.trace != CALLER.trace
    assert told.links == ((CALLER.trace, CALLER.span),)


def test_ids_and_times_can_be_given(receiver: OtlpReceiver) -> None:
    with tracer_to(receiver.url) as tracer:
        tracer.begin(SpanStart("run", at=1000.0, ids=("1" * 32, "2" * 16))).end(1002.5)
    (run,) = receiver.named("run")
    assert (run.trace, run.id, run.seconds) == ("1" * 32, "2" * 16, 2.5)


def test_failures_are_recorded_without_their_messages(receiver: OtlpReceiver) -> None:
    with tracer_to(receiver.url) as tracer:
        for name, error in (
            ("expected", Transient(Reason.ENGINE_UNREACHABLE, "password=hunter2")),
            ("bug", KeyError("hunter2")),
        ):
            with pytest.raises(type(error)), span(tracer, name):
                raise error
    (expected,), (bug,) = receiver.named("expected"), receiver.named("bug")
    assert (expected.failed, expected.attributes) == (True, {"error.type": "EngineUnreachable"})
    assert (bug.failed, bug.attributes) == (True, {"error.type": "KeyError"})


@pytest.mark.parametrize(("ratio", "sampled"), [(0.0, False), (1.0, True), (None, True)])
def test_the_ratio_decides_about_new_traces(
    receiver: OtlpReceiver, ratio: float | None, sampled: bool
) -> None:
    with tracer_to(receiver.url, ratio) as tracer:
        new = tracer.begin(SpanStart("new"))
        known = tracer.begin(SpanStart("known", parent=CALLER))
        new.end()
        known.end()
        assert tracer.samples("f" * 32) is sampled
    assert new.context is not None
    assert new.context.sampled is sampled
    assert {each.name for each in receiver.spans} == ({"new"} if sampled else set()) | {"known"}


@pytest.mark.slow
@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_a_receiver_that_refuses_delays_nothing(receiver: OtlpReceiver, status: int) -> None:
    receiver.status = status
    with tracer_to(receiver.url) as tracer:
        _record(tracer, 5000)
        wait_for(lambda: tracer.dropped()["export-failed"])
        queue = tracer._provider._active_span_processor._span_processors[0]._batch_processor._queue  # type: ignore[attr-defined]
        assert len(queue) <= 2048
    assert receiver.spans == []


def test_what_is_dropped_is_counted(
    receiver: OtlpReceiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver that does not answer holds nobody up. A batch is with it; the queue takes 2,048 spans, and the rest is
    counted."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")  # a busy machine takes long to record 5,000 spans
    receiver.answering.clear()
    with caplog.at_level(logging.WARNING), tracer_to(receiver.url) as tracer:
        _record(tracer, 512)
        wait_for(lambda: not tracer._exporter._waiting)
        assert tracer.dropped() == {"queue-full": 0, "export-failed": 0}
        _record(tracer, 2048)
        assert tracer.dropped()["queue-full"] == 0
        _record(tracer, 3000)
        assert tracer.dropped() == {"queue-full": 3000, "export-failed": 0}
        receiver.answering.set()
        wait_for(lambda: len(receiver.spans) >= 2560)
        tracer.begin(SpanStart("again")).end()
        assert tracer.dropped()["queue-full"] == 3000, "there is room again"
    assert len(receiver.named("again")) == 1
    assert [each.getMessage() for each in caplog.records if "dropped" in each.getMessage()] == [
        "spans are dropped: 2048 wait already, since their receiver is away or slow"
    ]


@pytest.mark.slow
def test_nothing_listens() -> None:
    with tracer_to(f"http://127.0.0.1:{free_port()}") as tracer:
        _record(tracer, 5000)


def _record(tracer: SdkTracer, count: int) -> None:
    """Ends although nothing is taken: it would hang if a span waited for the receiver."""
    for _ in range(count):
        tracer.begin(SpanStart("x")).end()


def test_a_failing_receiver_does_not_fill_the_log(
    receiver: OtlpReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = 400
    with caplog.at_level(logging.WARNING), tracer_to(receiver.url) as tracer:
        for _ in range(5):
            tracer.begin(SpanStart("x")).end()
            tracer._provider.force_flush()
    assert len(receiver.requests) == 5
    assert len([each for each in caplog.records if "Failed to export" in each.getMessage()]) <= 1


def test_processes_that_are_forked_send_spans_of_their_own(receiver: OtlpReceiver) -> None:
    program = f"""
import os
from controller.tracing.sdk import SdkTracer
from controller.tracing import SpanStart
children = []
for number in range(2):
    child = os.fork()
    if not child:
        tracer = SdkTracer("prichal-web", {receiver.url!r}, {{}}, 1.0)
        tracer.begin(SpanStart(f"worker {{number}}")).end()
        tracer.close()
        os._exit(0)
    children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert {each.name for each in receiver.spans} == {"worker 0", "worker 1"}


def test_what_was_sent_survives_a_kill(receiver: OtlpReceiver) -> None:
    program = f"""
import os, signal
from controller.tracing.sdk import SdkTracer
from controller.tracing import SpanStart
tracer = SdkTracer("prichal-web", {receiver.url!r}, {{}}, 1.0)
for number in range(600):
    tracer.begin(SpanStart("early")).end()
tracer._provider.force_flush()
tracer.begin(SpanStart("late")).end()
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == -9
    assert len(receiver.named("early")) == 600
    assert receiver.named("late") == []


def test_off_does_nothing_and_imports_nothing() -> None:
    program = """
import sys
import controller.web.server, controller.daemon.run
from controller.config import Settings
from controller.tracing import OFF
from controller.tracing.starting import start_tracing
assert start_tracing(Settings().tracing, "prichal-web") is OFF
found = sorted(name for name in sys.modules if name.split(".")[0] in ("opentelemetry", "google"))
assert not found, found
"""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, env=clean)
    assert OFF.begin(SpanStart("x")) is NO_SPAN
    with span(OFF, "x") as made:
        assert made is NO_SPAN
        assert current() is None
    assert not OFF.samples("f" * 32)
    OFF.close()


def test_threads_have_spans_of_their_own(receiver: OtlpReceiver) -> None:
    seen: list[object] = []
    with tracer_to(receiver.url) as tracer, span(tracer, "outer"):
        thread = threading.Thread(target=lambda: seen.append(current()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_times_are_of_the_clock_of_the_wall(receiver: OtlpReceiver) -> None:
    began = time.time()
    with tracer_to(receiver.url) as tracer:
        tracer.begin(SpanStart("x", at=began - 1)).end()
    assert receiver.named("x")[0].seconds >= 1
