"""The page of Notifications: who is told, what became of messages, and the button that sends a test."""

from __future__ import annotations

import time
from html import unescape
from pathlib import Path

import pytest
from flask import Flask

from controller.config import Settings
from controller.domain.apps.status import AppStatus
from controller.domain.names import PLATFORM, AppName
from controller.domain.people.roles import Grant, Role
from controller.store import SqliteStore
from controller.web.app import create_app
from controller.web.context import people_context
from controller.web.storage import StorageClient
from tests.support import recorded
from tests.support.people import Browser, add_person, hidden

#: Together they take seconds.
pytestmark = pytest.mark.slow

PAGE = "/-/apps/demo-colors/notifications"
OF_PLATFORM = f"/-/apps/{PLATFORM}/notifications"


@pytest.fixture
def app(store: SqliteStore, storage: StorageClient, tmp_path: Path) -> Flask:
    (tmp_path / "web").mkdir()
    made = create_app(store, Settings(state=tmp_path), storage)
    store.apps.save(recorded.colors(time.time()))
    store.apps.save(AppStatus(AppName("quiet")))
    store.apps.save(AppStatus(PLATFORM))
    recorded.notify(store, time.time())
    people = people_context(made).store
    add_person(people, "boss", Grant("boss", Role.ADMIN))
    add_person(people, "bob", Grant("bob", Role.DEVELOPER, "demo-colors"))
    add_person(people, "eve", Grant("eve", Role.VIEWER, "demo-colors"))
    add_person(people, "none")
    return made


def signed_in(app: Flask, who: str) -> Browser:
    browser = Browser(app)
    browser.sign_in(who)
    return browser


def test_who_is_told_and_what_became_of_it(app: Flask) -> None:
    raw = signed_in(app, "eve").open(PAGE).text
    text = unescape(raw)
    assert "team@example.org" in text
    assert "https://incidents.example.org" in text
    assert "hooks/ml" not in text, "an address often has a password in its path"
    assert text.index("a test") < text.index("will be retried") < text.index("not delivered"), (
        "the newest first"
    )
    assert "Next try:" in text
    assert "More is stored than the box may hold." in text
    assert "<script>document" not in raw
    assert "Send a test" not in text, "viewers may not"
    assert "This platform sends no mail" in text


def test_it_is_in_russian(app: Flask) -> None:
    browser = signed_in(app, "bob")
    text = unescape(browser.open(PAGE, accept_language="ru").text)
    for words in (
        "Отправить проверочное",
        "будет отправлено снова",
        "секрета 'hook' нет",
        "Сохранено больше",
    ):
        assert words in text, words


def test_a_test_is_asked_for_by_a_form_and_recorded(app: Flask, store: SqliteStore) -> None:
    browser = signed_in(app, "bob")
    form = hidden(browser.open(PAGE))
    refused = browser.submit(f"{PAGE}/team/test", {"form": "another"})
    assert refused.status_code in (401, 403)
    assert store.notifications.tests() == ()
    reply = browser.submit(f"{PAGE}/team/test", form)
    assert (reply.status_code, reply.headers["Location"]) == (303, PAGE)
    (asked,) = store.notifications.tests()
    assert (asked.app, asked.name) == ("demo-colors", "team")
    assert "prichal-said=test-asked" in reply.headers["Set-Cookie"], "the page says so"
    (act, *_) = people_context(app).store.acts(1, "bob")
    assert (act.act, act.subject) == ("notify test", "demo-colors/team")
    assert browser.submit(f"{PAGE}/nobody/test", form).status_code == 404


def test_those_of_the_platform_are_for_administrators(app: Flask, store: SqliteStore) -> None:
    for who in ("bob", "none"):
        assert signed_in(app, who).open(OF_PLATFORM).status_code in (403, 404)
    boss = signed_in(app, "boss")
    reply = boss.open(OF_PLATFORM)
    assert "chat, by Apprise" in reply.text
    boss.submit(f"{OF_PLATFORM}/chat/test", hidden(reply))
    assert [asked.app for asked in store.notifications.tests()] == [PLATFORM]


def test_an_app_without_any_says_how_to_declare_one(app: Flask) -> None:
    assert "kind: Notification" in signed_in(app, "boss").open("/-/apps/quiet/notifications").text
    assert signed_in(app, "none").open("/-/apps/quiet/notifications").status_code == 404


def test_programs_get_when_it_is_tried_again(app: Flask) -> None:
    found = signed_in(app, "eve").open(PAGE, accept="application/json").json
    (team,) = (each for each in found["notifications"] if each["name"] == "team")
    by_state = {each["state"]: each for each in team["deliveries"] if not each["test"]}
    assert by_state["failing"]["nextTry"] > by_state["failing"]["at"]
    assert by_state["delivered"]["nextTry"] is None
    assert by_state["delivered"]["reasons"] == ["OverCapacity"]
