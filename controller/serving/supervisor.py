"""The supervisor: binds the port, starts the workers, watches them, and reports and repairs failures.

One thread, one loop, and none of the developer's code: so it survives all failures of that code, and can fork
workers safely at any time, which takes a millisecond and needs no second interpreter start. It is process 1
of the container and reaps what is orphaned.

At the first start a worker that cannot be set up ends the process with SETUP_FAILED, the reason being the
last line on standard error. Later a worker that ends is replaced, at once the first time, then with a
backoff of up to MOST_BACKOFF seconds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import selectors
import signal
import socket
import sys
import time
from types import FrameType
from typing import Optional

from . import connection, log, processes
from .config import ServingSettings
from .metrics import BEAT, SharedMetrics
from .unready import UnreadyResponder
from .worker import ServingWorker

SETUP_FAILED = 3
TICK = 1.0
FIRST_BACKOFF, MOST_BACKOFF = 0.25, 30.0
HEALTHY_AFTER = 30.0  # seconds of service after which earlier failures are forgotten
STALE_LOOKS = 3  # looks, a TICK apart, at a clock that stands: a paused container must not lose its worker
DRAIN_GRACE = 5.0  # seconds beyond the timeout for the last calls at the end
EXIT_GRACE = 3.0  # seconds from the last answer to the end of the process


@dataclasses.dataclass
class WorkerProcess:
    """A worker process as seen from here."""

    pid: int
    control: socket.socket
    started: float
    ready_at: float = 0.0  # 0 = still setting up
    said: bytes = b""  # a line that has not ended yet
    reason: str = ""  # why it could not be set up, or why it is to be replaced
    stale_looks: int = 0
    next_look: float = 0.0
    kill_at: float = 0.0  # 0 = not asked to end


@dataclasses.dataclass
class WorkerSlot:
    """A worker's place: row ``index`` of the board, now taken by a child or to be taken again."""

    index: int
    child: Optional[WorkerProcess] = None
    start_at: float = 0.0
    failures: int = 0


class Supervisor:
    """``run`` serves until SIGTERM or SIGINT and gives the exit code."""

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings
        self._board = SharedMetrics(settings.processes)
        self._listener = _listen(settings.port)
        self._selector = selectors.DefaultSelector()
        self._slots = [WorkerSlot(index) for index in range(1, settings.processes + 1)]
        self._unready_responder = UnreadyResponder(
            self._selector, self._listener, self._board, self._why_unready, connection.request_id
        )
        self._was_ready = False
        self._trouble = ""  # why the last worker ended
        self._exit_code: Optional[int] = None  # set when the end was asked for
        self._last_words = ""
        self._stop_signals = 0
        self._oom_kills = processes.oom_kills()

    def run(self) -> int:
        """The supervisor's life. In a forked worker this raises SystemExit at the worker's end."""
        self._catch_signals()
        log.write_line(f"serving {self._settings.inference} on port {self._listener.getsockname()[1]}")
        while True:
            now = time.monotonic()
            self._start_workers(now)
            self._check_workers(now)
            self._unready_responder.serve(self._exit_code is None and not self._ready())
            self._unready_responder.close_expired(now)
            if self._exit_code is not None and not any(slot.child for slot in self._slots):
                log.write_line(self._last_words)
                return self._exit_code
            for key, _ in self._selector.select(self._until_next(now)):
                key.data()
            self._reap()

    def _ready(self) -> bool:
        return any(slot.child and slot.child.ready_at and not slot.child.reason for slot in self._slots)

    def _why_unready(self) -> str:
        component = f"component {self._settings.component}"
        if self._exit_code is not None:
            return f"{component} is shutting down"
        if self._trouble:
            return f"{component}: {self._trouble}; it is being started again"
        return f"{component} is being set up"

    def _until_next(self, now: float) -> float:
        due = [slot.start_at - now for slot in self._slots if slot.child is None and self._exit_code is None]
        return max(0.0, min([TICK, *due]))

    def _start_workers(self, now: float) -> None:
        for slot in self._slots:
            if slot.child is None and slot.start_at <= now and self._exit_code is None:
                self._start(slot)

    def _start(self, slot: WorkerSlot) -> None:
        ours, theirs = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError as error:  # no process or memory is available now
            log.write_line(f"worker {slot.index} could not be started: {error}")
            ours.close()
            theirs.close()
            slot.start_at = time.monotonic() + TICK
            return
        if pid == 0:
            ours.close()
            self._become_worker(slot, theirs)
        theirs.close()
        ours.setblocking(False)
        child = slot.child = WorkerProcess(pid, ours, time.monotonic())
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._listen_to(slot, child))

    def _become_worker(self, slot: WorkerSlot, control: socket.socket) -> None:
        """Turn the forked process into a worker: release the supervisor's resources, then work. Never returns."""
        os.setpgid(0, 0)  # so that what the developer's code starts can be ended with it
        signal.set_wakeup_fd(-1)
        for number, action in (
            (signal.SIGTERM, signal.SIG_DFL),
            (signal.SIGINT, signal.SIG_IGN),
            (signal.SIGCHLD, signal.SIG_DFL),
        ):
            signal.signal(number, action)
        self._selector.close()
        self._unready_responder.close_in_child()
        for other in self._slots:
            if other.child:
                other.child.control.close()
        processes.offer_to_oom_killer()
        sys.exit(ServingWorker(self._settings, self._board, slot.index, self._listener, control).run())

    def _listen_to(self, slot: WorkerSlot, child: WorkerProcess) -> None:
        """Forward a worker's output. The end of the stream needs no action: SIGCHLD reports its death."""
        try:
            data = child.control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            with contextlib.suppress(KeyError):
                self._selector.unregister(child.control)
            return
        *lines, child.said = (child.said + data).split(b"\n")
        for line in lines:
            word, _, text = line.decode("utf-8", "replace").partition(" ")
            if word == "ready":
                self._became_ready(slot, child)
            elif word == "drained":
                child.kill_at = min(child.kill_at or float("inf"), time.monotonic() + EXIT_GRACE)
            else:
                child.reason = text

    def _became_ready(self, slot: WorkerSlot, child: WorkerProcess) -> None:
        child.ready_at = time.monotonic()
        self._was_ready, self._trouble = True, ""
        log.write_line(f"worker {slot.index} is ready after {child.ready_at - child.started:.2f} s")

    def _check_workers(self, now: float) -> None:
        for slot in self._slots:
            child = slot.child
            if child is None:
                continue
            if child.kill_at and now >= child.kill_at:
                processes.kill(child.pid)
            elif not child.ready_at and now - child.started > self._settings.setup_timeout:
                child.reason = child.reason or f"set-up took longer than {self._settings.setup_timeout:g} s"
                processes.kill(child.pid)
            elif child.ready_at:
                self._check_deadlines(slot, child, now)

    def _check_deadlines(self, slot: WorkerSlot, child: WorkerProcess, now: float) -> None:
        """A worker whose clock stands still cannot even say that calls time out: code that keeps the
        interpreter to itself.
        """
        if now < child.next_look:
            return
        child.next_look = now + TICK
        standing = now - self._board.rows[slot.index].last_beat
        if standing <= self._settings.timeout + self._settings.replace_after + BEAT:
            child.stale_looks = 0
            return
        child.stale_looks += 1
        if child.stale_looks >= STALE_LOOKS:
            child.reason = f"it stood still for {standing:.0f} s: some code keeps the interpreter to itself"
            processes.kill(child.pid)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for slot in self._slots:
                if slot.child and slot.child.pid == pid:
                    self._handle_exit(slot, slot.child, status)

    def _handle_exit(self, slot: WorkerSlot, child: WorkerProcess, status: int) -> None:
        """A worker has ended: say why, clear up after it, decide what comes next."""
        self._listen_to(slot, child)  # its last words
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(child.control)
        child.control.close()
        processes.kill_group(child.pid)  # what the developer's code started and left behind
        slot.child = None
        how = self._describe_end(status)
        if self._exit_code is not None:
            if status:
                log.write_line(f"worker {slot.index} {how} while shutting down")
            return
        if not self._was_ready:
            self._stop(SETUP_FAILED, f"set-up failed: {child.reason or f'the worker {how}'}")
            return
        self._restart_later(slot, child, how)

    def _restart_later(self, slot: WorkerSlot, child: WorkerProcess, how: str) -> None:
        now = time.monotonic()
        if child.ready_at and now - child.ready_at >= HEALTHY_AFTER:
            slot.failures = 0
        delay = min(MOST_BACKOFF, FIRST_BACKOFF * 2.0 ** (slot.failures - 1)) if slot.failures else 0.0
        slot.failures = min(slot.failures + 1, 20)
        slot.start_at = now + delay
        self._trouble = f"worker {slot.index} {_what_happened(child, how)}"
        lost = self._board.rows[slot.index].unanswered
        if lost:
            self._trouble += f"; {lost} {'call was' if lost == 1 else 'calls were'} lost"
        self._board.rows[slot.index].renew()  # the dead worker's last report of its load is obsolete
        self._board.rows[0].restarted()
        log.write_line(f"{self._trouble}; starting it again in {delay:g} s")

    def _describe_end(self, status: int) -> str:
        kills, before = processes.oom_kills(), self._oom_kills
        self._oom_kills = kills
        return processes.describe_end(status) + (", out of memory" if kills > before else "")

    def _stop(self, exit_code: int, message: str) -> None:
        """Begin to stop: workers finish their calls, and no connections are accepted. A second signal stops
        at once."""
        again = self._exit_code is not None
        self._exit_code = exit_code if not again else self._exit_code
        self._last_words = message
        self._unready_responder.serve(False)
        self._listener.close()  # with the workers' own closed, too, new clients are refused instead of waiting
        now = time.monotonic()
        for slot in self._slots:
            child = slot.child
            if child is None:
                continue
            if again or not child.ready_at:
                processes.kill(child.pid)
            child.kill_at = now + self._settings.timeout + DRAIN_GRACE
            with contextlib.suppress(OSError):
                child.control.send(b"drain\n")

    def _catch_signals(self) -> None:
        wake, waker = socket.socketpair()
        for end in (wake, waker):
            end.setblocking(False)
        self._wake, self._waker = wake, waker
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        self._selector.register(wake, selectors.EVENT_READ, self._obey_signals)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # only to wake the loop

    def _on_signal(self, number: int, frame: Optional[FrameType]) -> None:
        self._stop_signals += 1  # acted upon in the loop, where no step is half done

    def _obey_signals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake.recv(4096)
        while self._stop_signals:
            self._stop_signals -= 1
            self._stop(0, "stopped")


def _what_happened(child: WorkerProcess, how: str) -> str:
    if not child.ready_at:
        return f"could not be set up: {child.reason or f'it {how}'}"
    return f"was replaced: {child.reason}" if child.reason else how


def _listen(port: int) -> socket.socket:
    """A listening socket that workers inherit; non-blocking, as several processes may accept from it."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", port))  # noqa: S104 - what an address means, or is said to containers
    listener.listen(1024)
    listener.setblocking(False)
    return listener
