"""The worker: loads the developer's code, accepts connections, keeps the clock. Runs in a process forked by
the supervisor.

Three kinds of threads: the main one loads and then accepts; one for each connection, which also runs the
function; and the clock, which answers overdue calls, beats for the supervisor, and has the worker replaced
when overdue calls hold every slot. A worker among several accepts nothing: the dispatcher hands it connections on
which a request begins (``handover``), and gets them back.

With the supervisor it speaks lines over one socket pair: ``ready``, ``failed TEXT``, ``replace TEXT`` and ``drained``
upwards; ``serve`` and ``drain`` downwards. When that socket closes, the supervisor is gone and so is the worker. That
the container stops, and responses end their connections, a worker reads in the memory that all share, as a line may be
read too late for the next response. After ``ready`` nothing is accepted before ``serve``: until
then the supervisor answers that the component is not ready, which nobody may hear after another has heard that
it is.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import inspect
import os
import select
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional, Union

from . import connection, handover, http1, jsontext, loading, log, problems, processes
from .batches import BatchLimiter
from .config import ServingSettings
from .connection import ClientConnection
from .files import make_files
from .handover import ConnectionReceiver, HandedConnection, HandedEnd
from .limiter import SWEEP, Cancellable, ConcurrencyLimiter, LimitedCall
from .loading import InferenceFunction
from .metrics import BEAT, SharedMetrics
from .predict import Predictor
from .problems import ServingProblem
from .routes import WorkerRoutes
from .scratch import ScratchSpace

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures

SPARE_CONNECTIONS = 128  # beside those of the calls that run and wait: idle ones and health checks
HELD = 4 * 1024 * 1024  # bytes of a block, by which large bodies find the memory of the last one again
REPLACED = 75  # exit code of a worker that asked to be replaced


class ServingWorker:
    """One worker process, from set-up to its end. ``connections`` is the listening socket of a worker that is alone,
    else where the dispatcher hands them over. ``loaded`` is what the fork server has loaded, if there is one."""

    def __init__(
        self,
        settings: ServingSettings,
        board: SharedMetrics,
        index: int,
        port: int,
        connections: Union[socket.socket, HandedEnd],
        control: socket.socket,
        loaded: Optional[InferenceFunction] = None,
    ) -> None:
        self._settings = settings
        self._board = board
        self._row = board.rows[index]
        self._scratch = ScratchSpace(port, index)
        self._handed = connections if isinstance(connections, HandedEnd) else None
        self._source = connections.socket if isinstance(connections, HandedEnd) else connections
        self._control = control
        self._loaded = loaded
        self._gate = _limiter(settings, index, self._look_often, self._handed is not None)
        self._alarm = threading.Event()  # wakes the clock
        self._looks_often = False
        self._connections: set[ClientConnection] = set()
        self._changed = threading.Condition()
        self._draining = False
        self._async = _AsyncLoop()
        self._most_connections = self._gate.capacity + self._gate.queue + SPARE_CONNECTIONS

    def run(self) -> int:
        """Serve until the supervisor says drain. Gives the process's exit code."""
        faulthandler.enable()
        self._row.renew()
        processes.settle()
        os.register_at_fork(after_in_child=self._shed)
        connection.renew_request_ids()
        with contextlib.suppress(AttributeError, ValueError):  # the developer's prints come out line by line
            sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        self._scratch.clear()
        try:
            inference = self._loaded or loading.load(self._settings, self._async.run)
        except loading.SetupError as error:
            processes.end_if_forked("the module's set-up")
            self._log(f"failed {error}")
            return 1
        processes.end_if_forked("the module's set-up")
        self._use_json()
        files = make_files(self._settings.files_root)
        predictor = Predictor(
            self._settings, inference, self._gate, self._row, files, self._scratch, self._begin
        )
        self._routes = WorkerRoutes(self._settings, inference, predictor, self._gate, self._board, self._row)
        self._row.heartbeat(time.monotonic())
        self._row.ready()
        threading.Thread(target=self._keep_time, name="clock", daemon=True).start()
        self._log("ready")
        if b"drain" not in self._told():
            if self._handed is None:
                self._accept_until_told()
            else:
                ConnectionReceiver(self._handed, self._serve).begin()
                self._told()
        self._drain()
        self._log("drained")
        return 0

    def _use_json(self) -> None:
        """Choose what reads and writes large JSON, now that the developer's code has been loaded."""
        bytes(
            HELD
        )  # never touched. glibc gives back to the system what is free beyond twice the largest such block
        codec = jsontext.accelerate()
        self._row.reads_json_by(codec.origin)
        if codec.reason:
            log.write_line(f"large JSON is slow, as the kept orjson cannot be used: {codec.reason}")

    def _shed(self) -> None:
        """Release the worker's resources in a process that the developer's code forked, so that it neither answers
        anybody nor keeps a connection or the port open."""
        self._source.close()
        self._control.close()
        for held in list(self._connections):
            held.shed()

    def _log(self, line: str) -> None:
        with contextlib.suppress(OSError):  # the supervisor is gone: nothing left to say
            self._control.sendall(processes.line_of(line))

    def _accept_until_told(self) -> None:
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._source.fileno():
                    self._accept()
                    continue
                self._told()
                return

    def _told(self) -> bytes:
        """Wait for what the supervisor says."""
        said = self._control.recv(64)
        if not said:  # the supervisor died: nothing would ever replace a worker without it
            os._exit(1)
        return said

    def _accept(self) -> bool:
        """Take one connection from the backlog; False if there is none."""
        try:
            sock, _ = self._source.accept()
        except BlockingIOError:
            return False  # another worker was faster
        except OSError as error:
            log.write_line(f"a connection could not be accepted: {error}")
            time.sleep(0.1)  # out of file descriptors: let some be closed
            return True
        sock = processes.beyond_standard(sock)
        sock.setblocking(True)
        new = ClientConnection(sock, self._routes.handle, self._settings, lambda: self._draining)
        try:
            with self._changed:
                if len(self._connections) >= self._most_connections:
                    raise RuntimeError(f"{self._most_connections} connections are open")
                self._connections.add(new)
            connection.start(new, "connection", self._ended)
        except RuntimeError as error:  # also the system's: can't start new thread
            self._reject(new, sock, str(error))
        return True

    def _serve(self, handed: HandedConnection) -> bool:
        """Serve a connection that was handed over; True if it may have another request."""
        waited = time.monotonic() - handed.arrived
        new = ClientConnection(
            handed.socket,
            self._routes.handle,
            self._settings,
            lambda: handed.last or self._draining or self._board.stopping,
            waited,
            self._row.received,
            handed.told,
            functools.partial(handover.say, self._source, handed.number, handover.BEGUN),
        )
        with self._changed:
            self._connections.add(new)
        try:
            return new.serve_handed()
        finally:
            self._ended(new)

    def _reject(self, unwanted: ClientConnection, sock: socket.socket, reason: str) -> None:
        problem = ServingProblem(
            problems.QUEUE_FULL, f"component {self._settings.component}: {reason}", retry_after=1
        )
        self._row.answered(problem.kind.status)
        unwanted.answer_overdue(http1.problem_response(problem, "-"), "-")
        with contextlib.suppress(OSError):
            sock.recv(1 << 16, socket.MSG_DONTWAIT)  # closing with unread data would destroy the answer
        sock.close()
        self._ended(unwanted)

    def _ended(self, gone: ClientConnection) -> None:
        with self._changed:
            self._connections.discard(gone)
            self._changed.notify_all()

    def _drain(self) -> None:
        """Serve what was accepted or waits in the backlog, then close. How long it may take is the
        supervisor's to limit.
        """
        self._draining = True
        if self._handed is None:
            while self._accept():
                pass
            self._source.close()
        with self._changed:
            for open_one in self._connections:
                open_one.stop_if_idle()
            self._changed.wait_for(lambda: all(one.abandoned for one in self._connections))

    def _keep_time(self) -> None:
        """Every call has the same timeout, so one that begins while this sleeps is not due before it
        wakes.
        """
        while True:
            now = time.monotonic()
            self._row.heartbeat(now)
            for call in self._gate.expire(now):
                self._answer_overdue(call)
            for call in self._gate.drop_gone():
                self._cancel(call)
            running, waiting, overdue = self._gate.counts()
            self._looks_often = self._looks_often and running > 0
            self._row.load(running, waiting, overdue)
            self._row.abandoned(self._gate.abandoned())
            since = self._gate.exhausted_since()
            self._row.exhaust(since is not None)
            if since is not None and now - since >= self._settings.replace_after:
                self._give_up()
            next_deadline = self._gate.next_deadline()
            until_due = self._settings.timeout if next_deadline is None else next_deadline - time.monotonic()
            pause = SWEEP if self._looks_often else BEAT
            if self._alarm.wait(max(0.001, min(pause, until_due))):
                self._alarm.clear()
                self._looks_often = True

    def _look_often(self) -> None:
        """Have the clock look for callers who have gone as long as calls run: some wait, or can be cancelled."""
        if not self._looks_often:
            self._looks_often = True
            self._alarm.set()

    def _begin(self, awaitable: Any, call: Optional[Cancellable] = None) -> concurrent.futures.Future[Any]:
        self._look_often()
        return self._async.begin(awaitable, call)

    def _answer_overdue(self, call: LimitedCall) -> None:
        try:
            call.overdue()
        except Exception:  # noqa: BLE001 -- the clock must go on whatever happens
            log.write(traceback.format_exc())
        if call.answered is not None:
            call.answered.set()
        self._cancel(call)
        with self._changed:
            self._changed.notify_all()  # the connection is abandoned: a drain need not wait for it

    @staticmethod
    def _cancel(call: LimitedCall) -> None:
        if call.cancel is not None:
            call.cancel()

    def _give_up(self) -> None:
        """Overdue calls hold every slot and threads cannot be killed: tell those who wait, then end the
        process.
        """
        self._draining = True
        self._gate.close()
        with self._changed:
            self._changed.wait_for(
                lambda: all(one.idle or one.abandoned for one in self._connections), timeout=1.0
            )
        seconds = self._settings.timeout
        self._log(
            f"replace {self._gate.slots()} of {self._settings.inference} past {seconds:g} s hold every slot"
        )
        os._exit(REPLACED)


def _limiter(
    settings: ServingSettings, index: int, queued: Callable[[], object], handed: bool
) -> ConcurrencyLimiter:
    """``handed``: the dispatcher decides how many calls may wait for a batch, in all workers. What it hands over has a
    place."""
    if settings.batch_size is None:
        return ConcurrencyLimiter(settings.slots_of(index), settings.most_waiting, queued)
    most = settings.most_waiting + (settings.slots_of(index) if handed else 0)
    return BatchLimiter(settings.batch_size, settings.batch_delay, most, settings.batch_concurrency, queued)


class _AsyncLoop:
    """One event loop for all ``async def`` functions of the worker, so that clients made by the loader belong
    to it.
    """

    def __init__(self) -> None:
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._lock = threading.Lock()

    def run(self, awaitable: Any) -> Any:
        """Wait for what set-up is to await."""
        return self.begin(awaitable).result()

    def begin(self, awaitable: Any, call: Optional[Cancellable] = None) -> concurrent.futures.Future[Any]:
        """Begin what is to be awaited. When the call or batch, if one is given, is overdue or its callers have gone, it
        is cancelled."""
        import asyncio  # here: it takes longer to load than the rest together, and most functions are not async

        with self._lock:
            if self._loop is None or self._loop.is_closed():
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_run, args=(self._loop,), name="async", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(_contained(awaitable, call), self._loop)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop for all calls that will come. What their code does must not end it: SystemExit in a task or callback
    of its own, or ``loop.stop()``."""
    while not loop.is_closed():
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            log.write_line(f"an async task raised {type(error).__name__}; it ends alone")
            log.write_traceback(error)
        processes.end_if_forked("an async task")


async def _contained(awaitable: Any, call: Optional[Cancellable]) -> Any:
    """SystemExit and KeyboardInterrupt would end the loop instead of the call. An awaitable's result may be another:
    a decorator that is async around a function that is.
    """
    if call is not None:
        call.cancel = cancel = _canceller()
        if call.expired:
            cancel()  # its time was over before the loop came to it
    try:
        while inspect.isawaitable(awaitable):
            awaitable = await awaitable
        return awaitable
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"{type(error).__name__}: {error}") from error
    finally:
        processes.end_if_forked("an async function")  # its loop is the parent's, too


def _canceller() -> Callable[[], object]:
    """Cancels the task that runs now, from any thread. The call ends when the task has, and holds its slot so long."""
    import asyncio

    task = asyncio.current_task()
    assert task is not None
    return functools.partial(asyncio.get_running_loop().call_soon_threadsafe, task.cancel)
