"""Calls with a pass, through a real gunicorn to a component that says what it was sent."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from controller.domain.apps.spec import CorsSpec
from controller.domain.apps.status import AppStatus, ComponentStatus
from controller.domain.people.accounts import SessionRecord
from controller.domain.people.roles import Grant, Role
from controller.store.people import PeopleStore, SessionLimits
from controller.web.auth.call_passes import CallPasses
from tests.support.gateway import APP, make_api
from tests.support.people import add_person
from tests.support.serve_web import settings_of
from tests.support.specs import make

from .conftest import Reply, Web, demo_route

LAB = "https://lab.example.org"
PAGE = {"Origin": "null", "Sec_Fetch_Mode": "cors", "Sec_Fetch_Site": "cross-site"}


@pytest.fixture(scope="module")
def made(web: Web) -> dict[str, str]:
    """Passes of one developer by API."""
    settings = settings_of(web.state)
    people, now = PeopleStore(settings.people), time.time()
    add_person(people, "maker", Grant("maker", Role.DEVELOPER, APP), password=False)
    limits = SessionLimits(settings.web.session_idle, settings.web.session_lifetime)
    people.begin_session("a secret", SessionRecord("5e55", "maker", now, now, "", ""), limits)
    route = demo_route(web.component.endpoint)
    cors = make(CorsSpec, (LAB,), credentials=True)
    web.put(replace(route, apis=(*route.apis, make_api("lab", cors=cors))))
    web.store.apps.save(AppStatus(APP, components=(ComponentStatus(route.component, "MLComponent"),)))
    who = people.session_by_id("5e55", limits, now)
    assert who is not None
    passes = CallPasses(people, settings.web)
    found = {api: passes.make(who, f"demo/{api}") for api in ("open", "closed", "lab", "hidden")}
    return {api: made[0] for api, made in found.items() if made}


def shared(reply: Reply) -> tuple[str | None, str | None]:
    return reply.headers.get("access-control-allow-origin"), reply.headers.get(
        "access-control-allow-credentials"
    )


@pytest.mark.parametrize("api", ["open", "closed", "lab"])
def test_a_call_with_a_pass(web: Web, made: dict[str, str], api: str) -> None:
    reply = web.ask(
        "POST", f"/demo/{api}/deep?x=1", b"{}", X_Prichal_Pass=made[api], Authorization="Basic x", **PAGE
    )
    assert (reply.status, shared(reply)) == (200, ("null", None))
    assert "x-request-id" in reply.headers["access-control-expose-headers"].lower()
    sent = {name.lower(): value for name, value in reply.json["headers"].items()}
    assert made[api] not in json.dumps(reply.json)
    assert sent.keys().isdisjoint(
        ("x-prichal-pass", "authorization", "origin", "sec-fetch-mode", "sec-fetch-site")
    )
    assert sent.get("x-forwarded-user") == ("person:maker" if api == "closed" else None)


def test_a_browser_asks_before(web: Web, made: dict[str, str]) -> None:
    asks = {
        "Access_Control_Request_Method": "POST",
        "Access_Control_Request_Headers": "content-type,x-prichal-pass",
    }
    before = len(web.component.seen)
    for api in ("open", "closed", "lab", "hidden", "missing"):
        reply = web.ask("OPTIONS", f"/demo/{api}/predict", Origin="null", **asks)
        assert (reply.status, shared(reply)) == (204, ("null", None)), api
        assert reply.headers["access-control-allow-headers"] == "content-type,x-prichal-pass"
        reply = web.ask("OPTIONS", f"/demo/{api}/predict", Origin="https://evil.example", **asks)
        assert shared(reply) == (None, None), api
    assert all("OPTIONS /hidden" not in line for line in web.component.seen[before:])


def test_a_pass_changes_no_rule_of_the_api(web: Web, made: dict[str, str]) -> None:
    lab = web.ask("GET", "/demo/lab/x", Origin=LAB)
    assert shared(lab) == (LAB, "true")
    assert shared(web.ask("GET", "/demo/lab/x", Origin="null")) == (None, None)
    assert shared(web.ask("GET", "/demo/open/x", Origin="null")) == (None, None)
    reply = web.ask("GET", "/demo/lab/x", Origin=LAB, X_Prichal_Pass=made["lab"])
    assert (reply.status, shared(reply)) == (401, (LAB, "true")), "only pages of the platform use one"


def test_passes_that_are_not_good(web: Web, made: dict[str, str]) -> None:
    before = len(web.component.seen)
    for api, text in (
        ("closed", made["open"]),
        ("open", made["closed"]),
        ("open", "x"),
        ("open", made["open"][:-1]),
    ):
        reply = web.ask("POST", f"/demo/{api}/x", b"{}", X_Prichal_Pass=text, **PAGE)
        assert (reply.status, shared(reply)) == (401, ("null", None))
        assert reply.json["type"] == "urn:prichal:problem:unauthorized"
    assert web.ask("POST", "/demo/hidden/x", b"{}", X_Prichal_Pass=made["hidden"], **PAGE).status == 404
    assert web.ask("GET", "/-/apps", X_Prichal_Pass=made["open"], **PAGE).status == 401
    assert len(web.component.seen) == before


def test_a_revoked_session_ends_its_passes_at_once(web: Web, made: dict[str, str]) -> None:
    def call() -> int:
        return web.ask("POST", "/demo/closed/x", b"{}", X_Prichal_Pass=made["closed"], **PAGE).status

    assert [call() for _ in range(4)] == [200] * 4
    PeopleStore(settings_of(web.state).people).end_session("5e55")
    assert [call() for _ in range(8)] == [401] * 8, "in all workers"
