"""The fork server: a process that imports the module and loads the model once, and then forks the workers from itself,
so that they share this memory as long as nobody writes to it. Only with the setting ``preload``.

It is a process of its own since the supervisor must survive what the developer's code does. With the supervisor it
speaks lines: ``ready``, ``failed TEXT``, ``forked INDEX PID``, ``unforked INDEX TEXT`` and ``ended PID STATUS``
upwards; downwards the index of a worker to be forked, together with the sockets that the worker is to have. When it
dies, the workers go on, and the supervisor starts another one for those to come.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import select
import signal
import socket
import struct
import sys
import threading
from typing import Any

from . import loading, log, processes
from .config import ServingSettings
from .handover import HandedEnd
from .loading import InferenceFunction
from .metrics import SharedMetrics
from .worker import ServingWorker

LOOK = (
    1000  # milliseconds between two looks for workers that have ended, should the module take away the signal
)
_DESCRIPTORS = struct.Struct("=ii")


def ask_for(control: socket.socket, index: int, theirs: socket.socket, connections: socket.socket) -> None:
    """Have a worker forked, from the supervisor. Raises OSError."""
    descriptors = _DESCRIPTORS.pack(theirs.fileno(), connections.fileno())
    control.sendmsg([str(index).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])


def channel() -> tuple[socket.socket, socket.socket]:
    """The supervisor's end and the fork server's, whose messages keep their bounds."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class ForkServer:
    """One fork server, from set-up to its end. ``run`` raises SystemExit in a forked worker, at the worker's end."""

    def __init__(
        self, settings: ServingSettings, board: SharedMetrics, port: int, begun: Any, control: socket.socket
    ) -> None:
        self._settings = settings
        self._board = board
        self._port = port
        self._begun = begun
        self._control = control

    def run(self) -> int:
        faulthandler.enable()
        processes.settle()
        with contextlib.suppress(AttributeError, ValueError):
            sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        try:
            inference = loading.load(self._settings, _refuse)
        except loading.SetupError as error:
            processes.end_if_forked("the module's set-up")
            self._tell(f"failed {error}")
            return 1
        processes.end_if_forked("the module's set-up")
        for line in warnings_of_threads():
            log.write_line(line)
        gc.collect()
        gc.freeze()  # a collection in a worker would write to every object, and copy its memory
        self._tell("ready")
        self._serve(inference)
        return 0

    def _serve(self, inference: InferenceFunction) -> None:
        wake, waker = socket.socketpair()
        for end in (wake, waker):
            end.setblocking(False)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(wake, select.POLLIN)
        while True:
            events = dict(poll.poll(LOOK))
            with contextlib.suppress(BlockingIOError):
                wake.recv(4096)
            self._reap()
            if self._control.fileno() in events and not self._obey(inference):
                return

    def _obey(self, inference: InferenceFunction) -> bool:
        """Fork a worker; False if the supervisor is gone."""
        size = socket.CMSG_SPACE(_DESCRIPTORS.size)
        data, ancillary, _, _ = self._control.recvmsg(64, size, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return False
        control, connections = (
            socket.socket(fileno=number)
            for number in _DESCRIPTORS.unpack(ancillary[0][2][: _DESCRIPTORS.size])
        )
        index = int(data)
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError as error:  # no process or memory is available now
            self._tell(f"unforked {index} {error}")
        else:
            if pid == 0:
                self._become_worker(index, control, connections, inference)
            self._tell(f"forked {index} {pid}")
        control.close()
        connections.close()
        return True

    def _become_worker(
        self, index: int, control: socket.socket, connections: socket.socket, inference: InferenceFunction
    ) -> None:
        """Never returns."""
        processes.begin(processes.WORKER_OOM_SCORE)
        self._control.close()
        end = HandedEnd(connections, self._begun)
        worker = ServingWorker(self._settings, self._board, index, self._port, end, control, inference)
        sys.exit(worker.run())

    def _reap(self) -> None:
        for pid, status in processes.ended_children():
            self._tell(f"ended {pid} {status}")

    def _tell(self, line: str) -> None:
        with contextlib.suppress(OSError):  # the supervisor is gone
            self._control.sendall(processes.line_of(line))


def _refuse(awaitable: Any) -> Any:
    """What an async loader makes, such as a client, belongs to an event loop, which no fork takes along."""
    close = getattr(awaitable, "close", None)
    if close is not None:
        close()
    raise TypeError("an async loader cannot be preloaded: set preload to false")


def warnings_of_threads() -> list[str]:
    """Say that threads run, which a forked process does not have."""
    ours = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    warnings = []
    if ours:
        warnings.append(
            f"preload: the module has started threads ({', '.join(ours)[:500]}), which the processes forked from it do"
            " not have, and whose locks they may wait for: start them in the first call, or set preload to false"
        )
    others = _threads() - 1 - len(ours)
    if others > 0:
        warnings.append(
            f"preload: libraries have started {others} threads; unless they start them again in forked processes, as"
            " OpenBLAS does, set their number to 1 (OMP_NUM_THREADS), or preload to false"
        )
    return warnings


def _threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 1
