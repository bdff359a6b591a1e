"""The pages with which a person makes and deletes an app, in a browser that sends what browsers send."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.domain.apps.conditions import Condition, ConditionType
from controller.domain.apps.orders import OrderState
from controller.domain.apps.status import AppStatus
from controller.domain.names import AppName
from controller.domain.people.quotas import AppShare
from controller.domain.people.roles import Grant, Role
from controller.domain.reasons import Reason
from controller.domain.templates import NO_LIMITS
from controller.web.app import create_app
from controller.web.storage import StorageClient
from tests.support.fake_objects import FakeObjects
from tests.support.ordering import Host, settings_in
from tests.support.people import Browser, add_person, hidden
from tests.support.stores import open_store

#: Together they take seconds.
pytestmark = pytest.mark.slow

NAME = "pu-anna-pa-demo"


class Site(Host):
    def browser(self, name: str) -> Browser:
        storage = StorageClient(self.store, lambda access: FakeObjects())
        browser = Browser(create_app(self.store, self.settings, storage))
        assert browser.sign_in(name).status_code == 303
        return browser


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    settings = settings_in(tmp_path)
    store = open_store(settings.database)
    site = Site(settings, store)
    add_person(site.people, "anna", Grant("anna", Role.CREATOR))
    add_person(site.people, "eva")
    yield site
    store.close()


def send(browser: Browser, page: Any, path: str, **fields: str) -> Any:
    return browser.submit(path, {"form": hidden(page)["form"], **fields})


def test_from_a_template_to_an_app_that_answers(site: Site) -> None:
    browser = site.browser("anna")
    assert 'href="/-/new"' in browser.open("/-/").text
    choice = browser.open("/-/new")
    assert re.findall(r'href="/-/new/([a-z]+)"', choice.text) == [
        "function",
        "pipeline",
        "training",
        "files",
        "server",
    ]
    form = browser.open("/-/new/function")
    assert f'value="{NAME.removesuffix("demo")}"' in form.text
    assert 'name="limit-memory" value="512Mi"' in form.text
    sent = send(browser, form, "/-/new/function", name=NAME, **{"value-path": "count", "limit-cpus": "0.5"})
    assert (sent.status_code, sent.location.startswith("/-/orders/")) == (303, True)
    waiting = browser.open(sent.location)
    assert "The order is placed" in waiting.text
    assert f"git clone http://127.0.0.1:8000/-/git/{NAME}.git {NAME}" in waiting.text
    site.work()
    app = site.spec().app(AppName(NAME))
    assert app is not None
    assert app.limits.cpus == 0.5
    assert "being built and started" in browser.open(sent.location).text
    ready = Condition(ConditionType.READY, True, Reason.READY, "all is well")
    site.store.apps.save(AppStatus(AppName(NAME), conditions=(ready,)))
    assert "The app answers." in browser.open(sent.location).text
    assert f"/-/apps/{NAME}/delete" in browser.open(f"/-/apps/{NAME}").text


def test_a_form_that_is_refused_keeps_what_was_filled_in(site: Site) -> None:
    browser = site.browser("anna")
    form = browser.open("/-/new/files")
    odd = "\"><script>alert('Ж')</script>"
    reply = send(
        browser, form, "/-/new/files", name=f"pu-anna-pa-{odd}", **{"value-heading": odd, "limit-cpus": "99"}
    )
    assert reply.status_code == 422
    assert "a-z, 0-9 and hyphens" in reply.text
    assert "<script>alert" not in reply.text
    assert reply.text.count("&#34;&gt;&lt;script&gt;alert(&#39;Ж&#39;)&lt;/script&gt;") >= 2
    assert 'value="99"' in reply.text
    reply = send(browser, form, "/-/new/files", name=NAME, **{"limit-cpus": "99"})
    assert (reply.status_code, "cpus: 99 asked for, 4 of 4 left" in reply.text) == (403, True)
    assert site.store.orders.unfinished() == ()


def test_in_russian(site: Site) -> None:
    browser = site.browser("anna")
    text = browser.open("/-/new", **{"Accept-Language": "ru"}).text
    assert "Обучение и сервис" in text
    assert "Choose a template" not in text
    assert "Имя приложения" in browser.open("/-/new/training", **{"Accept-Language": "ru"}).text


def test_people_without_the_role_get_neither_link_nor_form(site: Site) -> None:
    browser = site.browser("eva")
    assert 'href="/-/new"' not in browser.open("/-/").text
    assert browser.open("/-/new").status_code == 403
    assert browser.open("/-/new/function").status_code == 403
    form = {"form": hidden(browser.open("/-/tokens"))["form"]}
    assert browser.submit("/-/new/function", {**form, "name": "pu-eva-pa-x"}).status_code == 403


def test_a_form_of_another_page_makes_no_app(site: Site) -> None:
    browser = site.browser("anna")
    for fields in ({}, {"form": "x.y"}, {"form": "a" * 500}):
        assert browser.submit("/-/new/function", {"name": NAME, **fields}).status_code in (303, 401)
    assert site.store.orders.unfinished() == ()


def test_deleting_asks_for_the_name(site: Site) -> None:
    site.place(site.order(NAME, 1), "anna")
    site.work()
    site.store.apps.save(AppStatus(AppName(NAME)))
    browser = site.browser("anna")
    page = browser.open(f"/-/apps/{NAME}/delete")
    wrong = send(browser, page, f"/-/apps/{NAME}/delete", confirm="something")
    assert (wrong.status_code, "its name must be repeated" in wrong.text) == (409, True)
    sent = send(browser, page, f"/-/apps/{NAME}/delete", confirm=NAME)
    assert sent.status_code == 303
    site.work()
    assert "containers are being removed" in browser.open(sent.location).text
    (record,) = (site.store.orders.get(sent.location.rpartition("/")[2]),)
    assert record is not None
    assert record.state is OrderState.DONE
    assert site.browser("eva").open(f"/-/apps/{NAME}/delete").status_code == 404


def test_orders_of_others_are_not_shown(site: Site) -> None:
    site.place(site.order(NAME, 1), "anna")
    place = f"/-/orders/{1:032x}"
    assert site.browser("anna").open(place).status_code == 200
    assert site.browser("eva").open(place).status_code == 404
    assert site.browser("anna").open("/-/new/missing").status_code == 404


def test_a_form_that_is_sent_again_leads_to_the_order_that_it_has_placed(site: Site) -> None:
    """Going back, or two tabs: one app, and nobody is told that their own app is in the way."""
    browser = site.browser("anna")
    form, other = (browser.open("/-/new/function") for _ in range(2))
    fields = {"name": NAME, "order": hidden(form)["order"]}
    first, again = (send(browser, form, "/-/new/function", **fields) for _ in range(2))
    tab = send(browser, other, "/-/new/function", **{**fields, "order": hidden(other)["order"]})
    assert [each.status_code for each in (first, again, tab)] == [303] * 3
    assert {first.location, again.location, tab.location} == {f"/-/orders/{fields['order']}"}
    assert len(site.store.orders.unfinished()) == 1
    site.work()
    site.store.apps.save(AppStatus(AppName(NAME)))
    assert send(browser, form, "/-/new/function", **fields).location == first.location
    late = send(browser, other, "/-/new/function", **{**fields, "order": hidden(other)["order"]})
    assert late.status_code == 409
    renamed = send(browser, form, "/-/new/function", **{**fields, "name": f"{NAME}-2"})
    assert renamed.status_code == 303
    assert renamed.location != first.location
    assert [record.order.app for record in site.store.orders.unfinished()] == [f"{NAME}-2"]


def test_a_form_that_is_sent_again_after_its_app_was_deleted_makes_another_one(site: Site) -> None:
    """A browser keeps the form with its order, and shows it on the way back."""
    browser = site.browser("anna")
    form = browser.open("/-/new/function")
    fields = {"name": NAME, "order": hidden(form)["order"]}
    first = send(browser, form, "/-/new/function", **fields)
    site.work()
    site.store.orders.replace_shares([AppShare(AppName(NAME), "anna", NO_LIMITS)])
    assert send(browser, form, "/-/new/function", **fields).location == first.location, (
        "its first pass has begun"
    )
    site.store.apps.save(AppStatus(AppName(NAME)))
    send(browser, form, f"/-/apps/{NAME}/delete", confirm=NAME)
    site.work()
    site.store.orders.replace_shares(())
    site.store.apps.forget(AppName(NAME))
    again = send(browser, form, "/-/new/function", **fields)
    assert again.status_code == 303
    assert again.location != first.location
    assert [record.order.app for record in site.store.orders.unfinished()] == [NAME]


def test_a_form_of_somebody_else_places_an_order_of_its_own(site: Site) -> None:
    site.place(site.order(NAME, 1), "anna")
    add_person(site.people, "boss", Grant("boss", Role.ADMIN))
    browser = site.browser("boss")
    form = browser.open("/-/new/function")
    for order in (f"{1:032x}", "../../x", "x" * 5000):
        sent = send(browser, form, "/-/new/function", name=f"other-{len(order)}", order=order)
        assert sent.status_code == 303
        assert sent.location != f"/-/orders/{order}"
    assert len(site.store.orders.unfinished()) == 4
