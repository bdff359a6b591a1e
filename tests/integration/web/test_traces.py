"""Traces of a real gunicorn of two workers, with a real receiver: whose they continue, and that nobody waits for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from controller.domain.traces import read_context
from tests.support.otlp import OtlpReceiver, otlp_receiver
from tests.support.serve_web import settings_of, with_web
from tests.support.stores import open_store
from tests.support.waiting import wait_for

from .conftest import Web, demo_route, echo, serving

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


@contextmanager
def traced(state: Path, receiver: OtlpReceiver) -> Iterator[Web]:
    with_web(state, tracing={"endpoint": receiver.url})
    with closing(open_store(settings_of(state).database)) as store, echo("first") as component:
        store.routes.switch(demo_route(component.endpoint))
        with serving(state, store, component) as running:
            yield running


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with otlp_receiver() as made:
        yield made


def test_calls_are_traced(tmp_path: Path, receiver: OtlpReceiver) -> None:
    with traced(tmp_path / "state", receiver) as web:
        known = web.ask(
            "POST", "/demo/closed/a%40b?token=5ecret", b"{}", authorization="Bearer t0ken", traceparent=PARENT
        )
        stranger = web.ask("POST", "/demo/open/predict", b"{}", traceparent=PARENT, tracestate="a=1")
        refused = web.ask("POST", "/demo/closed/predict", b"{}", traceparent=PARENT)
        web.ask("GET", "/nobody/at/all")
        assert [each.status for each in (known, stranger, refused)] == [200, 200, 401]
        assert web.stop() == 0
    named = {span.name: span for span in receiver.spans}
    continued, linked = named["POST /demo/closed/{path}"], named["POST /demo/open/{path}"]
    assert (continued.service, continued.kind) == ("prichal-web", "SERVER")
    servers = [span for span in receiver.named("POST /demo/closed/{path}") if span.attributes]
    by_status = {span.attributes["http.response.status_code"]: span for span in servers}
    assert (by_status[200].trace, by_status[200].parent) == (TRACE, SPAN)
    assert (linked.parent, linked.links) == ("", ((TRACE, SPAN),))
    assert by_status[401].links == ((TRACE, SPAN),)
    for reply, server in ((known, by_status[200]), (stranger, linked)):
        headers = {name.lower(): value for name, value in reply.json["headers"].items()}
        got = read_context(headers["traceparent"])
        assert got is not None
        (client,) = [span for span in receiver.spans if span.id == got.span]
        assert (client.name, client.kind, client.trace, client.parent) == (
            "POST",
            "CLIENT",
            server.trace,
            server.id,
        )
        assert "tracestate" not in headers
    assert "GET" in named, "requests that lead nowhere have no route"
    assert "5ecret" not in repr(receiver.spans)
    assert "a%40b" not in repr(receiver.spans)


def test_no_call_waits_for_a_receiver(
    tmp_path: Path, receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is full after some calls, and the exporter hangs in its first batch."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    receiver.answering.clear()
    with traced(tmp_path / "state", receiver) as web:
        for _ in range(60):
            assert web.ask("POST", "/demo/open/predict", b"{}").status == 200
        assert web.stop() == 0
        log = web.log.read_text()
    assert "Traceback" not in log, log
    assert 1 <= log.count("spans are dropped: 10 wait already") <= 2, (
        "each of the workers says so once a minute"
    )
    assert receiver.spans == []


def test_each_worker_sends_its_own(tmp_path: Path, receiver: OtlpReceiver) -> None:
    """Also those that come after others: one is killed, then all are replaced."""
    with traced(tmp_path / "state", receiver) as web:
        before = web.workers()
        os.kill(min(before), signal.SIGKILL)
        wait_for(lambda: len(web.workers()) == 2 and web.workers() != before)
        killed = web.workers()
        web.signal(signal.SIGHUP)
        wait_for(lambda: len(web.workers()) == 2 and not web.workers() & killed)
        count = len(receiver.named("POST /demo/open/{path}"))
        for _ in range(50):
            assert web.ask("POST", "/demo/open/predict", b"{}").status == 200
        assert web.stop() == 0
    assert len(receiver.named("POST /demo/open/{path}")) == count + 50
