"""Messages are texts in English, and keep what they are made of, also in a database and in a pickle."""

from __future__ import annotations

import copy
import json
import pickle
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.errors import Stalled
from controller.domain.localizable import (
    Localizable,
    as_document,
    as_stored,
    changed,
    changed_whole,
    filled,
    first_line,
    from_document,
    from_stored,
    joined,
    sentence,
    shortened,
)
from controller.domain.reasons import Reason

EMPTY = Localizable("the value of {key} is empty", key="a")
GERMAN = {
    "the value of {key} is empty": "der Wert von {key} ist leer",
    "{first} and {second!r}": "{second!r} und {first}",
}


def in_german(text: str) -> str:
    return GERMAN.get(text, text)


def test_it_is_its_english_text() -> None:
    assert EMPTY == "the value of a is empty"
    assert f"{EMPTY}!" == "the value of a is empty!"
    assert Localizable("{name!r} has {number}", name="a'b", number=3) == '"a\'b" has 3'
    assert Localizable("{cpus} and {unknown} {not a place}", cpus=1.5) == "1.5 and {unknown} {not a place}"


def test_it_is_said_in_another_language_with_all_that_is_in_it() -> None:
    both = Localizable("{first} and {second!r}", first=EMPTY, second="{first}")
    assert both.said(in_german) == "'{first}' und der Wert von a ist leer"
    assert sentence(both).said(in_german) == "'{first}' und der Wert von a ist leer."  # type: ignore[attr-defined]


def test_sentences_and_joined_parts() -> None:
    assert (sentence("x"), sentence("What?"), sentence("")) == ("X.", "What?", ".")
    assert sentence(EMPTY) == "The value of a is empty."
    two = joined((EMPTY, "plain"))
    assert isinstance(two, Localizable)
    assert (two, two.said(in_german)) == ("the value of a is empty; plain", "der Wert von a ist leer; plain")
    assert joined((EMPTY,)) is EMPTY


@pytest.mark.parametrize("text", [EMPTY, Localizable("{a!r}", a="x\ny")])
def test_an_error_keeps_it(text: Localizable) -> None:
    assert Stalled(Reason.SECRET_REFUSED, text).message is text


def test_an_error_and_a_sum_keep_it() -> None:
    assert str(ValueError(EMPTY)) is EMPTY
    for text in (EMPTY + ".", EMPTY + EMPTY, "so " + EMPTY):
        assert isinstance(text, Localizable)
        assert "der Wert von a ist leer" in text.said(in_german)
    assert type(joined(("a", "b"))) is str, "there is nothing to translate"


def test_values_are_what_a_pattern_would_show() -> None:
    found = Localizable("{a} {b} {c}", a=ValueError("no"), b=None, c=True)
    assert found == "no None True"
    assert Localizable("{why}", why=ValueError(EMPTY)).said(in_german) == "der Wert von a ist leer"


def test_values_are_printable() -> None:
    assert Localizable("{a}", a="x\x00\ud800") == "x\\x00\\ud800"


def test_only_values_are_changed() -> None:
    found = changed(
        Localizable("{a} in /state", a=Localizable("{b}", b="/state")),
        lambda text: text.replace("/state", "…"),
    )
    assert found == "… in /state"
    assert changed("plain", str.upper) == "PLAIN"


def test_hiding_something_goes_over_the_whole_text() -> None:
    both = Localizable("{a}: the value of {b}", a=EMPTY, b="secret")
    kept = changed_whole(both, lambda text: text.replace("secret", "***"))
    assert isinstance(kept, Localizable)
    assert kept.values["b"] == "***"
    assert changed_whole(both, str) is both
    across = changed_whole(both, lambda text: text.replace("value of secret", "***"))
    assert (across, type(across)) == ("the value of a is empty: the ***", str), "it is in pattern and value"


def test_first_lines_and_excerpts() -> None:
    two = joined((joined(("box a", EMPTY), ": "), EMPTY), "\n")
    first = first_line(two)
    assert (first, isinstance(first, Localizable)) == ("box a: the value of a is empty", True)
    assert first_line("a\nb") == first_line(Localizable("a\n{b}", b="b")) == "a"
    assert first_line(EMPTY) is EMPTY
    long = Localizable("the value of {key} is empty", key="x" * 1000)
    assert len(shortened(long, 300)) <= 300
    assert isinstance(shortened(long, 300), Localizable)
    assert len(shortened(joined([EMPTY] * 100), 300)) <= 300 + len("[2398 characters left out]") + 2
    assert shortened(EMPTY, 300) is EMPTY


@pytest.mark.parametrize(
    "stored",
    [None, "", 7, "{", "null", "[]", '{"pattern": "x"}', as_stored(joined((EMPTY, EMPTY))), "[" * 100_000],
    ids=str,
)
def test_what_is_stored_beside_a_text_counts_only_if_it_says_the_same(stored: object) -> None:
    assert from_stored(EMPTY, as_stored(EMPTY)).said(in_german) == "der Wert von a ist leer"  # type: ignore[attr-defined]
    assert type(from_stored("the value of a is empty", stored)) is str


def repeated(times: int, depth: int, inner: Any) -> dict[str, Any]:
    """Return a message of messages, each of which has the next one that many times: `times ** depth` of the last."""
    for _ in range(depth):
        inner = {"pattern": "{a}" * times, "values": {"a": inner}, "sentence": False}
    return dict(inner)


@pytest.mark.parametrize(
    "document",
    [
        repeated(2, 30, "x" * 100),
        repeated(1000, 4, "x"),
        repeated(2000, 1, 10**4000),
        repeated(1, 400, "x" * 10_000),
        {
            "pattern": "x",
            "values": {f"a{n}": repeated(10, 3, "x" * 10) for n in range(1000)},
            "sentence": False,
        },
    ],
    ids=["doubled", "wide", "numbers", "deep", "beside"],
)
def test_a_document_costs_no_more_than_it_and_its_text_are_long(document: dict[str, Any]) -> None:
    stored, text = json.dumps(document), "x" * 100
    tracemalloc.start()
    try:
        assert type(from_stored(text, stored)) is str
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * len(stored) + 4 * 2**20  # and what other threads do meanwhile


def test_messages_in_messages_come_back_with_each_pattern() -> None:
    text: Any = EMPTY
    for _ in range(12):
        text = Localizable("{text}", text=text)
    assert from_stored(text, as_stored(text)).said(in_german) == "der Wert von a ist leer"  # type: ignore[attr-defined]


VALUES = st.recursive(
    st.text() | st.integers() | st.floats(allow_nan=False),
    lambda inner: st.builds(lambda value: Localizable("about {a!r} and {b}", a=value, b="b"), inner),
    max_leaves=5,
)


@given(VALUES)
def test_it_comes_back_from_a_database_and_from_a_pickle(value: Any) -> None:
    made = Localizable("{a}: {b!r}", a=value, b="x")
    for back in (
        from_document(json.loads(json.dumps(as_document(made)))),
        pickle.loads(pickle.dumps(made)),
        copy.deepcopy(made),
    ):
        assert (back, back.pattern, back.values) == (made, made.pattern, made.values)


@pytest.mark.parametrize(
    "document",
    [
        None,
        1,
        "x",
        [],
        {},
        {"pattern": 1, "values": {}, "sentence": False},
        {"pattern": "", "values": {"a": []}, "sentence": False},
    ],
)
def test_what_is_no_message_is_refused(document: object) -> None:
    with pytest.raises(ValueError, match="not a message"):
        from_document(document)


def test_a_text_that_is_no_message_has_no_document() -> None:
    assert as_document("plain") is None
    assert filled("{a}", {}) == "{a}"
