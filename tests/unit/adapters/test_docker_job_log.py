"""How the engine's log is read on from a place, without an engine: the stream comes cut anywhere."""

from __future__ import annotations

import struct

import pytest

from controller.adapters.docker.job_log import BEYOND, Counter, LogEntry, LogPosition, entries

FIRST, SECOND = "2026-11-22T18:12:06.872935864Z", "2026-11-22T18:12:06.872935900Z"


def frame(stream: int, payload: bytes) -> bytes:
    return struct.pack(">B3xL", stream, len(payload)) + payload


ANSWER = b"".join(
    [
        frame(1, f"{FIRST} one\n".encode()),
        frame(2, f"{SECOND} \n".encode()),
        frame(1, f"{SECOND} two words and no end".encode()),
    ]
)
EXPECTED = [
    LogEntry(1, FIRST, b"one\n"),
    LogEntry(2, SECOND, b"\n"),
    LogEntry(1, SECOND, b"two words and no end"),
]


@pytest.mark.parametrize("size", [1, 7, 8, 9, 40, 1000])
def test_pieces_of_any_size(size: int) -> None:
    pieces = [ANSWER[at : at + size] for at in range(0, len(ANSWER), size)]
    assert list(entries(pieces)) == EXPECTED


def test_an_answer_that_breaks_off_gives_whole_entries() -> None:
    assert list(entries([ANSWER[:-1]])) == EXPECTED[:-1]
    assert list(entries([])) == []


def test_the_engines_own_words_are_no_entry() -> None:
    words = frame(2, b"Error grabbing logs: invalid character 'x' looking for beginning of value\n")
    assert list(entries([words, ANSWER])) == EXPECTED


@pytest.mark.parametrize("place", [LogPosition(1, FIRST, 1), LogPosition(2, SECOND, 66)])
def test_places_are_written_and_read(place: LogPosition) -> None:
    assert LogPosition.parse(str(place)) == place


def test_the_start_is_no_place() -> None:
    assert LogPosition.parse("") is None


def test_parts_of_a_line_are_counted_by_stream() -> None:
    counter = Counter()
    parts = [
        LogEntry(1, FIRST, b"x"),
        LogEntry(2, SECOND, b"between\n"),
        LogEntry(1, FIRST, b"x"),
        LogEntry(1, FIRST, b"\n"),
        LogEntry(1, SECOND, b"next\n"),
    ]
    assert [counter.after(part).number for part in parts] == [1, 1, 2, 3, 1]


def test_whether_an_answer_has_the_first_part_of_a_line() -> None:
    counter = Counter()
    counter.after(LogEntry(1, FIRST, b"x"))
    counter.after(LogEntry(1, SECOND, b"y"))
    assert counter.began_before(1, SECOND)
    assert not counter.began_before(1, FIRST), "the answer may begin amidst it"
    assert not counter.began_before(2, FIRST)


def test_the_parts_of_an_endless_line_are_alike() -> None:
    counter = Counter()
    places = [counter.after(LogEntry(1, FIRST, b"x")) for _ in range(BEYOND + 5)]
    assert places[-1] == LogPosition(1, FIRST, BEYOND)
    assert len(set(places)) == BEYOND
