"""The log of an attempt: whole, once, bounded, and gone on with after a death at any moment."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.domain.errors import Transient
from controller.domain.reasons import Reason
from controller.runner.logs import LogFile, follow
from tests.support.clock import FakeClock

LIMIT = 2**16
NOTE = b"[cut here: logs are kept up to 64Ki]\n"


class Source:
    """A container's log as `Jobs.logs` gives it: places are numbers of pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.errors: list[Exception] = []  # raised at the ends of the first readings
        self.read: list[int] = []  # of each piece that was handed out

    def logs(self, id: str, after: str, stop: Callable[[], bool]) -> Iterator[tuple[str, bytes]]:
        for number in range(int(after or 0), len(self.pieces)):
            if stop():
                return
            self.read.append(number)
            yield str(number + 1), self.pieces[number]
            if self.errors and number % 3 == 2:
                raise self.errors.pop(0)
        if self.errors:
            raise self.errors.pop(0)


def read_all(source: Source, path: Path, stop: Callable[[], bool] = lambda: False) -> bytes:
    follow(source, "id", path, LIMIT, FakeClock(), stop)  # type: ignore[arg-type]
    return path.read_bytes()


def lines(count: int) -> list[bytes]:
    return [b"line %d\n" % number for number in range(count)]


def test_a_log_is_whole(tmp_path: Path) -> None:
    pieces = lines(100)
    assert read_all(Source(pieces), tmp_path / "log") == b"".join(pieces)


def test_breaks_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    pieces, source = lines(20), Source(lines(20))
    source.errors = [Transient(Reason.ENGINE_UNREACHABLE, "away"), Transient(Reason.ENGINE_FAILED, "oops")]
    assert read_all(source, tmp_path / "log") == b"".join(pieces)
    assert source.read == list(range(20))


def test_a_container_that_is_gone_ends_its_log(tmp_path: Path) -> None:
    source = Source(lines(2))
    source.errors = [Transient(Reason.CONTAINER_LOST, "gone")]
    assert read_all(source, tmp_path / "log") == b"line 0\nline 1\n"


@pytest.mark.parametrize("written", range(4))
def test_a_death_between_a_piece_and_its_place(tmp_path: Path, written: int) -> None:
    """The piece is in the file, in part perhaps, and its place is not."""
    path, pieces = tmp_path / "log", lines(10)
    with LogFile(path, LIMIT) as file:
        file.append(pieces[0], "1")
        file.append(pieces[1], "2")
    with path.open("ab") as half:
        half.write(pieces[2][: written * 3])
    assert read_all(Source(pieces), path) == b"".join(pieces)


def test_a_place_that_fits_nothing_begins_anew(tmp_path: Path) -> None:
    """Power was lost: the disk has kept the later write and lost the earlier one."""
    path, pieces = tmp_path / "log", lines(10)
    for damage in (b"garbage", b"99999 5", b""):
        (tmp_path / "log.at").write_bytes(damage)
        assert read_all(Source(pieces), path) == b"".join(pieces)


def test_it_stops_when_it_is_told(tmp_path: Path) -> None:
    source = Source(lines(10))
    read_all(source, tmp_path / "log", stop=lambda: len(source.read) >= 4)
    assert read_all(source, tmp_path / "log") == b"".join(lines(10))
    assert source.read == list(range(10))


@pytest.mark.parametrize("size", [7, 1000, 40_000, LIMIT, 10 * LIMIT])
def test_a_log_is_cut_at_its_limit_and_says_so(tmp_path: Path, size: int) -> None:
    piece = b"x" * (size - 1) + b"\n"
    source = Source([piece] * (3 * LIMIT // size + 1))
    found = read_all(source, tmp_path / "log")
    assert len(found) <= LIMIT
    assert found.endswith(b"\n" + NOTE) or found == NOTE
    assert set(found.removesuffix(NOTE).splitlines(keepends=True)) <= {piece}
    read = len(source.read)
    assert read_all(source, tmp_path / "log") == found
    assert len(source.read) == read, "nobody reads on"


def test_a_full_disk_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Told once, whatever the number of attempts."""

    class Full(Source):
        refusals = 3

        def logs(self, id: str, after: str, stop: Callable[[], bool]) -> Iterator[tuple[str, bytes]]:
            if self.refusals:
                self.refusals -= 1
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            yield from super().logs(id, after, stop)

    assert read_all(Full(lines(3)), tmp_path / "log") == b"".join(lines(3))
    assert caplog.text.count("could not write a log") == 1
    assert len(os.listdir(f"/proc/{os.getpid()}/fd")) < 1000


def test_the_web_process_may_read_it(tmp_path: Path) -> None:
    read_all(Source(lines(1)), tmp_path / "log")
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o640
