"""Connections to one S3 endpoint: its address, and timeouts. Shared by `client` and `admin`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from urllib3 import PoolManager, Timeout

#: Connections kept open: reconcile workers, the measuring loop and the web process's threads stay below this.
POOL_SIZE: Final = 32
CONNECT: Final = 2.0  # seconds
SILENCE: Final = 30.0  # seconds without a byte
PING: Final = 3.0  # seconds for both
BLOCK: Final = 256 * 1024  # bytes of a body that are sent at once


@dataclass(frozen=True)
class Endpoint:
    """`address` is `host[:port]`, as the SDK needs it."""

    address: str
    secure: bool

    @classmethod
    def of(cls, url: str) -> Endpoint:
        """Parse `http(s)://host[:port]`."""
        parts = urlsplit(url)
        return cls(parts.netloc, parts.scheme == "https")


def pool(connect: float = CONNECT, silence: float = SILENCE) -> PoolManager:
    """Return a pool that sends every request once. Callers retry with a backoff; retries here would block
    their threads, and multiply the load of a storage with problems. Certificates are checked against the
    host's trust store.
    """
    return PoolManager(
        maxsize=POOL_SIZE,
        retries=False,
        timeout=Timeout(connect=connect, read=silence),
        blocksize=BLOCK,
    )
