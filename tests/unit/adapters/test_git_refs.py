"""Which commit a `ref` means, given what a server advertises."""

from __future__ import annotations

import pytest

from controller.adapters.git.refs import Advertised, ResolvedRef, choose
from controller.domain.apps.spec import GitRef, RefKind
from controller.domain.errors import Stalled, Waiting

A, B, C, D = ("a" * 40, "b" * 40, "c" * 40, "d" * 40)
SERVER = Advertised(
    {
        "refs/heads/main": A,
        "refs/heads/feature/x": B,
        "refs/tags/v1.2.0": C,  # lightweight
        "refs/tags/v1.10.0": D,  # annotated: an object of its own
        "refs/tags/v1.10.0^{}": B,
        "refs/tags/v2.0.0-rc.1": A,
        "refs/tags/nightly": A,
        "refs/pull/7/head": D,
    },
    default="refs/heads/main",
)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (RefKind.BRANCH, "main", ResolvedRef("refs/heads/main", A)),
        (RefKind.BRANCH, "feature/x", ResolvedRef("refs/heads/feature/x", B)),
        (RefKind.TAG, "v1.2.0", ResolvedRef("refs/tags/v1.2.0", C)),
        (RefKind.TAG, "v1.10.0", ResolvedRef("refs/tags/v1.10.0", B)),
        (RefKind.SEMVER, "^1", ResolvedRef("refs/tags/v1.10.0", B)),
        (RefKind.SEMVER, ">=2.0.0-0", ResolvedRef("refs/tags/v2.0.0-rc.1", A)),
        (RefKind.COMMIT, "E" * 40, ResolvedRef("E" * 40, "e" * 40)),
    ],
)
def test_a_ref_is_found(kind: RefKind, value: str, expected: ResolvedRef) -> None:
    assert choose(GitRef(kind, value), SERVER) == expected


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (RefKind.BRANCH, "master", ["no branch 'master'", "feature/x, main", "default branch is 'main'"]),
        (RefKind.BRANCH, "refs/heads/main", ["no branch"]),
        (RefKind.TAG, "main", ["no tag 'main'", "nightly, v1.10.0, v1.2.0"]),
        (RefKind.SEMVER, "^3", ["within '^3'", "v1.2.0"]),
    ],
)
def test_a_missing_ref_names_what_there_is(kind: RefKind, value: str, words: list[str]) -> None:
    with pytest.raises(Stalled) as caught:
        choose(GitRef(kind, value), SERVER)
    assert caught.value.reason == "RefNotFound"
    assert all(word in caught.value.message for word in words), caught.value.message


def test_many_names_are_cut_short() -> None:
    many = Advertised({f"refs/heads/b{number:02}": A for number in range(30)})
    with pytest.raises(Stalled, match=r"b00, b01.*and 18 more"):
        choose(GitRef(RefKind.BRANCH, "x"), many)


def test_a_repository_without_tags_says_so() -> None:
    with pytest.raises(Stalled, match="it has no tag at all"):
        choose(GitRef(RefKind.TAG, "v1"), Advertised({"refs/heads/main": A}))


@pytest.mark.parametrize(("kind", "value"), [(RefKind.COMMIT, "abc123"), (RefKind.SEMVER, "not a range")])
def test_a_ref_that_makes_no_sense_is_invalid(kind: RefKind, value: str) -> None:
    with pytest.raises(Stalled) as caught:
        choose(GitRef(kind, value), SERVER)
    assert caught.value.reason == "RefInvalid"


def test_an_empty_repository_is_waited_for() -> None:
    with pytest.raises(Waiting) as caught:
        choose(GitRef(RefKind.BRANCH, "main"), Advertised({}))
    assert caught.value.reason == "RepositoryEmpty"
    assert caught.value.retry_after > 0
