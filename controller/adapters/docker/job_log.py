"""The log of one container, read on from where somebody stopped reading, with nothing lost and nothing twice.

Called by `jobs`. Reading goes in rounds: `JobLog.unread` asks for the log's last entries and hands on those that come
after the last one seen; `Bell` says when the next round is worth it. The engine's own `follow` is not used: Engine
20.10 leaves out whole files and repeats others when the log is rotated faster than it is read, and the end is missing
when the container ends meanwhile.

The bell is an attached connection. A container that writes more than is read back from its log fills that connection,
and waits: thus a log is read whole however long it is, though the engine keeps but three files of it. What a container
wrote while nobody read may have left these files; then a line in the log says so.
"""

from __future__ import annotations

import select
import struct
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from controller.adapters.docker.connection import STOP_PAUSE, Connection

LOST = b"[a part of the log is missing here: it was written faster than it was read]\n"

CUT = b" [cut]\n"

#: Parts of 16 KiB that are handed on of one line. What is beyond is not told apart: the first parts may have left the
#: engine's files already.
LINE_PARTS = 64
BEYOND = LINE_PARTS + 2
#: Bytes that are handed on at once, about.
PIECE = 64 * 1024
#: Entries asked for when little is new, and by how much more if that was not enough.
FEW, MORE, MANY = 20, 4, 50_000
#: Seconds of silence until the next round, which grow from the first to the second. Some rounds must follow each ring:
#: it comes before the engine has written its log, and the end of the container is noticed in a round.
SHORTEST, LONGEST, GROWTH = 0.01, 2.0, 1.25

#: Seconds without a byte after which an answer is given up and asked for again: now and then Engine 20.10 leaves one
#: hanging when the container ends just then.
SILENCE = 10.0

#: What precedes each entry: which stream it is (1: stdout, 2: stderr), three zeros, the bytes that follow.
#: https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerAttach
_HEADER = struct.Struct(">B3xL")


class Entry(NamedTuple):
    """A line, or the next 16 KiB of a longer one. `stamp` is the engine's time, RFC 3339 with nanoseconds; all parts of
    a long line bear that of the first."""

    stream: int
    stamp: str
    content: bytes


def entries(pieces: Iterable[bytes]) -> Iterator[Entry]:
    """The answer of `GET /containers/<id>/logs?timestamps=1`, which comes in pieces of any size."""
    buffer = b""
    for piece in pieces:
        buffer, at = buffer + piece, 0
        while len(buffer) - at >= _HEADER.size:
            stream, size = _HEADER.unpack_from(buffer, at)
            start = at + _HEADER.size
            at = start + size
            if len(buffer) < at:
                at = start - _HEADER.size
                break
            stamp, _, content = buffer[start:at].partition(b" ")
            if stamp.endswith(b"Z"):  # else the engine's own words about a log that it cannot read
                yield Entry(stream, stamp.decode(), content)
        buffer = buffer[at:]


@dataclass(frozen=True)
class Place:
    """Right after an entry: the `number`-th of its stream with its stamp. Stamps are only compared for being equal: the
    clock may be set back."""

    stream: int
    stamp: str
    number: int

    def __str__(self) -> str:
        return f"{self.stamp}/{self.stream}/{self.number}"

    @classmethod
    def parse(cls, text: str) -> Place | None:
        """None for "", the start. ValueError for what is no place."""
        if not text:
            return None
        stamp, stream, number = text.split("/")
        return cls(int(stream), stamp, int(number))


class Counter:
    """Where one is after each entry of an answer. `unfinished` are the streams that are amidst a line."""

    def __init__(self) -> None:
        self.unfinished: set[int] = set()
        self._last: dict[int, Place] = {}  # by stream

    def after(self, entry: Entry) -> Place:
        last = self._last.get(entry.stream)
        number = min(last.number + 1, BEYOND) if last and last.stamp == entry.stamp else 1
        place = self._last[entry.stream] = Place(entry.stream, entry.stamp, number)
        if entry.content.endswith(b"\n"):
            self.unfinished.discard(entry.stream)
        else:
            self.unfinished.add(entry.stream)
        return place


class JobLog:
    """Not thread-safe. `after` is the place of what was read last, "" to begin at the start."""

    def __init__(self, connection: Connection, container: str, after: str) -> None:
        self._connection = connection
        self._container = container
        self._place = Place.parse(after)
        self._tail: int | None = None  # entries to ask for; None: all there are

    def unread(self) -> Iterator[tuple[str, bytes]]:
        """One round: pieces of the log up to its present end, each with the place after it. Raises what the SDK and
        its libraries raise."""
        while not (yield from self._round()):
            if self._tail is None:
                yield str(self._place), LOST
                self._place = None
            else:
                self._tail = self._tail * MORE if self._tail < MANY else None

    def _round(self) -> Generator[tuple[str, bytes], None, bool]:
        """False if the entries asked for begin after what was read last."""
        with closing(self._ask(self._tail if self._place else None)) as found:
            counter = Counter()
            if self._place and not any(counter.after(entry) == self._place for entry in found):
                return False
            yield from self._hand_on(found, counter)
            return True

    def _hand_on(self, found: Iterator[Entry], counter: Counter) -> Iterator[tuple[str, bytes]]:
        batch: list[bytes] = []
        size = total = 0
        place, last_tail, self._tail = self._place, self._tail or 0, None  # None: whatever breaks in here
        for entry in found:
            place = counter.after(entry)
            batch.append(_cut(entry.content, place.number))
            size += len(batch[-1])
            total += 1
            if size >= PIECE:
                self._place = place
                yield str(place), b"".join(batch)
                batch, size = [], 0
        self._place = place
        # The parts of a line are told apart by counting from its first, which an answer must not leave out.
        self._tail = None if counter.unfinished else max(FEW, total * 3 // 2, last_tail * 2 // 3)
        if batch:
            yield str(place), b"".join(batch)

    def _ask(self, tail: int | None) -> Generator[Entry]:
        """The last `tail` entries."""
        client = self._connection.client
        answer = client.get(
            f"{client.base_url}/v{client.api_version}/containers/{self._container}/logs",
            params={"stdout": 1, "stderr": 1, "timestamps": 1, "tail": "all" if tail is None else tail},
            stream=True,
            timeout=SILENCE,
        )
        with closing(answer):
            answer.raise_for_status()
            yield from entries(iter(lambda: answer.raw.read(PIECE), b""))


def _cut(content: bytes, part: int) -> bytes:
    if part <= LINE_PARTS:
        return content
    return CUT if part == LINE_PARTS + 1 else b""


class Bell:
    """Rings when the container writes; what it writes is thrown away here. `LONGEST` seconds after the container has
    closed its end the bell is broken."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._poll = select.poll()  # unlike `select`, at home with descriptors above 1024
        self._poll.register(connection, select.POLLIN)
        self._pause = SHORTEST
        self._closed = False

    @classmethod
    @contextmanager
    def of(cls, connection: Connection, container: str) -> Iterator[Bell]:
        with connection.operation(SILENCE) as client:
            yield cls(client.attach_socket(container, params={"stream": 1, "stdout": 1, "stderr": 1}))

    def wait(self, stop: Callable[[], bool]) -> bool:
        """Until the next round is worth it; False if the bell is broken."""
        deadline = time.monotonic() + self._pause
        while not stop():
            left = deadline - time.monotonic()
            if left <= 0:
                self._pause = min(LONGEST, self._pause * GROWTH)
                return not self._closed or self._pause < LONGEST
            if self._rings(min(left, STOP_PAUSE)):
                self._pause = SHORTEST
                return True
        return True

    def _rings(self, seconds: float) -> bool:
        if self._closed:
            time.sleep(seconds)
            return False
        if not self._poll.poll(seconds * 1000):
            return False
        for _ in range(32):
            if not self._connection.read(PIECE):
                self._closed = True
                break
            if not self._poll.poll(0):
                break
        return True
