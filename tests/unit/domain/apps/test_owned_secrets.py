"""What may be set, and what a change of a Secret comes to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.apps.environment import MAX_VALUE
from controller.domain.apps.owned_secrets import (
    MAX_BYTES,
    MAX_KEYS,
    MAX_SECRETS,
    ChangeState,
    Decision,
    OwnedKey,
    SecretChange,
    change_problem,
    decide,
    packed,
    unpacked,
)
from controller.domain.names import AppName
from controller.domain.secret import Secret

DEMO, ID, NOW = AppName("demo"), "0" * 32, 1_700_000_000.0


def change(secret: str = "keys", /, **values: str | None) -> SecretChange:
    found = tuple((key, None if value is None else Secret(value)) for key, value in values.items())
    return SecretChange(ID, DEMO, secret, found, "ann", NOW)


def key(name: str, secret: str = "keys", value: str = "v", size: int = 100) -> OwnedKey:
    return OwnedKey(secret, name, f"print of {value}", size, "ann", NOW)


def decided(asked: SecretChange, *known: OwnedKey, size: int = 100) -> Decision:
    given = {name: value.reveal() for name, value in asked.values if value is not None}
    prints = {name: f"print of {value}" for name, value in given.items()}
    return decide(asked, known, prints, dict.fromkeys(given, size))


def test_only_what_differs_is_stored() -> None:
    known = (key("A", value="1"), key("B", value="2"), key("C", "other", "3"))
    assert decided(change(A="1", B="new", D="4"), *known) == Decision(stored=("B", "D"))
    assert decided(change(A="1", B="2"), *known).state is ChangeState.UNCHANGED
    assert decided(change(B=None, A="x"), *known) == Decision(stored=("A",), removed=("B",))
    assert decided(change(), *known) == Decision(removed=("A", "B"))
    assert decided(change("fresh", A="1"), *known) == Decision(stored=("A",))


def test_what_is_not_there_cannot_be_removed() -> None:
    known = (key("A"), key("C", "other"))
    assert decided(change(B=None), *known).refusal == "the Secret 'keys' has no key 'B'"
    for asked in (change("gone"), change("gone", A=None)):
        refusal = decided(asked, *known).refusal
        assert refusal == "nobody has set a Secret 'gone' for demo; set are: keys, other"
    assert decided(change("gone")).refusal.endswith("set are: none")


def test_an_app_has_a_share() -> None:
    full = [key(f"K{number}") for number in range(MAX_KEYS)]
    assert f"{MAX_KEYS + 1} keys in the Secret 'keys'" in decided(change(NEW="x"), *full).refusal
    assert decided(change(K1="x"), *full).state is ChangeState.APPLIED
    assert decided(change(NEW="x", K1=None), *full).state is ChangeState.APPLIED
    many = [key("A", f"s{number}") for number in range(MAX_SECRETS)]
    assert f"{MAX_SECRETS + 1} Secrets" in decided(change(A="x"), *many).refusal
    large = key("A", "other", size=MAX_BYTES - 100)
    assert decided(change(A="x"), large).state is ChangeState.APPLIED
    assert "bytes in all Secrets" in decided(change(A="x", B="y"), large).refusal
    too_much = key("A", "other", size=2 * MAX_BYTES)  # of an earlier release, say
    assert decided(change("other", A=None), too_much).state is ChangeState.APPLIED


@pytest.mark.parametrize("name", ["", "Keys", "a/b", "..", "x" * 64, "ключи", "a\n"])
def test_names_are_checked(name: str) -> None:
    assert "cannot be the name of a Secret" in change_problem(change(name, A="x"))


@pytest.mark.parametrize(
    "name", ["", "a b", "a\n", "\0", "x" * 254, "\x7f", "\ud800", "a\N{RIGHT-TO-LEFT OVERRIDE}b"]
)
def test_keys_are_checked(name: str) -> None:
    for value in ("x", None):
        assert "cannot be a key" in change_problem(change("keys", **{name: value}))


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "is empty"),
        ("a\0b", "is not text"),
        ("\udc80", "is not text"),
        ("x" * (MAX_VALUE + 1), "more than 100000 bytes"),
        ("ы" * (MAX_VALUE // 2 + 1), "more than 100000 bytes"),
    ],
    ids=["empty", "NUL", "no UTF-8", "large", "large in UTF-8"],
)
def test_values_are_checked_and_not_told(value: str, problem: str) -> None:
    found = change_problem(change(A=value))
    assert problem in found
    assert len(found) < 300


def test_other_values_are_taken() -> None:
    key_file = "-----BEGIN KEY-----\nabc\r\n\tdef\n-----END KEY-----\n"
    assert change_problem(change(PEM=key_file, A="x" * MAX_VALUE, B=" ", C="\x1b[0m", D="пароль")) == ""
    assert change_problem(SecretChange(ID, DEMO, "users", (("ann@example.org", Secret("x")),), "", NOW)) == ""
    twice = SecretChange(ID, DEMO, "keys", (("A", Secret("x")), ("A", None)), "", NOW)
    assert change_problem(twice) == "a key is given twice"
    assert "at most" in change_problem(change(**{f"K{number}": "x" for number in range(MAX_KEYS + 1)}))


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@given(st.dictionaries(TEXTS, st.none() | TEXTS, max_size=5), st.text("abc", max_size=9))
def test_a_change_survives_its_packing(values: dict[str, str | None], author: str) -> None:
    found = tuple((name, None if value is None else Secret(value)) for name, value in values.items())
    asked = SecretChange(ID, DEMO, "keys", found, author, NOW)
    content = packed(asked)
    assert len(content) % 256 == 0, "its length tells little"
    assert unpacked(ID, DEMO, content) == asked


SOUND: dict[str, Any] = {"secret": "keys", "values": {"A": "hunter2"}, "by": "ann", "at": NOW}


STRANGE: tuple[Any, ...] = (None, [], {"A": 1}, True, "\x1b[2J", "x" * 999, 10**400)
DOCUMENTS: list[Any] = [
    *({**SOUND, name: value} for name in ("values", "by", "at") for value in STRANGE),
    *({**SOUND, "secret": value} for value in STRANGE if not isinstance(value, str)),
    *({k: v for k, v in SOUND.items() if k != name} for name in SOUND),
    {**SOUND, "at": float("nan")},
    [],
    "hunter2",
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=range(len(DOCUMENTS)))
def test_what_is_no_change_is_refused_without_its_values(document: object) -> None:
    with pytest.raises(ValueError, match=r"not a change|who asked") as caught:
        unpacked(ID, DEMO, json.dumps(document).encode())
    assert "hunter2" not in str(caught.value)


@given(st.binary(max_size=200))
def test_garbage_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="not a change"):
        unpacked(ID, DEMO, content)


def test_values_show_nowhere() -> None:
    assert "hunter2" not in repr(change(A="hunter2"))
