"""Responses as gzip: who gets them, and what is worth it."""

from __future__ import annotations

import gzip
import io
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.serving.compression import (
    ALWAYS,
    LEAST,
    accepts_gzip,
    compress,
    gzipped,
    is_compressible,
)
from controller.serving.http1 import HttpRequest, HttpResponse
from tests.unit.serving.conftest import Serve
from tests.unit.serving.server import text, text_function

TEXT = b'{"label": "cat", "score": 0.5}, ' * 100


@pytest.mark.parametrize(
    ("field", "accepted"),
    [
        (b"gzip", True),
        (b"GZIP", True),
        (b"x-gzip", True),
        (b"deflate, gzip;q=0.5", True),
        (b"br;q=1.0, gzip;q=0.8, *;q=0.1", True),
        (b"*", True),
        (b"gzip; q = 0.5", True),
        (b"", False),
        (b"identity", False),
        (b"br", False),
        (b"gzip;q=0", False),
        (b"gzip;q=0.000", False),
        (b"*;q=0", False),
        (b"gzip;q=0.1, identity", False),
        (b"*, gzip;q=0", False),
    ],
)
def test_who_accepts_it(field: bytes, accepted: bool) -> None:
    assert accepts_gzip(field) is accepted


@given(st.binary(max_size=200))
def test_any_field_is_read(field: bytes) -> None:
    assert accepts_gzip(field) in (True, False)


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", True),
        ("application/problem+json", True),
        ("text/plain; version=0.0.4; charset=utf-8", True),
        ("text/html; charset=utf-8", True),
        ("text/javascript", True),
        ("image/svg+xml", True),
        ("text/event-stream", False),
        ("text/event-stream; charset=utf-8", False),
        ("application/octet-stream", False),
        ("image/png", False),
        ("application/zip", False),
        ("", False),
    ],
)
def test_what_becomes_shorter(content_type: str, expected: bool) -> None:
    assert is_compressible(content_type, LEAST) is expected
    assert not is_compressible(content_type, LEAST - 1)


@given(st.binary(max_size=2000))
def test_what_comes_out_is_what_went_in(body: bytes) -> None:
    coded = gzipped(body)
    assert coded is body or (gzip.decompress(coded) == body and len(coded) < len(body))


def test_large_numbers_stay_as_they_are_and_large_words_do_not() -> None:
    chance = random.Random(1)
    numbers = json.dumps([chance.random() for _ in range(ALWAYS // 10)]).encode()
    assert len(numbers) > ALWAYS
    assert gzipped(numbers) is numbers
    words = TEXT * (ALWAYS // len(TEXT) + 1)
    assert gzip.decompress(gzipped(words)) == words
    assert gzipped(numbers[:ALWAYS]) is not numbers[:ALWAYS]


def request(accepts: bytes | None = b"gzip") -> HttpRequest:
    fields = {} if accepts is None else {b"accept-encoding": accepts}
    return HttpRequest("POST", "/predict", fields, False)


def test_both_forms_vary() -> None:
    for accepts in (b"gzip", None):
        response = HttpResponse(200, TEXT)
        compress(request(accepts), response)
        fields = dict(response.headers)
        assert fields.pop("Vary") == "Accept-Encoding"
        assert fields == ({"Content-Encoding": "gzip"} if accepts else {})
        assert response.body == TEXT if accepts is None else gzip.decompress(response.body) == TEXT


def test_what_has_files_stays() -> None:
    with_files = HttpResponse(200, TEXT, files=[(io.BytesIO(), 0)])
    compress(request(), with_files)
    staged, response = request(), HttpResponse(200, TEXT)
    staged.files = []
    compress(staged, response)
    assert with_files.body == response.body == TEXT
    assert not with_files.headers
    assert not response.headers


def test_what_comes_in_pieces_stays() -> None:
    response = HttpResponse(200, TEXT, more=[b"1,2,3"])
    compress(request(), response)
    assert (response.body, response.headers) == (TEXT, ())


def test_a_long_id_before_many_numbers(serve: Serve) -> None:
    source = text_function('return {"text": [0.5] * 20_000}').replace(
        ":type outputs.text: str", ":type outputs.text: FP64"
    )
    server = serve(source).ready()
    reply = server.post({**text(), "id": "x" * 2 * LEAST}, Accept_Encoding="gzip")
    assert reply.outputs == {"text": [0.5] * 20_000}


def test_through_a_server(serve: Serve) -> None:
    server = serve(text_function('return {"text": inputs[0]["data"] * 500}')).ready()
    plain, coded = server.post(text("word ")), server.post(text("word "), Accept_Encoding="gzip, deflate")
    assert "content-encoding" not in plain.headers
    assert coded.headers["content-encoding"] == "gzip"
    assert coded.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert gzip.decompress(coded.body) == plain.body
    assert len(coded.body) * 5 < len(plain.body)
    head = server.ask("HEAD", "/openapi.json", headers={"Accept-Encoding": "gzip"})
    whole = server.ask("GET", "/openapi.json", headers={"Accept-Encoding": "gzip"})
    assert head.headers["content-length"] == str(len(whole.body))
    assert "content-encoding" not in server.post(text("w"), Accept_Encoding="gzip").headers


def test_a_stream_leaves_at_once(serve: Serve) -> None:
    server = serve(text_function('yield {"text": inputs[0]["data"] * 500}')).ready()
    events = server.post(text("word "), Accept="text/event-stream", Accept_Encoding="gzip")
    assert "content-encoding" not in events.headers
    assert events.body.startswith(b"data: ")
