"""What a token says of a person: names, groups, roles by groups, and roles of apps by the beginning of their names."""

from __future__ import annotations

import pytest

from controller.domain.people.openid import (
    MOST_GROUPS,
    GroupRole,
    account_name,
    groups_of,
    is_subject,
    roles_by_group,
)
from controller.domain.people.roles import ALL, Grant, Role, is_app_pattern

RULES = (GroupRole("ops", Role.ADMIN), GroupRole("lab", Role.DEVELOPER, "pu-lab-*"))


@pytest.mark.parametrize(
    ("claimed", "name"),
    [
        ("ann", "ann"),
        (" Ann.B@Example.org ", "ann.b@example.org"),
        ("Анна", None),
        ("", None),
        ("host:root", None),
        ("a b", None),
        ("x" * 64, None),
        ("K\u212aelvin", None),  # the sign for kelvins is a capital of k, too
    ],
)
def test_names(claimed: str, name: str | None) -> None:
    assert account_name(claimed) == name


@pytest.mark.parametrize(
    ("claim", "groups"),
    [
        (["lab", "ops", "lab"], ["lab", "ops"]),
        ("lab", ["lab"]),
        (["lab", 7, None, ["ops"], {"a": 1}], ["lab"]),
        (None, []),
        ({"lab": True}, []),
        (["lab"] * (MOST_GROUPS + 1) + ["late"], ["lab"]),
    ],
    ids=lambda value: str(value)[:20],
)
def test_groups(claim: object, groups: list[str]) -> None:
    assert sorted(groups_of(claim)) == groups


@pytest.mark.parametrize("group", ["Lab", "lab ", "/lab", "lab/vision", "la", "*"])
def test_groups_are_compared_exactly(group: str) -> None:
    assert roles_by_group("ann", frozenset((group,)), RULES) == ()
    assert roles_by_group("ann", frozenset(("lab",)), RULES) == (
        Grant("ann", Role.DEVELOPER, "pu-lab-*", "lab"),
    )


@pytest.mark.parametrize(
    ("subject", "good"),
    [
        ("1", True),
        ("x" * 255, True),
        ("x" * 256, False),
        ("", False),
        ("é", False),
        ("a\n", False),
        (1, False),
    ],
    ids=lambda value: str(value)[:8],
)
def test_subjects(subject: object, good: bool) -> None:
    assert is_subject(subject) is good


@pytest.mark.parametrize(
    ("app", "name", "covers"),
    [
        ("pu-lab-*", "pu-lab-demo", True),
        ("pu-lab-*", "pu-lab-", True),
        ("pu-lab-*", "pu-lab", False),
        ("pu-lab-*", "pu-labor", False),
        ("*", "demo", True),
        ("*", ALL, False),
        ("*", "@platform", False),
        ("demo", "demo-2", False),
        ("@platform", "@platform", True),
        (ALL, "demo", True),
        (ALL, ALL, True),
    ],
)
def test_what_a_role_covers(app: str, name: str, covers: bool) -> None:
    assert Grant("ann", Role.VIEWER, app).covers(name) is covers


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("pu-*", True),
        ("*", True),
        ("0*", True),
        ("-*", False),
        ("a*b", False),
        ("A*", False),
        ("a" * 64 + "*", False),
    ],
)
def test_patterns(text: str, good: bool) -> None:
    assert is_app_pattern(text) is good
