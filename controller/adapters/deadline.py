"""An end to what a stranger's server may take. The timeout of a socket starts anew with each byte: one that sends a
byte at a time would hold a worker that others need, too."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def ended_after(seconds: float, sock: socket.socket) -> Iterator[None]:
    """TimeoutError once the block, which talks over `sock`, took that long."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        with suppress(OSError):  # the server was quicker
            # Not `sock.shutdown`: that of a TLS socket first forgets that it is one, and what is being sent would go on
            # in plain text.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        if expired.is_set():
            raise TimeoutError from error
        raise
    finally:
        timer.cancel()
        timer.join()  # else it may shut down a socket that has got the same number
    if expired.is_set():  # the end of the connection also ends the headers, which then look complete
        raise TimeoutError
