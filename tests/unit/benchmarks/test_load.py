"""The load generator counts only good answers, and the figures compare neighbours in time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.figures import Section, in_turns
from benchmarks.load import LoadFailed, Target, run


@contextmanager
def server(status: int, body: bytes) -> Iterator[tuple[str, int]]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield ("127.0.0.1", listening.server_port)
        finally:
            listening.shutdown()
            thread.join()


def test_calls_are_counted_and_timed() -> None:
    with server(200, b"[10]" + b" " * 100_000) as address:  # a reply that comes in several pieces
        load = run(Target(address, "/", b"{}", b"[10]"), connections=3, seconds=1, warmup=0.0)
    assert load.calls >= 3
    assert 0 < load.p50 <= load.p99 <= load.seconds
    assert load.rate == load.calls / load.seconds


@pytest.mark.parametrize(("status", "body"), [(503, b"[10]"), (200, b"[11]")])
def test_a_wrong_answer_gives_no_figure(status: int, body: bytes) -> None:
    with server(status, body) as address, pytest.raises(LoadFailed):
        run(Target(address, "/", b"{}", b"[10]"), connections=1, seconds=1, warmup=0.0)


def test_ratios_are_of_neighbours_in_time() -> None:
    order: list[str] = []
    measured = in_turns(
        {"ours": lambda: order.append("ours"), "theirs": lambda: order.append("theirs")}, rounds=2
    )
    assert order == ["ours", "theirs", "ours", "theirs"]
    assert {name: len(values) for name, values in measured.items()} == {"ours": 2, "theirs": 2}
    section = Section("name", "title")
    section.compare("ours beside theirs", [2.0, 30.0, 4.0], [1.0, 10.0, 4.0], aim="1.3 ×")
    (figure,) = section.figures
    assert (figure.values, figure.low, figure.median, figure.high) == ((2.0, 3.0, 1.0), 1.0, 2.0, 3.0)
    assert figure.document()["aim"] == "1.3 ×"
