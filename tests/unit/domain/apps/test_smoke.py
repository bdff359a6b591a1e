"""Smoke tests as values: what their files may say, and how an answer differs from the expected one."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.apps.smoke import (
    MAX_FILE,
    SmokeAnswer,
    SmokeCase,
    SmokeTestInvalid,
    case_of,
    difference,
    verdict,
)
from controller.domain.apps.spec import OwnServer, PlatformServer, SmokeTest
from tests.support.specs import make

TEST = make(SmokeTest)
REPLY = b'{"outputs": [{"name": "label", "datatype": "str", "data": "cat"}]}'
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(
    ("request_", "expected", "words"),
    [
        (b"", None, "smoke.json is not JSON"),
        (b"{", None, "smoke.json is not JSON"),
        (b"\xff", None, "smoke.json is not JSON: it is not UTF-8 (byte 0)"),
        (b"[NaN]", None, "smoke.json is not JSON: NaN is not JSON"),
        (b"[" * 100_000, None, "nested too deeply"),
        (b"9" * 5000, None, "smoke.json is not JSON"),
        (b'"' + b"a" * MAX_FILE + b'"', None, "smoke.json has 1000002 bytes, 1000000 are allowed"),
        (b"{}", b"nothing", "reply.json is not JSON"),
        (b"{}", b" " * (MAX_FILE + 1), "reply.json has 1000001 bytes"),
        (b'{"inputs": [{"name": "a", "datatype": "FILE", "data": "a"}]}', None, "/inputs/0 is a FILE"),
    ],
)
def test_files_that_cannot_be_used(request_: bytes, expected: bytes | None, words: str) -> None:
    with pytest.raises(SmokeTestInvalid) as caught:
        case_of(TEST, request_, expected)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 300


def test_each_content_has_a_digest_of_its_own() -> None:
    pairs = [(b"1", None), (b"1", b"2"), (b"12", None), (b"1", b""), (b"2", b"1")]
    cases = [SmokeCase(TEST, request, expected) for request, expected in pairs]
    assert len({case.digest for case in cases}) == len(pairs) - 1  # without an output is like an empty one


@pytest.mark.parametrize(
    ("expected", "found", "words"),
    [
        ({"a": 1, "b": [1, 2]}, {"b": [1, 2.0], "a": 1}, ""),
        ({"a": 1}, {"a": 2}, "/a: expected 1, found 2"),
        ({"a": 1}, {}, "/a: expected 1, found nothing"),
        ({}, {"a/b~": [1]}, "/a~1b~0: expected nothing, found an array of 1"),
        ([1, 2], [1], "the answer: expected 2 elements, found 1"),
        ([1, [2]], [1, [3]], "/1/0: expected 2, found 3"),
        (1, True, "the answer: expected 1, found true"),
        (0, None, "expected 0, found null"),
        ("1", 1, 'expected "1", found 1'),
        ([1], {"0": 1}, "expected an array of 1, found an object of 1"),
        ([{"a": 1}, {"a": 2}], [{"a": 1}, {"a": 3}], "/1/a: expected 2, found 3"),
    ],
)
def test_the_first_difference_has_its_place(expected: Any, found: Any, words: str) -> None:
    assert words in difference(expected, found)
    assert bool(difference(expected, found)) == bool(words)


@pytest.mark.parametrize(
    ("expected", "found", "tolerance", "same"),
    [
        (0.5, 0.51, 0.01001, True),
        (0.5, 0.52, 0.01, False),
        (1000, 1009.9, 0.01, True),
        (1000, 1011, 0.01, False),
        (-1000, -1009, 0.01, True),
        (10**400, 10**400 + 1, 0.01, False),
        ("a", "b", 1.0, False),
        (True, False, 1.0, False),
        (1, 2, 1.0, True),
    ],
)
def test_numbers_within_a_tolerance(expected: Any, found: Any, tolerance: float, same: bool) -> None:
    assert (difference([expected], [found], tolerance=tolerance) == "") == same


@pytest.mark.parametrize(
    ("expected", "found", "same"),
    [
        ({"a": [1, "x"]}, {"a": [2.5, "y"]}, True),
        ({"a": [1, "x"]}, {"a": [2.5]}, False),
        ({"a": 1}, {"b": 1}, False),
        ({"a": 1}, {"a": "1"}, False),
        ({"a": None}, {"a": 1}, False),
    ],
)
def test_only_the_shape(expected: Any, found: Any, same: bool) -> None:
    assert (difference(expected, found, shape_only=True) == "") == same


@pytest.mark.slow
@given(JSON)
def test_every_value_is_like_itself(value: Any) -> None:
    again = json.loads(json.dumps(value))
    assert difference(value, again) == difference(value, again, shape_only=True) == ""
    assert difference([value], [value, value]) != ""


@pytest.mark.slow
@given(JSON, JSON)
def test_a_difference_is_told_in_bounds(expected: Any, found: Any) -> None:
    assert len(difference(expected, found)) < 500


def test_many_values_are_compared_in_little_memory() -> None:
    many = [0] * 100_000
    tracemalloc.start()
    try:
        assert difference(many, list(many)) == ""
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2_000_000  # of which the copy takes 800 kB


def test_long_names_are_told_in_part_and_cost_little() -> None:
    name = "n" * 500_000
    wide = {name: list(range(100_000))}
    told = difference(wide, {name: [*range(99_999), -1]})
    assert told.endswith("…: expected 99999, found -1")
    assert len(told) < 300
    assert len(difference(name, "x" + name)) < 400


def case(expected: bytes | None = REPLY, **changes: Any) -> SmokeCase:
    return SmokeCase(replace(TEST, **changes), b"{}", expected)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (SmokeAnswer(200, REPLY), ""),
        (SmokeAnswer(200, REPLY.replace(b"cat", b"dog")), '/outputs/0/data: expected "cat", found "dog"'),
        (
            SmokeAnswer(failure="it took longer than 62 s"),
            "/predict gave no answer: it took longer than 62 s",
        ),
        (SmokeAnswer(500, b'{"detail": "raised KeyError"}'), "/predict answered 500: raised KeyError"),
        (SmokeAnswer(400, b'{"error": {"message": "no model"}}'), "/predict answered 400: no model"),
        (SmokeAnswer(500, b'{"detail": "' + b"x" * 9000 + b'"}'), "/predict answered 500: xxx"),
        (SmokeAnswer(302, b"<a>"), "/predict answered 302"),
        (SmokeAnswer(200, b"data: {}\n\n"), "/predict answered what is not JSON"),
        (SmokeAnswer(200, b"[" * 100_000), "nested too deeply"),
        (SmokeAnswer(200, b" " * (MAX_FILE + 1)), "answered more than 1 MB"),
    ],
)
def test_the_verdict(answer: SmokeAnswer, words: str) -> None:
    told = verdict(case(), answer)
    assert words in told
    assert bool(told) == bool(words)
    assert len(told) < 1200


def test_without_an_output_every_answer_with_200_will_do() -> None:
    assert verdict(case(None), SmokeAnswer(200, b"no JSON")) == ""
    assert verdict(case(None), SmokeAnswer(404)) == "/predict answered 404"


def test_only_the_serving_library_is_told_that_files_may_follow() -> None:
    assert case().headers(make(PlatformServer, "app:predict"))["X-Prichal-Files"] == "2"
    assert case().headers(make(OwnServer)) == {"Content-Type": "application/json"}
