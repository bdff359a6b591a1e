"""Hands connections from the dispatcher to a worker and back, over a pair of sockets that both keep open.

A message to the worker is one connection, as a file descriptor of its own (SCM_RIGHTS), on which a request has begun.
The dispatcher keeps its descriptor, so that the way back is only the connection's number and whether another request
may come. Before that, a worker that makes batches says when the call begins. The messages keep their bounds
(SOCK_SEQPACKET), and each wakes one thread: so the threads of a worker wait for them directly, without one that gives
them out.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import socket
import struct
import threading
from collections.abc import Callable
from typing import NamedTuple, Optional

from . import log, processes

_DOWN = struct.Struct("=qd??")
_UP = struct.Struct("=qB")
CLOSE, KEEP, BEGUN = range(
    3
)  # what a worker says of a connection; BEGUN: its call goes to the function in a batch
_DESCRIPTOR = struct.Struct("=i")

MOST_NUMBERS = 65536  # connections with a higher number are taken for begun


class HandedEnd(NamedTuple):
    """A worker's end. ``begun`` has a byte for each connection, which the worker sets before it reads from it: what it
    had not begun when it died goes to another one."""

    socket: socket.socket
    begun: mmap.mmap


CLOSED = (errno.EBADF, errno.ENOTSOCK)  # the developer's code has closed the channel
SPARE_THREADS = 8  # that wait for a connection, beside those that serve one


class HandedConnection(NamedTuple):
    """``number`` is the dispatcher's for it; ``arrived``: time.monotonic() at which its request began to come;
    ``last``: it is to be closed behind the response; ``told``: its client was told that the call waits."""

    socket: socket.socket
    number: int
    arrived: float
    last: bool
    told: bool = False


def channel() -> tuple[socket.socket, socket.socket]:
    """The dispatcher's end, which never blocks, and the worker's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


def hand(to: socket.socket, connection: HandedConnection) -> bool:
    """Send a connection to a worker; False if the worker takes none now."""
    message = _DOWN.pack(connection.number, connection.arrived, connection.last, connection.told)
    descriptor = _DESCRIPTOR.pack(connection.socket.fileno())
    try:
        to.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor)])
    except OSError:  # its channel is full, or it has just ended
        return False
    return True


def receive(end: socket.socket, flags: int = 0) -> Optional[HandedConnection]:
    """The next connection, None behind the last one. Raises OSError."""
    data, ancillary, _, _ = end.recvmsg(
        _DOWN.size, socket.CMSG_SPACE(_DESCRIPTOR.size), flags | socket.MSG_CMSG_CLOEXEC
    )
    if not data:
        return None
    number, arrived, last, told = _DOWN.unpack(data)
    if not ancillary:
        say(end, number, CLOSE)
        raise OSError("no file descriptor is left for a connection")
    (descriptor,) = _DESCRIPTOR.unpack(ancillary[0][2][: _DESCRIPTOR.size])
    taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=descriptor)
    return HandedConnection(processes.beyond_standard(taken), number, arrived, last, told)


def say(end: socket.socket, number: int, what: int) -> None:
    """Give a connection back to the dispatcher: it waits for its next request (KEEP), or is to be closed (CLOSE). Or
    say that its call begins (BEGUN)."""
    with contextlib.suppress(OSError):  # the supervisor is gone
        end.send(_UP.pack(number, what))


def said(end: socket.socket) -> Optional[tuple[int, int]]:
    """The next connection of which a worker says something, by its number, and what; None if there is none now."""
    try:
        data = end.recv(_UP.size)
    except OSError:
        return None
    return _UP.unpack(data) if len(data) == _UP.size else None


class ConnectionReceiver:
    """The threads of a worker that serve what is handed over. ``serve`` says whether the connection can be kept."""

    def __init__(self, end: HandedEnd, serve: Callable[[HandedConnection], bool]) -> None:
        self._end, self._begun = end
        self._serve = serve
        self._lock = threading.Lock()
        self._waiting = 0

    def begin(self) -> None:
        """Start another thread that waits. If the system gives none, those that serve come back."""
        with self._lock:
            self._waiting += 1
        try:
            threading.Thread(target=self._run, name="connection", daemon=True).start()
        except RuntimeError as error:
            log.write_line(f"a thread for connections could not be started: {error}")
            with self._lock:
                self._waiting -= 1

    def _run(self) -> None:
        while True:
            try:
                handed = receive(self._end)
            except OSError as error:
                log.write_line(f"a connection could not be taken over: {error}")
                if error.errno in CLOSED:
                    os._exit(1)  # nothing comes or goes any more: only another worker can help
                continue
            if handed is None:
                return  # the supervisor is gone
            with self._lock:
                self._waiting -= 1
                alone = not self._waiting
            if alone:
                self.begin()
            if handed.number < MOST_NUMBERS:
                self._begun[handed.number] = 1
            keep = False
            try:
                keep = self._serve(handed)
            finally:
                say(self._end, handed.number, KEEP if keep else CLOSE)
            with self._lock:
                if self._waiting >= SPARE_THREADS:
                    return
                self._waiting += 1
