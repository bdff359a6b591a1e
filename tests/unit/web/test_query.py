"""Queries and JSON bodies: one reading of them, whatever is sent."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.web.bodies import read_json, require_json
from controller.web.problems import ProblemKind, RequestRefused
from controller.web.query import GREATEST, QueryParameters, whole


def refused(ask: Any, *args: Any) -> str:
    with pytest.raises(RequestRefused) as caught:
        ask(*args)
    assert caught.value.problem.code in (400, 415)
    return caught.value.problem.detail


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1e3",
        "0x10",
        "1_000",
        "٣",
        "²",
        "NaN",
        "Infinity",
        "1.5",
        "61",
        "9" * 40,
        "9" * 5000,
        "../../",
        "null",
        "1,2",
        "true",
    ],
)
def test_what_is_no_number_of_the_range(text: str) -> None:
    query = QueryParameters.of(urlencode({"wait": text}).encode())
    detail = refused(query.number, "wait", 0, 0, 60)
    assert "wait" in detail
    assert len(detail) < 200
    assert "wait" in refused(query.needed, "wait", 0, 60)
    assert "Last-Event-ID" in refused(whole, "Last-Event-ID", text, 0, 60)


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("60", 60), ("007", 7), ("7.0", 7)])
def test_numbers(text: str, number: int) -> None:
    assert QueryParameters.of(f"wait={text}".encode()).number("wait", None, most=60) == number


@pytest.mark.slow
@given(st.integers(0, GREATEST))
def test_every_number_that_the_database_holds(number: int) -> None:
    assert QueryParameters.of(b"after=%d" % number).needed("after") == number
    refused(QueryParameters.of(b"after=%d" % (number + GREATEST + 1)).needed, "after")


def test_what_is_not_there() -> None:
    query = QueryParameters.of(b"uploads&x=")
    assert query.number("limit", 20) == 20
    assert query.text("after") is None
    assert query.flag("follow") is False
    assert "uploads" in query
    assert "limit" not in query
    assert query.text("uploads") == "" == query.text("x")
    assert "missing" in refused(query.needed, "size")


def test_what_is_given_twice_is_refused_where_it_counts() -> None:
    query = QueryParameters.of(b"limit=1&limit=2&other=1&other=2&after=3")
    assert "2 times" in refused(query.number, "limit", 0)
    assert query.number("after", 0) == 3


@pytest.mark.parametrize("sent", [b"a=%ff", b"a=\xff", b"%c3%28=1", b"a=%ed%a0%80"])
def test_a_query_that_is_not_utf8(sent: bytes) -> None:
    assert "UTF-8" in refused(QueryParameters.of, sent)


@pytest.mark.parametrize("text", ["a\x00b", "\n", "\x7f", "\x85", "x" * 2001])
def test_texts_that_are_refused(text: str) -> None:
    refused(QueryParameters.of(f"after={quote(text)}".encode()).text, "after")


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=50))
def test_names_of_people_pass(text: str) -> None:
    assert QueryParameters.of(f"after={quote(text)}".encode()).text("after") == text


@pytest.mark.parametrize(
    ("sent", "flag"), [("1", True), ("true", True), ("0", False), ("false", False), ("", False)]
)
def test_flags(sent: str, flag: bool) -> None:
    assert QueryParameters.of(f"follow={sent}".encode()).flag("follow") is flag


@pytest.mark.parametrize("sent", ["null", "2", "yes", "True ", "None"])
def test_what_is_no_flag(sent: str) -> None:
    assert "0 or 1" in refused(QueryParameters.of(f"follow={quote(sent)}".encode()).flag, "follow")


@given(st.binary(max_size=100))
def test_whatever_is_sent_is_read_or_refused(sent: bytes) -> None:
    try:
        query = QueryParameters.of(sent)
        for name in query.values:
            query.number(name, 0)
            query.flag(name)
    except RequestRefused as refusal:
        assert refusal.problem.kind is ProblemKind.BAD_REQUEST


# --- bodies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b"NaN",
        b"[1e999]",
        b"-Infinity",
        b"1" * 5000,
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\\ud800"',
        b'{"\\uDfff": 1}',
        b'["\\ud83d", "\\ude00"]',
        '{"a": 1}'.encode("utf-16"),
        b"{'a': 1}",
        b'{"a": 1} x',
    ],
)
def test_what_is_no_json(content: bytes) -> None:
    detail = refused(read_json, content)
    assert detail.startswith("The body is not JSON: ")
    assert len(detail) < 200


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
        ),
        max_leaves=8,
    )
)
def test_json_is_read(document: object) -> None:
    assert read_json(json.dumps(document).encode()) == document
    assert read_json(json.dumps(document, ensure_ascii=False).encode("utf-8-sig")) == document


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
def test_another_content_type(kind: str) -> None:
    assert refused(require_json, kind, "Send JSON.").startswith("Send JSON. This is ")


@pytest.mark.parametrize("kind", ["application/json", "application/cloudevents+json"])
def test_json_by_its_content_type(kind: str) -> None:
    require_json(kind, "Send JSON.")
