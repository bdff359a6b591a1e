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
import mmap
import os
import selectors
import signal
import socket
import sys
import time
from types import FrameType
from typing import Optional, Union

from . import connection, forkserver, log, problems, processes
from .config import ServingSettings
from .dispatcher import Dispatcher
from .forkserver import ForkServer
from .handover import HandedEnd
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
BUSY_GRACE = 10.0  # seconds more for one that is not stuck, but gets no processor on a busy machine


@dataclasses.dataclass
class WorkerProcess:
    """A worker process as seen from here."""

    pid: int  # 0 = the fork server has not said it yet
    control: socket.socket
    started: float
    ready_at: float = 0.0  # 0 = still setting up
    said: bytes = b""  # a line that has not ended yet
    reason: str = ""  # why it could not be set up, or why it is to be replaced
    stale_looks: int = 0
    next_look: float = 0.0
    kill_at: float = 0.0  # 0 = not asked to end
    drains: bool = False  # told to end
    ends: bool = False  # has answered all its calls
    orphan: bool = False  # its parent, the fork server, has ended


@dataclasses.dataclass
class WorkerSlot:
    """A worker's place: row ``index`` of the board, now taken by a child or to be taken again. That of the fork server
    has the index 0."""

    index: int
    child: Optional[WorkerProcess] = None
    start_at: float = 0.0
    failures: int = 0

    @property
    def kind(self) -> str:
        return "the worker" if self.index else "the fork server"

    @property
    def name(self) -> str:
        return f"worker {self.index}" if self.index else "the fork server"


class Supervisor:
    """``run`` serves until SIGTERM or SIGINT and gives the exit code."""

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings
        self._board = SharedMetrics(settings.processes)
        self._listener = _listen(settings.port)
        self._port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._slots = [WorkerSlot(index) for index in range(1, settings.processes + 1)]
        self._unready_responder = UnreadyResponder(
            self._selector,
            self._listener,
            self._board,
            self._state,
            connection.request_id,
            settings.most_waiting,
        )
        self._dispatcher: Optional[Dispatcher] = None  # a worker that is alone accepts connections itself
        self._fork_server = WorkerSlot(0) if settings.preload else None
        if settings.processes > 1 or settings.preload:
            self._dispatcher = Dispatcher(
                self._selector,
                self._listener,
                settings,
                self._board,
                self._unready_responder,
                lambda: None if self._ready() else self._why_unready(),
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
        log.write_line(f"serving {self._settings.inference} on port {self._port}")
        while True:
            now = time.monotonic()
            self._start_workers(now)
            self._check_workers(now)
            self._serve(now)
            self._unready_responder.close_expired(now)
            if self._exit_code is not None and not any(slot.child for slot in self._slots):
                self._end_fork_server()
                log.write_line(self._last_words)
                return self._exit_code
            self._react(self._until_next(now))
            self._reap()

    def _react(self, timeout: float) -> None:
        """Wait for something to happen, and act upon it. What happened first may have ended what comes next: when the
        fork server tells the end of a worker, that worker's own socket has come to its end in the same moment."""
        for key, _ in self._selector.select(timeout):
            if self._selector.get_map().get(key.fd) is key:
                key.data()

    def _end_fork_server(self) -> None:
        if self._fork_server and self._fork_server.child:
            processes.kill(self._fork_server.child.pid)

    def _serve(self, now: float) -> None:
        """Answer clients, or have them answered."""
        if self._dispatcher is None:
            self._unready_responder.serve(self._exit_code is None and not self._ready())
            return
        self._dispatcher.keep_time(now)
        if self._exit_code is not None and self._dispatcher.quiet:
            self._drain_workers()

    def _ready(self) -> bool:
        """For the first time when all workers are set up: a version that has too little memory for them is not to
        replace another one. Later one of them suffices."""
        ready = [bool(slot.child and slot.child.ready_at and not slot.child.reason) for slot in self._slots]
        return any(ready) if self._was_ready else all(ready)

    def _state(self) -> Optional[str]:
        """Why calls cannot be answered now, None if they can."""
        if not self._ready() or self._exit_code is not None:
            return self._why_unready()
        if self._board.exhausted:
            return problems.exhausted(self._settings.component, self._settings.inference)
        return self._dispatcher.why_silent() if self._dispatcher else None

    def _why_unready(self) -> str:
        component = f"component {self._settings.component}"
        if self._exit_code is not None:
            return f"{component} is shutting down"
        if self._trouble:
            return f"{component}: {self._trouble}; it is being started again"
        return f"{component} is being set up"

    def _until_next(self, now: float) -> float:
        due = [slot.start_at - now for slot in self._all_slots() if self._can_start(slot)]
        if self._dispatcher:
            due.append(self._dispatcher.pause)
        return max(0.0, min([TICK, *due]))

    def _all_slots(self) -> list[WorkerSlot]:
        return [*self._slots, self._fork_server] if self._fork_server else self._slots

    def _can_start(self, slot: WorkerSlot) -> bool:
        """Workers wait for the fork server, if there is one, to load what they share."""
        if slot.child is not None or self._exit_code is not None:
            return False
        server = self._fork_server
        return server is None or slot is server or bool(server.child and server.child.ready_at)

    def _start_workers(self, now: float) -> None:
        for slot in self._all_slots():
            if slot.start_at <= now and self._can_start(slot):
                self._start(slot)

    def _start(self, slot: WorkerSlot) -> None:
        if slot is self._fork_server:
            self._fork(slot, *forkserver.channel(), None)
            return
        connections = self._dispatcher.link(slot.index) if self._dispatcher else self._listener
        ours, theirs = socket.socketpair()
        if self._fork_server is None:
            self._fork(slot, ours, theirs, connections)
        else:
            self._have_forked(slot, ours, theirs, connections)
        if self._dispatcher:
            self._dispatcher.linked(slot.index)

    def _fork(
        self,
        slot: WorkerSlot,
        ours: socket.socket,
        theirs: socket.socket,
        connections: Union[socket.socket, HandedEnd, None],
    ) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError as error:  # no process or memory is available now
            self._watch(slot, 0, ours)
            self._not_started(slot, str(error))
        else:
            if pid == 0:
                ours.close()
                self._become_child(slot, theirs, connections)
            self._watch(slot, pid, ours)
        theirs.close()

    def _have_forked(
        self,
        slot: WorkerSlot,
        ours: socket.socket,
        theirs: socket.socket,
        connections: Union[socket.socket, HandedEnd],
    ) -> None:
        """Ask the fork server for a worker; it says the worker's process id later."""
        assert self._fork_server
        assert self._fork_server.child
        assert isinstance(connections, HandedEnd)
        self._watch(slot, 0, ours)
        try:
            forkserver.ask_for(self._fork_server.child.control, slot.index, theirs, connections.socket)
        except OSError as error:
            self._not_started(slot, str(error))
        theirs.close()

    def _watch(self, slot: WorkerSlot, pid: int, control: socket.socket) -> None:
        control.setblocking(False)
        child = slot.child = WorkerProcess(pid, control, time.monotonic())
        self._selector.register(control, selectors.EVENT_READ, lambda: self._listen_to(slot, child))

    def _not_started(self, slot: WorkerSlot, reason: str) -> None:
        log.write_line(f"{slot.name} could not be started: {reason}")
        if slot.child:
            self._forget(slot, slot.child)
        slot.start_at = time.monotonic() + TICK

    def _forget(self, slot: WorkerSlot, child: WorkerProcess) -> None:
        """Release what belongs to a child that there is no more."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(child.control)
        child.control.close()
        slot.child = None
        if slot.index:
            self._board.rows[slot.index].renew()  # the dead worker's last report of its load is obsolete
            if self._dispatcher:
                self._dispatcher.lose(slot.index)

    def _begun(self) -> mmap.mmap:
        assert self._dispatcher
        return self._dispatcher.begun

    def _become_child(
        self, slot: WorkerSlot, control: socket.socket, connections: Union[socket.socket, HandedEnd, None]
    ) -> None:
        """Turn the forked process into a worker, or without connections into the fork server: release the supervisor's
        resources, then work. Never returns."""
        processes.begin(processes.WORKER_OOM_SCORE if slot.index else processes.FORK_SERVER_OOM_SCORE)
        self._selector.close()
        self._unready_responder.close_in_child()
        if self._dispatcher:
            self._dispatcher.close_in_child(slot.index)
        for other in self._all_slots():
            if other.child:
                other.child.control.close()
        if connections is None:
            sys.exit(ForkServer(self._settings, self._board, self._port, self._begun(), control).run())
        worker = ServingWorker(self._settings, self._board, slot.index, self._port, connections, control)
        sys.exit(worker.run())

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
            if slot is self._fork_server and word in ("ready", "forked", "unforked", "ended"):
                self._heard_of_fork(child, word, text)
            elif word == "ready":
                self._became_ready(slot, child)
            elif word == "drained":
                child.ends = True
                child.kill_at = min(child.kill_at or float("inf"), time.monotonic() + EXIT_GRACE)
            else:
                self._give_up(slot, child, text)

    def _give_up(self, slot: WorkerSlot, child: WorkerProcess, reason: str) -> None:
        """A worker is to be replaced: it gets no more requests."""
        child.reason = reason
        if slot.index and self._dispatcher:
            self._dispatcher.pass_over(slot.index)

    def _heard_of_fork(self, server: WorkerProcess, word: str, text: str) -> None:
        """The fork server has loaded, or tells about a worker."""
        if word == "ready":
            server.ready_at = time.monotonic()
            log.write_line(f"the fork server has loaded in {server.ready_at - server.started:.2f} s")
            return
        number, _, rest = text.partition(" ")
        if word == "ended":
            self._ended(int(number), int(rest))
            return
        slot = self._slots[int(number) - 1]
        if word == "unforked":
            self._not_started(slot, rest)
        elif slot.child:
            slot.child.pid = int(rest)

    def _became_ready(self, slot: WorkerSlot, child: WorkerProcess) -> None:
        child.ready_at = time.monotonic()
        self._was_ready, self._trouble = self._ready(), ""
        if self._dispatcher is None:
            self._unready_responder.serve(False)  # before the worker accepts: see worker.py
        self._tell(child, b"serve\n")
        if self._dispatcher:
            self._dispatcher.serve_with(slot.index)
        log.write_line(f"worker {slot.index} is ready after {child.ready_at - child.started:.2f} s")

    def _check_workers(self, now: float) -> None:
        for slot in self._all_slots():
            child = slot.child
            if child is None:
                continue
            if child.orphan and processes.has_ended(child.pid):
                self._handle_exit(slot, child, None)
            elif child.kill_at and now >= child.kill_at:
                if (
                    not child.ends
                    or now >= child.kill_at + BUSY_GRACE
                    or not processes.wants_to_run(child.pid)
                ):
                    processes.kill(child.pid)
            elif not child.ready_at and now - child.started > self._settings.setup_timeout:
                child.reason = child.reason or f"set-up took longer than {self._settings.setup_timeout:g} s"
                processes.kill(child.pid or self._fork_server_pid())
            elif child.ready_at and slot.index:
                self._check_deadlines(slot, child, now)

    def _fork_server_pid(self) -> int:
        """It is what hangs if it does not say that it has forked a worker. 0 if there is none."""
        return self._fork_server.child.pid if self._fork_server and self._fork_server.child else 0

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
            words = f"it stood still for {standing:.0f} s: some code keeps the interpreter to itself"
            self._give_up(slot, child, words)
            processes.kill(child.pid)

    def _reap(self) -> None:
        for pid, status in processes.ended_children():
            self._ended(pid, status)

    def _ended(self, pid: int, status: int) -> None:
        for slot in self._all_slots():
            if slot.child and slot.child.pid == pid:
                self._handle_exit(slot, slot.child, status)

    def _handle_exit(self, slot: WorkerSlot, child: WorkerProcess, status: Optional[int]) -> None:
        """A worker or the fork server has ended: say why, clear up after it, decide what comes next."""
        self._listen_to(slot, child)  # its last words
        processes.kill_group(child.pid)  # what the developer's code started and left behind
        lost = self._board.rows[slot.index].unanswered
        self._forget(slot, child)
        if slot is self._fork_server:
            self._orphan_workers()
        how = self._describe_end(status)
        if self._exit_code is not None:
            if status:
                log.write_line(f"{slot.name} {how} while shutting down")
            return
        if not self._was_ready:
            self._stop(SETUP_FAILED, f"set-up failed: {child.reason or f'{slot.kind} {how}'}")
            return
        self._restart_later(slot, child, how, lost)

    def _orphan_workers(self) -> None:
        """The fork server has ended: its workers go on, but nobody tells when they end."""
        for slot in self._slots:
            if slot.child and slot.child.pid:
                slot.child.orphan = True
            elif slot.child:
                self._not_started(slot, "the fork server has ended")

    def _restart_later(self, slot: WorkerSlot, child: WorkerProcess, how: str, lost: int) -> None:
        now = time.monotonic()
        if child.ready_at and now - child.ready_at >= HEALTHY_AFTER:
            slot.failures = 0
        delay = min(MOST_BACKOFF, FIRST_BACKOFF * 2.0 ** (slot.failures - 1)) if slot.failures else 0.0
        slot.failures = min(slot.failures + 1, 20)
        slot.start_at = now + delay
        self._trouble = f"{slot.name} {_what_happened(child, how)}"
        if lost:
            self._trouble += f"; {lost} {'call was' if lost == 1 else 'calls were'} lost"
        if slot.index:
            self._board.rows[0].restarted()
        log.write_line(f"{self._trouble}; starting it again in {delay:g} s")

    def _describe_end(self, status: Optional[int]) -> str:
        kills, before = processes.oom_kills(), self._oom_kills
        self._oom_kills = kills
        return ("ended" if status is None else processes.describe_end(status)) + (
            ", out of memory" if kills > before else ""
        )

    def _stop(self, exit_code: int, message: str) -> None:
        """Begin to stop: workers finish their calls, and no connections are accepted. A second signal stops
        at once."""
        again = self._exit_code is not None
        self._exit_code = exit_code if not again else self._exit_code
        self._last_words = message
        self._board.stop()
        if self._dispatcher is None:
            self._unready_responder.serve(False)
        elif not again:
            self._dispatcher.stop()
        self._listener.close()  # with the workers' own closed, too, new clients are refused instead of waiting
        now = time.monotonic()
        if self._fork_server and self._fork_server.child and not self._fork_server.child.ready_at:
            self._end_fork_server()
        for slot in self._slots:
            child = slot.child
            if child is None:
                continue
            if again or not child.ready_at:
                processes.kill(child.pid)
            child.kill_at = now + self._settings.timeout + DRAIN_GRACE
            if self._dispatcher is None:
                self._tell(child, b"drain\n")

    def _drain_workers(self) -> None:
        """Tell the workers to end when all that they have is answered."""
        for slot in self._slots:
            if slot.child and not slot.child.drains:
                slot.child.drains = True
                self._tell(slot.child, b"drain\n")

    @staticmethod
    def _tell(child: WorkerProcess, line: bytes) -> None:
        with contextlib.suppress(OSError):  # it has just ended
            child.control.send(line)

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
