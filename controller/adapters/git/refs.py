"""Chooses a commit by comparing a Repository's `ref` with the refs that its server advertises. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from controller.adapters.git.text import listed
from controller.domain.apps.spec import GitRef, RefKind
from controller.domain.apps.versions import pick
from controller.domain.errors import Stalled, Waiting
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason

COMMIT_ID = re.compile(r"[0-9a-f]{40}")
BRANCHES, TAGS = "refs/heads/", "refs/tags/"
PULLS = ("refs/pull/", "refs/merge-requests/")  # where forges keep the heads of pull requests
PEELED = "^{}"  # suffix under which servers advertise what an annotated tag points to
EMPTY_RETRY = 60.0  # seconds between checks of a repository without a commit


@dataclass(frozen=True)
class Advertised:
    """`refs` maps names to object ids; `default` is the branch of the server's HEAD, if known."""

    refs: Mapping[str, str]
    default: str | None = None

    def names(self, prefix: str) -> tuple[str, ...]:
        found = (name.removeprefix(prefix) for name in self.refs if name.startswith(prefix))
        return tuple(sorted(name for name in found if not name.endswith(PEELED)))


@dataclass(frozen=True)
class ResolvedRef:
    """`ref` is the full name, or the commit id itself."""

    ref: str
    commit: str


def choose(ref: GitRef, advertised: Advertised) -> ResolvedRef:
    """Choose the commit. Raises Stalled `RefNotFound` (with existing names), `RefInvalid`; Waiting
    `RepositoryEmpty`.
    """
    if ref.kind is RefKind.COMMIT:
        return ResolvedRef(ref.value, commit_id(ref.value))
    if not advertised.refs:
        raise Waiting(
            Reason.REPOSITORY_EMPTY, Localizable("the repository has no commit yet; push one"), EMPTY_RETRY
        )
    if ref.kind is RefKind.BRANCH:
        return _named(BRANCHES, ref.value, advertised)
    if ref.kind is RefKind.TAG:
        return _named(TAGS, ref.value, advertised)
    if ref.kind is RefKind.PULL:
        return _pull(ref.value, advertised)
    return _newest(ref.value, advertised)


def commit_id(text: str) -> str:
    """Return a complete commit id. Short ones are refused: their meaning may change with the next push."""
    if COMMIT_ID.fullmatch(text.lower()):
        return text.lower()
    raise Stalled(
        Reason.REF_INVALID,
        Localizable("{text!r} is not a complete commit id (40 hexadecimal digits)", text=text),
    )


def full_name(ref: GitRef) -> str:
    """Return the full name of a branch, or of a pull request."""
    return ref.value if ref.kind is RefKind.PULL else f"{BRANCHES}{ref.value}"


def _pull(name: str, advertised: Advertised) -> ResolvedRef:
    if name not in advertised.refs:
        raise Stalled(
            Reason.REF_NOT_FOUND,
            Localizable("the server has no {name!r}: the pull request is gone", name=name),
        )
    return ResolvedRef(name, advertised.refs[name])


def _named(prefix: str, name: str, advertised: Advertised) -> ResolvedRef:
    full = prefix + name
    if full in advertised.refs:
        return ResolvedRef(full, advertised.refs.get(full + PEELED, advertised.refs[full]))
    there = _there_is(prefix, advertised)
    raise Stalled(
        Reason.REF_NOT_FOUND,
        Localizable("the repository has no branch {name!r}; {there}", name=name, there=there)
        if prefix == BRANCHES
        else Localizable("the repository has no tag {name!r}; {there}", name=name, there=there),
    )


def _newest(wanted: str, advertised: Advertised) -> ResolvedRef:
    try:
        tag = pick(wanted, advertised.names(TAGS))
    except ValueError as error:
        raise Stalled(Reason.REF_INVALID, str(error)) from None
    if tag is None:
        there = _there_is(TAGS, advertised)
        raise Stalled(
            Reason.REF_NOT_FOUND,
            Localizable(
                "no tag of the repository is a version within {wanted!r}; {there}", wanted=wanted, there=there
            ),
        )
    return _named(TAGS, tag, advertised)


def _there_is(prefix: str, advertised: Advertised) -> str:
    names = advertised.names(prefix)
    if not names:
        return (
            Localizable("it has no branch at all")
            if prefix == BRANCHES
            else Localizable("it has no tag at all")
        )
    default = advertised.default.removeprefix(BRANCHES) if advertised.default and prefix == BRANCHES else ""
    if default:
        return Localizable(
            "there is {names} (the default branch is {default!r})", names=listed(names), default=default
        )
    return Localizable("there is {names}", names=listed(names))
