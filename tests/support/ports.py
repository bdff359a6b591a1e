"""Ports for servers that tests start in other processes."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

_CHANCE = random.SystemRandom()  # whatever a test has seeded


def free_port() -> int:
    """Return a port on which nothing listens, below those that Linux gives to connections: none that is made meanwhile
    takes it before the server does."""
    while True:
        port = _CHANCE.randrange(10_000, 32_768)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
