"""Logs of builds: each line at once, cleaned and bounded, past the end of the build, whatever happens to the disk."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.daemon.build_logs import LONGEST, MOST_BUILDS, SEGMENTS, SMALLEST, BuildLogs
from controller.domain.errors import Stalled
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.kept_logs import KeptLogs
from controller.web.api.platform.build_news import build_news

DEMO = AppName("demo")
TAG = "prichal.local/demo/build:0123456789abcdef"
NOON = 1_700_000_000.0


@pytest.fixture
def kept(tmp_path: Path) -> KeptLogs:
    return KeptLogs(tmp_path)


@pytest.fixture
def logs(tmp_path: Path) -> BuildLogs:
    times: Iterator[float] = itertools.count(NOON)
    secrets = (Secret("hunter2-hunter2"),)
    return BuildLogs(tmp_path, 0, {DEMO: secrets}.get, lambda: next(times))


def text_of(kept: KeptLogs) -> str:
    log, at, found = kept.builds(DEMO)[-1], 0, b""
    while True:
        at, piece = log.read(at)
        if not piece:
            return found.decode()
        found, at = found + piece, at + len(piece)


def test_a_line_can_be_read_as_soon_as_it_is_said_and_the_last_one_says_how_it_ended(
    logs: BuildLogs, kept: KeptLogs
) -> None:
    with logs.of(DEMO, TAG) as line:
        line("Step 1/2 : FROM base")
        assert text_of(kept) == "Step 1/2 : FROM base\n"
        assert not kept.builds(DEMO)[0].has_ended
    assert kept.builds(DEMO)[0].has_ended
    assert text_of(kept).splitlines()[-1].startswith("prichal: built in ")
    assert kept.builds(DEMO)[0].name.endswith("-0123456789ab")
    with pytest.raises(Stalled), logs.of(DEMO, TAG):
        raise Stalled(Reason.BUILD_FAILED, "no such file")
    assert text_of(kept).endswith("s: BuildFailed\n")
    assert kept.of(DEMO) == (), "it is no log of a component"


def test_a_line_is_harmless(logs: BuildLogs, kept: KeptLogs) -> None:
    with logs.of(DEMO, TAG) as line:
        line("\x1b[2J\x1b]0;title\x07password hunter2-hunter2 \udce9\x9b1m")
        line("x" * 10 * LONGEST)
    found = text_of(kept)
    assert "\x1b" not in found
    assert "\x9b" not in found
    assert "hunter2" not in found
    assert len(found) < 2 * LONGEST


@pytest.mark.slow
def test_a_long_log_has_a_bound_and_keeps_its_end(logs: BuildLogs, kept: KeptLogs, tmp_path: Path) -> None:
    lines = SEGMENTS * SMALLEST // 50
    with logs.of(DEMO, TAG) as line:
        for number in range(lines):
            line(f"line {number} {'x' * 80}")
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert size <= (SEGMENTS + 1) * SMALLEST
    found = text_of(kept)
    assert f"line {lines - 1} " in found
    assert "line 0 " not in found
    numbers = [int(row.split()[1]) for row in found.splitlines() if row.startswith("line ")]
    assert numbers == list(range(numbers[0], lines)), "nothing is missing in between"


def test_an_app_has_few_of_them(logs: BuildLogs, kept: KeptLogs) -> None:
    for _ in range(MOST_BUILDS + 3):
        with logs.of(DEMO, TAG) as line:
            line("Step")
    assert len(kept.builds(DEMO)) == MOST_BUILDS


def test_no_build_ends_because_its_log_cannot_be_kept(
    logs: BuildLogs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / DEMO).write_text("a file in the place of the folder")
    with logs.of(DEMO, TAG) as line:
        line("one")
        line("two")
    assert [each.message for each in caplog.records if "not kept" in each.message] != []
    assert len(caplog.records) == 1
    (tmp_path / DEMO).unlink()
    with logs.of(DEMO, TAG) as line:
        line("one")
        shutil.rmtree(tmp_path / DEMO)  # the app is disconnected meanwhile
        for _ in range(SMALLEST // 50):
            line("x" * 100)


def test_a_build_that_ended_with_its_daemon_holds_up_nobody(logs: BuildLogs, kept: KeptLogs) -> None:
    building = logs.of(DEMO, TAG)
    building.__enter__()("Step 1/9 : FROM base")  # and the daemon is killed
    later = BuildLogs(kept.folder, 0, lambda _: (), lambda: NOON + 60)
    later.end_abandoned()
    with later.of(DEMO, TAG) as line:
        line("Step 2/9 : RUN make")
        told = build_news(kept, [DEMO], NOON, "").text
        assert told == "Step 1/9 : FROM base\nStep 2/9 : RUN make\n"
        assert [log.has_ended for log in kept.builds(DEMO)] == [True, False]


def test_no_build_has_been_abandoned_where_there_are_no_logs(tmp_path: Path) -> None:
    BuildLogs(tmp_path / "none", 0, lambda _: ()).end_abandoned()
    assert not (tmp_path / "none").exists()
