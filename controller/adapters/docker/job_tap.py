r"""What one container writes, as it writes it, through an attached connection. Called by `jobs` and
`job_log`.

It signals when reading the log is worthwhile, and blocks a container that writes faster than is read. If
attached before the start, it also knows how much of the log is still to come, and has what the engine
withholds until a line, or 16 KiB of it, is complete: a progress bar, which returns to the start of its line
with `\r`.
"""

from __future__ import annotations

import select
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from controller.adapters.docker.connection import STOP_PAUSE, EngineConnection

#: Approximate bytes that are read or passed on at once.
PIECE = 64 * 1024
#: Bytes of a line after which the engine makes an entry of what there is: `defaultBufSize` of its copier.
ENTRY = 16 * 1024

#: Seconds of silence until the log is read anyway, increasing from the first to the second: the connection is
#: ahead of the engine's log, and the end of the container is noticed by reading.
SHORTEST, LONGEST, GROWTH = 0.01, 2.0, 1.25

#: The shortest time in seconds between two reads, increasing to this while a container writes, so that its
#: output is collected. Without knowing what the log has, most reads are in vain, which costs more.
TOGETHER, FRUITLESS = 0.25, 1.0
#: Bytes and entries at one read that are a backlog, for which a container does not wait.
BACKLOG, MANY_ENTRIES = 256 * 1024, 50_000
#: Seconds of silence after which the next output is passed on at once.
QUIET = 1.0
#: Seconds of rest for each CPU second of reading one log.
REST = 3.0

#: Seconds without a byte after which a request is repeated: sometimes Engine 20.10 never answers if the
#: container ends at that moment.
SILENCE = 10.0

#: The header of each entry: the stream (1: stdout, 2: stderr), three zeros, the number of bytes that follow.
#: https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerAttach
HEADER = struct.Struct(">B3xL")


class LineCounter:
    """The entries that the engine makes of a container's output: their number per stream, and the beginning
    of the next one. `lines` counts entries that end a line. Pure.
    """

    def __init__(self) -> None:
        self.entries: defaultdict[int, int] = defaultdict(int)  # by stream
        self.lines: defaultdict[int, int] = defaultdict(int)  # by stream
        self.begun: dict[int, bytes] = {}  # by stream, shorter than ENTRY
        self._buffer = b""

    def feed(self, piece: bytes) -> None:
        """Add output of the connection, cut anywhere."""
        buffer, at = self._buffer + piece, 0
        while len(buffer) - at >= HEADER.size:
            stream, size = HEADER.unpack_from(buffer, at)
            end = at + HEADER.size + size
            if len(buffer) < end:
                break
            self._add(stream, buffer[at + HEADER.size : end])
            at = end
        self._buffer = buffer[at:]

    def _add(self, stream: int, content: bytes) -> None:
        begun = self.begun.get(stream, b"") + content
        last = begun.rfind(b"\n") + 1
        if last:
            lines, begun = begun[:last], begun[last:]
            ended = lines.count(b"\n")
            self.entries[stream] += ended
            self.lines[stream] += ended
            if last > ENTRY:
                self.entries[stream] += sum(len(line) // ENTRY for line in lines.split(b"\n"))
        whole = len(begun) // ENTRY
        self.entries[stream] += whole
        self.begun[stream] = begun[whole * ENTRY :]


def least_pause(before: float, most: float, backlog: bool) -> float:
    """Return the shortest pause in seconds until the next read; `before` was the previous one."""
    return 0.0 if backlog else min(most, max(SHORTEST, before * GROWTH))


class PollPace:
    """The pace of one thread, which rests after work: a container that writes much uses only a part of a
    processor.
    """

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self._since = clock()

    def rest_due(self) -> float:
        """Return the seconds of rest for the work since the last call."""
        now = self._clock()
        worked, self._since = now - self._since, now
        return max(0.0, worked) * REST


def sleep(seconds: float, stop: Callable[[], bool]) -> None:
    moment = time.monotonic() + seconds
    while not stop() and (left := moment - time.monotonic()) > 0:
        time.sleep(min(left, STOP_PAUSE))


class AttachStream:
    """A connection to a container, considered broken `LONGEST` seconds after the container has closed its
    end. `whole` means that it was attached before the start; `rang` that the last wait ended because the
    container wrote.
    """

    def __init__(self, connection: Any, whole: bool) -> None:
        self.whole = whole
        self.written = LineCounter()
        self.rang = True
        self._connection = connection
        self._poll = select.poll()  # unlike `select`, supports descriptors above 1024
        self._poll.register(connection, select.POLLIN)
        self._pause = SHORTEST
        self._least = 0.0
        self._last_ring = 0.0
        self._took = 0  # bytes at the last signal
        self._closed = False
        self._pace = PollPace()

    @classmethod
    @contextmanager
    def of(cls, connection: EngineConnection, container: str, whole: bool = False) -> Iterator[AttachStream]:
        with connection.operation(SILENCE) as client:
            attached = client.attach_socket(container, params={"stream": 1, "stdout": 1, "stderr": 1})
            yield cls(attached, whole)

    def begin(self) -> None:
        """Start measuring, in the thread that reads the log."""
        self._pace = PollPace()

    def breathe(self, stop: Callable[[], bool], hurry: bool) -> None:
        """Pause between pieces of a log. `hurry` means that its end is awaited."""
        rest = self._pace.rest_due()
        sleep(rest / REST if hurry else rest, stop)

    def wait(self, stop: Callable[[], bool], fruitful: bool) -> bool:
        """Wait until the container has written or the log should be read anyway; return False if the
        connection is broken. `fruitful` means that the last read has returned something, or was not needed.
        """
        backlog = self._took >= BACKLOG
        self._least = least_pause(self._least, TOGETHER if fruitful else FRUITLESS, backlog)
        sleep(max(self._least if self.rang else 0.0, self._pace.rest_due()), stop)
        deadline = time.monotonic() + self._pause
        while not stop():
            left = deadline - time.monotonic()
            if left <= 0:
                self.rang, self._pause = False, min(LONGEST, self._pause * GROWTH)
                return not self._closed or self._pause < LONGEST
            if self._rings(min(left, STOP_PAUSE)):
                self._ring()
                return True
        return True

    def _ring(self) -> None:
        now = time.monotonic()
        if now - self._last_ring > QUIET:
            self._least = 0.0
        self.rang, self._last_ring, self._pause = True, now, SHORTEST

    def _rings(self, seconds: float) -> bool:
        if self._closed:
            time.sleep(seconds)
            return False
        if not self._poll.poll(seconds * 1000):
            return False
        self._took, before = 0, sum(self.written.entries.values())
        for _ in range(32):
            piece = self._connection.read(PIECE)
            if not piece:
                self._closed = True
                break
            self.written.feed(piece)
            self._took += len(piece)
            if sum(self.written.entries.values()) - before > MANY_ENTRIES or not self._poll.poll(0):
                break
        return True


class AttachStreams:
    """The connections of containers that were just started, until their logs are read. As thread-safe as
    dicts.
    """

    def __init__(self, connection: EngineConnection) -> None:
        self._connection = connection
        self._open: dict[str, tuple[AttachStream, ExitStack]] = {}  # by container

    def attach(self, container: str) -> None:
        """Attach to a container before it is started."""
        self.discard(container)
        with ExitStack() as stack:
            tap = stack.enter_context(AttachStream.of(self._connection, container, whole=True))
            self._open[container] = tap, stack.pop_all()

    @contextmanager
    def release(self, container: str) -> Iterator[AttachStream]:
        """The tap that was opened when the container started, for the first call; a new one for each later call."""
        held = self._open.pop(container, None)
        with ExitStack() as stack:
            if held:
                tap, opened = held
                stack.push(opened)
            else:
                tap = stack.enter_context(AttachStream.of(self._connection, container))
            tap.begin()
            yield tap

    def discard(self, container: str) -> None:
        held = self._open.pop(container, None)
        if held:
            held[1].close()

    def close(self) -> None:
        for container in list(self._open):
            self.discard(container)
