"""A limit on the total time of an exchange with an untrusted server. The timeout of a socket restarts with
each byte, so a server that sends single bytes could block a worker that others need.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


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
            raise TimeoutError from error
        raise
    finally:
        timer.cancel()
        timer.join()  # otherwise it may shut down a socket with the same number
    if expired.is_set():  # the end of the connection also ends the headers, which then look complete
        raise TimeoutError
