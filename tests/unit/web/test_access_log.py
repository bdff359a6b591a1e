"""The access log: its two formats with what callers may send, and writing that no call waits for."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import subprocess
import sys
import threading
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.web.access_log import (
    FORMATS,
    MOST_HELD,
    PIECE,
    WAITING,
    AccessEntry,
    AccessLog,
    as_json,
    combined,
)
from tests.support.waiting import wait_for

ENTRY = AccessEntry(
    at=1769861520.123,
    seconds=0.0042,
    address="192.0.2.7",
    user="anna",
    method="POST",
    path="/demo/colors/predict",
    protocol="HTTP/1.1",
    status=200,
    size=131,
    referrer="https://example.org/page",
    agent="curl/8.5.0",
    request="r1",
    api="demo/colors",
)
#: As analysers of web servers read it.
COMBINED = re.compile(
    r'(\S+) (\S+) (\S+) \[([^\]]+)\] "((?:[^"\\]|\\.)*)" (\d+) (\S+) "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)"'
)


def test_combined() -> None:
    assert combined(ENTRY) == (
        '192.0.2.7 - anna [31/Jan/2026:12:12:00 +0000] "POST /demo/colors/predict HTTP/1.1" 200 131 '
        '"https://example.org/page" "curl/8.5.0"'
    )
    empty = replace(ENTRY, user="", size=0, referrer="", agent="")
    assert combined(empty).endswith('HTTP/1.1" 200 - "-" "-"')
    assert " - - [" in combined(empty)


def test_json() -> None:
    assert json.loads(as_json(replace(ENTRY, trace="4bf9"))) == {
        "time": "2026-01-31T12:12:00.123Z",
        "address": "192.0.2.7",
        "user": "anna",
        "method": "POST",
        "path": "/demo/colors/predict",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes": 131,
        "seconds": 0.0042,
        "referrer": "https://example.org/page",
        "userAgent": "curl/8.5.0",
        "requestId": "r1",
        "api": "demo/colors",
        "traceId": "4bf9",
    }
    assert "traceId" not in as_json(ENTRY)


@pytest.mark.parametrize("style", FORMATS)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("path", "/demo/files/a?X-Amz-Signature=5ecret&X-Amz-Credential=5ecret"),
        ("path", "/demo/files/a?5ecret"),
        ("path", "/demo/files/a#5ecret"),
        ("path", "http://anna:5ecret@example.org/x"),
        ("referrer", "https://example.org/back?code=5ecret"),
        ("referrer", "https://anna:5ecret@example.org/"),
        ("referrer", "//5ecret@example.org/"),
    ],
)
def test_nothing_of_a_query_is_written(style: str, field: str, value: str) -> None:
    assert "5ecret" not in FORMATS[style](replace(ENTRY, **{field: value}))  # type: ignore[arg-type]


WORDS = st.text(max_size=3000) | st.sampled_from(
    [
        '"',
        "\\",
        '\\"',
        "a\r\nb",
        "\x00\x1b[31m",
        "\u2028",
        "ü" * 3000,
        '"' * 3000,
        "\\" * 3000,
        "\udcff",
        "\ud800",
        "😀" * 2000,
    ]
)


@given(WORDS, WORDS, WORDS, WORDS, WORDS)
def test_a_line_is_one_line(user: str, method: str, path: str, referrer: str, agent: str) -> None:
    entry = replace(ENTRY, user=user, method=method, path=path, referrer=referrer, agent=agent)
    line = combined(entry)
    found = COMBINED.fullmatch(line)
    assert found, line
    assert found[6] == "200"
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < PIECE
    text = as_json(entry)
    assert json.loads(text)["status"] == 200
    assert text.isascii()
    assert "\n" not in text
    assert len(text) < PIECE


def test_lines_are_written_and_a_moved_file_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    made = AccessLog("combined", path)
    for _ in range(1000):
        made.add(ENTRY)
    wait_for(lambda: path.exists() and len(path.read_text().splitlines()) == 1000)
    path.rename(tmp_path / "access.log.1")
    made.add(replace(ENTRY, user="later"))
    wait_for(lambda: path.exists() and path.read_text())
    made.add(replace(ENTRY, user="last"))
    made.close()
    assert [line.split()[2] for line in path.read_text().splitlines()] == ["later", "last"]
    assert set(path.with_suffix(".log.1").read_text().splitlines()) == {combined(ENTRY)}


@pytest.mark.slow
def test_a_reader_that_hangs_costs_lines_and_no_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    made = AccessLog("json", path)
    for _ in range(WAITING * 2):
        made.add(ENTRY)
    assert len(made._entries) <= WAITING
    got: list[bytes] = []
    os.set_blocking(reader, True)
    thread = threading.Thread(target=_read, args=(reader, got))
    thread.start()
    with caplog.at_level(logging.WARNING):
        wait_for(lambda: "were dropped" in caplog.text)
    made.close()
    os.close(made._file)
    thread.join()
    os.close(reader)
    assert all(json.loads(line)["status"] == 200 for line in b"".join(got).splitlines())


@pytest.mark.parametrize("letter", ["a", "\u20ac", "\udcff"])
def test_long_fields_that_wait_take_bounded_memory(tmp_path: Path, letter: str) -> None:
    """Each of these lines would be cut when it is written, and until then has what the caller has sent."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    made = AccessLog("json", path)
    sent = 0
    tracemalloc.start()
    try:
        while not made.dropped:
            long = (f"{sent}" + letter * 8000)[:8000]
            made.add(replace(ENTRY, path="/" + long, referrer=long + "r", agent=long + "a"))
            sent += 1
        assert tracemalloc.get_traced_memory()[0] < 1.5 * MOST_HELD
    finally:
        tracemalloc.stop()
    assert made.dropped == 1
    got: list[bytes] = []
    wait_for(lambda: made._file >= 0)
    os.set_blocking(reader, True)
    thread = threading.Thread(target=_read, args=(reader, got))
    thread.start()
    wait_for(lambda: not made._entries)
    made.add(ENTRY)  # there is room again
    made.close()
    os.close(made._file)
    thread.join()
    os.close(reader)
    assert b"".join(got).count(b"\n") == sent
    assert made.dropped == 1


def _read(descriptor: int, got: list[bytes]) -> None:
    while piece := os.read(descriptor, 65536):
        got.append(piece)


def test_a_file_that_cannot_be_written_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "later"
    with caplog.at_level(logging.ERROR):
        made = AccessLog("combined", folder / "access.log")
        made.add(ENTRY)
        wait_for(lambda: "the access log cannot be written" in caplog.text)
        folder.mkdir()
        wait_for((folder / "access.log").exists)
        made.add(replace(ENTRY, user="later"))
        made.close()
    assert caplog.text.count("the access log cannot be written") == 1
    assert "later" in (folder / "access.log").read_text()


def test_a_line_that_a_full_disk_has_cut_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    made = AccessLog("combined", path)
    made.close()
    made._open()
    made._file, there = os.open(path, os.O_WRONLY | os.O_APPEND), made._file
    os.close(there)
    made._is_cut = os.write(made._file, b"192.0.2.7 - an") > 0
    made.add(ENTRY)
    made._write_all()
    os.close(made._file)
    assert path.read_text().splitlines() == ["192.0.2.7 - an", combined(ENTRY)]


def test_what_a_full_disk_has_no_room_for_is_written_later(tmp_path: Path) -> None:
    made = AccessLog("combined", None)
    made.close()
    made._file = os.open("/dev/full", os.O_WRONLY)
    for number in range(100):
        made.add(replace(ENTRY, user=f"user-{number}"))
    for _ in range(3):
        with pytest.raises(OSError, match="No space left"):
            made._write_all()
    os.close(made._file)
    path = tmp_path / "access.log"
    made._file = os.open(path, os.O_WRONLY | os.O_CREAT)
    made._write_all()
    os.close(made._file)
    assert [line.split()[2] for line in path.read_text().splitlines()] == [f"user-{n}" for n in range(100)]
    assert made.dropped == 0


def test_a_disk_with_room_for_the_end_of_a_cut_line_alone_costs_no_line(tmp_path: Path) -> None:
    """The kernel writes a part, as on a full disk."""
    path = tmp_path / "access.log"
    made = AccessLog("combined", path)
    made.close()
    made._open()
    made._is_cut = os.write(made._file, b"192.0.2.7 - an") > 0
    made.add(ENTRY)
    write = os.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            os, "write", lambda file, piece: write(file, piece[:1]) if piece[:1] == b"\n" else full()
        )
        with pytest.raises(OSError, match="full"):
            made._write_all()
    made._write_all()
    os.close(made._file)
    assert path.read_text().splitlines() == ["192.0.2.7 - an", combined(ENTRY)]
    assert made.dropped == 0


def test_the_log_says_why_lines_are_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = AccessLog("combined", None)
    made.close()
    made._file = os.open(tmp_path / "access.log", os.O_WRONLY | os.O_CREAT)
    told = []
    for dropped, failing, cut in ((2, False, 0), (5, True, 0), (5, False, 1), (6, True, 4), (6, False, 4)):
        caplog.clear()
        made._dropped, made._failing, made._cut = dropped, failing, cut
        with caplog.at_level(logging.WARNING):
            made._write_all()
        told.append([(record.getMessage(), vars(record)["lines"]) for record in caplog.records])
    os.close(made._file)
    slow, away, full_disk = (
        "lines of the access log were dropped, since it is too slow",
        "lines of the access log were dropped, since it cannot be written",
        "lines of the access log lost their end, since the disk was full",
    )
    assert told == [[(slow, 2)], [(away, 3)], [(full_disk, 1)], [(away, 1), (full_disk, 3)], []]


def full() -> int:
    raise OSError(errno.ENOSPC, "full")


def test_the_rest_of_a_cut_line_is_counted_and_not_written(tmp_path: Path) -> None:
    """The program has a bound for the size of its files, at which the kernel writes a part as on a full disk."""
    path = tmp_path / "access.log"
    line = len(combined(ENTRY)) + 1
    subprocess.run([sys.executable, "-c", _CUT, str(path), str(line * 3 // 2)], check=True)
    assert path.read_text() == f"{combined(ENTRY)}\n{combined(ENTRY)[: line // 2]}\n{combined(ENTRY)}\n"


_CUT = """
import os, resource, signal, sys
from tests.unit.web.test_access_log import ENTRY, AccessLog
path, most = sys.argv[1], int(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
made = AccessLog("combined", None)
made.close()
made._file = os.open(path, os.O_WRONLY | os.O_CREAT)
for _ in range(3):
    made.add(ENTRY)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
try:
    made._write_all()
except OSError:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    made._write_all()
assert made.dropped == 1, made.dropped
"""
