"""A reader of Russian finds no English on any page, but for names, code, and what others have written."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Route, expect

from controller.serving.http1 import problem_response
from controller.serving.problems import RequestFault, invalid
from controller.serving.texts import Text
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


def test_what_is_wrong_with_a_call_is_told_in_russian(cabinet: Cabinet) -> None:
    """The answer is one of the serving library, which a component without a module cannot give here."""
    faults = [
        RequestFault("/inputs", Text("input {name!r} is missing", name="rgb")),
        RequestFault(
            "/inputs/0/data", Text("must be {wanted}, not {data}", wanted=Text("true or false"), data="7")
        ),
    ]
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.headers["accept"])
        wanted = {b"accept": asked[-1].encode()}
        response = problem_response(invalid(faults), "1", "/predict", wanted)
        headers = {"access-control-allow-origin": "null", "content-type": "application/problem+json"}
        route.fulfill(status=response.status, headers=headers, body=bytes(response.body))

    with cabinet.window("boss", Look("ru")) as page:
        page.route("**/demo-colors/colors/predict", answer)
        cabinet.open(page, "/-/apps/demo-colors/components/namer")
        page.get_by_role("button", name="Вызвать", exact=True).click()
        told = page.locator("[data-result] [role=alert]")
        expect(told).to_contain_text("входа 'rgb' нет (и ещё 1)")
        expect(told.locator("li").last).to_have_text("/inputs/0/data нужно true или false, а не 7")
        assert told.locator("[lang=en]").count() == 0
    cabinet.complaints()  # the browser writes down that calls were refused
    assert "messages=1" in asked[-1]


def test_the_check_finds_english() -> None:
    assert english(["Всё хорошо", "version 1f serves", "The daemon does not respond"]) == [
        "The daemon does not respond"
    ]
