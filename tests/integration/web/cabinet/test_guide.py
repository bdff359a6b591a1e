"""A newcomer follows docs/guide/cabinet.md with a browser: every word in bold is where the page says it is."""

from __future__ import annotations

import re
import time
from pathlib import Path

from playwright.sync_api import Page, expect

from controller.domain.names import AppName
from controller.domain.people.roles import Grant, Role
from controller.store.people import LINK
from tests.integration.web.conftest import Web
from tests.support.cabinet import Cabinet, previews_of
from tests.support.pages import ROOT, prose
from tests.support.people import add_person

GUIDE = ROOT / "docs" / "guide" / "cabinet.md"
PASSWORD = "a password of a test"
BOLD = re.compile(r"\*\*([^*]+)\*\*")
#: Words that appear only in a state which this newcomer's app is not in.
ELSEWHERE = {"Approve", "Retry what failed", "Retry failed stages", "Unfinished moves"}


class Guide:
    """The guide's words in bold, section by section; each has to be met."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._left = set(BOLD.findall(prose(GUIDE))) - ELSEWHERE

    def word(self, text: str) -> str:
        """A word that is in the guide, and on the page now."""
        assert text in BOLD.findall(prose(GUIDE)), f"{text} is not in {GUIDE.name}"
        expect(self._page.get_by_text(text, exact=True).first).to_be_attached()
        self._left.discard(text)
        return text

    def sees(self, *texts: str) -> None:
        for text in texts:
            self.word(text)

    def fill(self, label: str, text: str) -> None:
        self._page.get_by_label(self.word(label), exact=True).fill(text)

    def press(self, text: str) -> None:
        self._page.get_by_role("button", name=self.word(text), exact=True).first.click()

    def follow(self, text: str) -> None:
        self._page.get_by_role("link", name=self.word(text), exact=True).first.click()

    def left(self) -> set[str]:
        return self._left


def test_from_the_link_to_the_audit(cabinet: Cabinet, platform: Web, tmp_path: Path) -> None:
    add_person(cabinet.people, "newbie", Grant("newbie", Role.ADMIN), password=False)
    cabinet.people.put_link("newbie", "code-of-the-guide", time.time() + LINK)
    with cabinet.window() as page:
        guide = Guide(page)
        sign_in(cabinet, guide, page)
        find(guide, page)
        see(guide)
        steer(guide, page)
        try_it(guide, page)
        run(guide, page)
        secrets(guide, page)
        notifications(guide, page)
        assert cabinet.complaints() == []
        files(guide, page, tmp_path)
        cabinet.complaints()  # the browser writes down that a connection broke
        make(guide, page)
        tokens(guide, page)
        administer(guide, page)
        previews(cabinet, guide, page, platform)
        assert guide.left() == set()
    acts = {entry.act for entry in cabinet.people.acts(50, "newbie")}
    assert acts >= {
        "password set",
        "login",
        "logout",
        "reconcile",
        "suspend",
        "resume",
        "run start",
        "run cancel",
        "file change",
        "secret set",
        "secret rm",
        "notify test",
        "app create",
        "token add",
        "user add",
    }


def sign_in(cabinet: Cabinet, guide: Guide, page: Page) -> None:
    cabinet.open(page, "/-/login?code=code-of-the-guide")
    guide.sees("EN", "RU")
    guide.fill("Password, at least 10 characters", PASSWORD)
    guide.fill("The same password again", PASSWORD)
    guide.press("Set password and sign in")
    guide.sees("Sessions", "Apps")
    guide.press("Sign out")
    guide.fill("Name", "newbie")
    guide.fill("Password", PASSWORD)
    guide.press("Sign in")


def find(guide: Guide, page: Page) -> None:
    guide.fill("Search by name or repository", "demo")
    guide.press("Search")
    page.get_by_role("link", name=re.compile("^ready ")).click()
    page.wait_for_url("**state=ready**")
    page.get_by_role("link", name=re.compile("^all ")).click()
    for state in ("all", "ready"):
        guide._left.discard(state)
    page.get_by_role("link", name="demo-colors").click()


def see(guide: Guide) -> None:
    guide.sees("Conditions", "Addresses", "Open", "Components", "Boxes", "Last plan", "Events")
    guide.sees("History", "Show changes", "Roll back to this")


def steer(guide: Guide, page: Page) -> None:
    guide.press("Reconcile now")
    expect(page.get_by_role("status")).to_contain_text("A reconciliation is requested")
    page.locator("summary", has_text=guide.word("Suspend")).click()
    page.locator("details[open] button", has_text="Suspend").click()
    guide.press("Resume")
    expect(page.get_by_role("status")).to_contain_text("follows Git again")


def try_it(guide: Guide, page: Page) -> None:
    page.get_by_role("link", name="namer", exact=True).click()
    guide.sees("Versions and replicas", "Metrics", "Log", "Try it", "Call", "The same call elsewhere")
    page.get_by_label(guide.word("Search in the lines that are shown")).fill("loaded")
    page.get_by_role("link", name="demo-colors", exact=True).click()


def run(guide: Guide, page: Page) -> None:
    page.get_by_role("link", name="train", exact=True).first.click()
    guide.sees("Started by", "Whose")
    page.locator("summary", has_text=guide.word("Start a run")).click()
    guide.sees("Choose from the box")
    page.get_by_label("data", exact=True).fill("tables/paints.csv")
    guide.press("Start")
    guide.sees("Stages", "Outputs", "Logs")
    page.locator("summary", has_text="fit").click()
    guide.sees("Show lines with")
    page.locator("summary", has_text=guide.word("Cancel")).click()
    page.locator("details[open] button", has_text="Cancel").click()
    expect(page.locator(".badge").first).to_have_text("being canceled")


def secrets(guide: Guide, page: Page) -> None:
    cabinet = page.url.partition("/-/")[0]
    page.goto(f"{cabinet}/-/apps/demo-colors")
    guide.follow("Secrets")
    guide.sees("Needed and not set", "Set by people", "Set again", "Remove the Secret", "Encrypted in Git")
    page.get_by_role("link", name="Set mail").click()
    guide._left.discard("Set")
    expect(page.get_by_label(guide.word("Secret"), exact=True)).to_have_value("mail")
    guide.fill("Key", "PASSWORD")
    guide.fill("Value", "of the guide")
    guide.sees("Or a file with the value")
    guide.press("Set the key")
    expect(page.get_by_role("region", name=guide.word("Changes"))).to_contain_text("waits for the daemon")
    row = page.locator("tr", has_text="TLS/ca.crt")
    row.locator("summary", has_text=guide.word("Remove")).last.click()
    with page.expect_navigation():
        row.locator("details[open] button").click()


def notifications(guide: Guide, page: Page) -> None:
    page.get_by_role("link", name="demo-colors", exact=True).click()
    guide.follow("Notifications")
    guide.sees("Alerts", "Last delivery", "Send a test")
    page.get_by_role("button", name="Send a test: team").click()
    expect(page.get_by_role("status").first).to_contain_text("A test message is sent in a moment")


def files(guide: Guide, page: Page, folder: Path) -> None:
    cabinet = page.url.partition("/-/")[0]
    page.goto(f"{cabinet}/-/apps/demo-colors")
    guide.follow("Files")
    guide.sees("The app's own files", "My files")
    page.get_by_role("link", name="My files in tables").click()
    guide.sees("Upload", "Files of yours", "A folder of yours", "Names that begin with")
    guide.fill("Into the folder", "guide")
    (folder / "large.bin").write_bytes(bytes(5 * 2**20))
    page.route("**partNumber=1&**", lambda route: route.abort())
    page.get_by_label("Files of yours").set_input_files(folder / "large.bin")
    expect(page.locator("[data-uploads] li")).to_contain_text("the connection is lost")
    page.reload()
    guide.sees("Unfinished uploads")
    page.unroute("**partNumber=1&**")
    page.get_by_label("Into the folder").fill("guide")
    page.get_by_label("Files of yours").set_input_files(folder / "large.bin")
    guide.sees("Cancel")
    page.get_by_role("link", name="guide/").click()
    guide.press("Show")
    page.get_by_role("link", name="large.bin", exact=True).click()
    guide.sees("Content", "Download", "Move or rename")
    page.get_by_role("link", name="guide", exact=True).click()
    page.get_by_label("Choose large.bin").check()
    page.locator("summary", has_text=guide.word("Delete what is chosen")).click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("status").first).to_contain_text("is deleted")


def make(guide: Guide, page: Page) -> None:
    guide.follow("Apps")
    guide.follow("New app")
    guide.follow("A function")
    guide.fill("Name of the app", "guide-colors")
    guide.press("Make the app")
    expect(page.get_by_role("status").first).to_contain_text("The order is placed")


def tokens(guide: Guide, page: Page) -> None:
    guide.follow("Tokens")
    guide.fill("Label", "of the guide")
    guide.press("Make token")
    expect(page.locator("#secret")).to_contain_text("prichal_")
    guide.sees("Copy")
    page.get_by_role("button", name=re.compile("^Revoke token")).first.click()
    expect(page.get_by_role("status")).to_contain_text("revoked")
    guide._left.discard("Revoke")


def administer(guide: Guide, page: Page) -> None:
    guide.follow("Users")
    guide.fill("Name", "somebody")
    guide.press("Add")
    expect(page.locator("#link")).to_contain_text("/-/login?code=")
    guide.sees("Grant a role")
    guide.follow("Templates")
    expect(page.get_by_role("region", name="Built in")).to_contain_text("A function")
    guide.follow("Health")
    expect(page.get_by_role("heading", name="Now")).to_be_visible()
    guide.follow("Audit")
    expect(page.get_by_role("rowheader").or_(page.get_by_role("cell", name="user add")).first).to_be_visible()


def previews(cabinet: Cabinet, guide: Guide, page: Page, platform: Web) -> None:
    with previews_of(platform.state, AppName("demo-colors")) as (name, branch):
        cabinet.open(page, "/-/apps/demo-colors")
        guide.sees("Previews of branches", "Branch without a preview")
        for word in ("Keep longer", "Keep for good"):
            page.get_by_role("button", name=f"{guide.word(word)}: {branch}", exact=True).click()
            expect(page.get_by_role("status").first).to_contain_text("The preview stays longer")
        row = page.locator(f"[data-key='preview-{name}']")
        row.locator("summary", has_text=guide.word("Remove")).click()
        row.locator("details[open] button").click()
        expect(page.get_by_role("status").first).to_contain_text("The preview is removed")
