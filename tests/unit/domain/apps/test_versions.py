"""Version ranges pick what npm's and Flux's documentation of the same language says."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.apps.versions import is_range, pick, ranked

TAGS = ["v0.0.3", "v0.2.3", "v0.2.9", "v0.3.0", "1.0.0", "v1.2.0", "v1.2.3", "v1.3.0-rc.1", "v1.3.0", "v1.9.9",
        "v2.0.0-rc.1", "v2.0.0", "v2.3.7", "v3.0.0-alpha.2", "v3.0.0-alpha.10", "latest", "v1", "v4"]  # fmt: skip


@pytest.mark.parametrize(
    ("range", "tag"),
    [
        ("*", "v2.3.7"),
        ("x", "v2.3.7"),
        (">=1.2 <2", "v1.9.9"),
        (">=1.2, <2", "v1.9.9"),
        (">= 1.2 < 2", "v1.9.9"),
        ("1.x", "v1.9.9"),
        ("1", "v1.9.9"),
        ("1.2", "v1.2.3"),
        ("1.2.*", "v1.2.3"),
        ("=1.2.0", "v1.2.0"),
        ("v1.0.0", "1.0.0"),
        ("^1.2", "v1.9.9"),
        ("^0.2.3", "v0.2.9"),
        ("^0.0.3", "v0.0.3"),
        ("^0", "v0.3.0"),
        ("~1.2", "v1.2.3"),
        ("~1", "v1.9.9"),
        ("~1.2.1", "v1.2.3"),
        (">1", "v2.3.7"),
        (">1.2.3 <1.3", None),
        ("<=2", "v2.3.7"),
        ("<=2.0.0", "v2.0.0"),
        ("<2.0.0", "v1.9.9"),
        ("1.0.0 - 1.2", "v1.2.3"),
        ("1 - 2", "v2.3.7"),
        ("<1 || >=2 <2.1", "v2.0.0"),
        (">=3.0.0-alpha", "v3.0.0-alpha.10"),  # numeric identifiers compare as numbers: 10 > 2
        (">=1.0.0-0 <2", "v1.9.9"),  # 2.0.0-rc.1 sorts below 2.0.0, but is a 2
        ("1.3.0-rc.1", "v1.3.0-rc.1"),
        (">5 <20000000000000", None),
        ("<*", None),
    ],
)
def test_picks_the_highest_tag_in_range(range: str, tag: str | None) -> None:
    assert pick(range, TAGS) == tag


@pytest.mark.parametrize(
    "text",
    ["", " ", "||", "main", ">=", "1.2.3.4", "01.2", ">=1.2 <", "1..2", "^", "1-rc", ">1 ||", "1 2 -", ">>1"],
)
def test_refuses_what_is_no_range(text: str) -> None:
    assert not is_range(text)
    with pytest.raises(ValueError, match=r"not a version|pre-release"):
        pick(text, TAGS)


def test_equal_versions_are_told_apart_by_text() -> None:
    assert pick("*", ["1.2.0", "v1.2.0"]) == pick("*", ["v1.2.0", "1.2.0"]) == "v1.2.0"
    assert pick("*", ["1.2.0+a", "1.2.0+b"]) == "1.2.0+b"


LONG = "1" * 5000


@pytest.mark.parametrize(
    ("range", "tags"),
    [
        ("*", ["0.1.20261201093000", "0.1.20261130235959", "0.1.3"]),  # nightly builds
        (">=0.1.20261201000000", ["0.1.20261201093000"]),
        (">=1.0.0-0", ["1.0.0-2" + LONG, "1.0.0-1" + LONG, "1.0.0-9", "1.0.0-0"]),
        (">=1.0.0-0", ["1.0.0-rc.10", "1.0.0-rc.9", "1.0.0-9"]),
    ],
)
def test_numbers_may_be_long(range: str, tags: list[str]) -> None:
    assert ranked(range, sorted(tags)) == tuple(tags)


@given(st.lists(st.text("v0123.-+rc", max_size=30)), st.sampled_from([0, 10, 50]))
def test_whatever_tags_a_server_has(texts: list[str], digits: int) -> None:
    tags = [*texts, *(f"1.{'9' * digits or 0}.0-{text}" for text in texts)]
    found = ranked(">=0.0.0-0", tags)
    assert set(found) <= set(tags)
    assert ranked(">=0.0.0-0", reversed(found)) == found


@given(st.randoms(), st.sampled_from(["*", "^1.2", ">=1.0.0-0", "<2 || 3.x"]))
def test_order_of_tags_does_not_matter(random_: random.Random, range: str) -> None:
    shuffled = TAGS.copy()
    random_.shuffle(shuffled)
    assert pick(range, shuffled) == pick(range, TAGS)


@given(st.text(alphabet="0123.x*-^~<>=| v,rc", max_size=12))
def test_pick_works_exactly_on_ranges(text: str) -> None:
    if is_range(text):
        assert pick(text, TAGS) in {None, *TAGS}
    else:
        with pytest.raises(ValueError, match=r"not a version|pre-release"):
            pick(text, TAGS)
