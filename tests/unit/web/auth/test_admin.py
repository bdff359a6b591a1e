"""The administrator's rule: who is let in, and how nobody's browser is tricked."""

from __future__ import annotations

import base64

import pytest

from controller.config import WebSettings
from controller.domain.secret import Secret
from controller.web.auth.admin import ClientInfo, is_admin

TOKEN = "letmein-token"
SETTINGS = WebSettings(admin_token=Secret(TOKEN), trust_loopback=True)
HERE = {"host": "127.0.0.1:8000"}
BASIC = "Basic " + base64.b64encode(f"anyone:{TOKEN}".encode()).decode()


def admits(
    method: str = "GET", settings: WebSettings = SETTINGS, /, address: str = "127.0.0.1", **headers: str
) -> bool:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return is_admin(ClientInfo(method, address, {**HERE, **named}), settings)


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


def test_loopback_is_not_trusted_unless_that_is_asked_for() -> None:
    assert not admits("GET", WebSettings(admin_token=Secret(TOKEN)))


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "x-real-ip", "via", "x-forwarded-host"])
def test_who_came_through_a_proxy_is_not_on_loopback(header: str) -> None:
    headers = {**HERE, header: "127.0.0.1"}
    assert not is_admin(ClientInfo("GET", "127.0.0.1", headers), SETTINGS)


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


#: What browsers send with a request, and whether it may be a person's own look: in a window of its own.
FETCHES = [
    ("navigate", "document", True),
    ("navigate", "iframe", False),
    ("navigate", "frame", False),
    ("navigate", "embed", False),
    ("navigate", "object", False),
    ("cors", "empty", False),
    ("same-origin", "empty", False),
    ("no-cors", "empty", False),
    ("no-cors", "script", False),
    ("no-cors", "image", False),
    ("no-cors", "style", False),
    ("same-origin", "worker", False),
    ("same-origin", "sharedworker", False),
    ("same-origin", "serviceworker", False),
    ("no-cors", "video", False),
    ("websocket", "empty", False),
]


@pytest.mark.parametrize("site", ["none", "same-origin", "same-site", "cross-site"])
@pytest.mark.parametrize("way", ["loopback", "password"])
@pytest.mark.parametrize(("mode", "dest", "admitted"), FETCHES)
def test_what_comes_by_itself_opens_to_windows_only(
    mode: str, dest: str, admitted: bool, way: str, site: str
) -> None:
    """Where the browser stands on the host, and where it sends the password along that was once typed in."""
    who = {"authorization": BASIC} if way == "password" else {}
    address = "192.0.2.1" if way == "password" else "127.0.0.1"
    sent = {"sec_fetch_mode": mode, "sec_fetch_dest": dest, "sec_fetch_site": site, "accept_language": "en"}
    assert admits(address=address, **sent, **who) is admitted


@pytest.mark.parametrize(
    "sent",
    [
        {"accept_language": "en"},  # a browser over plain HTTP, which says nothing
        {"sec_fetch_site": "same-origin"},
        {"sec_fetch_mode": "navigate", "service_worker": "script"},
        {"sec_fetch_mode": "navigate", "origin": "null"},
    ],
    ids=repr,
)
def test_what_may_be_a_script_is_refused_unless_it_has_the_token(sent: dict[str, str]) -> None:
    assert not admits(address="192.0.2.1", authorization=BASIC, **sent)
    assert not admits(**sent)
    assert admits(address="192.0.2.1", authorization=f"Bearer {TOKEN}", **sent)


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
