"""Images that are followed: which tag a rule means, what is kept of each image, and when the registry is asked again.
Pure.

The follower asks registries and writes a `FollowState`; passes declare what is followed, read the states, and decide
what is deployed. A state never goes back by itself: a tag that disappears changes nothing for an image in service.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from controller.domain.apps.releases import Images, commit_of
from controller.domain.apps.spec import AppSpec, ExistingImage, ImageFollow, ImageSource, TagOrder
from controller.domain.apps.status import Rollback
from controller.domain.apps.versions import ranked
from controller.domain.backoff import Backoff
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.image_names import split_reference
from controller.domain.localizable import Localizable
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.text import bounded

LONGEST_PAUSE: Final = 86_400.0  # seconds, whatever a registry asks for
_SLOWEST: Final = 3600.0  # seconds between attempts at a registry that does not answer
_NUMBER = re.compile(r"[0-9]{1,40}(?:\.[0-9]{1,40})?", re.ASCII)
_SHOWN: Final = 5  # tags in a message

#: Returns the part of a tag that a pattern is about; None if it does not match.
Extract = Callable[[str], str | None]


@dataclass(frozen=True)
class FollowedImage:
    """`subject` is a component, or `pipeline/stage`; `reference` is what Git says."""

    subject: str
    reference: str
    follow: ImageFollow

    @property
    def name(self) -> str:
        return split_reference(self.reference)[0]

    @property
    def tag(self) -> str:
        return split_reference(self.reference)[1]

    @property
    def question(self) -> tuple[object, ...]:
        """What the registry is asked. Answers to another question do not count."""
        follow = self.follow
        tag = (self.tag or "latest") if follow.digest else ""
        return self.name, tag, follow.semver, follow.pattern, follow.order, follow.digest

    @property
    def is_open(self) -> bool:
        """Return True if Git names no image to begin with, only what is followed."""
        _, tag, digest = split_reference(self.reference)
        return not (self.follow.digest or tag or digest)

    def at(self, tag: str, digest: str) -> str:
        return f"{self.name}:{tag}@{digest}"


@dataclass(frozen=True)
class FollowState:
    """`image` is the newest one that was found, as `name:tag@digest`, and `why` says why it is that one. `next` is when
    the registry is asked again; `failures` in a row have `reason` and `problem`. `written` is the image that was last
    written to Git, as `commit`. Times in Unix seconds."""

    image: str = ""
    why: str = ""
    since: float = 0.0
    asked: float = 0.0
    next: float = 0.0
    failures: int = 0
    reason: Reason = Reason.NONE
    problem: str = ""
    written: str = ""
    commit: str = ""


@dataclass(frozen=True)
class FollowRecord:
    """`rejected` is an image that was rolled back: it is not deployed again before there is another one. `wanted`: a
    person has asked at that time for the registry to be asked at once."""

    app: AppName
    image: FollowedImage
    state: FollowState = FollowState()
    rejected: str = ""
    wanted: float = 0.0

    @property
    def due(self) -> float:
        return 0.0 if self.wanted and self.wanted >= self.state.asked else self.state.next

    @property
    def candidate(self) -> str:
        """Return the image that should be deployed; "" if nothing is known yet, or it was rolled back."""
        return self.state.image if self.state.image != self.rejected else ""


# --- what a commit follows ----------------------------------------------------------------------------------------


def followed_by(spec: AppSpec) -> tuple[FollowedImage, ...]:
    """Return what the manifests follow, sorted."""
    return tuple(sorted(_followed(spec), key=lambda image: image.subject))


def _followed(spec: AppSpec) -> Iterator[FollowedImage]:
    sources: list[tuple[str, ImageSource]] = [(each.name, each.image) for each in spec.ml_components]
    sources += [(subject_of(p.name, stage.name), stage.image) for p in spec.pipelines for stage in p.stages]
    for subject, source in sources:
        if isinstance(source, ExistingImage) and source.follow:
            yield FollowedImage(subject, source.reference, source.follow)


def subject_of(pipeline: str, stage: str) -> str:
    return f"{pipeline}/{stage}"


def with_images(spec: AppSpec, images: Images) -> AppSpec:
    """Return the specification with these images in place of those of Git."""
    chosen = dict(images)

    def source(subject: str, declared: ImageSource) -> ImageSource:
        return ExistingImage(chosen[subject]) if subject in chosen else declared

    return _with_sources(spec, source)


def _with_sources(spec: AppSpec, source: Callable[[str, ImageSource], ImageSource]) -> AppSpec:
    """Return the specification with what `source` makes of each image and what it is of."""
    return replace(
        spec,
        ml_components=tuple(replace(c, image=source(c.name, c.image)) for c in spec.ml_components),
        pipelines=tuple(
            replace(
                p,
                stages=tuple(replace(s, image=source(subject_of(p.name, s.name), s.image)) for s in p.stages),
            )
            for p in spec.pipelines
        ),
    )


def without_write_back(spec: AppSpec) -> AppSpec:
    """Return the specification of a preview, which follows images beside Git alone: two of them would write to one
    branch, and the person who pushes to it would be ahead of neither."""

    def source(declared: ImageSource) -> ImageSource:
        if isinstance(declared, ExistingImage) and declared.follow and declared.follow.write_back:
            return replace(declared, follow=replace(declared.follow, write_back=False))
        return declared

    return _with_sources(spec, lambda _, declared: source(declared))


def wanted_images(
    spec: AppSpec, records: Iterable[FollowRecord], in_force: Images, hold: bool = False
) -> Images:
    """Return the images that replace those of Git: the newest ones, or with `hold` those in force, and those of Git
    where there are none. Images that are written back are those of Git."""
    known = {record.image.subject: record for record in records}
    present = dict(in_force)
    return tuple(
        (image.subject, found)
        for image in followed_by(spec)
        if (found := _wanted(image, known.get(image.subject), present.get(image.subject, ""), hold))
    )


def _wanted(image: FollowedImage, record: FollowRecord | None, in_force: str, hold: bool) -> str:
    kept = in_force if split_reference(in_force)[0] == image.name else ""
    if record is None or record.image.question != image.question:
        return ""
    if image.follow.write_back:  # what was deployed beside Git before stays until it is in Git
        return kept if image.reference != record.state.written else ""
    if hold:
        return kept or (record.candidate if image.is_open else "")
    return record.candidate or kept


def has_newer(records: Iterable[FollowRecord], back: Images, replaced: Images) -> bool:
    """Return True if an image was found that is neither the one that is held nor one that was rolled back."""
    held, refused = dict(back), dict(replaced)
    return any(
        record.state.image not in ("", record.rejected, held.get(subject), refused.get(subject))
        for record in records
        if (subject := record.image.subject) in held
    )


# --- which tag is meant -------------------------------------------------------------------------------------------


def order_tags(image: FollowedImage, tags: Iterable[str], extract: Extract) -> tuple[str, ...]:
    """Return the tags that the rule admits, the one that is meant first. `extract` is that of its pattern."""
    follow = image.follow
    if follow.digest:
        return (image.tag or "latest",)
    texts: dict[str, str] = {}
    for tag in sorted(tags):
        text = extract(tag) if follow.pattern else tag
        if text is not None:
            texts[text] = tag
    if follow.semver:
        return tuple(texts[text] for text in ranked(follow.semver, texts))
    if follow.order is TagOrder.ALPHABETICAL:
        return tuple(texts[text] for text in sorted(texts, reverse=True))
    numbers = sorted(
        ((Decimal(text), tag) for text, tag in texts.items() if _NUMBER.fullmatch(text)), reverse=True
    )
    return tuple(tag for _, tag in numbers)


def why_chosen(image: FollowedImage, tag: str, fitting: int, tags: int) -> str:
    """Say why a tag was chosen: of `tags` in the registry `fitting` fulfil the rule."""
    follow = image.follow
    if follow.digest:
        return Localizable("{tag} is the tag that is followed", tag=tag)
    among = Localizable("of {fitting} among {tags} tags", fitting=fitting, tags=tags)
    if follow.semver and follow.pattern:
        return Localizable(
            "{tag} is the highest version within {range!r}, as {pattern!r} reads them, {among}",
            tag=tag,
            range=follow.semver,
            pattern=follow.pattern,
            among=among,
        )
    if follow.semver:
        return Localizable(
            "{tag} is the highest version within {range!r}, {among}",
            tag=tag,
            range=follow.semver,
            among=among,
        )
    if follow.order is TagOrder.NUMERICAL:
        return Localizable(
            "{tag} has the highest number for {pattern!r}, {among}",
            tag=tag,
            pattern=follow.pattern,
            among=among,
        )
    return Localizable(
        "{tag} has the highest text for {pattern!r}, {among}", tag=tag, pattern=follow.pattern, among=among
    )


def rule_of(image: FollowedImage) -> str:
    """Return the rule for people."""
    follow = image.follow
    if follow.digest:
        return f"tag {image.tag or 'latest'}"
    order = f", {follow.order}" if not follow.semver else ""
    parts = [f"semver {follow.semver}"] if follow.semver else []
    parts += [f"pattern {follow.pattern}{order}"] if follow.pattern else []
    return ", ".join(parts)


def no_tag(image: FollowedImage, tags: tuple[str, ...]) -> Stalled:
    """Return the error that no tag fulfils the rule."""
    follow = image.follow
    if follow.semver and follow.pattern:
        rule = Localizable(
            "is a version within {range!r}, as {pattern!r} reads it",
            range=follow.semver,
            pattern=follow.pattern,
        )
    elif follow.semver:
        rule = Localizable("is a version within {range!r}", range=follow.semver)
    elif follow.order is TagOrder.NUMERICAL:
        rule = Localizable("fits {pattern!r} with a number", pattern=follow.pattern)
    else:
        rule = Localizable("fits {pattern!r}", pattern=follow.pattern)
    shown = ", ".join(sorted(tags)[-_SHOWN:])
    there = (
        Localizable("there are, for example, {tags}", tags=shown)
        if tags
        else Localizable("it has no tags at all")
    )
    told = Localizable("no tag of {name} {rule}: {there}", name=image.name, rule=rule, there=there)
    return Stalled(Reason.NO_MATCHING_TAG, told)


def keeps(image: FollowedImage, known: str, order: tuple[str, ...], proven: str, extract: Extract) -> bool:
    """Return True if the image that was found before stays although its tag is gone: it has been in service, and what
    is left is older."""
    tag = split_reference(known)[1]
    if not known or known != proven or tag in order or image.follow.digest:
        return False
    return order_tags(image, (*order, tag), extract)[:1] == (tag,)


# --- what is kept of an answer ------------------------------------------------------------------------------------


def answered(
    state: FollowState, image: str, why: str, now: float, pause: float, problem: str = ""
) -> FollowState:
    """Return the state after an answer. A `problem` is told beside it."""
    since = state.since if state.image == image else now
    return replace(
        state,
        image=image,
        why=why,
        since=since,
        asked=now,
        next=now + pause,
        failures=0,
        reason=Reason.NO_MATCHING_TAG if problem else Reason.NONE,
        problem=bounded(problem),
    )


def failed(
    state: FollowState, error: ControllerError, now: float, interval: float, least: float
) -> FollowState:
    """Return the state after a failure: the next attempt comes later each time, and not before the registry allows."""
    failures = state.failures + 1
    pause = Backoff(least, max(interval, _SLOWEST)).after(failures)
    asked_for = error.retry_after if isinstance(error, Transient) else 0.0
    return replace(
        state,
        asked=now,
        next=now + max(pause, min(asked_for, LONGEST_PAUSE)),
        failures=failures,
        reason=error.reason,
        problem=bounded(error.message),
    )


def may_write(record: FollowRecord, state: FollowState, rollback: Rollback | None) -> bool:
    """Return True if an image may be written to Git. None is written twice, so that nobody who takes it back in Git has
    to fight; and while an app is held at an earlier commit, only what replaces a commit of our own."""
    if rollback and commit_of(rollback.replaced) != state.commit:
        return False
    return state.image not in ("", record.rejected, state.written)


def warnings_of(records: Iterable[FollowRecord]) -> Iterator[str]:
    """Yield what people have to know about images that cannot be followed."""
    for record in records:
        if record.state.problem:
            yield Localizable(
                "the image of {subject} is not followed: {problem}",
                subject=record.image.subject,
                problem=record.state.problem,
            )
        elif record.rejected and record.rejected == record.state.image:
            _, tag, digest = split_reference(record.rejected)
            yield Localizable(
                "the image of {subject}: {tag} ({digest}) was rolled back, and is not taken again before there is "
                "another image; `prichal reconcile {app}` takes it all the same",
                subject=record.image.subject,
                tag=tag,
                digest=digest[7:19],
                app=record.app,
            )
