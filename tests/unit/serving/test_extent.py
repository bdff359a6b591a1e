"""Values that are small and stand for very much."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.serving import extent
from controller.serving.extent import TooExtensive, check, listed

VALUES = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=4),
    max_leaves=20,
)


def values_in(value: Any) -> int:
    """Count as `check` does: what is in a list or mapping, on all levels."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return len(inner) + sum(values_in(each) for each in inner)


@given(VALUES)
def test_each_value_counts_once_for_each_place(value: Any) -> None:
    count = values_in([value])
    for most in (count, count - 1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(extent, "MOST_VALUES", most)
            if most == count:
                check([value])
            else:
                with pytest.raises(TooExtensive):
                    check([value])


@given(VALUES)
def test_what_is_there_twice_counts_twice(value: Any) -> None:
    shared, plain = [value] * 3, [json.loads(json.dumps(value)) for _ in range(3)]
    assert values_in(shared) == values_in(plain)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extent, "MOST_VALUES", values_in(plain))
        check(shared)
        patch.setattr(extent, "MOST_VALUES", values_in(plain) - 1)
        with pytest.raises(TooExtensive):
            check(shared)


@pytest.mark.parametrize(
    "value",
    [
        range(10**9),
        [range(10**5)] * 1000,
        (range(10**9),),
        {"a": range(10**9)},
        MappingProxyType({"a": [range(10**9)]}),
        deque([range(10**9)]),
        [np.broadcast_to(np.zeros(1), (10**9,))],
        {"a": {"b": [[0] * 10**4] * 10**4}},
    ],
)
def test_much_is_refused_at_once(value: Any) -> None:
    with pytest.raises(TooExtensive, match="has more than 67108864 values in all"):
        check(value)


def test_names_and_texts_count_by_their_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extent, "MOST_CHARACTERS", 10)
    for value in ("a" * 10, ["aaaaa"] * 2, {"aaaaa": "aaaaa"}, [{"aa": b"aaa"}] * 2):
        check(value)
    for value in ("a" * 11, ["aaaaa"] * 3, {"aaaaaa": "aaaaa"}, [{"aa": b"aaaa"}] * 2):
        with pytest.raises(TooExtensive, match="has more than 10 characters in all"):
            check(value)


class Sevens(Sequence[int]):
    """Says one length and has another one."""

    def __init__(self, said: int) -> None:
        self.said = said
        self.computed = 0

    def __len__(self) -> int:
        return self.said

    def __getitem__(self, index: Any) -> Any:
        self.computed += 1
        return 7

    def __iter__(self) -> Iterator[int]:
        while True:
            yield self[0]


def test_a_sequence_is_computed_in_steps_and_not_beyond_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    assert listed(range(3 * extent.STEP + 1)) == list(range(3 * extent.STEP + 1))
    assert listed(deque([1, 2])) == [1, 2]
    monkeypatch.setattr(extent, "MOST_VALUES", 2 * extent.STEP)
    long = Sevens(2 * extent.STEP + 1)
    with pytest.raises(TooExtensive):
        listed(long)
    assert long.computed == 0
    endless = Sevens(1)
    with pytest.raises(TooExtensive):
        listed(endless)
    assert endless.computed == 3 * extent.STEP


def test_a_value_that_holds_itself_is_left_to_the_encoder() -> None:
    ring: dict[str, Any] = {}
    ring["a"] = ring
    check(ring)
