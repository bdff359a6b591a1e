"""The history of an app in a browser: what changed, going back once it was asked, and going on."""

from __future__ import annotations

from playwright.sync_api import expect

from controller.domain.names import AppName
from tests.integration.web.conftest import Web
from tests.support.cabinet import Cabinet, Look, faults
from tests.support.recorded import GOOD, REVISION
from tests.support.waiting import wait_for

APP = AppName("demo-colors")


def test_back_to_an_earlier_commit_and_on_again(cabinet: Cabinet, platform: Web) -> None:
    with cabinet.window("maker") as page:
        cabinet.open(page, f"/-/apps/{APP}")
        rows = page.get_by_role("region", name="History").get_by_role("row")
        expect(rows).to_have_count(4)
        expect(rows.nth(1)).to_contain_text("Name more colours")
        expect(rows.nth(1)).to_contain_text("push")
        expect(rows.nth(1)).to_contain_text("maker")
        expect(page.locator("summary", has_text="Roll back to this")).to_have_count(1)
        page.locator("summary", has_text="Roll back to this").click()
        assert platform.store.apps.status(APP).rollback is None, "it asks before"
        assert faults(page) == []
        page.locator("details.sure[open] button").click()
        expect(page.get_by_role("status")).to_contain_text("goes back to the earlier revision")
        rollback = wait_for(lambda: platform.store.apps.status(APP).rollback)
        assert rollback is not None
        assert (rollback.revision, rollback.replaced, rollback.by) == (GOOD, REVISION, "maker")
        expect(page.locator("dl.facts")).to_contain_text(f"{GOOD[:12]}, maker")
        expect(page.locator("summary", has_text="Roll back to this")).to_have_count(0)
        assert faults(page) == []
        page.locator("summary", has_text="Resume").click()
        page.locator("details.sure[open] button").click()
        expect(page.get_by_role("status")).to_contain_text("follows Git again")
        wait_for(lambda: platform.store.apps.status(APP).rollback is None)
    acts = [(act.act, act.detail) for act in cabinet.people.acts(10, "maker")]
    assert ("rollback", f"to {GOOD[:12]}") in acts


def test_two_commits_are_compared(cabinet: Cabinet, platform: Web) -> None:
    with cabinet.window("guest", Look("ru", dark=True, phone=True)) as page:
        cabinet.open(page, f"/-/apps/{APP}")
        expect(page.locator("summary", has_text="Вернуться к этому")).to_have_count(0)
        page.get_by_role("link", name="Показать изменения").first.click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Что изменилось")
        page.get_by_label("От коммита").select_option("1")
        page.get_by_label("К коммиту").select_option("3")
        page.get_by_role("button", name="Сравнить").click()
        expect(page.locator(".difference .removed")).to_have_text("-  replicas: 1")
        expect(page.locator(".difference .added")).to_have_text("+  replicas: 2")
        assert page.title() != "taken"
        assert faults(page) == []
