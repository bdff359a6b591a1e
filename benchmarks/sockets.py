"""Measures WebSockets through the gateway beside the same server called directly: how long a message and its echo take,
and how many come back in a second while many are under way."""

from __future__ import annotations

import base64
import os
import socket
import time
from contextlib import ExitStack, closing
from functools import partial
from statistics import median, quantiles

from benchmarks.environment import PROCESSORS, WAIT_LIMIT, Adder, Environment, running_platform
from benchmarks.figures import Section, in_turns
from benchmarks.load import LoadFailed, Target, connect

MESSAGES, WINDOW, ROUNDS = 1000, 64, 5  # in flight: WINDOW
TEXT = b"a message of sixty-four bytes, as chats and notebooks send them.."
MASK = b"\x01\x02\x03\x04"
#: What a client has to send, masked, and what comes back.
FRAME = bytes([0x81, 0x80 | len(TEXT)]) + MASK + bytes(b ^ MASK[n % 4] for n, b in enumerate(TEXT))
ECHO = bytes([0x81, len(TEXT)]) + TEXT
PATH, DIRECT = "through the gateway", "the server directly"


class Echoes(Adder):
    """A module whose component sends back what it gets."""

    def commit(self, offset: int) -> str:
        self.component(
            "echo",
            image={"existingImageName": self._image},
            env=[{"name": "OWN", "value": "own_echo.py"}],
            mlService={"server": "own", "readyPath": "/"},
            resources={"cpus": PROCESSORS, "memory": "256Mi"},
        ).api("echo", "echo")
        self._git("add", "--all")
        self._git(
            "-c", "user.name=b", "-c", "user.email=b@example.org", "commit", "--quiet", "--message", "Echo"
        )
        return self._git("rev-parse", "HEAD").strip()


def measure(ground: Environment) -> Section:
    section = Section("sockets", "WebSockets through the gateway, beside the server directly")
    with ExitStack() as stack:
        module = Echoes(stack.enter_context(running_platform(ground)), ground)
        module.deploy(0)
        direct = module.direct_target(0)
        targets = {
            PATH: Target(module.target(0).address, f"/{module.app}/echo/", b"", b""),
            DIRECT: Target(direct.address, "/", b"", b""),
        }
        lines = {name: stack.enter_context(closing(opened(target))) for name, target in targets.items()}
        count, rounds = ground.count(MESSAGES, 10), ground.count(ROUNDS)
        single = in_turns({name: partial(_one_by_one, line, count) for name, line in lines.items()}, rounds)
        many = in_turns({name: partial(_many, line, 20 * count) for name, line in lines.items()}, rounds)
    for name in targets:
        section.add(f"{name}, one message at a time: p50", "ms", [p50 for p50, _ in single[name]])
        section.add("  p99", "ms", [p99 for _, p99 in single[name]])
        section.add(f"{name}, {WINDOW} under way", "msg/s", many[name])
    added = [path[0] - direct[0] for path, direct in zip(single[PATH], single[DIRECT], strict=True)]
    section.add("what the gateway adds to a message and its echo", "ms", added)
    section.compare(
        f"messages through the gateway beside directly, {WINDOW} under way", many[PATH], many[DIRECT]
    )
    return section


def opened(target: Target) -> socket.socket:
    """Return a connection after the handshake. Raises LoadFailed."""
    line = connect(target.address)
    line.settimeout(WAIT_LIMIT)
    key = base64.b64encode(os.urandom(16)).decode()
    fields = (
        f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}"
    )
    line.sendall(f"GET {target.path} HTTP/1.1\r\nHost: {target.address[0]}\r\n{fields}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = line.recv(65536)
        head += piece
        if not piece or not head.startswith(b"HTTP/1.1 101"[: len(head)]):
            raise LoadFailed(f"{target.address}{target.path} opens no WebSocket: {head[:300]!r}")
    return line


def _one_by_one(line: socket.socket, count: int) -> tuple[float, float]:
    """Return p50 and p99 in ms."""
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        line.sendall(FRAME)
        _read(line, 1)
        times.append(1e3 * (time.perf_counter() - begun))
    return median(times), quantiles(times, n=100)[98]


def _many(line: socket.socket, count: int) -> float:
    """Return the messages of a second; half a window is sent when half of one has come back."""
    half = WINDOW // 2
    rounds = max(2, count // half)
    line.sendall(FRAME * half)
    begun = time.perf_counter()
    for _ in range(rounds):
        line.sendall(FRAME * half)
        _read(line, half)
    seconds = time.perf_counter() - begun
    _read(line, half)
    return rounds * half / seconds


def _read(line: socket.socket, count: int) -> None:
    """Read so many echoes, and look at each."""
    left, echoes = len(ECHO) * count, b""
    while len(echoes) < left:
        piece = line.recv(left - len(echoes))
        echoes += piece
        if not piece:
            raise LoadFailed("the WebSocket was closed")
    if echoes != ECHO * count:
        raise LoadFailed(f"not the echo of what was sent: {echoes[:200]!r}")
