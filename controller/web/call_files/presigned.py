"""Transfers bytes to and from the storage by presigned links, on the event loop. Used by `calls`; knows HTTP,
but not buckets, keys and signatures. Promises: both directions have backpressure; the storage's time limit
counts only while it has to act; a download may be requested twice, an upload never is. Errors are Transient
`StorageUnreachable`, and TransferFailed with the storage's answer."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from controller.domain.errors import Transient
from controller.domain.reasons import Reason
from controller.web.gateway.pool import ConnectionPool
from controller.web.gateway.upstream import ConnectionDropped, UpstreamConnection, UpstreamError
from controller.web.splice import pass_on, pass_on_if

#: Seconds without progress of the storage. Less than the serving library waits for the next piece of a
#: request (20 s); otherwise the component or the gateway would be reported as slow.
SILENCE = 15.0
MAX_ERROR = 64 * 1024  # bytes of an answer that is an error


class TransferFailed(Exception):
    """The storage answered with an error."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"HTTP status {status}")
        self.status = status
        self.body = body


@dataclass(frozen=True, slots=True)
class PresignedLink:
    """A parsed URL. The signature covers `host`."""

    secure: bool
    endpoint: str
    host: str
    target: str

    @classmethod
    def of(cls, url: str) -> Self:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        name = parts.hostname or ""
        endpoint = f"[{name}]" if ":" in name else name
        port = parts.port or (443 if secure else 80)
        return cls(secure, f"{endpoint}:{port}", parts.netloc, f"{parts.path}?{parts.query}")

    def head(self, method: str, *lines: str) -> bytes:
        return "\r\n".join(
            (f"{method} {self.target} HTTP/1.1", f"host: {self.host}", *lines, "", "")
        ).encode()


class PresignedClient:
    """Sends requests with links, for one gateway worker; used only on its event loop. `tls`: by default the system's
    authorities; `silence`: seconds without progress of the storage."""

    def __init__(
        self, connect_timeout: float, tls: ssl.SSLContext | None = None, silence: float = SILENCE
    ) -> None:
        self._connect_timeout = connect_timeout
        self._tls = tls
        self._silence = silence
        self._pools: dict[bool, ConnectionPool] = {}
        self._endpoints: frozenset[str] = frozenset()
        self._loop = asyncio.get_running_loop()

    async def download(self, url: str) -> PresignedDownload:
        """Send a GET, and return when its answer has begun."""
        link = PresignedLink.of(url)
        pool = self._pool(link)
        kept = pool.idle(link.endpoint)
        if kept is not None:
            try:
                return await PresignedDownload.begin(kept, pool, link, self._silence)
            except _Stale:
                pass  # the server had closed it just before the request
        return await PresignedDownload.begin(await _connect(pool, link), pool, link, self._silence)

    async def upload(self, url: str, size: int, content_type: str) -> PresignedUpload:
        """Send the header of a PUT, and return when the bytes can be sent. It uses a new connection: on one
        that the server is about to close, they would be lost."""
        link = PresignedLink.of(url)
        pool = self._pool(link)
        head = link.head("PUT", f"content-length: {size}", f"content-type: {content_type}")
        return PresignedUpload(await _connect(pool, link), pool, head, self._silence)

    def sweep(self) -> None:
        """Close connections that were idle for long, and those to earlier addresses of the storage."""
        for pool in self._pools.values():
            pool.sweep(self._endpoints, self._loop.time())

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()

    def _pool(self, link: PresignedLink) -> ConnectionPool:
        self._endpoints = frozenset({link.endpoint})
        pool = self._pools.get(link.secure)
        if pool is None:
            tls = (self._tls or ssl.create_default_context()) if link.secure else None
            pool = self._pools[link.secure] = ConnectionPool(self._connect_timeout, tls)
        return pool


class _Stale(Exception):
    """A kept-alive connection was closed without an answer."""


class _Exchange:
    """One request on one connection. As a context manager it releases the connection at its end."""

    def __init__(self, connection: UpstreamConnection, pool: ConnectionPool) -> None:
        self._connection = connection
        self._pool = pool

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._connection.end():
            self._pool.give_back(self._connection, asyncio.get_running_loop().time())

    async def _short_body(self) -> bytes:
        body = b""
        while len(body) < MAX_ERROR and (piece := await self._connection.read()):
            body += piece
        return body


class PresignedDownload(_Exchange):
    """`size` in bytes."""

    size: int

    @classmethod
    async def begin(
        cls, connection: UpstreamConnection, pool: ConnectionPool, link: PresignedLink, silence: float
    ) -> PresignedDownload:
        download = cls(connection, pool)
        try:
            await download._begin(link, silence)
        except BaseException:
            download.close()
            raise
        return download

    async def _begin(self, link: PresignedLink, silence: float) -> None:
        connection = self._connection
        kept = connection.used
        connection.begin(link.head("GET"), head_only=False, timeout=silence)
        try:
            await connection.head()
            if connection.status != 200:
                raise TransferFailed(connection.status, await self._short_body())
        except ConnectionDropped as error:
            raise (_Stale() if kept else unreachable(error)) from error
        except UpstreamError as error:
            raise unreachable(error) from error
        length = next((value for name, value in connection.headers if name.lower() == b"content-length"), b"")
        if not length.isdigit():
            raise Transient(Reason.STORAGE_UNREACHABLE, "the storage does not tell how long the object is")
        self.size = int(length)
        connection.pause_timeout(True)

    async def send_to(self, sink: UpstreamConnection) -> None:
        """Pass the file on. Raises Transient."""
        try:
            await pass_on(self._connection, sink, self.size)
        except UpstreamError as error:
            raise unreachable(error) from error


class PresignedUpload(_Exchange):
    """`head` is the header of the request."""

    def __init__(
        self, connection: UpstreamConnection, pool: ConnectionPool, head: bytes, silence: float
    ) -> None:
        super().__init__(connection, pool)
        connection.begin(head, head_only=False, timeout=silence)
        connection.pause_timeout(True)

    async def take(
        self, source: UpstreamConnection, size: int, allowed: Callable[[], Awaitable[None]]
    ) -> None:
        """Send the next `size` bytes of the answer of `source`, the last one once `allowed()` has returned;
        less if the storage refuses them, which `finish` reports. Raises UpstreamError of `source` and errors
        of `allowed`."""
        await pass_on_if(source, self._connection, size, allowed)

    async def finish(self) -> None:
        """Return when the storage has stored it. Raises Transient, TransferFailed."""
        connection = self._connection
        connection.pause_timeout(False)
        try:
            await connection.head()
            body = await self._short_body()
        except UpstreamError as error:
            raise unreachable(error) from error
        if connection.status not in (200, 201, 204):
            raise TransferFailed(connection.status, body)


async def _connect(pool: ConnectionPool, link: PresignedLink) -> UpstreamConnection:
    try:
        return await pool.connect(link.endpoint)
    except UpstreamError as error:
        raise unreachable(error) from error


def unreachable(error: UpstreamError) -> Transient:
    return Transient(Reason.STORAGE_UNREACHABLE, f"the storage does not answer: {error}")
