"""What is found out about long lists at once agrees with what a look at each element finds."""

from __future__ import annotations

import contextlib
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.serving import number_lists
from controller.serving.datatypes import BF16_MAX, FP16_MAX, FP32_MAX, NUMBERS, Datatype
from controller.serving.number_lists import (
    DOUBLE,
    EXACT,
    MANY,
    SINGLE,
    are_integers,
    bound_of,
    magnitude,
    remembered,
)

#: Where the types and their limits are.
EDGES: list[Any] = [
    0, 1, -1, True, False, None, "1", [1.0], {"a": 1.0}, 0.0, -0.0, 5e-324, 0.5, -2.5, 7.0, 1e16, 2.0**49, -(2.0**49),
    2.0**53, 2.0**63, -(2.0**63), 2.0**64, 2**63, 2**64, -(2**63), 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 255, 256,
    -128, -129, 65535, 65536, 32767, 2**32 - 1, 2**32, 2.0**112, 2.0**113, FP32_MAX, math.nextafter(FP32_MAX, math.inf),
    -FP32_MAX, BF16_MAX, math.nextafter(BF16_MAX, math.inf), FP16_MAX, math.nextafter(FP16_MAX, math.inf),
    1.7976931348623157e308, math.inf, -math.inf, math.nan,
]  # fmt: skip
edges = st.sampled_from(EDGES)


@pytest.mark.parametrize("datatype", [datatype for datatype in Datatype if datatype.numeric])
@given(
    usual=edges,
    odd=edges,
    place=st.sampled_from([0, 1, MANY - 2, MANY - 1, 20_000]),
    length=st.sampled_from([1, MANY - 1, MANY, 20_000, 40_000]),
)
def test_lists_of_each_datatype(datatype: Datatype, usual: Any, odd: Any, place: int, length: int) -> None:
    elements = [usual] * length
    elements[place % length] = odd
    numbers = NUMBERS[datatype]
    expected = all(map(numbers.holds, (usual, odd) if length > 1 else (odd,)))
    if math.nan not in (usual, odd):  # of which min and max may give either answer; JSON has none
        assert numbers.hold(elements) is expected
    if numbers.hold_at_once(elements):
        assert expected
    known = magnitude(elements)
    if known is not None:
        assert numbers.hold_at_once(elements, known) is numbers.hold_at_once(elements)


@pytest.mark.slow
@given(st.lists(st.floats() | edges, min_size=MANY, max_size=2 * MANY))
def test_magnitudes(elements: list[Any]) -> None:
    found = magnitude(elements)
    if any(type(element) is not float for element in elements):
        assert found is None
        return
    limits = {EXACT: 2.0**49, SINGLE: 2.0**113, DOUBLE: 2.0**1009}
    largest = max(math.inf if math.isnan(element) else abs(element) for element in elements)
    assert found == min((step for step, limit in limits.items() if largest < limit), default=0x80)


@pytest.mark.parametrize(
    ("elements", "found"),
    [
        ([0.5] * (MANY - 1), None),
        ([0.5] * MANY, EXACT),
        ([0.5] * 100_000, EXACT),
        ([0.5] * 99_999 + [-(2.0**100)], SINGLE),
        ([2.0**1000] + [0.5] * 99_999, DOUBLE),
        ([0.5] * 50_000 + [math.nan] + [2.0**60] * 50_000, 0x80),
        ([0.5] * 50_000 + [1] + [0.5] * 50_000, None),
        ([0.5] * 50_000 + [None] + [0.5] * 50_000, None),
        ([0.5] * 50_000 + [object()] + [0.5] * 50_000, None),
        ([0.5] * 50_000 + [True] + [0.5] * 50_000, None),
    ],
)  # fmt: skip
def test_long_lists(elements: list[Any], found: int | None) -> None:
    assert magnitude(elements) == found


class Real(float):
    """A number of another type, as those of numpy are."""


def test_other_types_of_numbers_are_not_taken_for_them() -> None:
    assert magnitude([0.5] * MANY + [Real(0.5)] + [0.5]) is None
    assert magnitude([Real(0.5)] * MANY) is None
    assert not are_integers([1] * MANY + [True] + [1], -(2**63), 2**63)


def test_a_list_that_holds_itself() -> None:
    endless: list[Any] = [0.5] * MANY
    endless[1] = endless
    assert magnitude(endless) is None


@pytest.mark.parametrize(
    ("low", "high", "is_known"),
    [(0, 255, True), (0, 65535, True), (0, 2**32 - 1, True), (0, 2**64 - 1, True), (-(2**31), 2**31 - 1, True),
     (-(2**63), 2**63 - 1, True), (-FP32_MAX, FP32_MAX, True), (-128, 127, False), (0, 1, False), (0, 254, False)],
)  # fmt: skip
def test_limits_of_integers_that_show_in_bytes(low: float, high: float, is_known: bool) -> None:
    chance = random.Random(7)
    elements = [chance.randrange(200) for _ in range(3 * number_lists._STEP)]
    assert are_integers(elements, low, high) is is_known
    for odd in (-1, 256, 65536, 2**31, 2**32, 2**64, -(2**31)):
        elements[-2] = odd
        assert not are_integers(elements, low, high) or low <= odd <= high


@given(st.lists(st.floats(allow_nan=False) | st.integers(), min_size=1, max_size=20))
def test_bounds(numbers: list[Any]) -> None:
    bound = bound_of(numbers)
    assert all(abs(number) <= bound for number in numbers)
    assert bound <= 1.01 * math.sqrt(len(numbers)) * max(map(abs, numbers)) or bound == math.inf


@pytest.mark.parametrize("largest", [FP32_MAX, FP16_MAX, 5e-324, 1.7e308, 2.0**63, 2**64, 3])
def test_a_bound_of_numbers_that_are_nearly_the_limit(largest: Any) -> None:
    for others in ([], [0.0], [largest], [5e-324] * 1000, [0.5, -largest]):
        assert largest <= bound_of([*others, largest])


@given(st.lists(st.floats(allow_nan=False) | st.integers() | st.integers(0, 300), min_size=1, max_size=20))
def test_bounds_decide_as_each_element_does(elements: list[Any]) -> None:
    with number_lists.remembering:
        number_lists.remember(elements, bound_of(elements))
        for numbers in NUMBERS.values():
            assert numbers.hold(elements) is all(map(numbers.holds, elements))


def test_what_is_remembered_is_only_known_within() -> None:
    elements = [0.5] * MANY
    number_lists.remember(elements, 1.0)
    assert remembered(elements) == math.inf
    with number_lists.remembering:
        number_lists.remember(elements, 1.0)
        assert remembered(elements) == 1.0
        assert remembered(list(elements)) == math.inf
    assert remembered(elements) == math.inf


def test_what_is_remembered_is_forgotten_with_an_error() -> None:
    elements = [0.5] * MANY
    with contextlib.suppress(ValueError), number_lists.remembering:
        number_lists.remember(elements, 1.0)
        raise ValueError
    assert remembered(elements) == math.inf
