"""The guide to runs is typed into a shell, against a running platform."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.pages import ROOT, blocks
from tests.support.platform import Platform
from tests.support.shell import Told, run

PAGE = ROOT / "docs" / "guide" / "runs.md"
SHOWN = tuple(blocks(PAGE, "sh"))
ANSWERS = [(block, after) for block, after in pairwise(blocks(PAGE)) if after.language == "text"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def told(platform: Platform, home: Path) -> Told:
    here = {"http://127.0.0.1:8000": f"http://127.0.0.1:{platform.port}"}
    return run(SHOWN, home, here, PRICHAL_CONFIG=str(platform.config))


def test_the_page_shows_the_manifests_of_the_example() -> None:
    (shown,) = blocks(PAGE, "yaml")
    assert shown.text == (ROOT / "examples/words/manifests/words.yaml").read_text()


def test_commands_print_what_the_page_shows(told: Told) -> None:
    assert len(ANSWERS) == 5
    for command, answer in ANSWERS:
        printed = told.outputs[SHOWN.index(command)]
        shown = plain(answer.text)
        assert plain(printed)[-len(shown) :] == shown, f"{answer}:\n{printed}"


def plain(text: str) -> list[str]:
    """Lines, without what is another one each time: ids, and times with the order of what happens at once."""
    lines = re.sub(r"\b[0-9a-f]{19}\b", "ID", text).splitlines()
    timed = [line for line in lines if re.match(r"\d\d:\d\d:\d\d ", line)]
    return sorted(line[9:] for line in timed) or lines


def test_what_is_not_there_is_refused(told: Told) -> None:
    refused = told.of("nowhere", SHOWN)
    assert "there is no file 'texts/nowhere.txt'" in refused
    assert "refused: 1" in refused


def test_a_run_fails_and_is_repeated(told: Told, home: Path) -> None:
    failed = told.of("exit code", SHOWN)
    assert "exit code 1" in failed
    assert "FAILED (ExitCode)" in failed
    assert told.of("run retry", SHOWN).rstrip().endswith(" SUCCEEDED")
    assert json.loads((home / "words" / "run.json").read_text())["state"] == "SUCCEEDED"
