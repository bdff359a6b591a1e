"""Lines for the developer's log: one plain line an event on standard error.

Called from every thread, the watchdog included, so it must never block: a line that a full pipe does not take
is dropped rather than letting a log reader that stands still stop the service.
"""

from __future__ import annotations

import os
import select

STDERR = 2


def tell(message: str, **fields: object) -> None:
    """Write ``prichal: MESSAGE key=value ...``. Fields that are None are left out."""
    words = [f"{key}={value}" for key, value in fields.items() if value is not None]
    write(" ".join(["prichal:", message, *words]) + "\n")


def write(text: str) -> None:
    """Put text on standard error if it can take it now."""
    data = text.encode("utf-8", "backslashreplace")
    try:
        while data and _writable():
            data = data[os.write(STDERR, data[: select.PIPE_BUF]) :]
    except OSError:
        return  # nobody is left to tell


def _writable() -> bool:
    poll = select.poll()
    poll.register(STDERR, select.POLLOUT)
    return any(event & select.POLLOUT for _, event in poll.poll(0))
