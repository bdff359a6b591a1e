"""GET from a server that is not trusted: once, without redirects and proxies, bounded in time. The caller bounds what
they read of the response.

The timeout of a socket restarts with each byte, so a server that sends single bytes could block a worker that others
need; hence the limit on the total time.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from urllib.parse import SplitResult


@contextmanager
def fetched(
    host: str,
    path: str,
    *,
    port: int | None = None,
    tls: bool = False,
    accept: str = "*/*",
    within: float,
    silence: float | None = None,
) -> Iterator[HTTPResponse]:
    """Yield the response. `host` may have the port in it. Seconds: `within` from the connection to the end of the
    block, `silence` without a byte, by default `within`, too. Raises OSError (TimeoutError), HTTPException, ValueError.
    """
    kind = HTTPSConnection if tls else HTTPConnection
    with closing(kind(host, port, timeout=silence or within)) as connection:
        connection.connect()
        with ended_after(within, connection.sock):
            connection.request("GET", path, headers={"Accept": accept})
            with closing(connection.getresponse()) as response:
                yield response


@contextmanager
def fetched_url(
    url: SplitResult, *, accept: str = "*/*", within: float, silence: float | None = None
) -> Iterator[HTTPResponse]:
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    with fetched(
        url.hostname or "",
        path,
        port=url.port,
        tls=url.scheme == "https",
        accept=accept,
        within=within,
        silence=silence,
    ) as response:
        yield response


@contextmanager
def ended_after(seconds: float, sock: socket.socket) -> Iterator[None]:
    """Raise TimeoutError if the block, which uses `sock`, takes longer than this."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        with suppress(OSError):  # the server was faster
            # Not `sock.shutdown`: that of a TLS socket first discards its TLS state, and what is being sent
            # would continue in plain text.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        if expired.is_set():
            raise TimeoutError(f"no answer within {seconds:g} s") from error
        raise
    finally:
        timer.cancel()
        timer.join()  # otherwise it may shut down a socket with the same number
    if expired.is_set():  # the end of the connection also ends the headers, which then look complete
        raise TimeoutError(f"no answer within {seconds:g} s")
