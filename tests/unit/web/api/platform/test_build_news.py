"""What those who wait for the end of a push see of its builds."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.kept_logs import BUILDS, ENDED, KeptLogs
from controller.web.api.platform.build_news import MOST, build_news

NOON = 1_700_000_000.0


@pytest.fixture
def kept(tmp_path: Path) -> KeptLogs:
    return KeptLogs(tmp_path)


def say(kept: KeptLogs, text: str, begun: float = NOON, app: str = "demo", ended: bool = False) -> None:
    folder = kept.folder / app / BUILDS / f"{int(begun * 1000):014d}-0123"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{0:016d}.log").open("a") as file:
        file.write(text)
    if ended:
        (folder / ENDED).touch()


def told(kept: KeptLogs, place: str = "", apps: tuple[str, ...] = ("demo",)) -> tuple[str, str]:
    found = build_news(kept, apps, NOON, place)
    return found.text, found.place


def test_each_line_is_told_once_when_it_is_whole(kept: KeptLogs) -> None:
    assert told(kept) == ("", "")
    say(kept, "Step 1\nSte")
    text, place = told(kept)
    assert text == "Step 1\n"
    assert told(kept, place) == ("", place)
    say(kept, "p 2\n")
    text, place = told(kept, place)
    assert text == "Step 2\n"


def test_only_builds_since_the_push_and_one_after_the_other(kept: KeptLogs) -> None:
    say(kept, "before\n", NOON - 1)
    say(kept, "one\n", NOON + 1)
    say(kept, "two\n", NOON + 2, app="more")
    say(kept, "another's\n", NOON + 2, app="other")
    text, place = told(kept, apps=("demo", "more"))
    assert text == "one\n"
    say(kept, "end\n", NOON + 1, ended=True)
    text, place = told(kept, place, apps=("demo", "more"))
    assert text == "end\ntwo\n"
    assert told(kept, place, apps=("demo", "more"))[0] == ""


def test_who_is_far_behind_gets_the_end_and_is_told_so(kept: KeptLogs) -> None:
    say(kept, "".join(f"line {number}\n" for number in range(100_000)))
    text, place = told(kept)
    first, second, *_, last = text.splitlines()
    assert first.endswith("bytes left out; see: prichal logs demo --build]")
    assert second.startswith("line ")
    assert last == "line 99999"
    assert len(text) <= MOST + 200
    assert told(kept, place)[0] == ""


@pytest.mark.parametrize(
    "place", ["x", "../..:0", "demo/../../etc:1", "demo/99999999999999-0:5", "demo/" + "9" * 400, ":"]
)
def test_a_place_that_is_none_is_the_beginning(kept: KeptLogs, place: str) -> None:
    say(kept, "Step 1\n")
    assert told(kept, place)[0] == "Step 1\n"
