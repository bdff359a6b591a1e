"""Previews of branches for programs and on pages: who sees them, keeps them and removes them."""

from __future__ import annotations

import math
import time
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from controller.config import Settings
from controller.domain.apps.branch_previews import BRANCHES, preview_name
from controller.domain.apps.status import AppStatus, Event, EventType
from controller.domain.names import AppName, ComponentName
from controller.domain.people.roles import Grant, Role
from controller.domain.reasons import Reason
from controller.store import SqliteStore
from controller.web.app import create_app
from controller.web.context import people_context
from controller.web.storage import StorageClient
from tests.support.branch_previews import HEAD, record_previews
from tests.support.gateway import make_api, make_route
from tests.support.people import Browser, add_person, add_token, hidden

DEMO, OTHER = AppName("demo"), AppName("demo-other")
PREVIEW = preview_name(DEMO, BRANCHES + "feature/x")
PLACE = f"/-/apps/demo/previews/{PREVIEW}"
PEOPLE = {
    "maker": Grant("maker", Role.DEVELOPER, "demo"),
    "guest": Grant("guest", Role.VIEWER, "demo"),
    "team": Grant("team", Role.DEVELOPER, "dem*"),
    "pattern": Grant("pattern", Role.DEVELOPER, "demo-*"),
    "named": Grant("named", Role.DEVELOPER, PREVIEW),
    "watcher": Grant("watcher", Role.VIEWER),
    "boss": Grant("boss", Role.ADMIN),
}


@pytest.fixture
def app(store: SqliteStore, storage: StorageClient, tmp_path: Path) -> Flask:
    (tmp_path / "web").mkdir()
    made = create_app(store, Settings(state=tmp_path), storage)
    for name in (DEMO, OTHER):
        store.apps.save(AppStatus(name))
    assert record_previews(store, DEMO, "feature/x", left_out=("feature/old",)) == (PREVIEW,)
    store.routes.switch(make_route(make_api("colors"), app=PREVIEW, component=ComponentName("namer")))
    store.events.add([Event(PREVIEW, EventType.NORMAL, Reason.READY, "all well", at=1.0)])
    for who, grant in PEOPLE.items():
        add_person(people_context(made).store, who, grant)
    return made


def ask(app: Flask, who: str, path: str, method: str = "GET", **more: Any) -> Any:
    token = add_token(people_context(app).store, who)
    headers = {"Authorization": f"Bearer {token}", "X-Prichal": "1"}
    return app.test_client().open(path, method=method, headers=headers, **more)


def test_previews_follow_their_app(app: Flask) -> None:
    listed = ask(app, "boss", "/-/apps").json["apps"]
    assert [each["app"] for each in listed] == [DEMO, PREVIEW, OTHER]
    assert [each["preview"] and each["preview"]["branch"] for each in listed] == [None, "feature/x", None]
    (found,) = ask(app, "boss", "/-/apps/demo").json["previews"]
    assert (found["name"], found["branch"], found["commit"]) == (PREVIEW, "feature/x", HEAD)
    assert found["ends"] > found["begun"]
    assert found["open"].endswith(f"/{PREVIEW}/colors/docs")
    (left,) = ask(app, "boss", "/-/apps/demo").json["leftOut"]
    assert (left["branch"], "as many as spec.previews.max allows" in left["why"]) == ("feature/old", True)
    own = ask(app, "boss", f"/-/apps/{PREVIEW}").json
    assert (own["preview"]["app"], own["previews"], own["leftOut"]) == (DEMO, [], [])


@pytest.mark.parametrize("who", ["maker", "guest", "team", "watcher", "boss"])
def test_roles_in_the_app_hold_for_its_previews(app: Flask, who: str) -> None:
    assert PREVIEW in [each["app"] for each in ask(app, who, "/-/apps").json["apps"]]
    assert ask(app, who, f"/-/apps/{PREVIEW}").status_code == 200
    assert ask(app, who, f"/-/apps/{PREVIEW}/events").json["events"] != []
    assert [each["name"] for each in ask(app, who, "/-/previews").json["previews"]] == [PREVIEW]
    steers = who in ("maker", "team", "boss")
    assert ask(app, who, f"/-/apps/{PREVIEW}/suspend", "POST").status_code == (202 if steers else 403)
    assert ask(app, who, f"{PLACE}/keep", "POST").status_code == (202 if steers else 403)


@pytest.mark.parametrize("who", ["pattern", "named"])
def test_a_role_that_only_the_name_of_a_preview_fits_gives_nothing(app: Flask, who: str) -> None:
    """Names of previews begin like those of their apps, so a pattern for other apps would cover them."""
    seen = [each["app"] for each in ask(app, who, "/-/apps").json["apps"]]
    assert seen == ([OTHER] if who == "pattern" else [])
    for path in (f"/-/apps/{PREVIEW}", f"/-/apps/{PREVIEW}/events", "/-/apps/demo/previews"):
        assert ask(app, who, path).status_code == 404, path
    assert ask(app, who, "/-/events").json["events"] == []
    assert ask(app, who, "/-/previews").json == {"app": None, "previews": [], "leftOut": []}
    for path in (f"/-/apps/{PREVIEW}/suspend", f"{PLACE}/keep", f"{PLACE}/remove"):
        assert ask(app, who, path, "POST").status_code == 404, path
    browser = Browser(app)
    browser.sign_in(who)
    assert PREVIEW not in browser.open("/-/").text
    assert (OTHER in browser.open("/-/").text) == (who == "pattern")


def test_one_is_kept_and_removed(app: Flask, store: SqliteStore) -> None:
    before = time.time()
    kept = ask(app, "maker", f"{PLACE}/keep", "POST")
    assert (kept.status_code, kept.json) == (
        202,
        {"name": PREVIEW, "app": "demo", "branch": "feature/x", "kept": True, "forever": False},
    )
    assert before <= store.branches.decisions()[PREVIEW].kept <= time.time()
    assert ask(app, "maker", f"{PLACE}/keep", "POST", json={"forever": True}).json["forever"] is True
    assert store.branches.decisions()[PREVIEW].kept == math.inf
    assert ask(app, "maker", f"{PLACE}/remove", "POST").status_code == 202
    decision = store.branches.decisions()[PREVIEW]
    assert (decision.kept, decision.removed) == (0.0, HEAD)
    acts = [(each.act, each.subject, each.detail) for each in people_context(app).store.acts(3)]
    assert acts == [
        ("preview rm", "demo", "feature/x"),
        ("preview keep", "demo", "feature/x, for good"),
        ("preview keep", "demo", "feature/x"),
    ]


def test_a_branch_that_is_left_out_can_be_kept_and_not_removed(app: Flask, store: SqliteStore) -> None:
    name = preview_name(DEMO, BRANCHES + "feature/old")
    assert ask(app, "maker", f"/-/apps/demo/previews/{name}/keep", "POST").status_code == 202
    assert name in store.branches.decisions()
    refused = ask(app, "maker", f"/-/apps/demo/previews/{name}/remove", "POST")
    assert (refused.status_code, refused.json["reason"]) == (404, "UnknownPreview")


@pytest.mark.parametrize("content", [{"forever": "yes"}, ["forever"], {"forever": 1}])
def test_a_body_of_another_shape_is_refused(app: Flask, store: SqliteStore, content: Any) -> None:
    assert ask(app, "maker", f"{PLACE}/keep", "POST", json=content).status_code == 400
    assert store.branches.decisions() == {}


def test_what_is_no_preview_of_the_app(app: Flask, store: SqliteStore) -> None:
    for path in ("/-/apps/demo/previews/demo/keep", f"/-/apps/demo-other/previews/{PREVIEW}/remove"):
        found = ask(app, "boss", path, "POST")
        assert (found.status_code, found.json["reason"]) == (404, "UnknownPreview")
    near = ask(app, "boss", f"/-/apps/demo/previews/{PREVIEW}x/keep", "POST")
    assert f"Did you mean {PREVIEW}?" in near.json["detail"]
    assert store.branches.decisions() == {}


def test_a_dry_run_decides_nothing(app: Flask, store: SqliteStore) -> None:
    from controller.web.dry_run import without_prefix

    app.wsgi_app = without_prefix(app.wsgi_app)  # type: ignore[method-assign]
    for act in ("keep", "remove"):
        path = f"{PLACE}/{act}".replace("/-/", "/-/dry-run/", 1)
        assert ask(app, "maker", path, "POST").status_code == 202
    assert store.branches.decisions() == {}


def test_a_preview_cannot_be_deleted_as_an_app(app: Flask) -> None:
    refused = ask(app, "boss", f"/-/apps/{PREVIEW}?confirm={PREVIEW}", "DELETE")
    assert refused.status_code == 422
    assert f"prichal preview rm {PREVIEW}" in refused.json["detail"]


# --- pages ------------------------------------------------------------------------------------------------------


def page(app: Flask, who: str, path: str) -> tuple[Browser, str]:
    browser = Browser(app)
    browser.sign_in(who)
    return browser, unescape(browser.open(path).text)


def test_the_page_of_the_app_shows_them_with_buttons_for_developers(app: Flask, store: SqliteStore) -> None:
    browser, text = page(app, "maker", "/-/apps/demo")
    for words in ("feature/x", HEAD[:12], f"/-/apps/{PREVIEW}", f"/{PREVIEW}/colors/", "feature/old"):
        assert words in text, words
    assert "as many as spec.previews.max allows" in text
    form = hidden(browser.open("/-/apps/demo"))
    assert browser.submit(f"{PLACE}/keep", {"forever": "yes"}).status_code in (401, 403), (
        "without the form's value"
    )
    assert store.branches.decisions() == {}
    done = browser.submit(f"{PLACE}/keep", {**form, "forever": "yes"})
    assert (done.status_code, done.headers["Location"]) == (303, "/-/apps/demo")
    assert "preview-kept" in done.headers["Set-Cookie"], "what the page says next"
    assert store.branches.decisions()[PREVIEW].kept == math.inf
    assert browser.submit(f"{PLACE}/remove", form).status_code == 303
    assert store.branches.decisions()[PREVIEW].removed == HEAD


def test_they_are_told_in_russian(app: Flask) -> None:
    browser = Browser(app)
    browser.sign_in("maker")
    text = unescape(browser.open("/-/apps/demo", **{"Accept-Language": "ru"}).text)
    for words in ("Предпросмотры веток", "Ветка без предпросмотра", "более новых уже 1", "Продлить"):
        assert words in text, words
    assert "Предпросмотр demo: feature/x" in unescape(browser.open("/-/", **{"Accept-Language": "ru"}).text)


def test_readers_get_no_buttons(app: Flask) -> None:
    _, text = page(app, "guest", "/-/apps/demo")
    assert "feature/x" in text
    assert f"{PLACE}/keep" not in text


def test_the_page_of_a_preview_leads_to_its_app(app: Flask) -> None:
    _, text = page(app, "maker", f"/-/apps/{PREVIEW}")
    assert 'href="/-/apps/demo"' in text
    assert f"/-/apps/{PREVIEW}/delete" not in text


def test_the_list_shows_them_below_their_app(app: Flask) -> None:
    _, text = page(app, "boss", "/-/")
    assert (
        text.index('data-key="demo"')
        < text.index(f'data-key="{PREVIEW}"')
        < text.index('data-key="demo-other"')
    )
    assert "Preview of demo: feature/x" in text
    _, found = page(app, "boss", "/-/?q=feature/x")
    assert (f'data-key="{PREVIEW}"' in found, 'data-key="demo-other"' in found) == (True, False)
