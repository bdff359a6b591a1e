"""A real gunicorn with two workers, on a socket handed over as systemd does it, and a component to forward to."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from controller.domain.routing.passwords import hash_password, hash_token
from controller.domain.routing.routes import Route
from controller.store import SqliteStore
from tests.support.gateway import make_api, make_route
from tests.support.serve_web import settings_of
from tests.support.stores import open_store
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[3]


class EchoHandler(BaseHTTPRequestHandler):
    """Answers with what it was asked; `/hold` waits until the test lets go, `/drip` streams."""

    protocol_version = "HTTP/1.1"
    server: Echo

    def answer(self) -> None:
        self.server.seen.append(self.requestline)
        size = int(self.headers.get("content-length", 0))
        body = self.rfile.read(size)
        if self.path.startswith("/hold"):
            self.server.held.release()
            self.server.letting_go.wait(30)
        if self.path.startswith("/watch"):
            self.server.held.release()
            self.rfile.read(1)  # the end of the connection
            self.server.left.set()
            return
        document = {
            "name": self.server.name,
            "line": self.requestline,
            "headers": dict(self.headers),
            "size": len(body),
        }
        data = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - names of the standard library

    def log_message(self, *_: object) -> None:
        pass


class Echo(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # of the default 5, more connections at once are reset by the kernel

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), EchoHandler)
        self.name = name
        self.seen: list[str] = []
        self.held = threading.Semaphore(0)
        self.letting_go = threading.Event()
        self.left = threading.Event()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.server_port}"


@contextmanager
def echo(name: str) -> Iterator[Echo]:
    with Echo(name) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.letting_go.set()
            server.shutdown()
            thread.join()


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Web:
    """The running web process. `store` is the daemon's side of the same state."""

    state: Path
    store: SqliteStore
    listener: socket.socket
    component: Echo
    process: subprocess.Popen[bytes] | None = None
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.state / "web.log"

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.listener.getsockname()
        return host, port

    def start(self) -> None:
        descriptor = self.listener.fileno()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.serve_web", str(self.state), str(descriptor)],
                pass_fds=[descriptor],
                stderr=log,
                cwd=ROOT,
            )

    def put(self, route: Route) -> None:
        """Returns once all workers have it."""
        version = self.store.routes.switch(route)
        wait_for(lambda: self.store.gateways.drained("none", version, time.time()))

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=60)

    def workers(self) -> set[int]:
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return set(map(int, children.split()))

    def ask(self, method: str, path: str, body: bytes | None = None, /, **headers: str) -> Reply:
        connection = HTTPConnection(*self.address, timeout=30)
        try:
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def raw(self, data: bytes) -> bytes:
        """Everything that comes back until the server closes the connection."""
        with socket.create_connection(self.address, timeout=30) as sock:
            sock.sendall(data)
            received = b""
            try:
                while part := sock.recv(65536):
                    received += part
            except ConnectionResetError:
                pass
            return received


def demo_route(*endpoints: str, **fields: Any) -> Route:
    users = (("ann", hash_password("s3cret", "salt")), ("böb", hash_password("pass", "salt")))
    return make_route(
        make_api("open"),
        make_api("closed", users=users, tokens=(("ci", hash_token("t0ken")),), pass_identity=True),
        make_api("hidden", published=False),
        **{"any_path": True, "upstreams": endpoints, "timeout": 20.0, **fields},
    )


@contextmanager
def serving(state: Path, store: SqliteStore, component: Echo) -> Iterator[Web]:
    """A web process over this state, until the block ends."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        running = Web(state, store, listener, component)
        running.start()
        try:
            wait_for(lambda: running.ask("GET", "/-/healthz").status == 200)
            yield running
        finally:
            if running.process is not None and running.process.poll() is None:
                os.kill(running.process.pid, signal.SIGQUIT)
                running.process.wait(timeout=30)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    state = tmp_path_factory.mktemp("state")
    with closing(open_store(settings_of(state).database)) as store, echo("first") as component:
        store.routes.switch(demo_route(component.endpoint))
        with serving(state, store, component) as running:
            yield running
