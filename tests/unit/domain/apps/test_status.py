"""The status of an app has a bound, however much its parts say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.domain.apps.conditions import Condition, ConditionType
from controller.domain.apps.status import MAX_TEXT, AppStatus, BoxStatus, ComponentStatus, Setback, longest
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.text import MAX_MESSAGE, is_excerpt

APP = AppName("demo")


def condition(message: str) -> Condition:
    return Condition(ConditionType.READY, False, Reason.BUILD_FAILED, message)


def test_a_module_that_says_much() -> None:
    """Short texts stay whole; of each long one, beginning and end."""
    said = "cannot build: " + "x" * MAX_MESSAGE + " exit code 1"
    status = AppStatus(
        APP,
        conditions=(condition(said), condition("short")),
        plan="plan " * 200_000,
        setbacks=(Setback("image a", Reason.BUILD_FAILED, said, 1, 0.0),),
        components=tuple(
            ComponentStatus(
                ComponentName(f"c{n}"), "MLComponent", conditions=(condition(said),), failure=said
            )
            for n in range(200)
        ),
        boxes=(BoxStatus(ComponentName("tables"), "b", 1, 0, 0, (condition(said),)),),
    )
    bounded = status.bounded()
    lengths = [len(c.failure) + len(c.conditions[0].message) for c in bounded.components]
    assert sum(lengths) + len(bounded.plan) < 1.2 * MAX_TEXT
    assert bounded.conditions[1].message == "short"
    failure = bounded.components[0].failure
    assert failure.startswith("cannot build: x")
    assert failure.endswith("exit code 1")
    assert is_excerpt(failure, said)
    assert not is_excerpt(failure, said.replace("cannot", "could not"))
    assert bounded.bounded().components[0].conditions[0].reason == "BuildFailed"


def test_what_fits_is_left_as_it_is() -> None:
    status = AppStatus(APP, conditions=(condition("x" * 10_000),), plan="nothing to do")
    assert status.bounded() is status


@given(st.lists(st.integers(0, 1000), max_size=50), st.integers(0, 3000))
def test_all_texts_fit_and_only_long_ones_are_cut(lengths: list[int], most: int) -> None:
    limit = longest(lengths, most)
    if limit is None:
        assert sum(lengths) <= most
        return
    assert sum(lengths) > most
    cut = [min(length, limit) for length in lengths]
    assert sum(cut) <= most
    assert sum(min(length, limit + 1) for length in lengths) > most, "more would fit"
