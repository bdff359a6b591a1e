"""Patterns of `.dockerignore`. The whole table is compared with the real client in the integration tests."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.adapters.dockerignore import IgnoreRules, rules_for
from controller.domain.errors import Stalled


def rules(text: str, dockerfile: str = "Dockerfile") -> IgnoreRules:
    return rules_for(lambda name: text.encode() if name == ".dockerignore" else None, dockerfile)


@pytest.mark.parametrize(
    "pattern", ["**/secrets", "**/secrets/", "/**/secrets", "**/secrets/**", "**/secret?"]
)
@pytest.mark.parametrize("path", ["secrets/key", "app/secrets/key", "a/b/c/d/secrets/e/f/key"])
def test_folders_at_every_depth(pattern: str, path: str) -> None:
    assert rules(pattern).leaves_out(path)
    assert not rules(pattern).leaves_out(path.replace("secrets", "public"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[a", "an unclosed bracket"),
        ("x\n\\", "line 2"),
        ("!", "an exception without a pattern"),
        ("# fine\n!/\n", "line 2"),
        ("x" * 70_000, "line 1 is longer"),
    ],
)
def test_what_cannot_be_applied_is_said(text: str, why: str) -> None:
    with pytest.raises(Stalled, match=why) as caught:
        rules(text)
    assert caught.value.reason == "BuildFailed"
    assert caught.value.message.startswith(".dockerignore in the build context")


def test_a_pattern_that_makes_no_sense_does_harm_only_where_it_is_looked_at() -> None:
    assert rules("*\n\\1x").leaves_out("a")
    with pytest.raises(Stalled, match=r"`\\1x` is invalid"):
        rules("\\1x").leaves_out("a")


@pytest.mark.parametrize("pattern", ["**/a**/a**/a**/a**/a**/b", "*a*a*a*a*a*a*a*a*a*a*b", "a?" * 1000])
def test_no_pattern_takes_long(pattern: str) -> None:
    """A matcher that tries all ways would be at it for years."""
    path = "/".join(["a" * 100] * 40)
    begun = time.process_time()
    assert not rules(pattern).leaves_out(path)
    assert time.process_time() - begun < 5


def test_too_many_judgements_are_refused() -> None:
    many = rules("".join(f"*{number}\n" for number in range(2000)))
    with pytest.raises(Stalled, match="too many patterns"):
        for _ in range(10_001):
            many.judge("a/b1", (True,) * 2000)
    with pytest.raises(Stalled, match="more than 2000 patterns"):
        rules("".join(f"*{number}\n" for number in range(2001)))


@given(
    st.lists(st.sampled_from(["*", "**", "*a", "?", "a", "[ab]", "/", "**/", "!*"]), max_size=400).map(
        "".join
    )
)
@settings(max_examples=50, deadline=None)
def test_however_the_stars_stand(pattern: str) -> None:
    """Against a name in which every star has a choice. What backtracks does not come back."""
    try:
        found = rules(f"{pattern}b")
        found.judge("a" * 255, ())
        found.judge("/".join(["a" * 15] * 16), ())
    except Stalled as refused:
        assert refused.reason == "BuildFailed"


def test_a_walk_ends_after_a_minute_of_computing() -> None:
    spent = iter((0.0, 59.0, 61.0))
    pattern = rules("*a*b").patterns
    walk = IgnoreRules(pattern, ".dockerignore", lambda: next(spent))
    walk.judge("aaa", ())
    with pytest.raises(Stalled, match=r"\.dockerignore .* take longer than 60 s to match"):
        walk.judge("aaa", ())
