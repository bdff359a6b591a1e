"""Measures the pages for people: the first byte of the list of a thousand apps, of one app's page, of the list of ten
thousand runs and of one run's page, beside the gateway's empty reply; and what a worker needs for two hundred pages
that are open and change by themselves.

The web process runs over a state with recorded apps; there is no daemon, and no engine is used.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

from benchmarks.environment import Environment, wait_for
from benchmarks.figures import Section, in_turns
from benchmarks.idle import cpu_seconds_of, memory_of
from controller.domain.apps.status import Event, EventType
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.store import SqliteStore, open_store
from tests.support.many_runs import APP as RUNS_APP
from tests.support.many_runs import NEWEST, many_runs
from tests.support.recorded import colors
from tests.support.serve_web import settings_of, with_web

APPS = 1000
RUNS = 10_000
ROUNDS = 12
REQUESTS = 100  # of each kind in a round
WINDOWS = 200  # pages that are open
SHOWN = 50  # apps whose pages these are
REST = 8  # seconds for which the process is watched
TOKEN = {"Authorization": "Bearer letmein-token", "Accept": "text/html"}
PATHS = {
    "empty": "/-/healthz",
    "apps": "/-/",
    "search": "/-/?q=app-07&state=ready",
    "app": "/-/apps/app-0007",
    "runs": f"/-/apps/{RUNS_APP}/pipelines/train",
    "failed": f"/-/apps/{RUNS_APP}/pipelines/train?state=failed&who=person:p7",
    "cause": f"/-/apps/{RUNS_APP}/pipelines/train?cause=schedule",
    "run": f"/-/apps/{RUNS_APP}/pipelines/train/runs/{NEWEST}",
}


def measure_pages(ground: Environment) -> Section:
    apps = ground.count(APPS, 20)
    count = ground.count(RUNS, 100)
    section = Section("pages", f"pages for people, with {apps} apps, {count} runs and one worker")
    with _serving(ground.home / "pages", apps, count) as (store, address, process):
        _first_bytes(section, ground, address)
        _open_pages(section, ground, store, address, process)
    return section


@contextmanager
def _serving(state: Path, apps: int, count: int) -> Iterator[tuple[SqliteStore, tuple[str, int], int]]:
    with_web(state, workers=1)
    now = time.time()
    with closing(open_store(settings_of(state).database)) as store:
        with store.transaction():
            for number in range(apps):
                store.apps.save(replace(colors(now), app=AppName(f"app-{number:04}")))
            for run in many_runs(now, count):
                store.runs.submit(run)
            store.apps.save(replace(colors(now), app=RUNS_APP))
        store.heartbeat(now + 3600)
        with (
            socket.create_server(("127.0.0.1", 0), backlog=512) as listener,
            (state / "web.log").open("ab") as log,
        ):
            descriptor = listener.fileno()
            command = [sys.executable, "-m", "tests.support.serve_web", str(state), str(descriptor)]
            process = subprocess.Popen(command, pass_fds=[descriptor], stderr=log)
            try:
                address: tuple[str, int] = listener.getsockname()
                wait_for("the web process", partial(_seconds, address, PATHS["apps"]))
                yield store, address, process.pid
            finally:
                process.terminate()
                process.wait(60)


def _first_bytes(section: Section, ground: Environment, address: tuple[str, int]) -> None:
    calls: dict[str, Callable[[], float]] = {
        name: partial(_p99, address, path, ground.count(REQUESTS, 3)) for name, path in PATHS.items()
    }
    seconds = in_turns(calls, ground.count(ROUNDS))
    for name, what in (
        ("empty", "an empty reply of the gateway (/-/healthz)"),
        ("apps", "the list of apps, 50 of them"),
        ("search", "the list, searched and filtered"),
        ("app", "the page of one app"),
        ("runs", "the list of runs, 50 of them"),
        ("failed", "the list of runs, those of one person that have failed"),
        ("cause", "the list of runs, those that the schedule has started"),
        ("run", "the page of one run"),
    ):
        section.add(f"first byte p99: {what}", "ms", [1e3 * each for each in seconds[name]])
    section.compare("  the list of apps beside the empty reply", seconds["apps"], seconds["empty"])
    section.compare("  the list of runs beside it", seconds["runs"], seconds["empty"])
    section.compare("  the page of one run beside it", seconds["run"], seconds["empty"])


def _p99(address: tuple[str, int], path: str, count: int) -> float:
    found = sorted(_seconds(address, path) for _ in range(count))
    return found[min(len(found) - 1, int(0.99 * len(found)))]


def _seconds(address: tuple[str, int], path: str) -> float:
    """Seconds from the request to the first byte of the answer, on a new connection; 0 if there is none yet."""
    with closing(HTTPConnection(*address, timeout=60)) as connection:
        connection.connect()
        begun = time.perf_counter()
        connection.request("GET", path, headers=TOKEN)
        reply = connection.getresponse()
        seconds = time.perf_counter() - begun
        reply.read()
        return seconds if reply.status == 200 else 0.0


def _open_pages(
    section: Section, ground: Environment, store: SqliteStore, address: tuple[str, int], process: int
) -> None:
    windows, shown = ground.count(WINDOWS, 4), ground.count(SHOWN, 2)
    before, rest = memory_of(process), ground.count(REST)
    idle = _used(process, rest)
    with ExitStack() as stack:
        streams = [
            stack.enter_context(_stream(address, f"/-/apps/app-{number % shown:04}"))
            for number in range(windows)
        ]
        after, busy = memory_of(process), _used(process, rest)
        begun = time.perf_counter()
        store.events.add(
            [Event(AppName("app-0000"), EventType.NORMAL, Reason.STARTED, "a mark of the measurement")]
        )
        for number in range(0, windows, shown):
            _read_to(streams[number], b"a mark of the measurement")
        seconds = time.perf_counter() - begun
    section.add(f"memory of the web process with {windows} open pages of {shown} apps", "MiB", [after])
    section.add("  more than without", "MiB", [after - before])
    section.add("processor at rest without open pages, one processor's", "%", [100 * idle / rest])
    section.add(f"  with {windows}", "%", [100 * busy / rest])
    section.add("from a change to all windows that show it", "ms", [1e3 * seconds])


@contextmanager
def _stream(address: tuple[str, int], path: str) -> Iterator[socket.socket]:
    """A live page that is open, once it has its fragments."""
    with socket.create_connection(address, timeout=60) as connection:
        fields = "".join(f"{name}: {value}\r\n" for name, value in TOKEN.items())
        connection.sendall(f"GET {path}?live=1&language=en HTTP/1.1\r\nHost: x\r\n{fields}\r\n".encode())
        _read_to(connection, b'"name": "events"')
        yield connection


def _read_to(connection: socket.socket, mark: bytes) -> None:
    found = b""
    while mark not in found:
        part = connection.recv(65536)
        if not part:
            raise ConnectionError(f"the stream has ended without {mark!r}")
        found = found[-len(mark) :] + part


def _used(process: int, rest: int) -> float:
    before = cpu_seconds_of(process)
    time.sleep(rest)
    return cpu_seconds_of(process) - before
