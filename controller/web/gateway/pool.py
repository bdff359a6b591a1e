"""Kept-alive connections to components, and the number of requests in progress at each endpoint. Used by
`forward`; the route watcher passes it the endpoints of the table."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Iterable

from controller.web.gateway.outliers import Outliers
from controller.web.gateway.upstream import UpstreamConnection, UpstreamUnreachable

IDLE_LIMIT = 64  # connections kept per endpoint
IDLE_SECONDS = 30.0


class ConnectionPool:
    """The connections of one gateway worker; used only on its event loop. With `tls` they are encrypted."""

    def __init__(
        self,
        connect_timeout: float,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect_timeout = connect_timeout
        self._tls = tls
        self._idle: dict[str, list[UpstreamConnection]] = {}
        self._busy: dict[str, int] = {}
        self._outliers = Outliers(clock)
        self._turn = 0

    def choose(self, endpoints: tuple[str, ...], tried: Iterable[str] = ()) -> str | None:
        """Return the endpoint with the fewest requests in progress, in turn among equals; None if all were tried. One
        that took no connection is left out for a while if there are others."""
        left = tuple(e for e in endpoints if e not in tried) if tried else endpoints
        if self._outliers and len(left) > 1:
            left = self._outliers.admitted(left)
            chosen = self._least_busy(left)
            self._outliers.chosen(chosen)
            return chosen
        return self._least_busy(left) if left else None

    def _least_busy(self, left: tuple[str, ...]) -> str:
        if len(left) == 1:
            return left[0]
        self._turn += 1
        start = self._turn % len(left)
        turned: tuple[str, ...] = (*left[start:], *left[:start])
        return min(turned, key=lambda endpoint: self._busy.get(endpoint, 0))

    def eject(self, endpoint: str) -> None:
        """Leave the endpoint out for a while: it took no connection, or nothing that was sent over one."""
        self._outliers.failed(endpoint)
        for connection in self._idle.pop(endpoint, ()):
            connection.close()

    def enter(self, endpoint: str) -> None:
        self._busy[endpoint] = self._busy.get(endpoint, 0) + 1

    def leave(self, endpoint: str) -> bool:
        """Return True if the endpoint has no requests in progress any more."""
        left = self._busy[endpoint] - 1
        if left:
            self._busy[endpoint] = left
            return False
        del self._busy[endpoint]
        return True

    @property
    def busy(self) -> frozenset[str]:
        return frozenset(self._busy)

    def idle(self, endpoint: str) -> UpstreamConnection | None:
        """Return the kept connection that was used last."""
        kept = self._idle.get(endpoint)
        while kept:
            connection = kept.pop()
            if not connection.closed:
                return connection
        return None

    async def connect(self, endpoint: str) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        host, _, port = endpoint.rpartition(":")
        host = host.strip("[]")
        try:
            async with asyncio.timeout(self._connect_timeout):
                _, connection = await loop.create_connection(
                    lambda: UpstreamConnection(endpoint, loop),
                    host,
                    int(port),
                    ssl=self._tls,
                    server_hostname=host if self._tls else None,
                )
        except TimeoutError:
            self.eject(endpoint)
            raise UpstreamUnreachable(f"no connection within {self._connect_timeout:g} s") from None
        except OSError as error:
            self.eject(endpoint)
            raise UpstreamUnreachable(error.strerror or str(error)) from error
        self._outliers.succeeded(endpoint)
        return connection

    def give_back(self, connection: UpstreamConnection, now: float) -> None:
        kept = self._idle.setdefault(connection.endpoint, [])
        if len(kept) >= IDLE_LIMIT:
            connection.close()
            return
        connection.idle_since = now
        kept.append(connection)

    def sweep(self, endpoints: frozenset[str], now: float) -> None:
        """Close connections that were idle for long, and all idle ones to endpoints that are no longer in the
        table."""
        self._outliers.keep(endpoints)
        for endpoint in list(self._idle):
            kept = self._idle[endpoint]
            keep = endpoint in endpoints
            fresh = [c for c in kept if keep and not c.closed and c.idle_since > now - IDLE_SECONDS]
            for connection in kept:
                if connection not in fresh:
                    connection.close()
            if fresh:
                self._idle[endpoint] = fresh
            else:
                del self._idle[endpoint]

    def close(self) -> None:
        self.sweep(frozenset(), 0.0)
