"""The log on the page of a component: what was kept, what comes, a search, and the end of a large one."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect

from controller.kept_logs import BUILDS
from tests.integration.web.conftest import Web
from tests.support.cabinet import Cabinet
from tests.support.serve_web import settings_of

PAGE = "/-/apps/demo-colors/components/namer"
LINES = 700  # more than the page asks for


def write(log: Path, text: str) -> None:
    with log.open("a") as file:
        file.write(text)


def test_a_log_is_followed_and_searched(cabinet: Cabinet, platform: Web) -> None:
    log = next(settings_of(platform.state).kept_logs.glob("demo-colors/namer/*/*.log"))
    write(log, "".join(f"line {number}\n" for number in range(LINES)))
    with cabinet.window("guest") as page:
        cabinet.open(page, PAGE)
        text = page.locator("[data-component-log] pre")
        expect(text).to_contain_text(f"line {LINES - 1}")
        expect(text).not_to_contain_text("line 0\n")
        write(log, "loaded <img src=x> Модель\n")
        expect(text).to_contain_text("loaded <img src=x> Модель")
        page.get_by_label("Search in the lines that are shown").fill("модель")
        expect(text).to_have_text("loaded <img src=x> Модель")


def test_the_log_of_a_build_is_followed_on_the_page_of_its_app(cabinet: Cabinet, platform: Web) -> None:
    log = next(settings_of(platform.state).kept_logs.glob(f"demo-colors/{BUILDS}/*/*.log"))
    with cabinet.window("guest") as page:
        cabinet.open(page, "/-/apps/demo-colors")
        text = page.locator("[data-component-log] pre")
        expect(text).to_be_hidden()
        page.locator("[data-build-log] summary").click()
        expect(text).to_have_text("Step 1/1 : FROM base")
        write(log, "prichal: built in 1.0 s\n")
        expect(text).to_contain_text("prichal: built in 1.0 s")
