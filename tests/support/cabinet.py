"""The cabinet in a real browser: Playwright with Debian's Chromium, a web process over recorded data, and checks that
every page has to pass. How tests share them: `tests/integration/web/cabinet/conftest.py`.

`PAGES` has every page by its route. A test compares it with the table of rules, so a page without a row here fails;
write the address that shows the page at its fullest, and whom it is shown to.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from controller.domain.apps.branch_previews import BranchPreviews
from controller.domain.names import AppName
from controller.domain.people.accounts import SessionRecord
from controller.store.people import PeopleStore, SessionLimits
from controller.web.auth.people import SESSION
from controller.web.pages.languages import COOKIE
from tests.support import recorded
from tests.support.branch_previews import record_previews
from tests.support.browser import browser
from tests.support.serve_web import settings_of
from tests.support.stores import open_store

LIMITS: Final = SessionLimits(3600.0, 86400.0)
DESKTOP: Final = {"width": 1280, "height": 800}
PHONE: Final = {"width": 360, "height": 740}
WAIT_LIMIT: Final = 60_000  # milliseconds within which a page is as expected, also on a busy machine
#: Route -> address, and who looks: "boss" is an administrator, "" is nobody.
PAGES: Final[Mapping[str, tuple[str, str]]] = {
    "/-/": ("/-/", "boss"),
    "/-/apps": ("/-/apps?state=failing", "boss"),
    "/-/apps/<name>": ("/-/apps/demo-colors", "boss"),
    "/-/apps/<name>/secrets": ("/-/apps/demo-colors/secrets?secret=mail", "boss"),
    "/-/apps/<name>/notifications": ("/-/apps/demo-colors/notifications", "boss"),
    "/-/apps/<name>/diff": ("/-/apps/demo-colors/diff", "boss"),
    "/-/apps/<name>/delete": ("/-/apps/demo-colors/delete", "boss"),
    "/-/new": ("/-/new", "boss"),
    "/-/templates": ("/-/templates", "boss"),
    "/-/new/<template>": ("/-/new/function", "boss"),
    "/-/orders/<id>": (f"/-/orders/{recorded.ORDER.id}", "boss"),
    "/-/apps/<name>/pipelines/<pipeline>": ("/-/apps/demo-colors/pipelines/train", "boss"),
    "/-/apps/<name>/pipelines/<pipeline>/runs/<id>": (
        f"/-/apps/demo-colors/pipelines/train/runs/{recorded.FAILED}",
        "boss",
    ),
    "/-/apps/<name>/components/<component>": ("/-/apps/demo-colors/components/namer", "boss"),
    "/-/apps/<name>/files": ("/-/apps/demo-colors/files", "boss"),
    "/-/apps/<name>/files/<path:target>": (
        "/-/apps/demo-colors/files/tables/paints/?area=developer",
        "boss",
    ),
    "/-/device": ("/-/device", "boss"),
    "/-/login": ("/-/login", ""),
    "/-/sessions": ("/-/sessions?all=1", "boss"),
    "/-/tokens": ("/-/tokens?all=1", "boss"),
    "/-/health": ("/-/health", "boss"),
    "/-/users": ("/-/users", "boss"),
    "/-/audit": ("/-/audit", "boss"),
}


@dataclass
class Look:
    """How somebody looks at a page."""

    language: str = "en"
    dark: bool = False
    phone: bool = False


#: Tables of which a part is seen only by scrolling sideways.
CUT_TABLES: Final = """[...document.querySelectorAll(".card:has(table)")]
    .filter((card) => card.scrollWidth > card.clientWidth).map((card) => card.ariaLabel)"""
#: Both languages, both schemes and both widths; each combination shows what is wrong with any of its parts.
LOOKS: Final = (Look(), Look("ru", dark=True, phone=True))


@dataclass
class Cabinet:
    """A running platform and a browser. `problems` are what consoles have said since the last look."""

    base: str
    people: PeopleStore
    browser: Browser
    problems: list[str] = field(default_factory=list)
    _number: int = 0

    @contextmanager
    def window(self, who: str = "", look: Look | None = None) -> Iterator[Page]:
        """A window of a browser in which this person has signed in."""
        look = look or Look()
        context = self.browser.new_context(
            locale="ru-RU" if look.language == "ru" else "en-GB",
            color_scheme="dark" if look.dark else "light",
            viewport=PHONE if look.phone else DESKTOP,  # type: ignore[arg-type]
            timezone_id="Europe/Moscow",
            reduced_motion="reduce",
        )
        try:
            context.set_default_timeout(WAIT_LIMIT)
            if who:
                context.add_cookies([self._cookie(SESSION, self.session(who))])
            page = context.new_page()
            page.on("console", self._heard)
            page.on("pageerror", lambda error: self.problems.append(f"{page.url}: {error}"))
            yield page
        finally:
            context.close()

    def session(self, who: str) -> str:
        """Begin a session, and return the value of its cookie."""
        self._number += 1
        now, secret = time.time(), f"cookie-{who}-{self._number}-{time.monotonic_ns()}"
        record = SessionRecord(
            f"{self._number:04x}{time.monotonic_ns():x}"[:12], who, now, now, "192.0.2.7", "Firefox"
        )
        self.people.begin_session(secret, record, LIMITS)
        return secret

    def open(self, page: Page, path: str) -> None:
        page.goto(self.base + path, wait_until="load")

    def choose(self, page: Page, language: str) -> None:
        """As the switch does."""
        page.context.add_cookies([self._cookie(COOKIE, language)])

    def _cookie(self, name: str, value: str) -> Any:
        return {"name": name, "value": value, "url": f"{self.base}/-/", "httpOnly": True, "sameSite": "Lax"}

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.location.get('url', '')}: {message.text}")

    def complaints(self) -> list[str]:
        """Return what consoles have said, once."""
        found, self.problems[:] = list(self.problems), []
        return found


@contextmanager
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=WAIT_LIMIT)
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=browser(), args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        try:
            yield found
        finally:
            found.close()


def faults(page: Page) -> list[str]:
    """What axe finds, and what does not fit into the window."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    told = [
        f"{rule['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
        for rule in found
        for node in rule["nodes"]
    ]
    widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    return [
        *told,
        *([f"the page is {widths[0]} wide in a window of {widths[1]}"] if widths[0] > widths[1] else []),
        *(f"{name}: the end of its lines is out of sight" for name in page.evaluate(CUT_TABLES)),
    ]


@contextmanager
def previews_of(state: Path, app: AppName) -> Iterator[tuple[AppName, str]]:
    """Let an app have a preview for a while, and a branch without one. Yields the preview and its branch."""
    with closing(open_store(settings_of(state).database)) as store:
        (name,) = record_previews(store, app, "feature/x", left_out=("feature/y",))
        try:
            yield name, "feature/x"
        finally:
            store.apps.forget(name)
            store.branches.see(app, ())
            store.branches.record(BranchPreviews(), (), time.time())
            store.branches.forget(name)
