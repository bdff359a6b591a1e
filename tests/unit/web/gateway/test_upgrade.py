"""Requests for another protocol: which open a WebSocket, which are refused and why, and which are answered by HTTP."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.apps.spec import CorsSpec
from controller.domain.routing.routes import ServiceKind
from controller.web.gateway.cors import CorsPolicy
from controller.web.gateway.headers import Header
from controller.web.gateway.router import Decision, Router, find_route
from controller.web.gateway.upgrade import (
    PageAccess,
    SocketRequest,
    asks_for_socket,
    judge_handshake,
    judge_origin,
    without_credentials,
)
from controller.web.problems import HttpProblem, ProblemKind
from tests.support.gateway import make_api, make_route, make_service

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # of RFC 6455 §1.3, and so is the answer
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
GOOD: dict[bytes, bytes] = {
    b"host": b"a",
    b"upgrade": b"websocket",
    b"connection": b"Upgrade",
    b"sec-websocket-version": b"13",
    b"sec-websocket-key": KEY,
}
TABLE = Router.build(
    1,
    [
        make_route(make_api("own"), any_path=True, component="server"),
        make_route(make_api("image")),
        make_route(make_api("hidden", published=False), any_path=True, component="hidden"),
    ],
    [make_service(), make_service("runs", ServiceKind.PIPELINES)],
)
OWN = find_route(TABLE, "GET", b"/demo/own/ws")


def fields(*more: Header, **changed: bytes | None) -> list[Header]:
    given = {**GOOD, **{name.replace("_", "-").encode(): value for name, value in changed.items()}}
    return [*((name, value) for name, value in given.items() if value is not None), *more]


def judged(
    headers: list[Header], method: str = "GET", decision: Decision = OWN
) -> tuple[ProblemKind, int] | SocketRequest:
    found = judge_handshake(method, headers, decision)
    return (found.kind, found.code) if isinstance(found, HttpProblem) else found


# --- what asks for a WebSocket ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "headers", "asks"),
    [
        ("1.1", fields(), True),
        ("1.1", fields(upgrade=b"WebSocket", connection=b"keep-alive, UPGRADE"), True),
        ("1.1", fields((b"connection", b"Upgrade"), connection=b"keep-alive"), True),
        ("1.1", fields(upgrade=b"h2c, websocket"), True),
        ("1.0", fields(), False),
        ("1.1", fields(upgrade=None), False),
        ("1.1", fields(connection=None), False),
        ("1.1", fields(connection=b"keep-alive"), False),
        ("1.1", fields(connection=b"upgraded"), False),
        (
            "1.1",
            fields((b"http2-settings", b"AAMAAABk"), upgrade=b"h2c", connection=b"Upgrade, HTTP2-Settings"),
            False,
        ),
        ("1.1", fields(upgrade=b"websocket2"), False),
        ("1.1", fields(upgrade=b"TLS/1.0"), False),
        ("1.1", fields(upgrade=b""), False),
    ],
)
def test_other_protocols_are_ignored(version: str, headers: list[Header], asks: bool) -> None:
    assert asks_for_socket(version, headers) is asks


# --- handshakes -------------------------------------------------------------------------------------------------


def test_a_handshake_of_the_standard() -> None:
    found = judged(fields())
    assert found == SocketRequest(KEY)
    assert isinstance(found, SocketRequest)
    assert found.accept == ACCEPT
    assert judged(fields(content_length=b"0")) == SocketRequest(KEY)


MALFORMED = (ProblemKind.HANDSHAKE, 400)
VERSION = (ProblemKind.SOCKET_VERSION, 426)


@pytest.mark.parametrize(
    ("headers", "method", "refusal"),
    [
        (fields(), "POST", MALFORMED),
        (fields(), "HEAD", MALFORMED),
        (fields(), "CONNECT", MALFORMED),
        (fields(content_length=b"5"), "GET", MALFORMED),
        (fields(content_length=b"00"), "GET", MALFORMED),
        (fields((b"content-length", b"5"), content_length=b"0"), "GET", MALFORMED),
        (fields(transfer_encoding=b"chunked"), "GET", MALFORMED),
        (fields(sec_websocket_version=b"8"), "GET", VERSION),
        (fields(sec_websocket_version=b"13, 8"), "GET", VERSION),
        (fields((b"sec-websocket-version", b"8")), "GET", VERSION),
        (fields(sec_websocket_version=None), "GET", VERSION),
        (fields(sec_websocket_key=None), "GET", MALFORMED),
        (fields(sec_websocket_key=b""), "GET", MALFORMED),
        (fields(sec_websocket_key=b"dGhlIHNhbXBsZSBub25jZQ"), "GET", MALFORMED),
        (fields(sec_websocket_key=b"dGhlIHNhbXBsZQ=="), "GET", MALFORMED),
        (fields(sec_websocket_key=b"dGhl IHNhbXBsZSBub25jZQ=="), "GET", MALFORMED),
        (fields(sec_websocket_key=b"\xff" * 24), "GET", MALFORMED),
        (fields((b"sec-websocket-key", KEY)), "GET", MALFORMED),
    ],
)
def test_malformed_handshakes(headers: list[Header], method: str, refusal: object) -> None:
    assert judged(headers, method) == refusal


@pytest.mark.parametrize(
    ("path", "refusal", "hint"),
    [
        (
            "/demo/image/predict",
            ProblemKind.NO_SOCKETS,
            "an inference function. Call it by HTTP; a function that yields",
        ),
        ("/demo/image/v2", ProblemKind.NO_SOCKETS, "mlService.server: own"),
        ("/demo/image/calls/abc", ProblemKind.NO_SOCKETS, "Ask for it by HTTP"),
        ("/demo/files/box/", ProblemKind.NO_SOCKETS, "Ask for it by HTTP"),
        ("/demo/runs/", ProblemKind.NO_SOCKETS, "Ask for it by HTTP"),
        ("/-/status", ProblemKind.NO_SOCKETS, "server-sent events"),
        ("/", ProblemKind.NO_SOCKETS, "server-sent events"),
        ("/demo/image/elsewhere", ProblemKind.NOT_FOUND, ""),
        ("/demo/hidden/ws", ProblemKind.NOT_FOUND, ""),
        ("/demo/nothing/ws", ProblemKind.NOT_FOUND, ""),
        ("/demo/own/../own/ws", ProblemKind.AMBIGUOUS_PATH, ""),
        ("/demo/own/a%2fb", ProblemKind.AMBIGUOUS_PATH, ""),
    ],
)
def test_paths_without_websockets(path: str, refusal: ProblemKind, hint: str) -> None:
    found = judge_handshake("GET", fields(), find_route(TABLE, "GET", path.encode()))
    assert isinstance(found, HttpProblem)
    assert found.kind is refusal
    assert hint in found.detail


def test_a_refused_version_names_the_right_one() -> None:
    found = judge_handshake("GET", fields(sec_websocket_version=b"8"), OWN)
    assert isinstance(found, HttpProblem)
    told = dict(found.headers())
    assert (told["upgrade"], told["connection"], told["sec-websocket-version"]) == (
        "websocket",
        "Upgrade",
        "13",
    )


# --- the component's answer -------------------------------------------------------------------------------------

ACCEPTED: list[Header] = [
    (b"Upgrade", b"WebSocket"),
    (b"Connection", b"keep-alive, Upgrade"),
    (b"Sec-WebSocket-Accept", ACCEPT),
]


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        (ACCEPTED, True),
        (ACCEPTED[:2], False),
        (ACCEPTED[1:], False),
        ([ACCEPTED[0], ACCEPTED[2]], False),
        ([*ACCEPTED, ACCEPTED[2]], False),
        ([*ACCEPTED[:2], (b"sec-websocket-accept", KEY)], False),
        ([(b"upgrade", b"h2c"), *ACCEPTED[1:]], False),
    ],
)
def test_a_component_has_to_accept_this_very_handshake(headers: list[Header], accepted: bool) -> None:
    assert SocketRequest(KEY).is_accepted(headers) is accepted


@given(st.binary(min_size=16, max_size=16))
def test_every_key_of_16_bytes_is_taken(key: bytes) -> None:
    assert judged(fields(sec_websocket_key=base64.b64encode(key))) == SocketRequest(base64.b64encode(key))


# --- pages of other origins -------------------------------------------------------------------------------------

LISTED = CorsPolicy.of(CorsSpec(("https://app.example.org",), credentials=False, max_age=600))
TRUSTED = CorsPolicy.of(CorsSpec(("https://app.example.org",), credentials=True, max_age=600))
ANY = CorsPolicy.of(CorsSpec(("*",), credentials=False, max_age=600))
HOST = b"models.example.org"


def page(origin: str | None, cors: CorsPolicy | None = None, host: bytes = HOST) -> PageAccess | ProblemKind:
    headers = [] if origin is None else [(b"origin", origin.encode())]
    found = judge_origin(headers, host, cors)
    return found.kind if isinstance(found, HttpProblem) else found


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, HOST),
        ("https://models.example.org", HOST),
        ("http://models.example.org", HOST),
        ("https://Models.Example.org", HOST),
        ("https://models.example.org", b"models.example.org:443"),
        ("http://models.example.org:80", HOST),
        ("http://127.0.0.1:8000", b"127.0.0.1:8000"),
        ("http://[::1]:8000", b"[::1]:8000"),
        ("https://models.example.org", b"models.example.org, inner"),
    ],
)
def test_pages_of_the_own_host_and_programs(origin: str | None, host: bytes) -> None:
    assert page(origin, host=host) == PageAccess(credentials=True)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example.org", HOST),
        ("https://models.example.org.evil.org", HOST),
        ("https://models.example.org:8443", HOST),
        ("https://evil@models.example.org", HOST),
        ("https://models.example.org/", HOST),
        ("https://models.example.org?", HOST),
        ("https://models.example.org#", HOST),
        ("ftp://models.example.org", HOST),
        ("chrome-extension://models.example.org", HOST),
        ("models.example.org", HOST),
        ("null", HOST),
        ("", HOST),
        ("", b""),
        ("https://", b""),
        ("https://[", HOST),
        ("https://mödels", HOST),
        ("https://models.example.org", b""),
    ],
)
def test_pages_of_other_hosts_are_refused(origin: str, host: bytes) -> None:
    assert page(origin, host=host) is ProblemKind.ORIGIN
    assert page(origin, LISTED, host) is ProblemKind.ORIGIN


def test_pages_that_the_rule_lists() -> None:
    assert page("https://app.example.org", LISTED) == PageAccess(credentials=False)
    assert page("https://app.example.org", TRUSTED) == PageAccess(credentials=True)
    assert page("https://evil.example.org", TRUSTED) is ProblemKind.ORIGIN
    assert page("https://evil.example.org", ANY) == PageAccess(credentials=False)
    assert page("https://models.example.org", ANY) == PageAccess(credentials=True)


def test_two_origins_are_none() -> None:
    twice = [(b"origin", b"https://models.example.org"), (b"origin", b"https://evil.example.org")]
    for cors in (None, TRUSTED, ANY):
        assert isinstance(judge_origin(twice, HOST, cors), HttpProblem)


@given(st.binary(max_size=60))
def test_any_origin_is_judged(origin: bytes) -> None:
    judge_origin([(b"origin", origin)], HOST, TRUSTED)


def test_cookies_are_taken_off() -> None:
    assert without_credentials([b"accept: */*\r\n", b"cookie: a=b\r\n", b"cookies: c\r\n"]) == [
        b"accept: */*\r\n",
        b"cookies: c\r\n",
    ]
