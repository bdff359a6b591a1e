"""Lines for the developer's log: one plain line an event on standard error.

Called from every thread, the watchdog included, so it must never block: a line that a full pipe does not take
is dropped rather than letting a log reader that stands still stop the service.
"""

from __future__ import annotations

import importlib
import os
import select
import traceback

STDERR = 2
#: Characters of a traceback: what is said after it still fits into the pipe, which takes 64 KiB.
LONGEST = 16 * 1024
_OURS = os.path.dirname(__file__) + os.sep
_IMPORTLIB = os.path.dirname(importlib.__file__) + os.sep


def write_line(message: str, **fields: object) -> None:
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


def write_traceback(error: BaseException) -> None:
    """Write an exception's traceback from the developer's first line on: the frames that lead there are ours and the
    import machinery's, and say nothing."""
    user = error.__traceback__
    while user is not None and _is_machinery(user.tb_frame.f_code.co_filename):
        user = user.tb_next
    try:
        lines = traceback.format_exception(type(error), error, user or error.__traceback__)
    except BaseException:  # noqa: BLE001 -- attributes of theirs may fail in any way, and must not end our thread
        lines = ["(its traceback cannot be shown)\n"]
    write(_bounded("".join(lines)))


def _bounded(text: str) -> str:
    """Leave out the middle of a text that holds up its thread and the log: a message may be a whole array."""
    if len(text) <= LONGEST:
        return text
    cut = len(text) - LONGEST
    return f"{text[: LONGEST // 2]}\n({cut} characters are left out)\n{text[-LONGEST // 2 :]}"


def _is_machinery(path: str) -> bool:
    return path.startswith((_OURS, _IMPORTLIB, "<frozen importlib"))


def _writable() -> bool:
    poll = select.poll()
    poll.register(STDERR, select.POLLOUT)
    return any(event & select.POLLOUT for _, event in poll.poll(0))
