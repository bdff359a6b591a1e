"""The listener of the storage's proxy: a socket that the arbiter opens before it forks, so that all workers take
connections from it, and what takes them in a worker."""

from __future__ import annotations

import asyncio
import logging
import socket
import time

from controller.domain.routing.shares import TRANSFERS
from controller.web.objects.caller import CallerConnection
from controller.web.objects.proxy import ObjectProxy

log = logging.getLogger(__name__)

BACKLOG = 512
MAX_CONNECTIONS = TRANSFERS  # of one worker
ATTEMPTS = 30  # what a process that was killed listened on is free only a moment after it has gone
PAUSE = 0.1  # seconds between them
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78  # of Linux; Python's module has no names for them


class ListenSocket:
    """The socket. `listen` is `HOST:PORT`, empty: there is no storage."""

    def __init__(self, listen: str) -> None:
        self._listen = listen
        self.socket: socket.socket | None = None

    def open(self, attempts: int = ATTEMPTS) -> None:
        """Open the socket, if it is not open. A taken address does not stop the web process: it is logged, and
        tried again before the next worker starts."""
        if self.socket is not None or not self._listen:
            return
        for attempt in range(attempts):
            try:
                self.socket = _listening(self._listen)
                return
            except OSError as error:
                if attempt + 1 == attempts:
                    log.error(
                        "links to files are not served: cannot listen on %s (%s); end what uses the address, "
                        "or set storage.listen to another one, and reload the web process",
                        self._listen,
                        error.strerror or error,
                    )
                else:
                    time.sleep(PAUSE)


def _listening(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # The address may be that of Docker's bridge, which is there a moment later than we are.
        if family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


class ObjectListener:
    """The listener of one worker."""

    def __init__(self, proxy: ObjectProxy) -> None:
        self._proxy = proxy
        self._connections: dict[CallerConnection, None] = {}  # oldest first
        self._server: asyncio.Server | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    async def start(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._take, sock=sock.dup(), backlog=BACKLOG)

    def begin_stop(self) -> None:
        """Takes no more connections; transfers under way go on."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in tuple(self._connections):
            connection.stop()

    async def stop(self, within: float) -> None:
        """Returns when all transfers have ended, or are ended."""
        self.begin_stop()
        try:
            async with asyncio.timeout(within):
                await self._empty.wait()
        except TimeoutError:
            for connection in tuple(self._connections):
                connection.close()

    def _take(self) -> CallerConnection:
        connection = CallerConnection(self._proxy.answer, self._left)
        self._connections[connection] = None
        self._empty.clear()
        if len(self._connections) > MAX_CONNECTIONS and not self._close_an_idle_one():
            connection.refuse()
        return connection

    def _close_an_idle_one(self) -> bool:
        """Close idle connections in favour of new ones."""
        silent = next((each for each in self._connections if each.is_silent), None)
        if silent is not None:
            silent.close()
        return silent is not None

    def _left(self, connection: CallerConnection) -> None:
        self._connections.pop(connection, None)
        if not self._connections:
            self._empty.set()
