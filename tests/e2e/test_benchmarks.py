"""Every benchmark is run once, shortened: each must print its figures. No test judges the figures."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import SECTIONS
from tests.support.pages import ROOT, blocks

#: The first test waits for all sections, and for the installation of the peers beside them. They are ended before the
#: test is, so that what they printed is shown and what they started is removed.
pytestmark = pytest.mark.timeout(1800)
LIMIT, CLEANUP = 1500, 120  # seconds that all sections may take, and to remove what they started


@dataclass(frozen=True)
class Measured:
    """What the command printed, and the sections of its result by their names."""

    told: str
    sections: Mapping[str, Any]


@pytest.fixture(scope="module")
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Measure the sections whose tests run here by one command, as `make bench` does: it loads the program and builds
    the images once, and a section that fails does not take the others with it."""
    here = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    wanted = {item.callspec.params["name"] for item in here}
    result = tmp_path_factory.mktemp("benchmarks") / "bench.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", *(name for name in SECTIONS if name in wanted)]
    code, told = run(command, result)
    assert result.exists(), told
    sections = json.loads(result.read_text())["sections"]
    assert (code == 0) == all(section["figures"] for section in sections.values()), told
    return Measured(told, sections)


def run(command: list[str], result: Path) -> tuple[int, str]:
    """The exit code of the command and what it printed, also if it had to be ended."""
    printed = result.with_suffix(".log")
    env = {**os.environ, "BENCH_RESULT": str(result)}
    with (
        printed.open("wb") as log,
        subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log) as process,
    ):
        try:
            process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(CLEANUP)
            process.kill()
    return process.returncode, printed.read_text()


@pytest.mark.parametrize("name", SECTIONS)
def test_a_benchmark_gives_its_figures(name: str, measured: Measured) -> None:
    section = measured.sections[name]
    assert section["figures"], f"{section}\n{measured.told}"
    missing = [note for note in section["notes"] if "not measured" in note]
    assert not missing
    found = {unnumbered(figure["name"]) for figure in section["figures"]}
    assert shown(name) - found == set(), "the page shows rows that are called otherwise, or not measured"


def unnumbered(row: str) -> str:
    """Without numbers, which are the machine's: of processes, say."""
    return re.sub(r"\d+", "N", row)


def shown(name: str) -> set[str]:
    """The rows that the page shows of a measurement, below its name."""
    rows: set[str] = set()
    for block in blocks(ROOT / "docs" / "benchmarks.md", ""):
        of = ""
        for line in block.text.splitlines():
            of = found[1] if (found := re.match(r"(\w+): ", line)) else of
            if of == name and (row := re.match(r" +(\S.*?) {2,}[\d,.]+ ", line)):
                rows.add(unnumbered(row[1]))
    return rows


def test_the_page_is_read_as_it_is_written() -> None:
    assert sum(len(shown(name)) for name in SECTIONS) > 60
