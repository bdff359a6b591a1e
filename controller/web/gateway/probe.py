"""Asks a container whether it takes calls again. Used by `activator` while calls wait; it never waits for long,
and keeps the connection for the first of them."""

from __future__ import annotations

import asyncio

from controller.web.gateway.pool import ConnectionPool
from controller.web.gateway.upstream import UpstreamConnection, UpstreamError, UpstreamUnreachable

TIMEOUT = 2.0  # seconds for an answer


async def takes_calls(pool: ConnectionPool, endpoint: str, path: str) -> bool:
    """Return True if the container takes a connection and, if `path` is given, answers it with 200."""
    try:
        connection = await pool.connect(endpoint)
    except UpstreamUnreachable:
        return False
    try:
        return not path or await _answers(connection, path)
    except (UpstreamError, TimeoutError):
        return False
    finally:
        if not path or connection.end():
            pool.give_back(connection, asyncio.get_running_loop().time())


async def _answers(connection: UpstreamConnection, path: str) -> bool:
    async with asyncio.timeout(TIMEOUT):
        request = f"GET {path} HTTP/1.1\r\nhost: {connection.endpoint}\r\n\r\n"
        connection.begin(request.encode(), False, TIMEOUT)
        await connection.head()
        while await connection.read():
            pass
    return connection.status == 200
