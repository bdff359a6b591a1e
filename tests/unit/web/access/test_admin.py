"""The administrator's rule: who is let in, and how nobody's browser is tricked."""

from __future__ import annotations

import base64

import pytest

from controller.config import WebSettings
from controller.domain.secret import Secret
from controller.web.access.admin import Visitor, is_admin

TOKEN = "letmein-token"
SETTINGS = WebSettings(admin_token=Secret(TOKEN))
HERE = {"host": "127.0.0.1:8000"}
BASIC = "Basic " + base64.b64encode(f"anyone:{TOKEN}".encode()).decode()


def admits(
    method: str = "GET", settings: WebSettings = SETTINGS, /, address: str = "127.0.0.1", **headers: str
) -> bool:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return is_admin(Visitor(method, address, {**HERE, **named}), settings)


@pytest.mark.parametrize(
    ("authorization", "admitted"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer {TOKEN}", True),
        (BASIC, True),
        (f"Bearer {TOKEN}x", False),
        (f"Bearer {TOKEN[:-1]}", False),
        ("Bearer ", False),
        ("Bearer \xe9", False),
        ("Basic !!", False),
        (f"Digest {TOKEN}", False),
        ("", False),
    ],
)
def test_the_token_opens_from_anywhere(authorization: str, admitted: bool) -> None:
    assert admits(address="192.0.2.1", authorization=authorization) is admitted


@pytest.mark.parametrize("token", [None, Secret("")])
def test_without_a_token_set_none_opens(token: Secret | None) -> None:
    settings = WebSettings(admin_token=token)
    assert not admits("GET", settings, address="192.0.2.1", authorization="Bearer ")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1"])
def test_loopback_may_look(address: str) -> None:
    assert admits(address=address)


@pytest.mark.parametrize("address", ["192.0.2.1", "10.0.0.1", "", "not an address", "2001:db8::1"])
def test_others_may_not(address: str) -> None:
    assert not admits(address=address)


def test_trust_in_loopback_can_be_switched_off() -> None:
    assert not admits("GET", WebSettings(trust_loopback=False))


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "x-real-ip", "via", "x-forwarded-host"])
def test_who_came_through_a_proxy_is_not_on_loopback(header: str) -> None:
    headers = {**HERE, header: "127.0.0.1"}
    assert not is_admin(Visitor("GET", "127.0.0.1", headers), SETTINGS)


@pytest.mark.parametrize(
    ("host", "admitted"),
    [
        ("localhost", True),
        ("LocalHost:8000", True),
        ("[::1]:8000", True),
        ("[::1]", True),
        ("127.0.0.1", True),
        ("evil.example", False),
        ("evil.example:8000", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_a_foreign_name_for_loopback_opens_nothing(host: str, admitted: bool) -> None:
    assert admits(host=host) is admitted


def test_a_person_s_browser_may_look_but_no_script() -> None:
    assert admits(sec_fetch_mode="navigate", sec_fetch_site="none")
    assert not admits(sec_fetch_mode="cors", sec_fetch_site="same-origin")
    assert not admits(origin="http://127.0.0.1:8000")


def test_changing_something_must_be_deliberate() -> None:
    assert admits("POST", x_prichal="1")
    assert not admits("POST")
    assert not admits("POST", x_prichal="1", origin="http://127.0.0.1:8000")
    assert not admits("POST", x_prichal="1", sec_fetch_site="same-origin")


def test_a_token_that_the_browser_sends_by_itself_changes_nothing() -> None:
    assert not admits("POST", address="192.0.2.1", authorization=BASIC)
    assert not admits("POST", address="192.0.2.1", authorization=BASIC, x_prichal="1", origin="https://x")
    assert admits("POST", address="192.0.2.1", authorization=BASIC, x_prichal="1")
    assert admits("POST", address="192.0.2.1", authorization=f"Bearer {TOKEN}")
