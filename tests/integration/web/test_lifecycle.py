"""Start, reload, stop and death of the web process: which calls survive them."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from controller.domain.apps.status import RepositoryRecord
from controller.domain.names import AppName
from controller.web.api.platform.signatures import sign
from tests.support.waiting import wait_for
from tests.support.webhooks import SECRET, hmac_hex

from .conftest import Web


class Callers:
    """Threads that keep calling, each on a new connection, until told to stop; `faults` is what went wrong."""

    def __init__(self, web: Web, threads: ThreadPoolExecutor, count: int = 4) -> None:
        self._web = web
        self._stop = threading.Event()
        self.answered = 0
        self.faults: list[str] = []
        self._running = [threads.submit(self._call) for _ in range(count)]

    def _call(self) -> None:
        while not self._stop.is_set():
            try:
                reply = self._web.ask("POST", "/demo/open/predict", b"{}")
            except OSError as error:
                self.faults.append(repr(error))
                continue
            if reply.status == 200:
                self.answered += 1
            else:
                self.faults.append(f"{reply.status} {reply.body!r}")

    def end(self) -> None:
        self._stop.set()
        for one in self._running:
            one.result()


def test_a_worker_that_dies_is_replaced_and_its_counts_stay(web: Web) -> None:
    def counted() -> float:
        page = web.ask("GET", "/-/metrics").body.decode()
        name = 'prichal_gateway_requests_total{api="demo/open",code="200"} '
        return sum(float(line.removeprefix(name)) for line in page.splitlines() if line.startswith(name))

    for _ in range(20):
        web.ask("GET", "/demo/open/x")
    wait_for(lambda: counted() >= 20)
    before, workers = counted(), web.workers()
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    wait_for(lambda: len(web.workers()) == 2 and not web.workers() & workers)
    wait_for(lambda: counted() >= before)
    wait_for(lambda: lost(web) == 2)


def lost(web: Web) -> float:
    name = 'prichal_restarts_total{part="web worker"} '
    page = web.ask("GET", "/-/metrics").body.decode()
    return next(float(line.removeprefix(name)) for line in page.splitlines() if line.startswith(name))


def test_a_reload_loses_no_call(web: Web) -> None:
    before = lost(web)
    with ThreadPoolExecutor(4) as threads:
        callers = Callers(web, threads)
        workers = web.workers()
        web.signal(signal.SIGHUP)
        wait_for(lambda: not web.workers() & workers)
        answered = callers.answered
        wait_for(lambda: callers.answered > answered + 20)
        callers.end()
    assert callers.faults == []
    assert lost(web) == before, "who was told to stop is not counted"


def is_file_instead(folder: Path) -> bool:
    """Put a file where workers, which write there every second, may just have made the folder again."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(IsADirectoryError):
        folder.write_text("no folder")
    return folder.is_file()


def test_a_worker_that_cannot_start_again_ends_no_other(web: Web) -> None:
    """gunicorn would stop all of them, with a code that systemd takes for a bad configuration."""
    folder = web.state / "web"
    kept = folder.rename(folder.with_name("kept"))
    first, second = web.workers()
    wait_for(lambda: is_file_instead(folder))
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: "worker ended although nobody stopped it" in web.log.read_text())
    wait_for(lambda: web.log.read_text().count("lifespan startup failed") >= 2)
    assert second in web.workers()
    assert web.ask("GET", "/-/healthz").status == 200
    folder.unlink()
    kept.rename(folder)
    wait_for(lambda: len(web.workers()) == 2 and web.ask("GET", "/-/metrics").status == 200)


def test_a_stop_answers_what_is_under_way_and_a_restart_loses_no_connection(web: Web) -> None:
    record = RepositoryRecord("demo", (AppName("demo"),), "branch:main", 60.0, "generic", SECRET)
    web.store.repositories.replace([record])
    body = b'{"ref": "refs/heads/main"}'
    headers = {"content_type": "application/json", "x_signature": "sha256=" + hmac_hex(body)}
    path = web.ask("POST", "/-/hooks/demo", body, **headers).json["links"]["self"] + "?after=999999&wait=50"
    web.component.letting_go.clear()
    with ThreadPoolExecutor(8) as threads:
        poll = threads.submit(web.ask, "GET", path, x_signature=sign(SECRET, path.encode()))
        held = threads.submit(web.ask, "GET", "/demo/open/hold")
        assert web.component.held.acquire(timeout=30)
        process = web.process
        assert process is not None
        process.terminate()
        assert poll.result().json["state"] == "queued", "a stop ends what waits for news"
        assert not held.done(), "a stop waits for calls"
        web.component.letting_go.set()
        assert held.result().status == 200
        assert process.wait(timeout=60) == 0

        waiting = [threads.submit(web.ask, "GET", "/demo/open/x") for _ in range(4)]  # in the socket's queue
        web.start()
        assert [one.result().status for one in waiting] == [200] * 4
    assert not web.store.gateways.drained("x", 10**9, time.time()), "the new workers have reported"
    wait_for(lambda: web.ask("GET", "/-/healthz").status == 200)


def test_it_does_not_start_on_a_state_that_it_cannot_use(web: Web) -> None:
    web.stop()
    database = web.state / "db" / "state.db"
    web.store.close()
    kept = database.rename(database.with_suffix(".kept"))
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    database.write_bytes(b"this is no database " * 1000)
    web.start()
    assert web.process is not None
    assert web.process.wait(timeout=60) != 0
    assert "is damaged" in web.log.read_text()
    assert kept.exists()
