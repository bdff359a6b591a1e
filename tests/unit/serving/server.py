"""The real serving library as a process, and clients that talk to it over real sockets.

``PRICHAL_SERVING_PYTHON`` names another interpreter to run it under: the library promises Python 3.9.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

LIBRARY = pathlib.Path(__file__).parents[3] / "controller" / "serving"
PYTHON = os.environ.get("PRICHAL_SERVING_PYTHON", sys.executable)
WAIT_LIMIT = 60.0  # for conditions that come true: only a broken test ever waits so long

ECHO = '''
def predict(inputs):
    """Echo.

    :param inputs.text: A text
    :type inputs.text: str
    :param outputs.text: The same text
    :type outputs.text: str
    """
    return {"text": inputs[0]["data"]}
'''


def text_function(body: str, arguments: str = "inputs", before: str = "") -> str:
    """Source of a module whose predict takes a str ``text`` and runs the body's lines."""
    head, docstring = "def predict(" + arguments + "):", ECHO.split('"""')[1]
    indented = "".join(f"    {line}\n" for line in body.splitlines())
    return f'import os, sys, threading, time\n{before}\n{head}\n    """{docstring}"""\n{indented}'


def text(value: str = "hi") -> dict[str, Any]:
    """A request that such a function takes."""
    return {"inputs": [{"name": "text", "datatype": "str", "data": value}]}


@dataclasses.dataclass(frozen=True)
class Reply:
    """One HTTP response. Header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def outputs(self) -> dict[str, Any]:
        return {output["name"]: output["data"] for output in self.json["outputs"]}


class Server:
    """``python3 -m prichal_serving`` in a folder that holds ``app.py``."""

    def __init__(
        self, folder: pathlib.Path, source: str, python: str | pathlib.Path = PYTHON, **settings: Any
    ) -> None:
        (folder / "app.py").write_text(source)
        mount = folder / "mount"
        mount.mkdir(exist_ok=True)
        if not (mount / "prichal_serving").exists():
            (mount / "prichal_serving").symlink_to(LIBRARY)
        values = {"app": "demo", "component": "echo", "inference": "app:predict", "port": 0, **settings}
        environ = {**os.environ, "PYTHONPATH": str(mount), "PRICHAL_SERVING": json.dumps(values)}
        environ["PYTHONDONTWRITEBYTECODE"] = "1"
        self.process = subprocess.Popen(
            [python, "-m", "prichal_serving"],
            cwd=folder,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.folder = folder
        self._lines: list[str] = []
        self._news = threading.Condition()
        self.printed = 0
        self._threads = [threading.Thread(target=self._read_log), threading.Thread(target=self._read_output)]
        for thread in self._threads:
            thread.start()

    def _read_log(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            with self._news:
                self._lines.append(line.decode().rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def _read_output(self) -> None:
        assert self.process.stdout
        while piece := os.read(self.process.stdout.fileno(), 1 << 16):
            with self._news:
                self.printed += len(piece)
                self._news.notify_all()

    def wait_until(self, condition: Any) -> None:
        """Wait for something about the log or the output."""
        with self._news:
            assert self._news.wait_for(condition, WAIT_LIMIT), "\n".join(self._lines)

    def wait_until_gone(self, process: pathlib.Path) -> None:
        """Wait until a process, given as its folder below /proc, has ended."""
        end = time.monotonic() + WAIT_LIMIT
        while process.exists() and (process / "stat").read_text().split()[2] != "Z":
            assert time.monotonic() < end, process
            time.sleep(0.01)

    def wait_for(self, part: str, times: int = 1) -> str:
        """The log line that holds the part, when it has come (the n-th such line)."""
        self.wait_until(lambda: len(self.lines(part)) >= times)
        return self.lines(part)[times - 1]

    def lines(self, part: str = "") -> list[str]:
        return [line for line in list(self._lines) if part in line]

    def ready(self, times: int = 1) -> Server:
        self.wait_for("is ready", times)
        return self

    @property
    def port(self) -> int:
        return int(self.wait_for("on port").rpartition(" ")[2])

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_LIMIT)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_LIMIT)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, names, response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Reply:
        return self.ask("GET", path)

    def post(self, value: Any, path: str = "/predict", **headers: str) -> Reply:
        """POST JSON; bytes are sent as they are."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        named = {name.replace("_", "-"): content for name, content in headers.items()}
        return self.ask("POST", path, body, {"Content-Type": "application/json", **named})

    def raw(self, sent: bytes) -> bytes:
        """Send bytes, end the sending side, give all that comes back."""
        with self.connect() as sock:
            sock.sendall(sent)
            sock.shutdown(socket.SHUT_WR)
            return read_all(sock)

    def release(self) -> None:
        """Let a function go on that waits for the file ``go`` in its working directory."""
        (self.folder / "go").touch()

    def in_background(self, value: Any, **headers: str) -> Background:
        return Background(self, value, headers)

    def wait_ended(self) -> int:
        code = self.process.wait(WAIT_LIMIT)
        for thread in self._threads:
            thread.join(WAIT_LIMIT)
        return code

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait_ended()

    def close(self) -> None:
        """At the end of a test: whatever state it is in, end it at once (a second signal does not wait for calls)."""
        for _ in range(2):
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
        self.wait_ended()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe
            pipe.close()


class Background:
    """A POST to /predict on a thread of its own; ``result`` waits for what became of it."""

    def __init__(self, server: Server, value: Any, headers: dict[str, str]) -> None:
        self._outcome: Reply | Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(server, value, headers))
        self._thread.start()

    def _run(self, server: Server, value: Any, headers: dict[str, str]) -> None:
        try:
            self._outcome = server.post(value, **headers)
        except (OSError, http.client.HTTPException) as error:
            self._outcome = error

    def result(self) -> Reply | Exception:
        self._thread.join(WAIT_LIMIT)
        assert self._outcome is not None, "no answer"
        return self._outcome

    def reply(self) -> Reply:
        outcome = self.result()
        assert isinstance(outcome, Reply), outcome
        return outcome


def read_all(sock: socket.socket) -> bytes:
    """What comes until the other side closes."""
    pieces = []
    while piece := sock.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def read_response(stream: Any) -> Reply:
    """One response from a socket's file, which stays open."""
    status = int(stream.readline().split()[1])
    headers = {}
    while line := stream.readline().strip():
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    return Reply(status, headers, stream.read(int(headers.get("content-length", 0))))


def wait_until(condition: Callable[[], object], server: Server) -> None:
    """Wait for something that nobody announces."""
    end = time.monotonic() + WAIT_LIMIT
    while not condition():
        assert time.monotonic() < end, server.lines()
        time.sleep(0.005)


def load(server: Server) -> tuple[int, int]:
    """How many calls run, and how many wait."""
    ready = server.get("/health/ready").json
    return ready["running"], ready["waiting"]
