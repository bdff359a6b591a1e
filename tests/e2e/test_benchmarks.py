"""Every benchmark is run once, shortened: each must print its figures. No test judges the figures."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import SECTIONS
from tests.support.pages import ROOT, blocks


@pytest.mark.timeout(420)  # the peers that the figures stand beside are installed first
@pytest.mark.parametrize("name", SECTIONS)
def test_a_benchmark_gives_its_figures(name: str, tmp_path: Path) -> None:
    result = tmp_path / "bench.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", name],
        cwd=ROOT,
        env={**os.environ, "BENCH_RESULT": str(result)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (section,) = json.loads(result.read_text())["sections"].values()
    assert section["figures"], section
    missing = [note for note in section["notes"] if "not measured" in note]
    assert not missing
    measured = {unnumbered(figure["name"]) for figure in section["figures"]}
    assert shown(name) - measured == set(), "the page shows rows that are called otherwise, or not measured"


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
