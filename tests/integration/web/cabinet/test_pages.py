"""Every page passes axe in both languages, in light and in dark, on a desktop and on a phone, and says nothing in the
console."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from controller.domain.names import AppName
from controller.web.auth.rules import RULES
from tests.integration.web.conftest import Web
from tests.support.cabinet import LOOKS, PAGES, Cabinet, Look, faults, previews_of


def test_every_page_is_looked_at() -> None:
    assert {route for (_, route), rule in RULES.items() if rule.is_page} == set(PAGES)


@pytest.mark.parametrize("look", LOOKS, ids=["light", "dark-russian-phone"])
@pytest.mark.parametrize("route", PAGES)
def test_everybody_can_read_it(cabinet: Cabinet, route: str, look: Look) -> None:
    path, who = PAGES[route]
    with cabinet.window(who, look) as page:
        cabinet.open(page, path)
        assert page.locator("html").get_attribute("lang") == look.language
        page.wait_for_selector("h1")
        assert faults(page) == []


@pytest.mark.parametrize("look", LOOKS, ids=["light", "dark-russian-phone"])
def test_everybody_can_read_the_table_of_previews(cabinet: Cabinet, platform: Web, look: Look) -> None:
    with (
        previews_of(platform.state, AppName("demo-colors")) as (shown, _),
        cabinet.window("boss", look) as page,
    ):
        cabinet.open(page, "/-/apps/demo-colors")
        row = page.locator(f"[data-key='preview-{shown}']")
        expect(row).to_be_visible()
        assert faults(page) == []
        row.locator("summary").click()
        expect(row.locator("details[open] button")).to_be_visible()
        assert faults(page) == []
