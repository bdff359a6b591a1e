"""A proxy for a unix socket: it makes an engine disappear and come back, answer with errors, or not answer."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path

_REQUEST = re.compile(rb"[A-Z]+ \S+ HTTP/1\.1\r\n")
_BODY = b'{"message": "the engine is not well"}'


class Fault(Enum):
    """In place of an answer."""

    HANG = "hang"
    FAIL = "500 Internal Server Error"
    AWAY = "503 Service Unavailable"


class CuttableSocket:
    """Connections to `path` are passed on to `target`. `cut` ends them all and refuses new ones for a while. Requests
    whose first line ("POST /v1.41/containers/…/start HTTP/1.1") holds a match of a pattern in `faults` meet that."""

    def __init__(self, path: Path, target: str) -> None:
        self.path = path
        self.faults: dict[str, Fault] = {}
        self.met: list[str] = []  # first lines of requests that did
        self._target = target
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def repair(self) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen()
        self._listener = listener
        self._spawn(self._accept, listener)

    def cut(self) -> None:
        with self._lock:
            ends, self._open = self._open, []
            if self._listener:
                ends.append(self._listener)
                self._listener = None
            self.path.unlink(missing_ok=True)
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        for end in ends:
            end.close()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._target)
                with self._lock:
                    self._open += [near, far]
                self._spawn(self._serve, near, far)
                self._spawn(_copy, far, near)

    def _serve(self, near: socket.socket, far: socket.socket) -> None:
        """Clients send the head of a request in one piece."""
        with suppress(OSError):
            while data := near.recv(65536):
                line = found[0].decode() if (found := _REQUEST.match(data)) else ""
                fault = next((f for pattern, f in self.faults.items() if re.search(pattern, line)), None)
                if line and fault:
                    self.met.append(line)
                if line and fault not in (None, Fault.HANG):
                    near.sendall(_answer(fault, with_body=not line.startswith("HEAD")))
                elif not line or fault is None:
                    far.sendall(data)
        with suppress(OSError):
            far.shutdown(socket.SHUT_WR)

    def _spawn(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        thread.start()
        self._threads.append(thread)


def _answer(fault: Fault, with_body: bool) -> bytes:
    head = f"HTTP/1.1 {fault.value}\r\nContent-Type: application/json\r\nContent-Length: {len(_BODY)}\r\n\r\n"
    return head.encode() + (_BODY if with_body else b"")


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def cuttable(folder: Path, target: str = "/var/run/docker.sock") -> Iterator[CuttableSocket]:
    line = CuttableSocket(folder / "engine.sock", target)
    line.repair()
    try:
        yield line
    finally:
        line.cut()
