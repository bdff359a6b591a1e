"""What people see when something is wrong: a daemon that is down, a database that fails, pages that are not there or
not theirs, a thousand apps, names and searches as nobody wants them."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from controller.domain.names import AppName
from tests.integration.web.conftest import Web
from tests.support import many_runs
from tests.support.cabinet import Cabinet, Look, faults
from tests.support.recorded import HOSTILE, colors
from tests.support.waiting import wait_for


@pytest.mark.parametrize(("path", "who", "status", "title"), [
    ("/-/apps/missing", "boss", 404, "There is nothing here"),
    ("/-/apps/lab-speech", "guest", 404, "There is nothing here"),
    ("/-/users", "guest", 403, "You may not do this"),
    ("/-/nothing/of/this", "boss", 404, "There is nothing here"),
    ("/-/?page=x", "boss", 400, "The request was not understood"),
    ("/-/?state=nonsense", "boss", 400, "The request was not understood"),
])  # fmt: skip
def test_a_problem_is_a_page(cabinet: Cabinet, path: str, who: str, status: int, title: str) -> None:
    with cabinet.window(who) as page:
        reply = page.goto(cabinet.base + path)
        assert reply is not None
        assert reply.status == status
        expect(page.get_by_role("heading", level=1)).to_have_text(title)
        assert faults(page) == []
        page.get_by_role("link", name="To the apps").click()
        expect(page.get_by_role("heading", name="Apps", exact=True)).to_be_visible()
        cabinet.complaints()  # the status, which the browser notes


def test_it_is_in_the_reader_s_language(cabinet: Cabinet) -> None:
    with cabinet.window("boss", Look("ru", dark=True, phone=True)) as page:
        cabinet.open(page, "/-/apps/missing")
        expect(page.get_by_role("heading", level=1)).to_have_text("Здесь ничего нет")
        expect(page.get_by_role("alert")).to_contain_text("Такого приложения нет.")
        expect(page.get_by_role("alert")).to_contain_text("Приложения missing нет.")
        expect(page.get_by_role("alert").locator("[lang=en]")).to_have_count(0)
        assert faults(page) == []
        cabinet.complaints()


def test_the_daemon_is_down(cabinet: Cabinet, platform: Web) -> None:
    platform.store.heartbeat(time.time() - 60)
    try:
        with cabinet.window("maker") as page:
            cabinet.open(page, "/-/apps/demo-colors")
            expect(page.get_by_text("daemon does not respond")).to_be_visible()
            page.get_by_role("button", name="Reconcile now").click()
            expect(page.get_by_role("status").last).to_contain_text("A reconciliation is requested")
    finally:
        platform.store.heartbeat(time.time() + 3600)


def test_the_accounts_cannot_be_read(cabinet: Cabinet, platform: Web) -> None:
    path = platform.state / "web" / "people.db"
    away = path.with_suffix(".away")
    with cabinet.window("boss") as page:
        cabinet.open(page, "/-/")
        os.rename(path, away)
        path.mkdir()
        try:
            reply = page.goto(f"{cabinet.base}/-/")
            assert reply is not None
            assert reply.status == 503
            expect(page.get_by_role("heading", level=1)).to_have_text("Not available at the moment")
        finally:
            path.rmdir()
            os.rename(away, path)
        page.get_by_role("link", name="Try again").click()
        expect(page.get_by_role("heading", name="Apps", exact=True)).to_be_visible()
        cabinet.complaints()


def test_the_switch_of_the_language_leads_back_and_is_kept(cabinet: Cabinet) -> None:
    with cabinet.window("boss") as page:
        cabinet.open(page, "/-/?q=lab&state=busy")
        page.get_by_role("link", name="Русский").click()
        expect(page.locator("html")).to_have_attribute("lang", "ru")
        assert page.url == f"{cabinet.base}/-/?q=lab&state=busy"
        cabinet.open(page, "/-/sessions")
        expect(page.get_by_role("heading", name="Сеансы")).to_be_visible()
        cabinet.open(page, f"/-/language/en?next={quote('https://evil.example/', safe='')}")
        assert page.url == f"{cabinet.base}/-/"


@pytest.mark.parametrize(
    "search", [HOSTILE.partition("\n")[0], "'; DROP TABLE apps; --", "%", "«зрение»", "x" * 100]
)
def test_a_search_is_a_text(cabinet: Cabinet, search: str) -> None:
    with cabinet.window("boss") as page:
        cabinet.open(page, f"/-/?q={quote(search)}")
        assert page.locator("#q").input_value() == search
        assert page.locator("main script, main img").count() == 0
        assert page.locator("tbody tr").count() == (search == "«зрение»") + (
            search == HOSTILE.partition("\n")[0]
        )


def test_a_thousand_apps(cabinet: Cabinet, platform: Web) -> None:
    now = time.time()
    with platform.store.transaction():
        for number in range(1000):
            platform.store.apps.save(replace(colors(now), app=AppName(f"many-{number:04}")))
    try:
        with cabinet.window("boss") as page:
            cabinet.open(page, "/-/?q=many-")
            assert page.locator("tbody tr").count() == 50
            expect(page.get_by_role("list", name="Filter by state")).to_contain_text("all 1000")
            page.get_by_role("link", name="Next page").click()
            expect(page.get_by_role("link", name="many-0050")).to_be_visible()
            page.go_back()
            expect(page.get_by_role("link", name="many-0000")).to_be_visible()
            page.locator("#q").fill("many-0999")
            page.get_by_role("button", name="Search").click()
            expect(page.locator("tbody tr")).to_have_count(1)
            cabinet.open(page, "/-/?q=many-&page=999")
            expect(page.get_by_role("link", name="many-0999")).to_be_visible()
    finally:
        with platform.store.transaction():
            for number in range(1000):
                platform.store.apps.forget(AppName(f"many-{number:04}"))


def test_ten_thousand_runs(cabinet: Cabinet, platform: Web) -> None:
    with platform.store.transaction():
        for run in many_runs.many_runs(time.time(), 10_000):
            platform.store.runs.submit(run)
    with cabinet.window("boss") as page:
        cabinet.open(page, f"/-/apps/{many_runs.APP}/pipelines/train")
        rows = page.locator("tbody tr")
        expect(rows).to_have_count(50)
        page.get_by_role("link", name="Older").click()
        expect(page.get_by_role("link", name="Newest")).to_be_visible()
        page.get_by_label("Started by").select_option("schedule")
        page.get_by_label("From day (UTC)").fill("2026-09-19")
        page.get_by_label("To day (UTC)").fill("2026-09-20")
        page.get_by_role("button", name="Search").click()
        expect(rows).to_have_count(6)  # one in five hundred minutes
        page.get_by_role("link", name="failed", exact=False).first.click()
        expect(page.get_by_label("Started by")).to_have_value("schedule")
        cabinet.open(page, f"/-/apps/{many_runs.APP}/pipelines/train")
        page.get_by_label("Whose").fill("person:p199")
        page.get_by_role("button", name="Search").click()
        expect(rows).to_have_count(50)
        expect(rows.first).to_contain_text("person:p199")
        assert faults(page) == []
        page.get_by_label("Whose").fill(HOSTILE.partition("\n")[0])
        page.get_by_role("button", name="Search").click()
        expect(page.get_by_text("There are no runs here.")).to_be_visible()


def test_a_new_person_gets_a_link_and_a_role(cabinet: Cabinet, platform: Web) -> None:
    with cabinet.window("boss") as page:
        cabinet.open(page, "/-/users")
        page.get_by_label("Name", exact=True).fill("newcomer")
        page.get_by_role("button", name="Add").click()
        expect(page.locator("#link")).to_contain_text("/-/login?code=")
        row = page.locator("tr", has=page.get_by_role("rowheader", name="newcomer"))
        expect(row).to_contain_text("not chosen yet")
        row.get_by_text("Grant a role").click()
        row.get_by_label("Role").select_option("developer")
        row.get_by_label("App (empty: all)").fill("demo-colors")
        row.get_by_role("button", name="Grant", exact=True).click()
        expect(page.get_by_role("status")).to_contain_text("The role is granted")
        expect(row).to_contain_text("developer · demo-colors")
        row.get_by_text("Remove", exact=True).first.click()
        row.locator("details[open] button.bad").click()
        expect(page.get_by_role("status")).to_contain_text("account is removed")
        wait_for(lambda: "newcomer" not in [each.name for each in cabinet.people.accounts()])
    told = [entry.act for entry in cabinet.people.acts(4, "boss")]
    assert told[:3] == ["user rm", "role add", "user add"]
