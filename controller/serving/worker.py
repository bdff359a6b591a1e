"""The worker: loads the developer's code, accepts connections, keeps the clock. Runs in a process forked by
the supervisor.

Three kinds of threads: the main one loads and then accepts; one for each connection, which also runs the
function; and the clock, which answers overdue calls, beats for the supervisor, and has the worker replaced
when overdue calls hold every slot. With the supervisor it speaks lines over one socket pair: ``ready``,
``failed TEXT``, ``replace TEXT`` and ``drained`` upwards, ``drain`` downwards; when that socket closes, the
supervisor is gone and so is the worker.
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
from typing import TYPE_CHECKING, Any, Optional

from . import connection, http1, loading, log, problems, processes
from .config import ServingSettings
from .connection import ClientConnection
from .files import make_files
from .limiter import ConcurrencyLimiter, LimitedCall
from .metrics import BEAT, SharedMetrics
from .predict import Predictor
from .problems import ServingProblem
from .routes import WorkerRoutes
from .scratch import ScratchSpace

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures

SPARE_CONNECTIONS = 128  # beside those of the calls that run and wait: idle ones and health checks
REPLACED = 75  # exit code of a worker that asked to be replaced


class ServingWorker:
    """One worker process, from set-up to its end."""

    def __init__(
        self,
        settings: ServingSettings,
        board: SharedMetrics,
        index: int,
        listener: socket.socket,
        control: socket.socket,
    ) -> None:
        self._settings = settings
        self._board = board
        self._row = board.rows[index]
        self._scratch = ScratchSpace(listener.getsockname()[1], index)
        self._listener = listener
        self._control = control
        self._gate = ConcurrencyLimiter(settings.slots_per_worker, settings.queue_per_worker)
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
            inference = loading.load(self._settings, self._async.run)
        except loading.SetupError as error:
            processes.end_if_forked("the module's set-up")
            self._log(f"failed {error}")
            return 1
        processes.end_if_forked("the module's set-up")
        files = make_files(self._settings.files_root)
        predictor = Predictor(
            self._settings, inference, self._gate, self._row, files, self._scratch, self._async.call
        )
        self._routes = WorkerRoutes(self._settings, inference, predictor, self._gate, self._board, self._row)
        self._row.heartbeat(time.monotonic())
        threading.Thread(target=self._keep_time, name="clock", daemon=True).start()
        self._log("ready")
        self._accept_until_told()
        self._drain()
        self._log("drained")
        return 0

    def _shed(self) -> None:
        """Release the worker's resources in a process that the developer's code forked, so that it neither answers
        anybody nor keeps a connection or the port open."""
        self._listener.close()
        self._control.close()
        for held in list(self._connections):
            held.shed()

    def _log(self, line: str) -> None:
        with contextlib.suppress(OSError):  # the supervisor is gone: nothing left to say
            self._control.sendall(line.replace("\n", " ").encode("utf-8", "replace") + b"\n")

    def _accept_until_told(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._listener.fileno():
                    self._accept()
                    continue
                if not self._control.recv(
                    64
                ):  # the supervisor died: nothing would ever replace a worker without it
                    os._exit(1)
                return

    def _accept(self) -> bool:
        """Take one connection from the backlog; False if there is none."""
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return False  # another worker was faster
        except OSError as error:
            log.write_line(f"a connection could not be accepted: {error}")
            time.sleep(0.1)  # out of file descriptors: let some be closed
            return True
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
        while self._accept():
            pass
        self._listener.close()
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
            self._row.load(*self._gate.counts())
            since = self._gate.exhausted_since()
            if since is not None and now - since >= self._settings.replace_after:
                self._give_up()
            next_deadline = self._gate.next_deadline()
            until_due = self._settings.timeout if next_deadline is None else next_deadline - time.monotonic()
            time.sleep(max(0.001, min(BEAT, until_due)))

    def _answer_overdue(self, call: LimitedCall) -> None:
        try:
            call.overdue()
        except Exception:  # noqa: BLE001 -- the clock must go on whatever happens
            log.write(traceback.format_exc())
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
            f"replace {self._gate.capacity} calls of {self._settings.inference} past {seconds:g} s hold every slot"
        )
        os._exit(REPLACED)


class _AsyncLoop:
    """One event loop for all ``async def`` functions of the worker, so that clients made by the loader belong
    to it.
    """

    def __init__(self) -> None:
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._lock = threading.Lock()

    def run(self, awaitable: Any) -> Any:
        """Wait for what set-up is to await."""
        return self._submit(awaitable).result()

    def call(self, awaitable: Any, call: LimitedCall) -> Any:
        """Wait for what a call is to await; it is cancelled when the call is overdue or its caller has gone."""
        return self._submit(awaitable, call).result()

    def _submit(self, awaitable: Any, call: Optional[LimitedCall] = None) -> concurrent.futures.Future[Any]:
        import asyncio  # here: it takes longer to load than the rest together, and most functions are not async

        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="async", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(_contained(awaitable, call), self._loop)


async def _contained(awaitable: Any, call: Optional[LimitedCall]) -> Any:
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
