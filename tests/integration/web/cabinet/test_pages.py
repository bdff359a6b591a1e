"""Every page passes axe in both languages, in light and in dark, on a desktop and on a phone, and says nothing in the
console."""

from __future__ import annotations

import pytest

from controller.web.auth.rules import RULES
from tests.support.cabinet import LOOKS, PAGES, Cabinet, Look, faults


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
