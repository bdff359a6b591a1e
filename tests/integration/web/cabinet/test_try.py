"""The form with which people call a component."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, Route, expect

from tests.support.cabinet import Cabinet
from tests.support.waiting import wait_for

PAGE = "/-/apps/demo-colors/components/namer"
DESCRIPTION = "**/demo-colors/colors/openapi.json"


@contextmanager
def opened(cabinet: Cabinet) -> Iterator[tuple[Page, list[Route]]]:
    """The page, whose form waits for the descriptions that it has asked for."""
    held: list[Route] = []
    with cabinet.window("boss") as page:
        page.route(DESCRIPTION, lambda route: held.append(route))
        with page.expect_request(DESCRIPTION):
            cabinet.open(page, PAGE)
        yield page, held


def answer(page: Page, held: list[Route], number: int) -> None:
    wait_for(lambda: page.title() and len(held) > number)  # Playwright calls back while it is asked something
    headers = {"access-control-allow-origin": "null", "content-type": "application/json"}
    held[number].fulfill(json={"paths": {}}, headers=headers)


def test_nothing_is_called_before_the_form_is_there(cabinet: Cabinet) -> None:
    with opened(cabinet) as (page, held):
        button = page.get_by_role("button", name="Call", exact=True)
        expect(button).to_be_disabled()
        answer(page, held, 0)
        expect(button).to_be_enabled()
        expect(page.locator("[data-try] form").get_by_label("Method")).to_have_value("POST")
        assert page.locator("[data-result] > *").count() == 0


def test_the_form_of_the_last_choice_stays(cabinet: Cabinet) -> None:
    """An answer to an earlier choice, of the same API, too, takes nothing away that was typed."""
    with opened(cabinet) as (page, held):
        with page.expect_request(DESCRIPTION):
            page.locator("[data-apis]").dispatch_event("change")
        answer(page, held, 1)
        path = page.locator("[data-try] form").get_by_label("Path")
        path.fill("/mine")
        with page.expect_request_finished():
            answer(page, held, 0)
        expect(path).to_have_value("/mine")
