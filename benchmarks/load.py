"""The load generator: a fixed number of keep-alive connections, each with one call under way at any time.

One process on an epoll loop with prepared bytes: some 15 µs a call, little beside any server measured here, and the
same for all of them. It takes part in the competition for the processor like any client on the same machine would.
Every reply is checked: a server that answers quickly and wrongly gets no figure.
"""

from __future__ import annotations

import gc
import re
import select
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

TIMEOUT = 10.0  # seconds without any reply, after which a measurement is given up

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


class LoadFailed(Exception):
    """The server did not answer as it should: the figure would be of no use."""


@dataclass(frozen=True)
class Target:
    """One HTTP/1.1 endpoint. `expected` must be found in the body of every reply."""

    address: tuple[str, int]
    path: str
    body: bytes
    expected: bytes

    @property
    def request(self) -> bytes:
        host, port = self.address
        head = [
            f"POST {self.path} HTTP/1.1",
            f"Host: {host}:{port}",
            "Content-Type: application/json",
            f"Content-Length: {len(self.body)}",
        ]
        return "\r\n".join([*head, "", ""]).encode() + self.body


@dataclass(frozen=True)
class Load:
    """What was measured: `latencies` in seconds, sorted, one for each call; `seconds` of wall clock for all."""

    latencies: tuple[float, ...]
    seconds: float

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def quantile(self, share: float) -> float:
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


def run(target: Target, connections: int, seconds: float, warmup: float = 0.3) -> Load:
    """Call for `warmup` seconds, then for `seconds`, which are measured. LoadFailed."""
    with _connected(target, connections) as sockets, _without_pauses():
        _call(target, sockets, warmup)
        begun = time.perf_counter()
        latencies = _call(target, sockets, seconds)
        elapsed = time.perf_counter() - begun
    if not latencies:
        raise LoadFailed(f"{target.address}: no reply within {seconds:g} s")
    return Load(tuple(sorted(latencies)), elapsed)


def exchange(connection: socket.socket, request: bytes) -> bytes:
    """One call; the body of its reply. LoadFailed, OSError."""
    connection.sendall(request)
    reply = connection.recv(65536)
    while (body := _body(reply)) is None:
        more = connection.recv(65536)
        if not more:
            raise LoadFailed("the connection was closed within a reply")
        reply += more
    return body


def connect(address: tuple[str, int]) -> socket.socket:
    connection = socket.create_connection(address, timeout=TIMEOUT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


@contextmanager
def _connected(target: Target, count: int) -> Iterator[dict[int, socket.socket]]:
    sockets: dict[int, socket.socket] = {}
    try:
        for _ in range(count):
            connection = connect(target.address)
            sockets[connection.fileno()] = connection
        yield sockets
    finally:
        for connection in sockets.values():
            connection.close()


@contextmanager
def _without_pauses() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _call(target: Target, sockets: dict[int, socket.socket], seconds: float) -> list[float]:
    """Begin a call on each connection, and a new one whenever one ends, until the time is over; then wait for those
    under way. Seconds that each took."""
    request, clock = target.request, time.perf_counter
    latencies: list[float] = []
    begun: dict[int, float] = {}
    parts: dict[int, bytes] = {}
    end = clock() + seconds
    with closing(select.epoll()) as poll:
        for number, connection in sockets.items():
            poll.register(number, select.EPOLLIN)
            begun[number] = clock()
            connection.sendall(request)
        while begun:
            for number, _ in _ready(poll, target):
                reply = parts.pop(number, b"") + sockets[number].recv(65536)
                body = _body(reply)
                if body is None:
                    parts[number] = reply
                    continue
                now = clock()
                _check(body, target)
                latencies.append(now - begun.pop(number))
                if now < end:
                    begun[number] = clock()
                    sockets[number].sendall(request)
    return latencies


def _ready(poll: select.epoll, target: Target) -> list[tuple[int, int]]:
    events = poll.poll(TIMEOUT)
    if not events:
        raise LoadFailed(f"{target.address}: no reply within {TIMEOUT:g} s")
    return events


def _check(body: bytes, target: Target) -> None:
    if target.expected not in body:
        raise LoadFailed(f"{target.address}{target.path} answers {body[:300]!r}")


def _body(reply: bytes) -> bytes | None:
    """The body of an answer of 200, None as long as not all of it has come. LoadFailed for any other answer."""
    if not reply:
        raise LoadFailed("the connection was closed")
    head = reply.find(b"\r\n\r\n")
    if head < 0:
        return None
    length = _LENGTH.search(reply, 0, head + 2)
    if not reply.startswith(b"HTTP/1.1 200 ") or length is None:
        raise LoadFailed(f"not an answer of 200 with a known length: {reply[:300]!r}")
    body = reply[head + 4 :]
    return body if len(body) >= int(length[1]) else None
