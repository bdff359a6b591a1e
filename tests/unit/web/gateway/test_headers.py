"""Which header fields cross the gateway."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.web.gateway.headers import DROPPED_IN, IDENTITY, request_id, response_headers, split


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


def test_ordinary_fields_pass_in_order() -> None:
    headers = [
        (b"accept", b"a"),
        (b"traceparent", b"00-1-2-01"),
        (b"accept", b"b"),
        (b"connection", b"keep-alive"),
    ]
    assert split(headers)[1] == [b"accept: a\r\n", b"traceparent: 00-1-2-01\r\n", b"accept: b\r\n"]


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
    ]
    assert response_headers(upstream, b"ours") == [
        (b"x-request-id", b"ours"),
        (b"server", b"prichal"),
        (b"Content-Type", b"text/plain"),
        (b"Set-Cookie", b"a=1"),
        (b"Set-Cookie", b"b=2"),
    ]


def test_a_good_request_id_is_kept() -> None:
    assert request_id(b"build-42.step:7_a") == b"build-42.step:7_a"


@given(st.none() | st.binary(max_size=200))
def test_a_request_id_is_always_safe(sent: bytes | None) -> None:
    made = request_id(sent)
    assert 0 < len(made) <= 128
    assert all(chr(byte).isalnum() or chr(byte) in "._:-" for byte in made)
