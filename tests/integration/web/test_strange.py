"""Requests that nobody means well, byte by byte, against a real gunicorn."""

from __future__ import annotations

import pytest

from .conftest import Web

TARGETS = [
    b"/-/apps/%ff",
    b"/-/apps/%00/events?after=1",
    b"/-/apps/%ed%a0%80",
    b"/-/apps/demo/events?after=99999999999999999999",
    b"/-/apps/demo/events?after=" + b"9" * 5000,
    b"/-/apps/demo/events?follow=1&after=%ff",
    b"/-/hooks/%ff/%00?wait=NaN",
    b"/-/hooks/none/x?wait=NaN",
    b"/-/hooks//?after=../../",
    b"/-/%2e%2e/%2e%2e/etc/passwd",
    b"/-/\xff",
    b"//-/apps",
    b"/demo/%ff/predict",
    b"/demo/open/%ff%00",
    b"/demo/open/../-/apps",
    b"/demo/none/x?%ff=%00",
    b"/" + b"a" * 7000,
    b"*",
    b"http://127.0.0.1/-/apps/%ff",
]
FIELDS = [
    b"Host: [",
    b"Host: a b",
    b"Host: \xff\xfe",
    b"Host: xn--\xe9.example",
    b"Range: bytes=-",
    b"If-None-Match: " + b'"' * 100,
    b"Last-Event-ID: \xff",
    b"Cookie: " + b"__Host-=;" * 200,
    b"Authorization: Basic /w==",
    b"Authorization: \xff \xff",
    b"Content-Type: \xff/\xff; charset=\xff",
    b"X-Request-ID: \xff\x01",
    b"X-Forwarded-For: \xff, \xff",
    b"Accept-Encoding: \xff",
    b"Prefer: wait=\xb2",
]


def status(reply: bytes) -> int:
    assert reply.startswith(b"HTTP/1.1 "), reply[:80]
    return int(reply.split(b" ", 2)[1])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("method", [b"GET", b"POST", b"OPTIONS"])
def test_strange_targets(web: Web, method: bytes, target: bytes) -> None:
    head = (
        b"%b %b HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Prichal: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )
    assert 200 <= status(web.raw(head % (method, target))) < 500


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(
    "path", [b"/-/apps", b"/-/apps/none/events?follow=1", b"/", b"/demo/open/x", b"/-/hooks/none"]
)
def test_strange_fields(web: Web, path: bytes, field: bytes) -> None:
    host = b"" if field.startswith(b"Host") else b"Host: 127.0.0.1\r\n"
    head = b"GET %b HTTP/1.1\r\n%b%b\r\nConnection: close\r\n\r\n" % (path, host, field)
    assert 200 <= status(web.raw(head)) < 500
    assert web.ask("GET", "/-/healthz").status == 200
