"""The log of one container, read on from an earlier position, with nothing lost or repeated.

Called by `jobs`. Reading goes in rounds: `JobLog.unread` requests the log's last entries and passes on those
after the last one seen; `job_tap` signals when the next round is worthwhile. The engine's own `follow` is not
used: Engine 20.10 leaves out whole files and repeats others if the log is rotated faster than it is read, and
the end is missing if the container ends meanwhile.

A container that writes faster than its log is read fills the tap's connection, and waits: so a log of any
length is read completely, though the engine keeps only some files of it. What a container wrote while nothing
read may have been rotated away; then a line in the log says so. The same goes for lines that the engine could not
write, say to a full disk, and which only the tap has seen.

What the engine withholds until the line is complete comes from the tap: a position then also says how much of
the next entry was passed on. Only text is passed on this way, since the engine stores other bytes in another
form. Reading can continue at such a position without a tap of that container's start: the entry comes in the
end, and its rest is passed on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple

import docker.errors
import requests

from controller.adapters.docker.connection import EngineConnection
from controller.adapters.docker.error_rules import translated
from controller.adapters.docker.job_tap import HEADER, PIECE, SILENCE, LineCounter

LOST = b"[a part of the log is missing here: it was written faster than it was read]\n"

MISSING = b"[%d lines of the log are missing: the engine could not write them]\n"

CUT = b" [cut]\n"

#: Parts of 16 KiB that are handed on of one line. What is beyond is not told apart: the first parts may have left the
#: engine's files already.
LINE_PARTS = 64
BEYOND = LINE_PARTS + 2
#: Entries asked for when little is new, and by how much more if that was not enough.
FEW, MORE, MANY = 20, 4, 50_000
#: The most entries that are passed on at once.
BATCH = 5_000
#: Bytes of a progress bar that are passed on at once, if its line is too long to be kept.
BAR = 1024

_STAMP = re.compile(rb"[0-9T:.-]{1,40}Z")

#: Requests the last `n` entries of a log, or all if it is None.
Ask = Callable[[int | None], Generator["LogEntry"]]


class LogEntry(NamedTuple):
    """A line, or the next 16 KiB of a longer one. `stamp` is the engine's time, RFC 3339 with nanoseconds;
    all parts of a long line have that of the first.
    """

    stream: int
    stamp: str
    content: bytes


def entries(pieces: Iterable[bytes]) -> Iterator[LogEntry]:
    """Parse the response of `GET /containers/<id>/logs?timestamps=1`, which comes in pieces of any size."""
    buffer = b""
    for piece in pieces:
        buffer, at = buffer + piece, 0
        while len(buffer) - at >= HEADER.size:
            stream, size = HEADER.unpack_from(buffer, at)
            start = at + HEADER.size
            at = start + size
            if len(buffer) < at:
                at = start - HEADER.size
                break
            stamp, _, content = buffer[start:at].partition(b" ")
            if _STAMP.fullmatch(stamp):  # otherwise the engine's own message about a log that it cannot read
                yield LogEntry(stream, stamp.decode(), content)
        buffer = buffer[at:]


@dataclass(frozen=True)
class LogPosition:
    """The position right after an entry: the `number`-th of its stream with its stamp. Stamps are only
    compared for equality, since the clock may be set back.
    """

    stream: int
    stamp: str
    number: int

    def __str__(self) -> str:
        return f"{self.stamp}/{self.stream}/{self.number}"

    @classmethod
    def parse(cls, text: str) -> LogPosition | None:
        """Parse a position; None for "", the start. Raises ValueError."""
        if not text:
            return None
        stamp, stream, number = text.split("/")
        return cls(int(stream), stamp, int(number))


class Counter:
    """Tracks the position after each entry of a response."""

    def __init__(self) -> None:
        self._last: dict[int, LogPosition] = {}  # by stream
        self._first: dict[int, str] = {}  # stamps, by stream

    def after(self, entry: LogEntry) -> LogPosition:
        last = self._last.get(entry.stream)
        if last is None:
            self._first[entry.stream] = entry.stamp
        number = min(last.number + 1, BEYOND) if last and last.stamp == entry.stamp else 1
        place = self._last[entry.stream] = LogPosition(entry.stream, entry.stamp, number)
        return place

    def began_before(self, stream: int, stamp: str) -> bool:
        """Return whether the response has the first part of the line with this stamp."""
        return self._first.get(stream, stamp) != stamp


class ReadMidLine(NamedTuple):
    """A line whose end has not been read: its stamp, the number of its parts read, and of entries before
    them.
    """

    stamp: str
    parts: int
    before: int


@dataclass
class KnownLines:
    """What was read, by stream. `given` has the bytes that were passed on of the next entry, or, for a line
    that is no longer kept, of any entry. `entries` and `lines` count from the start.
    """

    given: dict[int, int]
    amidst: dict[int, ReadMidLine] = field(default_factory=dict)
    entries: dict[int, int] = field(default_factory=dict)
    lines: dict[int, int] = field(default_factory=dict)

    def copy(self) -> KnownLines:
        return KnownLines(dict(self.given), dict(self.amidst), dict(self.entries), dict(self.lines))

    @property
    def total(self) -> int:
        return sum(self.entries.values())

    def parts(self, stream: int) -> int:
        """Return the number of parts read of the stream's incomplete line."""
        return self.amidst[stream].parts if stream in self.amidst else 0

    def add(self, entry: LogEntry, number: int) -> None:
        """Add an entry, the `number`-th part of its line."""
        stream = entry.stream
        self.entries[stream] = self.entries.get(stream, 0) + 1
        if entry.content.endswith(b"\n"):
            self.amidst.pop(stream, None)
            self.lines[stream] = self.lines.get(stream, 0) + 1
        else:
            before = self.amidst[stream].before if stream in self.amidst else self.total - 1
            self.amidst[stream] = ReadMidLine(entry.stamp, number, before)

    def behind(self, stream: int, written: LineCounter) -> int:
        """Return the number of entries still to be read. Those of a line that is no longer kept do not count
        until its end.
        """
        if self.parts(stream) > LINE_PARTS and written.lines[stream] == self.lines.get(stream, 0):
            return 0
        return max(0, written.entries[stream] - self.entries.get(stream, 0))


class JobLog:
    """Reads the log of one container from the position `after`, "" for the start. Not thread-safe."""

    def __init__(self, ask: Ask, after: str) -> None:
        place, *given = after.split("+")
        self._ask = ask
        self._place = LogPosition.parse(place)
        self._tail: int | None = None  # entries to request; None means all
        self._known = KnownLines(
            {int(stream): int(size) for stream, _, size in (g.partition(":") for g in given)}
        )
        self._counted = not after  # from the start on
        self._shown: dict[int, bytes] = {}  # of a bar whose line is no longer kept, by stream

    def behind(self, written: LineCounter | None) -> int | None:
        """Return the number of unread entries that the tap knows of; None if that is unknown."""
        if not self._counted or written is None:
            return None
        return sum(self._known.behind(stream, written) for stream in written.entries)

    def missing(self, written: LineCounter | None) -> Iterator[tuple[str, bytes]]:
        """Say behind the end of a log how many lines the container has written that the engine's log does not have.
        The gap lies before the position, so it is reported once."""
        if not self._counted or written is None:
            return
        lines = sum(
            max(0, number - self._known.lines.get(stream, 0)) for stream, number in written.lines.items()
        )
        if lines:
            yield self._at(), MISSING % lines

    def unread(self, written: LineCounter | None = None) -> Iterator[tuple[str, bytes]]:
        """Do one round: yield pieces of the log up to its present end, each with the position after it.
        `written` is that of a tap from the start. Raises what the SDK and its libraries raise.
        """
        if self._tail is not None:
            self._tail = max(self._tail, (self.behind(written) or 0) + FEW) + self._since_line()
        while not (yield from self._round()):
            if self._tail is None:
                yield self._at(), LOST
                self._place, self._known, self._counted = None, KnownLines({}), False
            else:
                self._tail = self._tail * MORE if self._tail < MANY else None

    def _since_line(self) -> int:
        """Return the number of entries since the first part of an incomplete line: its parts are identified
        by counting.
        """
        total = self._known.total
        return max((total - line.before for line in self._known.amidst.values()), default=0)

    def begun(self, written: LineCounter | None) -> Iterator[tuple[str, bytes]]:
        """Yield what the engine withholds of lines that return to their start."""
        if not self._counted or written is None:
            return
        for stream, content in written.begun.items():
            if b"\r" in content and not self._known.behind(stream, written):
                piece = self._bar(stream, content)
                if piece:
                    yield self._at(), piece

    def _bar(self, stream: int, content: bytes) -> bytes:
        given, parts = self._known.given.get(stream, 0), self._known.parts(stream)
        if parts < LINE_PARTS:
            text = _text(content)
            self._known.given[stream] = max(given, len(text))
            return text[given:]
        if parts == LINE_PARTS:
            return b""  # that it is cut comes first
        last = _text(content.rsplit(b"\r", 2)[-2])
        if not last or len(last) > BAR or last == self._shown.get(stream):
            return b""
        self._known.given[stream], self._shown[stream] = len(last), last
        return last + b"\r"

    def _round(self) -> Generator[tuple[str, bytes], None, bool]:
        """Do one request; return False if its entries begin after the last one read."""
        with closing(self._ask(self._tail if self._place else None)) as found:
            counter = Counter()
            if self._place and not self._reach(self._place, found, counter):
                return False
            yield from self._hand_on(found, counter)
            return True

    def _reach(self, place: LogPosition, found: Iterator[LogEntry], counter: Counter) -> bool:
        if not any(counter.after(entry) == place for entry in found):
            return False
        lines = self._known.amidst.items()
        return self._tail is None or all(counter.began_before(stream, line.stamp) for stream, line in lines)

    def _hand_on(self, found: Iterator[LogEntry], counter: Counter) -> Iterator[tuple[str, bytes]]:
        batch: list[bytes] = []
        size = total = 0
        place, last_tail, self._tail = self._place, self._tail or 0, None  # None: whatever breaks in here
        known = self._known.copy()
        try:
            for entry in found:
                place = counter.after(entry)
                batch.append(self._rest_of(entry, place.number))
                size += len(batch[-1])
                total += 1
                if size >= PIECE or len(batch) >= BATCH:
                    self._place, known = place, self._known.copy()
                    yield self._at(), b"".join(batch)
                    batch, size = [], 0
        except BaseException:  # what was not handed on is read again
            self._known = known
            raise
        self._place = place
        self._tail = max(FEW, total * 3 // 2, last_tail * 2 // 3 if total else 0)
        if batch:
            yield self._at(), b"".join(batch)

    def _rest_of(self, entry: LogEntry, number: int) -> bytes:
        """Return what is still to be passed on of the `number`-th part of a line."""
        known, content = self._known, entry.content
        known.add(entry, number)
        given = known.given.pop(entry.stream, 0) if known.given else 0
        if number <= LINE_PARTS:
            return content[given:] if given else content
        if number == LINE_PARTS + 1:
            return CUT
        ends = content.endswith(b"\n")
        if given and not ends:
            known.given[entry.stream] = given
        return b"\n" if given and ends else b""

    def _at(self) -> str:
        given = "".join(f"+{stream}:{size}" for stream, size in sorted(self._known.given.items()) if size)
        return f"{self._place or ''}{given}"


def asking(connection: EngineConnection, container: str) -> Ask:
    """Return a function that requests the log of this container."""

    def ask(tail: int | None) -> Generator[LogEntry]:
        client = connection.client
        answer = client.get(
            f"{client.base_url}/v{client.api_version}/containers/{container}/logs",
            params={"stdout": 1, "stderr": 1, "timestamps": 1, "tail": "all" if tail is None else tail},
            stream=True,
            timeout=SILENCE,
        )
        with closing(answer):
            try:
                answer.raise_for_status()
            except requests.HTTPError as error:  # as the SDK raises it elsewhere, with the engine's words
                docker.errors.create_api_error_from_http_exception(error)
            yield from entries(iter(lambda: answer.raw.read(PIECE), b""))

    return ask


class WorkloadLog:
    """The log of a component's container: read in rounds without a connection to the container, so that a slow
    reader never makes a service wait.
    """

    def __init__(self, connection: EngineConnection, container: str, after: str) -> None:
        self._doing = f"cannot read the log of container {container[:12]}"
        self._log = JobLog(asking(connection, container), after)

    def unread(self) -> Iterator[tuple[str, bytes]]:
        with translated(self._doing):
            try:
                yield from self._log.unread()
            except (
                requests.HTTPError
            ) as error:  # as the SDK raises it elsewhere: a container that is gone is NotFound
                docker.errors.create_api_error_from_http_exception(error)


def _text(content: bytes) -> bytes:
    """Return the text up to an incomplete character; b"" if it is not text."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return content[: error.start] if error.reason == "unexpected end of data" else b""
    return content
