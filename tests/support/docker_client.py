"""Records what the real `docker build` command sends to an engine; the engine is a fake."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Engine(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(b"OK")

    def do_POST(self) -> None:
        content = bytearray()
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        assert isinstance(self.server, _Server)
        self.server.contexts.append(bytes(content))
        self._answer(b'{"stream": "taken down"}\n')

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        for name, value in (("Api-Version", "1.41"), ("Ostype", "linux"), ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Engine)
        self.contexts: list[bytes] = []


class DockerClient:
    def __init__(self, server: _Server) -> None:
        self._server = server

    def sends(self, folder: Path, dockerfile: str = "Dockerfile") -> set[str] | None:
        """Names of files and folders; None if the command refuses the folder."""
        self._server.contexts.clear()
        environment = {"DOCKER_HOST": f"tcp://127.0.0.1:{self._server.server_port}", "DOCKER_BUILDKIT": "0"}
        done = subprocess.run(
            ["docker", "build", "-f", str(folder / dockerfile), str(folder)],
            env={**os.environ, **environment},
            capture_output=True,
            timeout=60,
        )
        if done.returncode:
            return None
        [context] = self._server.contexts
        with tarfile.open(fileobj=io.BytesIO(context)) as archive:
            return {member.name.rstrip("/") for member in archive}


@contextmanager
def docker_client() -> Iterator[DockerClient]:
    server = _Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield DockerClient(server)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
