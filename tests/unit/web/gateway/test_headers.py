"""Which header fields cross the gateway."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.web.gateway.headers import (
    DROPPED_IN,
    DROPPED_OUT,
    HOP_BY_HOP,
    IDENTITY,
    Header,
    RequestFields,
    combined,
    host_for,
    request_id,
    response_headers,
    split,
)
from controller.web.gateway.rewrite import REWRITTEN
from tests.support.pages import ROOT


@pytest.mark.parametrize("name", sorted(DROPPED_IN))
def test_what_is_dropped_never_passes(name: bytes) -> None:
    special, lines = split([(b"accept", b"*/*"), (name, b"value")])
    assert lines == [b"accept: */*\r\n"]
    assert special == {name: b"value"}


def test_every_word_on_identity_is_ours_to_say() -> None:
    known = {b"x-forwarded-user", b"x-remote-user", b"remote-user", b"unip-user", b"x-auth-request-user"}
    assert known <= IDENTITY


@pytest.mark.parametrize("name", [b"x_forwarded_user", b"remote_user", b"unip_user", b"content_length"])
def test_underscores_do_not_smuggle(name: bytes) -> None:
    assert split([(name, b"mallory")]) == ({}, [])


def test_what_connection_names_is_dropped() -> None:
    _, lines = split([(b"x-secret", b"1"), (b"x-secret-too", b"2"), (b"connection", b"close, X-Secret")])
    assert lines == [b"x-secret-too: 2\r\n"]


@pytest.mark.parametrize(
    "lines",
    [
        [(b"connection", b"close, X-Secret")],
        [(b"connection", b"X-Secret"), (b"connection", b"close")],
        [(b"connection", b"close"), (b"connection", b"x-secret")],
    ],
)
def test_a_list_in_several_lines_is_one_list(lines: list[Header]) -> None:
    assert split([(b"x-secret", b"1"), *lines])[1] == []
    assert split([(b"x-forwarded-for", b"192.0.2.1"), (b"x-forwarded-for", b"198.51.100.7")])[0] == {
        b"x-forwarded-for": b"192.0.2.1, 198.51.100.7"
    }


_NAMES = st.sampled_from([b"accept", b"cookie", b"etag"])


@given(st.lists(st.tuples(_NAMES, st.binary(max_size=3)), max_size=6))
def test_combined_fields_lose_no_line(headers: list[Header]) -> None:
    found = combined(headers)
    assert list(found) == list(dict.fromkeys(name for name, _ in headers))
    for name, value in found.items():
        between = b"; " if name == b"cookie" else b", "
        assert value == between.join(each for field, each in headers if field == name)


def test_ordinary_fields_pass_in_order() -> None:
    headers = [
        (b"accept", b"a"),
        (b"baggage", b"a=1"),
        (b"accept", b"b"),
        (b"connection", b"keep-alive"),
    ]
    assert split(headers)[1] == [b"accept: a\r\n", b"baggage: a=1\r\n", b"accept: b\r\n"]


def test_response_loses_hop_by_hop_fields_and_gets_our_id() -> None:
    upstream = [
        (b"Content-Type", b"text/plain"),
        (b"Connection", b"close, X-Inner"),
        (b"X-Inner", b"1"),
        (b"Keep-Alive", b"timeout=5"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Server", b"secret/1.0"),
        (b"X-Request-ID", b"theirs"),
        (b"Set-Cookie", b"a=1"),
        (b"Set-Cookie", b"b=2"),
        (b"Strict-Transport-Security", b"max-age=1"),
        (b"Alt-Svc", b'h3=":8002"'),
        (b"Service-Worker-Allowed", b"/"),
    ]
    assert response_headers(upstream, b"ours", lambda name, value: name + b":" + value) == [
        (b"x-request-id", b"ours"),
        (b"server", b"prichal"),
        (b"Content-Type", b"text/plain"),
        (b"Set-Cookie", b"set-cookie:a=1"),
        (b"Set-Cookie", b"set-cookie:b=2"),
    ]


def test_fields_that_come_again_are_split_once() -> None:
    headers = [(b"host", b"here"), (b"accept", b"a"), (b"x-a", b"1"), (b"connection", b"X-A")]
    fields = RequestFields(headers)
    assert split(fields) == split(headers) == split(fields)
    assert split(fields)[1] is split(fields)[1]


@pytest.mark.parametrize(
    ("sent", "host"),
    [
        (b"models.example.org:8107", b"models.example.org:8107"),
        (b"[2001:db8::1]:80", b"[2001:db8::1]:80"),
        (b"first.example.org, second.example.org", b"first.example.org"),
        (b"", b""),
        (b"a b", b""),
        (b"evil.example/path", b""),
        (b"me@evil.example", b""),
        (b"a" * 256, b""),
    ],
)
def test_the_host_that_a_component_sees(sent: bytes, host: bytes) -> None:
    assert host_for(sent) == host


def test_a_good_request_id_is_kept() -> None:
    assert request_id(b"build-42.step:7_a") == b"build-42.step:7_a"


@given(st.none() | st.binary(max_size=200))
def test_a_request_id_is_always_safe(sent: bytes | None) -> None:
    made = request_id(sent)
    assert 0 < len(made) <= 128
    assert all(chr(byte).isalnum() or chr(byte) in "._:-" for byte in made)


def described() -> dict[str, str]:
    """Field → what becomes of it, as the page on security has it."""
    page = (
        (ROOT / "docs" / "security.md")
        .read_text()
        .partition("### Fields of responses")[2]
        .partition("\n#")[0]
    )
    rows = [
        [cell.strip() for cell in row.strip("|").split("|")]
        for row in page.splitlines()
        if row.startswith("| `")
    ]
    return {name.lower(): row[1] for row in rows for name in re.findall("`([A-Za-z0-9*-]+)`", row[0])}


def test_the_page_on_security_tells_all_that_is_dropped_and_rewritten() -> None:
    told = described()
    ours = {b"x-request-id", b"server", b"x-prichal-files", b"x-prichal-call"}
    dropped = {name.decode() for name in DROPPED_OUT - HOP_BY_HOP - ours}
    assert {name for name, fate in told.items() if fate == "dropped"} == dropped
    assert {name for name, fate in told.items() if fate == "rewritten"} == {
        name.decode() for name in REWRITTEN
    }


@pytest.mark.parametrize("name", sorted(name for name, fate in described().items() if fate == "dropped"))
def test_what_reaches_beyond_the_component_is_dropped(name: str) -> None:
    for spelled in (name, name.upper(), name.title()):
        headers = [(b"x-own", b"1"), (spelled.encode(), b"/"), (spelled.encode(), b"*")]
        assert response_headers(headers, b"id", lambda name, value: value)[2:] == [(b"x-own", b"1")]
