"""Connections to addresses that others chose: a name is resolved once, within a deadline, its addresses are checked,
and the connection goes to a checked one: if the name server answers differently a moment later, nothing changes. Used
by the senders of webhooks and by the client of registries.
"""

from __future__ import annotations

import errno
import queue
import socket
import threading
from collections.abc import Callable, Sequence

from controller.domain.localizable import Localizable
from controller.fetch import seconds_left

#: Returns the addresses of a name, the best one first. Raises OSError if it has none.
Resolve = Callable[[str], Sequence[str]]

CONNECT_TIMEOUT = 5.0  # seconds for each address


def resolve(name: str) -> Sequence[str]:
    """Resolve a name as the host does."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def resolved_in_time(look_up: Callable[[], Sequence[str]], deadline: float) -> Sequence[str]:
    """Call `look_up` with a time limit. Raises its errors, and TimeoutError. The host's resolver cannot be
    interrupted, only abandoned.
    """
    answers: queue.SimpleQueue[Sequence[str] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(look_up())
        except (OSError, ValueError) as error:
            answers.put(error)

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    try:
        found = answers.get(timeout=seconds_left(deadline))
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(found, Exception):
        raise found
    return found


def connected(addresses: Sequence[str], port: int, deadline: float) -> socket.socket:
    """Connect to the first address that accepts."""
    failure = OSError(errno.EHOSTUNREACH, Localizable("its name has no address"))
    for address in addresses:
        try:
            return socket.create_connection((address, port), min(CONNECT_TIMEOUT, seconds_left(deadline)))
        except TimeoutError:
            failure = OSError(errno.EHOSTUNREACH, Localizable("it does not accept connections"))
        except OSError as error:
            failure = error
    seconds_left(deadline)
    raise failure
