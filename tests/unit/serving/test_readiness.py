"""Once somebody has heard that a component is ready, nobody who asks later hears that it is being set up: the gateway
sends calls as soon as one probe has succeeded."""

from __future__ import annotations

import http.client
import math
import os
import pathlib
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.unit.serving.conftest import Serve
from tests.unit.serving.server import WAIT_LIMIT, Server, text_function

pytestmark = pytest.mark.slow

LOADER = """
def load(path):
    open("loading", "w").close()
    while not os.path.exists("go"): time.sleep(0.001)
    open("loaded", "w").close()
"""
ASKING = 8


def ask(server: Server, over: threading.Event) -> list[tuple[float, float, int]]:
    """Begin, end and status of questions, one after the other on new connections."""
    found = []
    while not over.is_set():
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        begun = time.monotonic()
        connection.request("GET", "/health/ready")
        status = connection.getresponse().status
        found.append((begun, time.monotonic(), status))
        connection.close()
    return found


def wait_for_file(file: pathlib.Path) -> None:
    end = time.monotonic() + WAIT_LIMIT
    while not file.exists():
        assert time.monotonic() < end, file
        time.sleep(0.001)


@pytest.mark.parametrize("attempt", range(6))
def test_ready_is_never_taken_back(serve: Serve, attempt: int) -> None:
    source = text_function('return {"text": ""}', before=LOADER)
    processes = 1 + attempt % 2
    server = serve(source, loader="app:load", processes=processes)
    wait_for_file(server.folder / "loading")
    over = threading.Event()
    with ThreadPoolExecutor(ASKING) as pool:
        asking = [pool.submit(ask, server, over) for _ in range(ASKING)]
        try:
            os.kill(server.process.pid, signal.SIGSTOP)  # a busy machine may well do so to the supervisor
            (server.folder / "go").touch()
            wait_for_file(server.folder / "loaded")
            os.kill(server.process.pid, signal.SIGCONT)
            assert server.ready(processes).get("/health/ready").status == 200
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
            over.set()
        asked = [each for future in asking for each in future.result()]
    heard = min((end for _, end, status in asked if status == 200), default=math.inf)
    assert [each for each in asked if each[0] > heard and each[2] != 200] == []
