"""Requests to the storage from the event loop, signed with its account. Used by the object proxy; knows HTTP and the
signature, and neither links nor boxes.

Promises: connections are kept; a request whose body has begun to flow is sent once; errors before an answer are
Transient `StorageUnreachable`.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from controller.domain.errors import Transient
from controller.domain.reasons import Reason
from controller.domain.storage.box import StorageAccess
from controller.domain.storage.links import path_of
from controller.domain.storage.sigv4 import UNSIGNED, Signer
from controller.tracing import NO_SPAN, OFF, Span, Tracer, kind_of
from controller.web.call_files.presigned import PresignedLink, unreachable
from controller.web.gateway.pool import ConnectionPool
from controller.web.gateway.traces import answered_with, begin_storage_span
from controller.web.gateway.upstream import ConnectionDropped, UpstreamConnection, UpstreamError

SILENCE = 60.0  # seconds without progress of the storage, which may have to put many parts together
MAX_BODY = 2**20  # bytes of an answer that is read whole


class StorageRequests:
    """Requests to the storage from one gateway worker; used only on its event loop."""

    def __init__(self, connect_timeout: float, tracer: Tracer = OFF) -> None:
        self._connect_timeout = connect_timeout
        self._tracer = tracer
        self._spans: dict[UpstreamConnection, Span] = {}  # of exchanges in progress, while tracing is on
        self._pools: dict[bool, ConnectionPool] = {}
        self._endpoint = ""
        self._loop = asyncio.get_running_loop()

    def sweep(self) -> None:
        """Close connections that were idle for long, and those to storages of former times."""
        for pool in self._pools.values():
            pool.sweep(frozenset({self._endpoint}), self._loop.time())

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()

    @contextmanager
    def connected(
        self, connection: UpstreamConnection, access: StorageAccess
    ) -> Iterator[UpstreamConnection]:
        """Lets go of the connection at the end, and keeps it if it can be used again."""
        made = self._spans.pop(connection, NO_SPAN) if self._spans else NO_SPAN
        try:
            yield connection
            answered_with(made, connection.status)
        except BaseException as error:
            made.fail(kind_of(error))
            raise
        finally:
            made.end()
            if connection.end():
                self._pool(PresignedLink.of(access.internal_url)).give_back(connection, self._loop.time())

    async def send(
        self,
        access: StorageAccess,
        signer: Signer,
        method: str,
        bucket: str,
        key: str,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        length: int | None = None,
        payload: str = UNSIGNED,
    ) -> UpstreamConnection:
        """As `_send`, which it records as a span."""
        given = access, signer, method, bucket, key, query, headers, body, length, payload
        if not self._tracer.is_on:
            return await self._send(*given)
        endpoint = PresignedLink.of(access.internal_url).endpoint
        made = begin_storage_span(self._tracer, method, endpoint, "/{bucket}/{key}" if key else "/{bucket}")
        try:
            connection = await self._send(*given)
        except BaseException as error:
            made.fail(kind_of(error))
            made.end()
            raise
        self._spans[connection] = made
        return connection

    async def _send(
        self,
        access: StorageAccess,
        signer: Signer,
        method: str,
        bucket: str,
        key: str,
        query: str,
        headers: Mapping[str, str] | None,
        body: bytes,
        length: int | None,
        payload: str,
    ) -> UpstreamConnection:
        """The connection on which the request was begun, to be given to `connected`. `length` of a body that follows,
        else it is `body`; `payload` is its digest, if the storage is to check it. Raises Transient."""
        link = PresignedLink.of(access.internal_url)
        fields = {
            "host": link.host,
            **(headers or {}),
            "content-length": str(len(body) if length is None else length),
        }
        path = path_of(bucket, key) if key else f"/{bucket}"
        fields = signer.headers(method, path, query, fields, time.time(), payload)
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        target = f"{path}?{query}" if query else path
        data = f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body
        pool = self._pool(link)
        if length is None and (kept := pool.idle(link.endpoint)) is not None:
            answered = await _begin(kept, data, method)
            if answered:
                return kept
            kept.end()
        try:
            connection = await pool.connect(link.endpoint)
            if length is None:
                await _begin(connection, data, method, fresh=True)
            else:
                connection.begin(data, head_only=False, timeout=SILENCE)
        except UpstreamError as error:
            raise unreachable(error) from error
        return connection

    def _pool(self, link: PresignedLink) -> ConnectionPool:
        self._endpoint = link.endpoint
        pool = self._pools.get(link.secure)
        if pool is None:
            tls = ssl.create_default_context() if link.secure else None
            pool = self._pools[link.secure] = ConnectionPool(self._connect_timeout, tls)
        return pool


async def _begin(connection: UpstreamConnection, data: bytes, method: str, fresh: bool = False) -> bool:
    """Send a request and wait for the header of its answer. False: the server had closed a kept connection."""
    connection.begin(data, head_only=method == "HEAD", timeout=SILENCE)
    try:
        await connection.head()
    except ConnectionDropped as error:
        if fresh:
            connection.end()
            raise
        if error.undelivered or method in ("GET", "HEAD", "PUT", "DELETE"):
            return False
        raise unreachable(error) from error
    except UpstreamError as error:
        connection.end()
        raise unreachable(error) from error
    except BaseException:
        connection.close()
        raise
    return True


async def whole(connection: UpstreamConnection) -> bytes:
    """The rest of a short answer. Raises Transient."""
    pieces: list[bytes] = []
    size = 0
    try:
        while size < MAX_BODY and (piece := await connection.read()):
            pieces.append(piece)
            size += len(piece)
    except UpstreamError as error:
        raise Transient(Reason.STORAGE_UNREACHABLE, f"the storage does not answer: {error}") from error
    return b"".join(pieces)
