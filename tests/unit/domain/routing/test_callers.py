"""Who can be listed as a caller of an API, and that what is said of the others shows no value."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.apps.spec import SecretSpec
from controller.domain.routing.callers import unusable_passwords, unusable_tokens
from controller.domain.routing.passwords import hash_password
from controller.domain.secret import Secret
from controller.web.auth.authenticate import decode_basic


def listed(user: str, value: str) -> SecretSpec:
    return SecretSpec("users", ((user, Secret(value)),))


@pytest.mark.parametrize(
    ("user", "value"),
    [
        ("ann", "correct-horse"),
        ("анна", "пароль"),
        ("ann@example.org", "with blanks in it"),
        ("a b", ":"),
        ("a", "x" * 500),
    ],
)
def test_who_can_log_in(user: str, value: str) -> None:
    assert list(unusable_passwords(listed(user, value))) == []
    assert list(unusable_passwords(listed(user, hash_password(value)))) == []


USERS = ("", " ", "ann\0", "an\nn", "ann\r", "\x1b[31mann", "ann\x7f", "ann\ud83d")
PASSWORDS = (
    "",
    "correct-horse\0",
    "correct-horse\nbattery",
    "correct-horse\ud83d",
    "\x07correct-horse",
    "correct-horse\t",
)


@pytest.mark.parametrize("user", [*USERS, "a:b"])
def test_names_that_nobody_can_log_in_with(user: str) -> None:
    [why] = unusable_passwords(listed(user, "correct-horse"))
    assert why.startswith("the Secret 'users' is not a list of users: ")
    assert "horse" not in why


@pytest.mark.parametrize("value", PASSWORDS)
def test_passwords_that_nobody_can_log_in_with(value: str) -> None:
    [why] = unusable_passwords(listed("ann", value))
    assert "'ann'" in why
    assert "horse" not in why


@pytest.mark.parametrize("value", [*PASSWORDS, "correct horse", "correct-h\xf6rse", "пароль"])
def test_tokens_that_no_header_can_hold(value: str) -> None:
    [why] = unusable_tokens(listed("ann", value))
    assert "'ann'" in why
    assert not value or value not in why


@pytest.mark.parametrize("user", USERS)
def test_names_of_tokens(user: str) -> None:
    assert list(unusable_tokens(listed(user, "letmein-token")))
    assert list(unusable_tokens(listed("build:7", "letmein-token"))) == []


@given(st.text(max_size=12), st.text(max_size=12))
def test_what_is_taken_comes_through_a_request_as_it_is(user: str, value: str) -> None:
    if not list(unusable_passwords(listed(user, value))):
        pair = base64.b64encode(f"{user}:{value}".encode())
        assert decode_basic(pair) == (user, value)
    if not list(unusable_tokens(listed("ann", value))):
        assert f"Bearer {value}".split() == ["Bearer", value]
        assert value.isascii()
