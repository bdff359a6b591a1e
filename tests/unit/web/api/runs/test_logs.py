"""Logs as one text, whole lines, and events that a client reads back."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.runs.run import Attempt, new_run
from controller.web.api.runs.logs import StoredStageLog, log_event, whole_lines
from tests.support.events import Event, parse_events
from tests.support.runs import make_pipeline

RUN = new_run("0" * 19, make_pipeline(), 1.0)


def log_of(folder: Path, *contents: bytes | None) -> StoredStageLog:
    """None: a file that is not there."""
    files = []
    for number, content in enumerate(contents, 1):
        files.append(folder / f"fit.{number}.log")
        if content is not None:
            files[-1].write_bytes(content)
    return StoredStageLog(tuple(files))


# --- files --------------------------------------------------------------------------------------------------------


def test_attempts_are_one_text(tmp_path: Path) -> None:
    log = log_of(tmp_path, b"one\n", None, b"", b"two\n", b"three")
    whole = b"one\ntwo\nthree"
    assert log.size() == len(whole)
    for offset in range(len(whole) + 3):
        for limit in (1, 2, 5, 100):
            assert log.read(offset, limit) == whole[offset : offset + limit]


def test_the_files_of_a_stage() -> None:
    stage = RUN.stage("fit")
    begun = RUN.with_stage(stage.begin(1.0).note(ended=2.0))
    assert begun.stage("fit").attempts == (Attempt(1, 1.0, ended=2.0),)
    folder = Path("runs")
    assert StoredStageLog.of(folder, RUN, "fit") == StoredStageLog(())
    assert StoredStageLog.of(folder, begun, "fit") == StoredStageLog((folder / RUN.id / "fit.1.log",))
    assert StoredStageLog.of(folder, begun, "fit", attempt=1).tail == folder / RUN.id / "fit.1.log"
    assert StoredStageLog(()).tail is None
    assert (StoredStageLog(()).size(), StoredStageLog(()).read(0)) == (0, b"")


def test_what_cannot_be_read_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "fit.1.log").mkdir()
    with pytest.raises(OSError, match="directory"):
        StoredStageLog((tmp_path / "fit.1.log",)).read(0)


# --- lines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", b""),
        (b"half", b""),
        (b"one\n", b"one\n"),
        (b"one\nhalf", b"one\n"),
        (b"10%\r20%\r30", b"10%\r20%\r"),
        (b"10%\r", b""),
        (b"a\nb\r", b"a\n"),
        (b"a\r\n", b"a\r\n"),
        (b"\n", b"\n"),
    ],
)
def test_only_whole_lines_are_told(data: bytes, told: bytes) -> None:
    assert data[: whole_lines(data, full=False)] == told


@pytest.mark.parametrize("tail", [b"", b"x", "é".encode(), "€".encode(), "🐈".encode()])
def test_a_line_longer_than_a_piece_is_cut_between_characters(tail: bytes) -> None:
    for cut in range(1, len(tail) + 1):
        data = b"x" * 10 + tail[:cut]
        whole = whole_lines(data, full=True)
        assert data[:whole].decode() == "x" * 10 + (tail.decode() if cut == len(tail) else "")


def test_bytes_that_are_no_text_do_not_hold_a_line_up() -> None:
    for junk in (b"\x80" * 20, b"\xff" * 20, b"\xf0" * 20):
        assert whole_lines(junk, full=True) >= 17


# --- events -------------------------------------------------------------------------------------------------------


def test_one_event_for_many_lines() -> None:
    assert log_event(b"one\n\ntwo\n", 9) == b"id: 9\ndata: one\ndata: \ndata: two\n\n"
    assert log_event(b"half", 4) == b"id: 4\ndata: half\n\n"
    assert log_event(b"\n", 1) == b"id: 1\ndata: \n\n"


@given(
    lines=st.lists(st.text(alphabet=st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=8)),
    ends=st.lists(st.sampled_from(["\n", "\r\n", "\r"]), min_size=1),
)
def test_lines_come_back(lines: list[str], ends: list[str]) -> None:
    if not lines:
        return
    data = "".join(line + ends[i % len(ends)] for i, line in enumerate(lines)).encode()
    if data.endswith(b"\r"):
        data += b"\n"
    (event,) = parse_events(log_event(data, len(data)))
    text = data.decode().replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")
    assert event == Event("message", str(len(data)), text)


@given(data=st.binary(max_size=300), seed=st.integers(0, 1000))
def test_told_in_whatever_pieces_it_is_the_same_text(data: bytes, seed: int) -> None:
    """As it is read while it is written: nothing is lost, told twice, or taken for a field of the stream."""
    chance, shown, offset = random.Random(seed), [], 0
    piece = chance.randint(4, 40)
    for written in sorted([*(chance.randint(0, len(data)) for _ in range(8)), len(data)]):
        final = written == len(data)
        while True:
            part = data[offset : min(written, offset + piece)]
            full = len(part) == piece
            length = len(part) if final and not full else whole_lines(part, full)
            if length:
                offset += length
                shown.append(log_event(part[:length], offset))
            if not full:
                break
            assert length, "a full piece always goes on"
    assert offset == len(data)
    events = list(parse_events(b"".join(shown)))
    assert [int(event.id) for event in events] == sorted({int(event.id) for event in events})
    assert all(event.kind == "message" for event in events)
