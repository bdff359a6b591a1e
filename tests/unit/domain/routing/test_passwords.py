"""Our hashes are checked by werkzeug in the web process: both must mean the same."""

from __future__ import annotations

import pytest
from werkzeug.security import check_password_hash, generate_password_hash

from controller.domain.routing.passwords import hash_password, hash_token, is_hash, stable_salt


@pytest.mark.parametrize("password", ["hunter2", "", "пароль и пробел", "x" * 1000, "with$dollar:colon"])
def test_werkzeug_accepts_the_password_and_no_other(password: str) -> None:
    made = hash_password(password)
    assert check_password_hash(made, password)
    assert not check_password_hash(made, password + "x")


def test_a_hash_costs_what_werkzeugs_own_costs() -> None:
    assert hash_password("x").split("$")[0] == generate_password_hash("x").split("$")[0]


def test_a_drawn_salt_is_never_the_same() -> None:
    assert hash_password("x") != hash_password("x")


def test_a_derived_salt_gives_the_same_hash_and_tells_apart_who_and_where() -> None:
    key = b"k" * 32
    salt = stable_salt(key, "demo", "ann", "hunter2")
    assert hash_password("hunter2", salt) == hash_password(
        "hunter2", stable_salt(key, "demo", "ann", "hunter2")
    )
    others = {
        stable_salt(key, "demo", "bob", "hunter2"),
        stable_salt(key, "other", "ann", "hunter2"),
        stable_salt(key, "demo", "ann", "hunter3"),
        stable_salt(b"x" * 32, "demo", "ann", "hunter2"),
        stable_salt(key, "demoann", "", "hunter2"),
    }
    assert len(others) == 5
    assert salt not in others


def test_hashes_are_told_from_plain_passwords() -> None:
    assert is_hash(hash_password("x"))
    assert is_hash(generate_password_hash("x", "pbkdf2:sha256:1000"))
    assert is_hash("$2b$12$abcdefghijklmnopqrstuu")
    assert not is_hash("hunter2")
    assert not is_hash("$cript:")


def test_a_token_is_stored_as_its_digest_and_a_digest_as_it_is() -> None:
    digest = hash_token("a-long-random-token")
    assert digest.startswith("sha256:")
    assert "random" not in digest
    assert hash_token(digest) == digest
