"""Names and shares of the apps that people make."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.domain.apps.spec import Limits
from controller.domain.people.accounts import NAME
from controller.domain.people.quotas import (
    AppShare,
    Quota,
    name_problem,
    prefix_of,
    quota_problems,
    used,
    with_overrides,
)

PATTERN = "pu-{user}-pa-"
QUOTA = Quota(2, 4.0, 100, 100, 1)
ACCOUNTS = st.from_regex(NAME, fullmatch=True)


def test_prefixes() -> None:
    assert prefix_of(PATTERN, "anna") == "pu-anna-pa-"
    assert prefix_of(PATTERN, "a.b") != prefix_of(PATTERN, "a-b") == "pu-a-b-pa-"
    assert len(prefix_of(PATTERN, "x" * 63)) < 40


@given(ACCOUNTS, ACCOUNTS)
def test_no_two_people_have_one_prefix(one: str, other: str) -> None:
    assert (prefix_of(PATTERN, one) == prefix_of(PATTERN, other)) == (one == other)


@given(ACCOUNTS)
def test_everybody_may_make_an_app(user: str) -> None:
    assert name_problem(f"{prefix_of(PATTERN, user)}demo", PATTERN, user, [user]) == ""


def test_a_name_belongs_to_the_longest_prefix() -> None:
    others = ["a", "a-pa-b"]
    assert name_problem("pu-a-pa-b-pa-x", PATTERN, "a-pa-b", others) == ""
    assert "another person" in name_problem("pu-a-pa-b-pa-x", PATTERN, "a", others)
    assert name_problem("pu-a-pa-b", PATTERN, "a", others) == ""


def test_without_a_pattern_every_name_is_free() -> None:
    assert name_problem("demo", "", "anna", ["anna", "boris"]) == ""
    assert name_problem("Демо", "", "anna") != ""


def test_quotas() -> None:
    shares = [
        AppShare("a", "anna", Limits(1.0, 60, 0, 5, 1)),
        AppShare("b", "boris", Limits(9.0, 9, 9, 9, 9)),
    ]
    present = used(shares, "anna")
    assert present == Quota(1, 1.0, 60, 0, 1)
    assert quota_problems(QUOTA, present, Limits(3.0, 40, 100, None, 0)) == ()
    assert quota_problems(QUOTA, present, Limits(3.5, 41, 0, None, 1)) == (
        "cpus: 3.5 asked for, 3 of 4 left",
        "memory: 41 asked for, 40 of 100 left",
        "gpus: 1 asked for, 0 of 1 left",
    )
    full = Quota(3, 9.0, 500, 0, 1)  # the quota has become smaller since
    assert quota_problems(QUOTA, full, Limits(0.0, 0, 0, None, 0)) == ("apps: 1 asked for, 0 of 2 left",)


def test_numbers_that_were_set_for_a_person() -> None:
    assert with_overrides(QUOTA, {"apps": 9.0, "cpus": 0.5}) == Quota(9, 0.5, 100, 100, 1)
