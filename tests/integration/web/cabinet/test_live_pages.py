"""Pages change while they are open, and keep what their reader has opened, focused and scrolled."""

from __future__ import annotations

import time

from playwright.sync_api import Page, expect

from controller.domain.apps.requests import Trigger
from controller.domain.apps.status import Event, EventType
from controller.domain.names import AppName
from controller.domain.people.roles import Grant, Role
from controller.domain.reasons import Reason
from tests.integration.web.conftest import Web
from tests.support.cabinet import LIMITS, Cabinet, Look
from tests.support.people import add_person
from tests.support.recorded import colors
from tests.support.waiting import wait_for

APP = AppName("demo-colors")


def tell(web: Web, message: str) -> None:
    web.store.events.add([Event(APP, EventType.NORMAL, Reason.STARTED, message)])


def is_live(page: Page) -> None:
    """A stream has begun: its first comment follows the header."""
    with page.expect_response(lambda response: "live=1" in response.url) as found:
        pass
    assert found.value.status == 200


def opened(cabinet: Cabinet, page: Page, path: str) -> None:
    with page.expect_response(lambda response: "live=1" in response.url) as found:
        cabinet.open(page, path)
    assert found.value.status == 200


def test_an_event_appears_and_what_is_open_stays_open(cabinet: Cabinet, platform: Web) -> None:
    tell(platform, "first line\nmore of it")
    with cabinet.window("boss") as page:
        opened(cabinet, page, f"/-/apps/{APP}")
        details = page.locator("details", has_text="first line").first
        details.locator("summary").click()
        details.locator("summary").focus()
        page.evaluate("scrollTo(0, 200)")
        page.evaluate("globalThis.mark = 1")
        tell(platform, "something new")
        expect(page.get_by_text("something new")).to_be_visible()
        assert details.get_attribute("open") is not None
        assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
        assert page.evaluate("[globalThis.mark, scrollY]") == [1, 200]


def test_a_list_of_apps_changes_too_in_its_language(cabinet: Cabinet, platform: Web) -> None:
    with cabinet.window("boss", Look("ru")) as page:
        opened(cabinet, page, "/-/?q=lab-")
        row = page.locator("tr", has_text="lab-speech")
        expect(row).to_contain_text("в работе")
        platform.store.apps.set_suspended(AppName("lab-speech"), True)
        expect(row).to_contain_text("приостановлено")
        platform.store.apps.set_suspended(AppName("lab-speech"), False)
        expect(row).to_contain_text("в работе")


def test_a_page_whose_reader_loses_the_role_says_so(cabinet: Cabinet, platform: Web) -> None:
    grant = Grant("leaver", Role.VIEWER, APP)
    add_person(cabinet.people, "leaver", grant, password=False)
    with cabinet.window("leaver") as page:
        opened(cabinet, page, f"/-/apps/{APP}")
        cabinet.people.take_back(grant)
        page.evaluate("dispatchEvent(new Event('pagehide')); dispatchEvent(new Event('pageshow'))")
        expect(page.locator("[data-lost]")).to_contain_text("no longer changes")
        cabinet.complaints()  # the refusal, which the browser notes


def test_an_open_page_does_not_keep_a_session_alive(cabinet: Cabinet, platform: Web) -> None:
    secret = cabinet.session("boss")
    began = cabinet.people.session(secret, LIMITS, time.time())
    assert began is not None
    long_after = time.time() + LIMITS.idle - 1
    assert cabinet.people.session_by_id(began.session, LIMITS, long_after, is_use=False) is not None
    assert cabinet.people.session_by_id(began.session, LIMITS, long_after + 10, is_use=False) is None


def test_a_connection_that_is_lost_comes_back(cabinet: Cabinet, platform: Web) -> None:
    with cabinet.window("boss") as page:
        opened(cabinet, page, f"/-/apps/{APP}")
        page.context.set_offline(True)
        page.evaluate("dispatchEvent(new Event('pagehide')); dispatchEvent(new Event('pageshow'))")
        expect(page.locator("[data-lost]")).to_contain_text("tries again")
        page.context.set_offline(False)
        expect(page.locator("[data-lost]")).to_be_hidden()
        tell(platform, "after the interruption")
        expect(page.get_by_text("after the interruption")).to_be_visible()
        cabinet.complaints()


def test_a_button_does_what_it_says_and_the_page_says_so_once(cabinet: Cabinet, platform: Web) -> None:
    platform.store.apps.save(colors(time.time()))
    with cabinet.window("maker") as page:
        opened(cabinet, page, f"/-/apps/{APP}")
        page.get_by_text("Suspend", exact=True).first.click()
        page.locator("details.sure[open] button").click()
        expect(page.get_by_role("status")).to_contain_text("The app is suspended")
        wait_for(lambda: platform.store.apps.status(APP).suspended)
        page.reload()
        expect(page.get_by_role("status")).to_have_count(0)
        page.get_by_role("button", name="Resume").click()
        expect(page.get_by_role("status")).to_contain_text("follows Git again")
        wait_for(lambda: not platform.store.apps.status(APP).suspended)
        page.go_back()
        expect(page.get_by_role("heading", name=APP)).to_be_visible()


def test_the_button_of_a_page_that_is_old_still_counts_once(cabinet: Cabinet, platform: Web) -> None:
    """Two tabs: what one has done the other one shows, and its button does no harm."""
    with cabinet.window("maker") as page:
        other = page.context.new_page()
        opened(cabinet, other, f"/-/apps/{APP}")
        opened(cabinet, page, f"/-/apps/{APP}")
        page.get_by_role("button", name="Reconcile now").click()
        expect(page.get_by_role("status")).to_contain_text("A reconciliation is requested")
        other.get_by_role("button", name="Reconcile now").click()
        expect(other.get_by_role("status")).to_contain_text("A reconciliation is requested")
        with platform.store.transaction():  # before which the daemon takes in what others ask for
            queued = platform.store.requests.queued(APP)
        assert queued is not None
        assert queued.reasons.count(Trigger.MANUAL) == 1  # other tests ask for passes, too


def test_a_viewer_gets_no_buttons(cabinet: Cabinet, platform: Web) -> None:
    with cabinet.window("guest") as page:
        opened(cabinet, page, f"/-/apps/{APP}")
        assert page.locator("button[formaction]").count() == 0
        expect(page.get_by_role("heading", name="Components")).to_be_visible()
