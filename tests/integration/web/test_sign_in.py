"""A person signs in with a real browser at the platform's own server: cookies, forms of sandboxed pages, redirects."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from controller.domain.apps.status import AppStatus
from controller.domain.names import AppName
from controller.domain.people.roles import Grant, Role
from controller.store.people import LINK, PeopleStore
from tests.support.browser import DrivenBrowser, browser
from tests.support.people import add_person, add_token
from tests.support.serve_web import settings_of, with_web
from tests.support.stores import open_store
from tests.support.waiting import wait_for

from .conftest import Web, demo_route, echo, serving

PASSWORD = "a password of a test"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Web, PeopleStore]]:
    state: Path = tmp_path_factory.mktemp("state")
    with_web(state, trust_loopback=False)
    with closing(open_store(settings_of(state).database)) as store, echo("first") as component:
        store.routes.switch(demo_route(component.endpoint))
        with serving(state, store, component) as running:
            yield running, PeopleStore(settings_of(state).people)


@pytest.mark.skipif(browser() is None, reason="needs Chromium: scripts/test-tools")
def test_from_the_link_to_a_token_and_out_again(platform: tuple[Web, PeopleStore], tmp_path: Path) -> None:
    web, people = platform
    base = "http://{}:{}".format(*web.address)
    add_person(people, "ann", Grant("ann", Role.ADMIN), password=False)
    people.put_link("ann", "the-code", time.time() + LINK)
    with closing(DrivenBrowser(tmp_path / "profile")) as window:
        window.open(f"{base}/-/apps")
        wait_for(lambda: "Sign in" in window.text())
        assert window.url() == f"{base}/-/login?next=%2F-%2Fapps"
        window.open(f"{base}/-/login?code=the-code")
        wait_for(lambda: "Choose a password" in window.text())
        window.fill("#password", PASSWORD)
        window.fill("#again", PASSWORD)
        window.press_enter("#again")
        wait_for(lambda: window.url() == f"{base}/-/" and "Sessions" in window.text())
        window.open(f"{base}/-/tokens")
        wait_for(lambda: "New token" in window.text())
        window.fill("#label", "of the browser")
        window.press_enter("#label")
        found = wait_for(lambda: re.search(r'<code id="secret">([^<]+)</code>', window.text()))
        assert found is not None
        secret = found[1]
        assert web.ask("GET", "/-/apps", authorization=f"Bearer {secret}").status == 200
        window.press_enter("nav button")
        wait_for(lambda: "Sign in" in window.text())
        window.open(f"{base}/-/audit")
        wait_for(lambda: window.url() == f"{base}/-/login?next=%2F-%2Faudit")
        window.fill("#name", "ann")
        window.fill("#password", PASSWORD)
        window.press_enter("#password")
        wait_for(lambda: window.url() == f"{base}/-/audit" and "token add" in window.text())
    told = [entry.act for entry in reversed(people.acts(who="ann"))]
    assert told == ["password set", "login", "token add", "logout", "login"]


def test_live_answers_know_roles_too(platform: tuple[Web, PeopleStore]) -> None:
    web, people = platform
    add_person(people, "maker", Grant("maker", Role.DEVELOPER, "other"))
    add_person(people, "watcher", Grant("watcher", Role.VIEWER))
    maker, watcher = (f"Bearer {add_token(people, name)}" for name in ("maker", "watcher"))
    hidden = web.ask("GET", "/-/apps/demo/events?follow=1", authorization=maker)
    missing = web.ask("GET", "/-/apps/missing/events?follow=1", authorization=watcher)
    assert (hidden.status, missing.status) == (404, 404)
    assert hidden.json["detail"].replace("demo", "missing") == missing.json["detail"]
    assert web.ask("GET", "/-/apps/demo/events?follow=1").status == 401
    assert web.ask("GET", "/-/hooks/nothing/1", authorization=maker).status == 401
    assert web.ask("GET", "/-/hooks/nothing/1", authorization=watcher).status == 404


def test_a_stream_ends_with_the_role(platform: tuple[Web, PeopleStore]) -> None:
    web, people = platform
    web.store.apps.save(AppStatus(AppName("demo")))
    add_person(people, "guest", Grant("guest", Role.VIEWER, "demo"))
    token = add_token(people, "guest")
    with closing(HTTPConnection(*web.address, timeout=60)) as connection:
        connection.request(
            "GET", "/-/apps/demo/events?follow=1", headers={"Authorization": f"Bearer {token}"}
        )
        stream = connection.getresponse()
        assert stream.status == 200
        people.take_back(Grant("guest", Role.VIEWER, "demo"))
        stream.read()  # to the end of the stream
        assert stream.isclosed()


def test_a_large_form_is_not_read(platform: tuple[Web, PeopleStore]) -> None:
    web, _ = platform
    reply = web.ask("POST", "/-/login", b"x" * 2**15, content_type="application/x-www-form-urlencoded")
    assert reply.status == 413


def test_a_body_of_a_person_is_read_and_of_nobody_is_not(platform: tuple[Web, PeopleStore]) -> None:
    web, people = platform
    add_person(people, "eve")
    token = f"Bearer {add_token(people, 'eve')}"
    body = b'{"scope": "read"}'
    made = web.ask("POST", "/-/tokens", body, content_type="application/json", authorization=token)
    assert made.status == 201
    assert web.ask("POST", "/-/tokens", body, content_type="application/json").status == 401
