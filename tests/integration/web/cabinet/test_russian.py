"""A reader of Russian finds no English on any page, but for names, code, and what others have written."""

from __future__ import annotations

import re

import pytest

from tests.support.cabinet import PAGES, Cabinet, Look

#: All texts of a page that are shown or read aloud, but for code, and for what others have written (`lang` of them).
TEXTS = """() => {
  const apart = "code, pre, script, style, textarea, [data-charts], .mono";
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const at = walker.currentNode.parentElement;
    if (!at.closest(apart)) found.push(walker.currentNode.data);
  }
  for (const each of document.querySelectorAll("[aria-label], [title], [placeholder]")) {
    if (each.closest(apart)) continue;
    for (const name of ["aria-label", "title", "placeholder"]) found.push(each.getAttribute(name) ?? "");
  }
  return found.map((text) => text.replaceAll(/\\s+/g, " ").trim()).filter(Boolean);
}"""
#: Three words of Latin letters in a row.
ENGLISH = re.compile(r"[A-Za-z']{2,}(?:[,;:]? [A-Za-z']{2,}){2,}")
#: What people, modules and other programs have written, and names (tests/support/recorded.py).
OTHERS = re.compile(
    r"Ошибка «модели»|Name (?:more )?colours|no space left on device|Docker 26|git version|docker image prune|"
    r"Anna <anna|prichal approve|MLComponent namer|Firefox|second try"
)


def english(texts: list[str]) -> list[str]:
    return [text for text in texts if ENGLISH.search(text) and not OTHERS.search(text)]


@pytest.mark.parametrize("route", PAGES)
def test_nothing_is_in_english(cabinet: Cabinet, route: str) -> None:
    path, who = PAGES[route]
    with cabinet.window(who, Look("ru")) as page:
        cabinet.open(page, path)
        page.wait_for_selector("h1")
        assert english(page.evaluate(TEXTS)) == []


@pytest.mark.parametrize("app", ["lab-speech", "lab-vision", "old-forecast", "paused-search"])
def test_no_state_of_an_app_is_told_in_english(cabinet: Cabinet, app: str) -> None:
    with cabinet.window("boss", Look("ru")) as page:
        cabinet.open(page, f"/-/apps/{app}")
        page.wait_for_selector("h1")
        assert english(page.evaluate(TEXTS)) == []


def test_the_check_finds_english() -> None:
    assert english(["Всё хорошо", "version 1f serves", "The daemon gives no sign"]) == [
        "The daemon gives no sign"
    ]
