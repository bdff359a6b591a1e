"""Previews of branches: which of the branches that were seen become apps of their own, and what such an app is. Pure.

A preview is an ordinary app with a note of the app that it belongs to. `wanted_previews` decides which there are from
what is stored: the rules of the app, the branches as they were listed last, what people have decided, and the time. The
reconciler of the platform folder puts the answer in force together with the folder, so a daemon that dies at any point
comes to the same answer again. Nothing that a branch contains has a part in it.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Final

from controller.domain.apps.deploy_gate import DeployRules
from controller.domain.apps.spec import (
    GitRef,
    Limits,
    PlatformAppSpec,
    PlatformSpec,
    PreviewOf,
    PreviewRules,
    RefKind,
    RepositorySpec,
)
from controller.domain.localizable import Localizable
from controller.domain.names import AppName, RepositoryName

BRANCHES: Final = "refs/heads/"
MOST_BRANCHES: Final = 20_000  # that are followed for one app
LONGEST_BRANCH: Final = 255  # characters
_PULL: Final = re.compile(r"refs/(pull|merge-requests)/([1-9][0-9]{0,9})/head")
#: What `git check-ref-format` refuses.
_UNUSABLE: Final = re.compile(
    r"\.\.|@\{|//|[\x00-\x20\x7f~^:?*\[\\\ud800-\udfff]|(?:^|/)\.|^/|/$|\.$|\.lock(?:/|$)|^@$"
)
_LONGEST_MAIN: Final = 30
_LONGEST_NAME: Final = 63
_DIGITS: Final = 8  # of the digest in the name of a preview


def is_branch_name(name: str) -> bool:
    """Return False for names that Git does not allow, whatever a server says, and for longer ones than we follow."""
    return 0 < len(name) <= LONGEST_BRANCH and name.isprintable() and not _UNUSABLE.search(name)


def is_preview_ref(ref: str) -> bool:
    """Return True for the full name of a branch, and of what a forge keeps for a pull request."""
    return _PULL.fullmatch(ref) is not None or (ref.startswith(BRANCHES) and is_branch_name(shown_ref(ref)))


def shown_ref(ref: str) -> str:
    """Return a ref as people write it: `feature/x`, `pull/3`."""
    found = _PULL.fullmatch(ref)
    return f"{found[1]}/{found[2]}" if found else ref.removeprefix(BRANCHES)


def preview_name(app: AppName, ref: str) -> AppName:
    """Return the name of the preview of a ref: a DNS label that begins like the app's and ends with a digest, so that
    refs whose letters become the same ones have different previews."""
    digest = hashlib.sha256(f"{app} {ref}".encode("utf-8", "surrogateescape")).hexdigest()[:_DIGITS]
    begin = app[:_LONGEST_MAIN].rstrip("-")
    room = _LONGEST_NAME - len(begin) - _DIGITS - 2
    slug = re.sub(r"[^a-z0-9]+", "-", shown_ref(ref).lower()).strip("-")[:room].strip("-")
    return AppName("-".join(part for part in (begin, slug, digest) if part))


@dataclass(frozen=True)
class SeenBranch:
    """A branch, or the head of a pull request, as it was listed. `since`: when it was first seen at `head`, in Unix
    seconds."""

    app: AppName  # the one whose rules it matches
    ref: str
    head: str
    since: float


@dataclass(frozen=True)
class OpenPull:
    """A request to merge `branch`. The one of a fork is in another repository, under a name that it has chosen."""

    number: int
    branch: str
    is_fork: bool = False


@dataclass(frozen=True)
class PreviewDecision:
    """What people have decided about a preview: its time began again at `kept`, or has no end if that is infinite; it
    is not wanted while its branch is at `removed`."""

    kept: float = 0.0
    removed: str = ""


@dataclass(frozen=True)
class BranchPreview:
    """A preview: the app `app` of the branch of `of`. It goes at `ends`, in Unix seconds; infinite: not by itself."""

    app: AppName
    of: AppName
    ref: str
    head: str
    since: float
    ends: float
    begun: float = 0.0  # when it was first wanted, as the store knows it


@dataclass(frozen=True)
class LeftOut:
    """Why a branch has no preview."""

    of: AppName
    ref: str
    why: str

    @property
    def app(self) -> AppName:
        """Return what the preview would be called."""
        return preview_name(self.of, self.ref)


@dataclass(frozen=True)
class BranchPreviews:
    wanted: tuple[BranchPreview, ...] = ()  # by app, newest first
    left_out: tuple[LeftOut, ...] = ()


def listed_branches(
    app: AppName,
    rules: PreviewRules,
    followed: GitRef,
    heads: Mapping[str, str],
    pulls: Iterable[OpenPull],
    before: Iterable[SeenBranch],
    now: float,
) -> tuple[SeenBranch, ...]:
    """Return the branches that the rules are about, sorted by name. `heads` has the commit of each ref of the server.
    The branch that the app itself follows never has a preview."""
    known = {each.ref: each for each in before}
    own = f"{BRANCHES}{followed.value}" if followed.kind is RefKind.BRANCH else ""
    refs = sorted(ref for ref in _concerned(rules, heads, pulls) if ref != own)
    found = []
    for ref in refs[:MOST_BRANCHES]:
        earlier = known.get(ref)
        same = earlier is not None and earlier.head == heads[ref]
        # A clock that was set back must not keep a preview for ever.
        since = min(earlier.since, now) if earlier is not None and same else now
        found.append(SeenBranch(app, ref, heads[ref], since))
    return tuple(found)


def _concerned(rules: PreviewRules, heads: Mapping[str, str], pulls: Iterable[OpenPull]) -> Iterator[str]:
    asked = tuple(pulls) if rules.pull_requests else ()
    open_branches = {pull.branch for pull in asked if not pull.is_fork}
    for ref in heads:
        name = ref.removeprefix(BRANCHES)
        if not ref.startswith(BRANCHES) or not is_branch_name(name) or not matches(rules, name):
            continue
        if not rules.pull_requests or name in open_branches:
            yield ref
    if rules.forks:
        numbers = {pull.number for pull in asked if pull.is_fork and matches(rules, pull.branch)}
        yield from (ref for ref in heads if (found := _PULL.fullmatch(ref)) and int(found[2]) in numbers)


def matches(rules: PreviewRules, branch: str) -> bool:
    return any(fnmatchcase(branch, pattern) for pattern in rules.branches)


def gone_pulls(heads: Mapping[str, str], pulls: Iterable[OpenPull]) -> tuple[OpenPull, ...]:
    """Return the requests that must have been closed, whatever webhooks have said: their branches are gone. What a
    forge keeps for a request of a fork stays when the request is closed, so it says nothing."""
    return tuple(pull for pull in pulls if not pull.is_fork and f"{BRANCHES}{pull.branch}" not in heads)


def wanted_previews(
    spec: PlatformSpec,
    seen: Iterable[SeenBranch],
    decisions: Mapping[AppName, PreviewDecision],
    suspended: frozenset[AppName],
    now: float,
    made: Iterable[BranchPreview] = (),
) -> BranchPreviews:
    """Return the previews that there are to be. `spec` is the platform folder, `suspended` has the apps that a person
    has suspended. Of more branches than an app may have previews, those whose last commit is newest count. `made` has
    those that exist: the boxes of one never become those of another branch, whose pusher may have looked for a name
    with the same digest."""
    branches: dict[AppName, list[SeenBranch]] = {}
    for each in seen:
        branches.setdefault(each.app, []).append(each)
    taken = {app.name for app in spec.apps}
    known = {each.app: (each.of, each.ref) for each in made}
    wanted: list[BranchPreview] = []
    left_out: list[LeftOut] = []
    for app in spec.apps:
        for found in _of_app(app, branches.get(app.name, ()), decisions, suspended, now):
            if isinstance(found, LeftOut):
                left_out.append(found)
            elif found.app in taken or known.get(found.app, (app.name, found.ref)) != (app.name, found.ref):
                left_out.append(
                    LeftOut(app.name, found.ref, Localizable("there is another app {app}", app=found.app))
                )
            else:
                taken.add(found.app)
                wanted.append(found)
    return BranchPreviews(tuple(wanted), tuple(left_out))


def _of_app(
    app: PlatformAppSpec,
    branches: Iterable[SeenBranch],
    decisions: Mapping[AppName, PreviewDecision],
    suspended: frozenset[AppName],
    now: float,
) -> Iterator[BranchPreview | LeftOut]:
    rules = app.previews
    if rules is None:
        return
    number = 0
    for each in sorted(branches, key=lambda each: (-each.since, each.ref)):
        name = preview_name(app.name, each.ref)
        decision = decisions.get(name, PreviewDecision())
        ends = _end(each.since, decision.kept, rules.ttl, now)
        preview = BranchPreview(name, app.name, each.ref, each.head, each.since, ends)
        why = _why_not(app, preview, decision, rules, suspended, now)
        why = why or _why_no_more(app.limits, rules, number)
        if why:
            yield LeftOut(app.name, each.ref, why)
        else:
            number += 1
            yield preview


def _end(since: float, kept: float, ttl: float, now: float) -> float:
    # A clock that was set back must not keep a preview for longer than a person has asked for.
    return math.inf if kept == math.inf else max(since, min(kept, now)) + ttl


def _why_not(
    app: PlatformAppSpec,
    preview: BranchPreview,
    decision: PreviewDecision,
    rules: PreviewRules,
    suspended: frozenset[AppName],
    now: float,
) -> str:
    if app.suspend or app.name in suspended:
        return Localizable("{app} is suspended", app=app.name)
    if decision.removed == preview.head:
        return Localizable("a person has removed it; the next commit brings it back")
    if preview.ends <= now:
        return Localizable("its time is over; the next commit brings it back")
    if not matches(rules, shown_ref(preview.ref)) and preview.ref.startswith(BRANCHES):
        return Localizable("spec.previews.branches does not match it any more")
    return ""


def _why_no_more(share: Limits, rules: PreviewRules, number: int) -> str:
    """Return why there is no place for another one beside `number` previews."""
    if number >= rules.most:
        return Localizable(
            "there are {most} newer ones already, as many as spec.previews.max allows", most=rules.most
        )
    for field in fields(Limits):
        bound, each = getattr(share, field.name), getattr(rules.limits, field.name)
        if bound is not None and each and (number + 1) * each > bound * (1 + 1e-9):
            return Localizable(
                "{number} previews may not use more {resource} together than spec.limits allows the app",
                number=number + 1,
                resource=field.name,
            )
    return ""


def part_of(limits: Limits, most: int) -> Limits:
    """Return an equal part of an app's limits for each of so many previews."""
    return Limits(
        cpus=None if limits.cpus is None else math.floor(1000 * limits.cpus / most) / 1000,
        memory=None if limits.memory is None else limits.memory // most,
        storage=None if limits.storage is None else limits.storage // most,
        containers=None if limits.containers is None else limits.containers // most,
        gpus=None if limits.gpus is None else limits.gpus // most,
    )


def with_share_of_previews(app: PlatformAppSpec) -> Limits:
    """Return what an app and its previews may use together, all of which counts against its owner's quota."""
    if app.previews is None:
        return app.limits
    return replace(app.limits, **{name: 2 * n for name, n in vars(app.limits).items() if n is not None})


def with_previews(spec: PlatformSpec, previews: Iterable[BranchPreview]) -> PlatformSpec:
    """Return the platform folder with previews as apps of their own, each with a Repository of its own: what is fetched
    for one never touches the clone of the app."""
    apps, repositories = list(spec.apps), list(spec.repositories)
    for preview in previews:
        app = spec.app(preview.of)
        repository = spec.repository(app.repository) if app else None
        if app is None or repository is None or app.previews is None:
            continue
        followed = _repository_of(preview, repository)
        repositories.append(followed)
        apps.append(_app_of(preview, app, app.previews, followed.name))
    return replace(spec, apps=tuple(apps), repositories=tuple(repositories))


def _repository_of(preview: BranchPreview, repository: RepositorySpec) -> RepositorySpec:
    is_branch = preview.ref.startswith(BRANCHES)
    ref = GitRef(RefKind.BRANCH, shown_ref(preview.ref)) if is_branch else GitRef(RefKind.PULL, preview.ref)
    return replace(
        repository,
        name=RepositoryName(f"@{preview.app}"),  # which no Repository of the folder can be called
        ref=ref,
        interval=0.0,
        hook_provider=None,
        hook_secret=None,
        head=preview.head,
    )


def _app_of(
    preview: BranchPreview, app: PlatformAppSpec, rules: PreviewRules, repository: RepositoryName
) -> PlatformAppSpec:
    """What governs a preview is in the platform folder alone: no gate holds it up, since nobody relies on it."""
    return replace(
        app,
        name=preview.app,
        repository=repository,
        prune=True,
        suspend=False,
        deploy=DeployRules(frozen=False, approval=False),
        limits=rules.limits,
        owner="",
        previews=None,
        # Those who ask from another repository may not even read this one, much less the data of the app.
        preview=PreviewOf(
            app.name,
            app.repository,
            preview.ref,
            rules.secrets,
            copies_boxes=rules.copies_boxes and preview.ref.startswith(BRANCHES),
        ),
    )
