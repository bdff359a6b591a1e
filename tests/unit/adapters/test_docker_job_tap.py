"""What is handed on of a log while its container writes: all of it, once and in order, whatever was written, however
much of it the engine still keeps to itself, and whenever the reader dies and comes back."""

from __future__ import annotations

import io
import struct
from collections.abc import Generator
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.adapters.docker.job_log import CUT, LINE_PARTS, JobLog, LogEntry
from controller.adapters.docker.job_tap import ENTRY, LineCounter


def as_kept(content: bytes) -> bytes:
    """Return the text as the engine's log keeps it: each byte that is not valid UTF-8 becomes U+FFFD."""
    kept = io.StringIO()
    while content:
        try:
            kept.write(content.decode())
            break
        except UnicodeDecodeError as error:
            kept.write(content[: error.start].decode() + "\ufffd")
            content = content[error.start + 1 :]
    return kept.getvalue().encode()


@dataclass
class Engine:
    """Its copier: https://github.com/moby/moby/blob/v20.10.24/daemon/logger/copier.go"""

    waiting: list[LogEntry] = field(default_factory=list)  # not in the log yet
    log: list[LogEntry] = field(default_factory=list)
    frames: bytes = b""  # on the way to the tap
    asked: int = 0  # entries that were told
    _buffers: dict[int, bytes] = field(default_factory=dict)
    _stamps: dict[int, str] = field(default_factory=dict)
    _clock: int = 0

    def write(self, stream: int, content: bytes) -> None:
        self.frames += struct.pack(">B3xL", stream, len(content)) + content
        buffer = self._buffers.get(stream, b"") + content
        while True:
            end = buffer.find(b"\n", 0, ENTRY) + 1
            if not end and len(buffer) < ENTRY:
                break
            self._enter(stream, buffer[: end or ENTRY])
            buffer = buffer[end or ENTRY :]
        self._buffers[stream] = buffer

    def _enter(self, stream: int, content: bytes) -> None:
        if stream not in self._stamps:
            self._clock += 1
            self._stamps[stream] = f"{self._clock}Z"
        stamp = self._stamps[stream]
        if content.endswith(b"\n"):
            del self._stamps[stream]
        self.waiting.append(LogEntry(stream, stamp, as_kept(content)))

    def tell(self, entries: int) -> None:
        self.log += self.waiting[:entries]
        del self.waiting[:entries]

    def end(self) -> None:
        for stream, buffer in self._buffers.items():
            if buffer:
                self._enter(stream, buffer)
        self.tell(len(self.waiting))

    def ask(self, tail: int | None) -> Generator[LogEntry]:
        told = self.log if tail is None else self.log[-tail:]
        self.asked += len(told)
        yield from told


@dataclass
class Reader:
    """What `runner.logs` and `jobs` do: pieces are appended, and the last place is where a reader goes on."""

    engine: Engine
    text: bytes = b""
    place: str = ""
    written: LineCounter | None = field(default_factory=LineCounter)

    def __post_init__(self) -> None:
        self.log = JobLog(self.engine.ask, self.place)

    def hear(self, size: int) -> None:
        if self.written:
            self.written.feed(self.engine.frames[:size])
            self.engine.frames = self.engine.frames[size:]

    def read(self, most: int | None = None) -> None:
        """`most`: pieces, after which the reader dies."""
        for number, (place, piece) in enumerate(self.log.unread(self.written)):
            self._take(place, piece)
            if number == most:
                self.die()
                return

    def look(self) -> None:
        for place, piece in self.log.begun(self.written):
            self._take(place, piece)

    def _take(self, place: str, piece: bytes) -> None:
        self.text, self.place = self.text + piece, place

    def die(self) -> None:
        """A reader that comes back has a tap that was not there from the start."""
        self.written, self.log = None, JobLog(self.engine.ask, self.place)


SOME = st.sampled_from(
    [b"a", b"b\r", b"\rc", b"\n", b"\r\n", "é".encode(), "é".encode()[:1], b"\xff", b"", b"\0"]
)
LONG = st.integers(ENTRY - 3, 2 * ENTRY + 3).map(lambda size: b"x" * size)
CONTENT = st.one_of(st.lists(SOME, max_size=8).map(b"".join), SOME, LONG)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from([1, 1, 2]), CONTENT),
        st.tuples(st.just("tell"), st.integers(0, 9), st.just(b"")),
        st.tuples(st.just("hear"), st.integers(0, 100), st.just(b"")),
        st.tuples(st.just("hear"), st.just(10**9), st.just(b"")),
        st.tuples(st.just("read"), st.just(0), st.just(b"")),
        st.tuples(st.just("look"), st.just(0), st.just(b"")),
        st.tuples(st.just("die"), st.just(0), st.just(b"")),
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(STEPS, st.sampled_from([1, 2]))
def test_all_of_it_is_handed_on_once(steps: list[tuple[str, int, bytes]], streams: int) -> None:
    engine = Engine()
    reader = Reader(engine)
    for step, number, content in steps:
        match step:
            case "write":
                engine.write(min(number, streams), content)
            case "tell":
                engine.tell(number)
            case "hear":
                reader.hear(number)
            case "read":
                reader.read()
            case "look":
                reader.look()
            case "die":
                reader.die()
    engine.end()
    reader.read()
    expected = b"".join(entry.content for entry in engine.log)
    if streams == 1:
        assert reader.text == expected
    assert sorted(reader.text) == sorted(expected)
    reader.read()
    assert sorted(reader.text) == sorted(expected), "nothing comes twice"
    assert list(reader.log.missing(reader.written)) == []


def test_lines_that_the_engine_could_not_write_are_counted() -> None:
    engine = Engine()
    reader = Reader(engine)
    engine.write(1, b"one\ntwo\nthree\n")
    engine.write(2, b"x" * 3 * ENTRY + b"\nend")
    reader.hear(10**9)
    del engine.waiting[1:3]
    engine.end()
    reader.read()
    ((place, told),) = reader.log.missing(reader.written)
    assert (place, told) == (
        reader.place,
        b"[2 lines of the log are missing: the engine could not write them]\n",
    )
    assert reader.text.startswith(b"one\nxxx")
    reader.die()
    assert list(reader.log.missing(reader.written)) == []


def bar(number: int) -> bytes:
    return b"\r%9d of many" % number


def test_a_progress_bar_is_seen_before_its_line_is_complete() -> None:
    engine = Engine()
    reader = Reader(engine)
    engine.write(2, b"begins\n" + bar(1))
    reader.hear(10**9)
    reader.look()
    assert reader.text == b"", "what comes before it is not in the log yet"
    engine.tell(1)
    reader.read()
    reader.look()
    assert reader.text == b"begins\n" + bar(1)
    engine.write(2, bar(2) + b"\n")
    reader.look()
    reader.die()
    engine.end()
    reader.read()
    assert reader.text == b"begins\n" + bar(1) + bar(2) + b"\n"


def test_a_text_without_any_line_end_waits_for_it() -> None:
    """Another stream may write meanwhile, and its line would stand in the middle of this one."""
    engine = Engine()
    reader = Reader(engine)
    engine.write(1, b"half a line")
    reader.hear(10**9)
    reader.look()
    assert reader.text == b""


def test_a_bar_without_end_is_seen_for_ever_and_costs_little() -> None:
    """Its line is cut where others are, and what it shows is told on. The log is not asked for again and again: what
    has been passed on of the line is long."""
    engine = Engine()
    reader = Reader(engine)
    updates = 3 * LINE_PARTS * ENTRY // len(bar(0))
    for begin in range(0, updates, 200):
        engine.write(1, b"".join(map(bar, range(begin, begin + 200))))
        reader.hear(10**9)
        engine.tell(10**9)
        if reader.log.behind(reader.written):
            reader.read()
        reader.look()
    assert bar(begin + 198)[1:] + b"\r" in reader.text[-50:]
    assert engine.asked < 4 * LINE_PARTS**2
    told = len(reader.text)
    assert told < LINE_PARTS * ENTRY + len(CUT) + 20 * updates // 200
    reader.look()
    assert len(reader.text) == told, "what it shows is told once"
    engine.write(1, b"\nafter\n")
    engine.end()
    reader.read()
    assert reader.text.endswith(b" of many\r\nafter\n")


def test_a_long_line_after_much_else_is_not_read_with_all_of_it() -> None:
    engine = Engine()
    reader = Reader(engine)
    engine.write(1, b"line\n" * 50_000)
    engine.tell(10**9)
    reader.hear(10**9)
    reader.read()
    before = engine.asked
    for _ in range(LINE_PARTS // 2):
        engine.write(1, b"x" * ENTRY)
        engine.tell(10**9)
        reader.hear(10**9)
        reader.read()
    assert reader.text == b"line\n" * 50_000 + b"x" * (LINE_PARTS // 2 * ENTRY)
    assert engine.asked - before < 300_000, "the first time it asks for more than there is new"
