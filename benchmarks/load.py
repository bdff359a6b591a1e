"""The load: wrk with a fixed number of keep-alive connections, each with one call under way at any time.

A generator in Python was tried and took longer over a call than the serving library does, which flattered slow
components. wrk counts unsuccessful answers; the content of the others is checked before and after.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

TIMEOUT = 10.0  # seconds without any reply, after which a measurement is given up
SCRIPT = Path(__file__).with_name("wrk.lua")

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
    """What was measured: answered calls, seconds of wall clock, and quantiles of the latency in seconds."""

    calls: int
    seconds: float
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        return self.calls / self.seconds


def run(target: Target, connections: int, seconds: int, warmup: float = 0.3) -> Load:
    """Call for `warmup` seconds, then with all connections for `seconds`, which are measured. LoadFailed."""
    _confirm(target, warmup)
    host, port = target.address
    options = [
        "--threads",
        "1",
        "--connections",
        str(connections),
        "--duration",
        str(seconds),
        "--script",
        str(SCRIPT),
    ]
    done = subprocess.run(
        ["wrk", *options, f"http://{host}:{port}{target.path}"],
        env={**os.environ, "BENCHMARK_BODY": target.body.decode()},
        capture_output=True,
        text=True,
        timeout=seconds + TIMEOUT,
    )
    if done.returncode:
        raise LoadFailed(f"wrk: {done.stderr or done.stdout}")
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    if figures.pop("failed") or not figures["calls"]:
        raise LoadFailed(f"{target.address}{target.path}: not every call was answered well:\n{done.stdout}")
    _confirm(target, 0.0)
    return Load(**figures)


def _confirm(target: Target, seconds: float) -> None:
    """At least one call whose answer is read: wrk itself looks at the status alone."""
    end = time.monotonic() + seconds
    try:
        with connect(target.address) as connection:
            while True:
                body = exchange(connection, target.request)
                if target.expected not in body:
                    raise LoadFailed(f"{target.address}{target.path} answers {body[:300]!r}")
                if time.monotonic() >= end:
                    return
    except OSError as error:
        raise LoadFailed(f"{target.address}: {error}") from error


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
