"""Responses of the platform as gzip: which, for whom, and never what could give a secret away."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import pytest

from controller.web.compression import AT_ONCE, MOST, compressing
from controller.web.gateway.body import Message, Send

TEXT = b'{"name": "classify", "state": "ready"}' * 100
JSON = (b"content-type", b"application/json")
GZIP = (b"accept-encoding", b"gzip")


def sent(
    *headers: tuple[bytes, bytes],
    body: bytes = TEXT,
    fields: tuple[tuple[bytes, bytes], ...] = (GZIP,),
    path: str = "/-/status",
    method: str = "GET",
    status: int = 200,
    length: bool = True,
) -> tuple[dict[str, str], bytes]:
    """Return what the caller gets of a response that comes in two parts."""
    messages: list[Message] = []

    async def keep(message: Message) -> None:
        messages.append(message)

    async def answer(send: Send) -> None:
        size = ((b"content-length", b"%d" % len(body)),) if length else ()
        await send(
            {"type": "http.response.start", "status": status, "headers": [*(headers or (JSON,)), *size]}
        )
        half = len(body) // 2 if method == "GET" else 0
        await send({"type": "http.response.body", "body": body[:half], "more_body": True})
        await send({"type": "http.response.body", "body": body[half:] if half else b""})

    scope: Any = {"path": path, "method": method, "headers": fields}
    asyncio.run(answer(compressing(keep, scope)))
    assert sum(message["type"] == "http.response.start" for message in messages) == 1
    found = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
    return found, b"".join(message["body"] for message in messages[1:])


@pytest.mark.parametrize("size", [1, AT_ONCE // len(TEXT) + 1])
def test_a_text_is_compressed(size: int) -> None:
    fields, body = sent(body=TEXT * size)
    assert gzip.decompress(body) == TEXT * size
    assert (fields["content-encoding"], fields["vary"]) == ("gzip", "accept-encoding")
    assert fields["content-length"] == str(len(body))


def test_others_are_told_that_it_varies() -> None:
    fields, body = sent(fields=())
    assert (fields["vary"], body) == ("accept-encoding", TEXT)
    assert "content-encoding" not in fields


@pytest.mark.parametrize(
    ("lines", "is_coded"),
    [
        ((b"gzip", b"identity;q=0.5"), True),
        ((b"br", b"gzip"), True),
        ((b"gzip;q=0", b"*"), False),
        ((b"*", b"gzip;q=0"), False),
    ],
)
def test_what_a_caller_accepts_may_be_in_several_lines(lines: tuple[bytes, ...], is_coded: bool) -> None:
    fields, _ = sent(fields=tuple((b"accept-encoding", line) for line in lines))
    assert (fields.get("content-encoding") == "gzip") is is_coded


UNCHANGED: dict[str, dict[str, Any]] = {
    "a page": {"headers": ((b"content-type", b"text/html; charset=utf-8"),)},
    "with a cookie": {"fields": (GZIP, (b"cookie", b"session=1"))},
    "for a page of another site": {"fields": (GZIP, (b"sec-fetch-site", b"cross-site"))},
    "for a page of another host of this site": {"fields": (GZIP, (b"sec-fetch-site", b"same-site"))},
    "that sets a cookie": {"headers": (JSON, (b"set-cookie", b"a=1"))},
    "a small one": {"body": b"{}"},
    "a huge one": {"body": b"a" * (MOST + 1)},
    "an event stream": {"headers": ((b"content-type", b"text/event-stream"),)},
    "without a length": {"length": False},
    "a picture": {"headers": ((b"content-type", b"image/png"),)},
    "compressed before": {"headers": (JSON, (b"content-encoding", b"br"))},
    "a part": {"status": 206, "headers": (JSON, (b"content-range", b"bytes 0-99/100"))},
    "resumable": {"headers": ((b"content-type", b"text/plain"), (b"accept-ranges", b"bytes"))},
}


@pytest.mark.parametrize("case", UNCHANGED)
def test_what_stays_as_it_is(case: str) -> None:
    given = dict(UNCHANGED[case])
    fields, body = sent(*given.pop("headers", ()), **given)
    assert body == given.get("body", TEXT)
    assert fields.get("content-encoding") in (None, "br")


def test_files_of_pages_are_for_everybody() -> None:
    fields, body = sent(path="/-/static/1/site.css", fields=(GZIP, (b"cookie", b"session=1")))
    assert fields["content-encoding"] == "gzip"
    assert gzip.decompress(body) == TEXT


def test_the_head_is_that_of_the_compressed_response() -> None:
    fields, body = sent(method="HEAD")
    assert (fields["content-encoding"], fields["vary"], body) == ("gzip", "accept-encoding", b"")
    assert "content-length" not in fields


@pytest.mark.parametrize(("given", "expected"), [(b'"1"', 'W/"1"'), (b'W/"1"', 'W/"1"')])
def test_an_entity_tag_is_weak(given: bytes, expected: str) -> None:
    assert sent(JSON, (b"etag", given))[0]["etag"] == expected
    assert sent(JSON, (b"etag", given), fields=())[0]["etag"] == given.decode()
    assert sent((b"etag", given), status=304, body=b"", length=False)[0]["etag"] == expected


def test_random_bytes_stay() -> None:
    import random

    body = random.Random(1).randbytes(2000)
    fields, whole = sent((b"content-type", b"text/plain"), body=body)
    assert (whole, fields["vary"]) == (body, "accept-encoding")
    assert "content-encoding" not in fields
