"""What the README and the examples' pages show is typed into a shell, against a running platform."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.pages import README, ROOT, blocks, section
from tests.support.platform import Platform
from tests.support.shell import Told, run

CHAPTER = section(README, "## Your first module in ten minutes")
#: What the test has done already: set up the checkout, and started a platform.
DONE = ("make setup engine", "export PATH=", "prichal up")
SHOWN = tuple(b for b in CHAPTER if b.language == "sh" and not any(words in b.text for words in DONE))
HERE = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def told(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Told:
    home = tmp_path_factory.mktemp("home")
    return run(SHOWN, home, {HERE: platform_url(platform)}, PRICHAL_CONFIG=str(platform.config))


def platform_url(platform: Platform) -> str:
    return f"http://127.0.0.1:{platform.port}"


def test_only_what_is_there_already_is_not_typed() -> None:
    left_out = [b for b in CHAPTER if b.language == "sh" and b not in SHOWN]
    assert len(left_out) == len(DONE)


def test_manifests_are_valid(told: Told) -> None:
    assert "6 documents, no problems" in told.of("prichal validate", SHOWN)


def test_push_shows_what_the_page_shows(told: Told) -> None:
    (page,) = (block for block in CHAPTER if block.text.startswith("remote: "))
    pushed = told.of("git push origin main", SHOWN).splitlines()
    told_lines = [shape(line) for line in pushed if line.startswith("remote: ")]
    shown = [shape(line) for line in page.text.splitlines()]
    assert sorted(without_builds(shown)) == sorted(without_builds(told_lines))  # builds run side by side
    assert set(shown) <= set(told_lines)


def without_builds(lines: list[str]) -> list[str]:
    """The builder says other things about what it has built before; the page has the first lines."""
    return [line for line in lines if not line.startswith("remote: prichal: | ")]


def shape(line: str) -> str:
    """Without what differs each time: commits, versions, seconds, ports, the instance's name."""
    line = re.sub(r"http://127\.0\.0\.1:\d+/", "http://HERE/", line)
    line = re.sub(r"\b(e2e-[0-9a-f]{8}|prichal)\.demo-colors", "INSTANCE.demo-colors", line)
    return re.sub(r"\b[0-9a-f]{8,12}\b|\b\d+\.\d s", "X", line).rstrip()


def test_call_answers_what_the_page_shows(told: Told) -> None:
    (page,) = (block for block in CHAPTER if block.language == "json")
    assert json.loads(told.of("curl", SHOWN)) == json.loads(page.text)


def test_change_is_in_service_when_the_push_returns(told: Told, platform: Platform) -> None:
    assert "ready after" in told.of("crimson", SHOWN)
    rgb = {"name": "rgb", "datatype": "INT32", "shape": [3], "data": [220, 20, 40]}
    assert platform.predict("demo-colors", [rgb], path="colors").json["outputs"][0]["data"] == "crimson"


def test_run_reports_what_the_page_shows(told: Told) -> None:
    (page,) = (block for block in CHAPTER if block.text.startswith("crimson"))
    surveyed = told.of("prichal run start", SHOWN)
    assert "SUCCEEDED" in surveyed
    assert surveyed.endswith(page.text)


def test_commands_that_look_tell_of_the_module(told: Told) -> None:
    looked = told.of("prichal status", SHOWN)
    assert "demo-colors: Ready" in looked  # status
    assert "traffic goes to version" in looked  # events
    assert "serving app.inference:predict" in looked  # logs
    assert "nothing to do" in looked  # plan


def test_own_server_streams_what_its_page_shows(platform: Platform, tmp_path: Path) -> None:
    page = ROOT / "examples" / "own-server" / "README.md"
    shown = tuple(b for b in blocks(page, "sh") if "prichal repo create" in b.text)
    told = run(shown, tmp_path, {HERE: platform_url(platform)}, PRICHAL_CONFIG=str(platform.config))
    (expected,) = blocks(page, "text")
    assert expected.text in told.of("curl", shown)
