"""Which writes a condition permits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.web.objects.conditions import WriteCondition, condition_of

TAG = "5d41402abc4b2a76b9719d911017c592"


@pytest.mark.parametrize(
    ("name", "text", "without", "same", "another"),
    [
        ("if-none-match", "*", True, False, False),
        ("if-none-match", f'"{TAG}"', True, False, True),
        ("if-none-match", f'W/"{TAG}"', True, False, True),
        ("if-none-match", f'"a", "{TAG}" ,"b"', True, False, True),
        ("if-none-match", '"*"', True, True, True),
        ("if-none-match", "", True, True, True),
        ("if-match", "*", False, True, True),
        ("if-match", f'"{TAG}"', False, True, False),
        ("if-match", TAG, False, True, False),
        ("if-match", f'"a",W/"b" , "{TAG}"', False, True, False),
        ("if-match", f'W/"{TAG}"', False, False, False),
        ("if-match", '"*"', False, False, False),
        ("if-match", "", False, False, False),
    ],
)
def test_what_a_field_permits(name: str, text: str, without: bool, same: bool, another: bool) -> None:
    condition = condition_of({name: text})
    assert condition is not None
    assert (condition.holds(None), condition.holds(TAG), condition.holds("other")) == (without, same, another)


def test_both_fields_have_to_hold() -> None:
    condition = condition_of({"if-match": "*", "if-none-match": f'"{TAG}"'})
    assert condition is not None
    assert (condition.holds(None), condition.holds(TAG), condition.holds("other")) == (False, False, True)
    assert condition_of({"if-modified-since": "x"}) is None


@given(st.text(max_size=40), st.text('"*W/, a', max_size=20), st.sampled_from(["if-match", "if-none-match"]))
def test_any_text_is_read(text: str, signs: str, name: str) -> None:
    for each in (text, signs):
        condition = condition_of({name: each})
        assert isinstance(condition, WriteCondition)
        if each.strip() != "*" and name == "if-none-match":
            assert condition.holds(None)
