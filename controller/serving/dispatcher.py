"""The dispatcher: gives each request to the worker that is least busy. Runs in the supervisor's loop if a component has
several processes.

With one socket from which all accept, a connection stays with the process that accepted it, and a client that keeps
its connections, as the gateway does, may keep most of them with one process. So here all connections belong to the
supervisor. When a request begins to come on one, the connection is handed to a worker, which reads and
answers the request and gives the connection back. Nothing is read here: a look at the first bytes tells a call, which
needs a slot, from other requests, which any worker answers at once, and those for the state of the container, which
the supervisor answers itself.

Calls for which no slot is free wait here, not with a worker, so that each goes to whichever is free first. A call
whose request comes slowly holds no slot meanwhile; it waits with its worker then, if need be.

Calls that go in batches wait with a worker for the next batch, and here if all workers have enough of them. How many
may wait is decided here, for all workers together, since only one place can hold one bound.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import mmap
import select
import selectors
import socket
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, Optional

from . import handover, http1, problems
from .config import ServingSettings
from .handover import HandedConnection, HandedEnd
from .metrics import BEAT, ProcessMetrics, SharedMetrics
from .problems import ServingProblem
from .time_limit import time_limit
from .unready import STATE, UnreadyResponder

STANDING = 2.5 * BEAT  # seconds without a beat of its clock after which a worker gets nothing more
LOOK = (
    0.1  # seconds between two looks at the calls that wait, beside those when a worker gives something back
)
MOST_AT_ONCE = 100  # idle connections that are closed
SPARE_CONNECTIONS = 128  # for each worker, beside those of the calls that run and wait
OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
CALL = b"POST "
LONGEST = max(len(beginning) for beginning in STATE)
NEXT_REQUEST = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT
END = select.EPOLLRDHUP | select.EPOLLONESHOT


class WorkerLoad(NamedTuple):
    """What decides which worker gets a request: ``calls`` are those that hold or need one of its ``slots``, ``held``
    all connections that it has, ``last`` the time when it got one; ``answers``: its clock beats."""

    worker: int
    slots: int
    calls: int
    held: int
    last: float
    answers: bool


def least_busy(loads: Iterable[WorkerLoad], call: bool) -> Optional[int]:
    """The worker for a request; None if all are busy, or do not answer. Equally busy ones take turns."""
    able = [load for load in loads if load.answers and (not call or load.calls < load.slots)]
    if not able:
        return None
    return min(able, key=lambda load: (load.calls / load.slots, load.held, load.last)).worker


class DispatchedConnection:
    """A client's connection. ``since``: when it became idle, or its request came; ``worker`` has it, if any does."""

    __slots__ = ("begun", "call", "limit", "since", "socket", "told", "waits", "worker")

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.since = time.monotonic()
        self.call = False
        self.begun = False  # the function has been called for it, in a batch
        self.limit = 0.0  # seconds that its call may take, if it waits
        self.told = False  # its client was told that it waits
        self.waits = False
        self.worker: Optional[WorkerLink] = None


class WorkerLink:
    """The way to one worker, and what it holds."""

    def __init__(self, index: int, slots: int, row: ProcessMetrics) -> None:
        self.index = index
        self.slots = slots
        self.row = row
        self.ours, self.theirs = handover.channel()
        self.held: dict[int, DispatchedConnection] = {}
        self.calls = 0
        self.begun = 0  # of the calls, those that have gone to the function in a batch
        self.last = 0.0
        self.ready = False

    def load(self, now: float) -> WorkerLoad:
        calls = self.calls - self.row.receiving
        answers = self.ready and now - self.row.last_beat <= STANDING
        return WorkerLoad(self.index, self.slots, calls, len(self.held), self.last, answers)

    def batches(self) -> BatchLoad:
        waiting = max(0, self.calls - self.row.receiving - self.begun)
        return BatchLoad(waiting, self.row.batches if self.ready else None)

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


class BatchLoad(NamedTuple):
    """Of one worker: how many calls wait for a batch, and how many batches run, None if it begins none."""

    waiting: int
    running: Optional[int]


def may_wait(settings: ServingSettings, here: int, loads: Iterable[BatchLoad]) -> bool:
    """May one more call wait for a batch, while so many wait here and as many with the workers as they say? Those who
    find a place in a batch that may begin now do not count."""
    waiting, most = here, settings.batch_queue
    for load in loads:
        waiting += load.waiting
        if load.running is not None:
            most += (settings.batch_concurrency - load.running) * (settings.batch_size or 1)
    return waiting < most


class Dispatcher:
    """``unready`` says why no worker is ready, None if one is."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        listener: socket.socket,
        settings: ServingSettings,
        board: SharedMetrics,
        responder: UnreadyResponder,
        unready: Callable[[], Optional[str]],
    ) -> None:
        self._settings = settings
        self._board = board
        self._responder = responder
        self._unready = unready
        self._listener = listener
        slots = sum(settings.slots_of(index) for index in range(1, settings.processes + 1))
        self._most = slots + settings.most_waiting + SPARE_CONNECTIONS * settings.processes
        self._open: dict[int, DispatchedConnection] = {}
        self._idle: dict[int, DispatchedConnection] = {}  # the one that is idle for the longest time first
        self._waiting: dict[int, DispatchedConnection] = {}  # the one that waits for the longest time first
        self._links: dict[int, WorkerLink] = {}
        self._draining = False
        self._next_look = 0.0
        self.begun = mmap.mmap(-1, handover.MOST_NUMBERS)
        self._poll = select.epoll()
        self._poll.register(listener, select.EPOLLIN)
        self._selector = selector
        selector.register(self._poll, selectors.EVENT_READ, self._act)

    # --- workers

    def link(self, index: int) -> HandedEnd:
        """Make the way to a new worker; its end is the worker's to use."""
        link = WorkerLink(index, self._settings.slots_of(index), self._board.rows[index])
        self._links[index] = link
        self._poll.register(link.ours, select.EPOLLIN)
        return HandedEnd(link.theirs, self.begun)

    def linked(self, index: int) -> None:
        """The worker has its end, unless it could not be started."""
        link = self._links.get(index)
        if link is not None:
            link.theirs.close()

    def serve_with(self, index: int) -> None:
        """The worker is ready."""
        self._links[index].ready = True
        self._dispatch_waiting()

    def pass_over(self, index: int) -> None:
        """The worker is to be replaced: it gets no more requests."""
        self._links[index].ready = False

    def lose(self, index: int) -> None:
        """A worker has ended: end the connections whose requests it had begun, and dispatch the others again."""
        link = self._links.pop(index, None)
        if link is None:
            return
        self._take_back(link)
        self._poll.unregister(link.ours)
        link.close()
        untouched = [connection for number, connection in link.held.items() if not self._has_begun(number)]
        for connection in link.held.values():
            connection.worker = None
            if connection not in untouched:
                with contextlib.suppress(OSError):
                    connection.socket.shutdown(socket.SHUT_RDWR)
                self._close(connection)
        for connection in untouched:
            self._route(connection)

    def _has_begun(self, number: int) -> bool:
        return number >= handover.MOST_NUMBERS or bool(self.begun[number])

    def close_in_child(self, index: int) -> None:
        """Close all of this in a forked worker, except the worker's own end."""
        self._poll.close()
        self._listener.close()
        for link in self._links.values():
            link.ours.close()
            if link.index != index:
                link.theirs.close()
        for connection in self._open.values():
            connection.socket.close()

    # --- time and the end

    @property
    def pause(self) -> float:
        """Seconds until there is something to do even if nothing happens: calls become overdue, and a worker does not
        tell that a request comes slowly and holds no slot."""
        return LOOK if self._waiting else BEAT

    def keep_time(self, now: float) -> None:
        """Answer overdue calls, end idle connections, and try again what could not be given to anybody."""
        self._dispatch_waiting()
        if now < self._next_look:
            return
        self._next_look = now + LOOK
        reason = self._unready() if self._waiting else None
        for connection in list(self._waiting.values()):
            if reason is not None:
                self._answer_here(connection, ServingProblem(problems.NOT_READY, reason, retry_after=1))
            elif connection.since + connection.limit <= now:
                self._answer_here(connection, self._timed_out(connection.limit))
        for connection in list(itertools.islice(self._idle.values(), MOST_AT_ONCE)):
            if connection.since + self._settings.idle_timeout > now:
                break
            self._close(connection)

    def stop(self) -> None:
        """Accept no more connections. The requests that have come, those in the backlog included, are answered."""
        self._accept()
        self._draining = True
        self._poll.unregister(self._listener)
        for connection in list(self._idle.values()):
            self._arrive(connection)  # which closes it if nothing has come

    @property
    def quiet(self) -> bool:
        """Is nothing left to be answered, but by the calls that are overdue and may never return?"""
        overdue = sum(link.row.overdue for link in self._links.values())
        return not self._waiting and sum(len(link.held) for link in self._links.values()) <= overdue

    # --- connections

    def _act(self) -> None:
        ours = {link.ours.fileno(): link for link in self._links.values()}
        events = [fd for fd, _ in self._poll.poll(0)]
        returned = [ours[fd] for fd in events if fd in ours]
        for link in returned:
            self._take_back(link)
        for fd in events:
            connection = self._open.get(fd)
            if connection is not None:
                self._happened(connection)
            elif fd not in ours:
                self._accept()
        if returned:
            self._dispatch_waiting()

    def _accept(self) -> None:
        while not self._draining:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in OUT_OF_DESCRIPTORS:
                    time.sleep(
                        LOOK / 2
                    )  # until some are closed: the listener goes on saying that somebody waits
                return
            if len(self._open) >= self._most:
                detail = f"component {self._settings.component}: {self._most} connections are open"
                problem = ServingProblem(problems.QUEUE_FULL, detail, retry_after=1)
                self._responder.take(sock, problem, self._board.rows[0].answered)
                continue
            with contextlib.suppress(OSError):  # its client has gone
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            new = DispatchedConnection(sock)
            self._open[sock.fileno()] = self._idle[sock.fileno()] = new
            self._poll.register(sock, NEXT_REQUEST)

    def _happened(self, connection: DispatchedConnection) -> None:
        if connection.waits:  # its client has gone
            self._board.rows[0].inferred(problems.CLIENT_GONE.status, time.monotonic() - connection.since)
            self._close(connection)
        elif connection.worker is None:
            self._arrive(connection)

    def _arrive(self, connection: DispatchedConnection) -> None:
        """A request begins to come on an idle connection, or its client has closed it."""
        try:
            first = connection.socket.recv(LONGEST, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:  # an event of an earlier connection with this number, or a drain
            if self._draining:
                self._close(connection)
            else:
                self._poll.modify(connection.socket, NEXT_REQUEST)
            return
        except OSError:
            first = b""
        if not first:
            self._close(connection)
            return
        del self._idle[connection.socket.fileno()]
        connection.since, connection.told = time.monotonic(), False
        connection.call = first.startswith(CALL)
        if first.startswith(STATE):
            self._answer_here(connection, None)
        else:
            self._route(connection)

    def _route(self, connection: DispatchedConnection) -> None:
        """Give a request to a worker, let it wait, or refuse it."""
        reason = self._unready()
        if reason is not None:
            self._answer_here(connection, ServingProblem(problems.NOT_READY, reason, retry_after=1))
        elif connection.call:
            self._route_call(connection)
        elif not self._hand(connection):
            self._answer_here(
                connection, ServingProblem(problems.NOT_READY, self._no_answer(), retry_after=1)
            )

    def why_silent(self) -> Optional[str]:
        """Why no worker answers although some are ready; None if one does."""
        now = time.monotonic()
        return None if any(link.load(now).answers for link in self._links.values()) else self._no_answer()

    def _no_answer(self) -> str:
        return f"component {self._settings.component}: none of its processes answers"

    def _route_call(self, connection: DispatchedConnection) -> None:
        in_batches = self._settings.batch_size is not None
        if in_batches and not self._may_wait():
            self._answer_here(connection, self._queue_full())
            return
        if not self._waiting and self._hand(connection):
            return
        if not in_batches and not self._may_wait():
            self._answer_here(connection, self._queue_full())
            return
        self._begin_to_wait(connection)
        connection.waits = True
        self._waiting[connection.socket.fileno()] = connection
        self._poll.modify(connection.socket, END)
        self._board.rows[0].load(0, len(self._waiting), 0)

    def _may_wait(self) -> bool:
        settings, here, links = self._settings, len(self._waiting), self._links.values()
        if settings.batch_size is not None:
            return may_wait(settings, here, (link.batches() for link in links))
        return here + sum(link.row.queued for link in links) < settings.most_waiting

    def _dispatch_waiting(self) -> None:
        while self._waiting:
            connection = next(iter(self._waiting.values()))
            if not self._hand(connection):
                return
            self._forget_waiting(connection)

    def _forget_waiting(self, connection: DispatchedConnection) -> None:
        if connection.waits:
            connection.waits = False
            del self._waiting[connection.socket.fileno()]
            self._board.rows[0].load(0, len(self._waiting), 0)

    def _hand(self, connection: DispatchedConnection) -> bool:
        now = time.monotonic()
        index = least_busy((link.load(now) for link in self._links.values()), connection.call)
        if index is None:
            return False
        link, number = self._links[index], connection.socket.fileno()
        if number < handover.MOST_NUMBERS:
            self.begun[number] = 0
        handed = HandedConnection(
            connection.socket, number, connection.since, self._draining, connection.told
        )
        if not handover.hand(link.ours, handed):
            return False
        link.held[number] = connection
        link.calls += connection.call
        connection.begun = False
        link.last = now
        connection.worker = link
        return True

    def _take_back(self, link: WorkerLink) -> None:
        while (given := handover.said(link.ours)) is not None:
            number, what = given
            if what == handover.BEGUN:
                self._begin(link, number)
                continue
            connection = link.held.pop(number, None)
            if connection is None:
                continue
            link.calls -= connection.call
            link.begun -= connection.begun
            connection.worker, connection.begun = None, False
            if what == handover.CLOSE:
                self._close(connection)
                continue
            connection.since = time.monotonic()
            self._idle[number] = connection
            if self._draining:
                self._arrive(connection)
            else:
                self._poll.modify(number, NEXT_REQUEST)

    @staticmethod
    def _begin(link: WorkerLink, number: int) -> None:
        connection = link.held.get(number)
        if connection is not None and connection.call and not connection.begun:
            connection.begun = True
            link.begun += 1

    def _queue_full(self) -> ServingProblem:
        settings = self._settings
        if settings.batch_size is not None:
            detail = f"component {settings.component}: {settings.batch_queue} calls wait for the next batch"
            return ServingProblem(problems.QUEUE_FULL, detail, retry_after=problems.RETRY_AFTER)
        running = sum(settings.slots_of(index) for index in range(1, settings.processes + 1))
        detail = f"component {settings.component}: {running} calls run and {settings.most_waiting} wait"
        return ServingProblem(problems.QUEUE_FULL, detail, retry_after=problems.RETRY_AFTER)

    def _timed_out(self, seconds: float) -> ServingProblem:
        inference, component = self._settings.inference, self._settings.component
        return problems.timed_out(inference, component, problems.STILL_BUSY, seconds)

    def _begin_to_wait(self, connection: DispatchedConnection) -> None:
        """Read the head of a call, which is left where it is, if it is here already: how long the call may take, and
        whether the gateway wants to know that it waits."""
        connection.limit = self._settings.timeout
        with contextlib.suppress(OSError, ServingProblem):  # the worker says what is wrong with it
            begun = connection.socket.recv(http1.MAX_HEAD, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            head, end, _ = begun.partition(b"\r\n\r\n")
            if not end:
                return
            request = http1.parse_head(head + b"\r\n")
            connection.limit = time_limit(request, connection.limit)
            if http1.TELL in request.headers:
                connection.socket.send(http1.interim(b"waiting"), socket.MSG_DONTWAIT)
                connection.told = True

    def _answer_here(self, connection: DispatchedConnection, problem: Optional[ServingProblem]) -> None:
        """Have a request answered by the supervisor itself, which ends the connection: with a problem, or with the
        state of the container."""
        row, begun = self._board.rows[0], connection.since
        self._forget(connection)
        if connection.call:
            self._responder.take(
                connection.socket, problem, lambda status: row.inferred(status, time.monotonic() - begun)
            )
        else:
            self._responder.take(connection.socket, problem, row.answered)

    def _close(self, connection: DispatchedConnection) -> None:
        self._forget(connection)
        connection.socket.close()

    def _forget(self, connection: DispatchedConnection) -> None:
        number = connection.socket.fileno()
        self._forget_waiting(connection)
        self._idle.pop(number, None)
        del self._open[number]
        self._poll.unregister(number)  # closing does not, while another process has a descriptor of it
