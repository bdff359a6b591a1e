"""The page of templates: what each is for to everybody, where it comes from and what is wrong to admins alone."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from flask import Flask

from controller.config import Settings
from controller.config.settings import AppSettings
from controller.domain.people.roles import Grant, Role
from controller.domain.templates import TemplateRecord
from controller.store import SqliteStore
from controller.templates.builtin import builtin
from controller.web.app import create_app
from controller.web.context import people_context
from controller.web.storage import StorageClient
from tests.support.people import Browser, add_person

#: Together they take seconds.
pytestmark = pytest.mark.slow

URL = "https://git.example.org/lab.git"


@pytest.fixture
def app(store: SqliteStore, storage: StorageClient, tmp_path: Path) -> Flask:
    (tmp_path / "web").mkdir()
    apps = AppSettings(templates=(f"lab={URL}#stable", f"new={URL}"))
    found = create_app(store, Settings(state=tmp_path, apps=apps), storage)
    add_person(people_context(found).store, "boss", Grant("boss", Role.ADMIN))
    add_person(people_context(found).store, "eva")
    return found


def opened(app: Flask, who: str) -> str:
    browser = Browser(app)
    browser.sign_in(who)
    reply = browser.open("/-/templates")
    assert reply.status_code == 200
    return str(reply.text)


def row(text: str, name: str) -> str:
    return text.partition(f"<code>{name}</code></th>")[2].partition("</tr>")[0]


def test_where_each_comes_from_and_what_is_wrong(app: Flask, store: SqliteStore) -> None:
    lab = replace(builtin()["function"].template, name="lab")
    hostile = "<script>x</script>\nthe second line"
    store.templates.replace(
        [
            TemplateRecord(
                "lab", lab, f"{URL}#stable", "7d1c60a0f2b4c5d6", "does not answer", time.time() - 60
            ),
            TemplateRecord("server", lab, URL, "7d1c60a0", "server is the name of a built-in template"),
            TemplateRecord("strange", None, URL, problem=hostile),
        ]
    )
    text = opened(app, "boss")
    for told in ("in use at an earlier commit", f"{URL}#stable", "7d1c60a0f2b4", "does not answer", "<time"):
        assert told in row(text, "lab")
    assert "cannot be used" in row(text, "server")
    assert "cannot be used" in row(text, "strange")
    assert "&lt;script&gt;" in row(text, "strange")
    assert "never" in row(text, "strange")
    assert "not fetched yet" in row(text, "new")
    assert "apps.templates" in text
    assert text.count("<code>function</code>") == 1


def test_others_see_what_there_is_and_not_from_where(app: Flask, store: SqliteStore) -> None:
    store.templates.replace([TemplateRecord("lab", None, URL, problem="does not answer")])
    text = opened(app, "eva")
    assert "cannot be used" in row(text, "lab")
    assert URL not in text
    assert "does not answer" not in text
    assert "apps.templates" not in text
