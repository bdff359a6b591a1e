"""A request to a server that is not trusted: once, without redirects and proxies, bounded in time. The caller bounds
what they read of the response.

The timeout of a socket restarts with each byte, so a server that sends single bytes could block a worker that others
need; hence the limit on the total time.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from urllib.parse import SplitResult

from controller.domain.localizable import Localizable
from controller.threads import running_beside

_ASKED_EVERY = 0.2  # seconds


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
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    unless: Callable[[], bool] | None = None,
) -> Iterator[HTTPResponse]:
    """Yield the response to a GET, or with a `body` to a POST. `host` may have the port in it. Seconds: `within` from
    the connection to the end of the block, `silence` without a byte, by default `within`, too. When `unless` returns
    True, which another thread asks, it ends like a connection that is cut. Raises OSError (TimeoutError),
    HTTPException, ValueError.
    """
    kind = HTTPSConnection if tls else HTTPConnection
    with closing(kind(host, port, timeout=silence or within)) as connection:
        connection.connect()
        cut = cut_when(unless, connection.sock) if unless else nullcontext()
        with ended_after(within, connection.sock), cut:
            method = "GET" if body is None else "POST"
            connection.request(method, path, body, {"Accept": accept, **(headers or {})})
            with closing(connection.getresponse()) as response:
                yield response


@contextmanager
def fetched_url(
    url: SplitResult,
    *,
    accept: str = "*/*",
    within: float,
    silence: float | None = None,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
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
        body=body,
        headers=headers,
    ) as response:
        yield response


@contextmanager
def cut_when(condition: Callable[[], bool], sock: socket.socket) -> Iterator[None]:
    """Shut the socket down as soon as the condition, which is asked again and again, is true. A condition that fails
    counts as true: what asks for it elsewhere tells why."""

    def watch(over: threading.Event) -> None:
        while not over.wait(_ASKED_EVERY):
            with suppress(Exception):
                if not condition():
                    continue
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            return

    with running_beside(watch, "cut"):
        yield


def seconds_left(deadline: float) -> float:
    """Return the seconds until a moment of the monotonic clock. Raises TimeoutError if it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def network_words(error: Exception) -> str | None:
    """Describe an error of the network without text chosen by the server; None if there are no words for it."""
    match error:
        case socket.gaierror():
            return Localizable("its name is unknown")
        case ssl.SSLError():
            return Localizable("TLS failed: {error}", error=error.reason or type(error).__name__)
        case OSError() if error.strerror:
            return error.strerror
        case _:
            return None


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
