"""Going back to an earlier revision: which one that is, and how long it holds. Pure.

A rollback is a decision of a person, or of the platform if a version that is watched fails. It holds until Git has
another commit than the one that it replaced, or until somebody resumes the app.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from controller.domain.apps.conditions import Condition, ConditionType, find
from controller.domain.apps.history import AppliedRevision
from controller.domain.apps.releases import Images, commit_of, short_release
from controller.domain.apps.requests import Outcome
from controller.domain.apps.rollout_watch import AUTOMATIC, FailedRollout
from controller.domain.apps.status import AppStatus, Rollback, is_suspended
from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable, sentences
from controller.domain.reasons import Reason
from controller.domain.units import rfc3339

SHORTEST = 4  # characters of a revision


def decide_rollback(
    status: AppStatus, history: Iterable[AppliedRevision], wanted: str | None, by: str, at: float
) -> Rollback:
    """Return the rollback to `wanted` (the first characters of a revision, or the number of an entry), or without it
    to the newest revision before the present commit that was ready. Asking twice for the same changes nothing.

    `history` is newest first. Raises Stalled `UnknownRevision` and `RollbackRefused`.
    """
    app, entries = status.app, tuple(history)
    if is_suspended(status):
        told = Localizable(
            "{app} is suspended, so nothing is changed: resume it first, with: prichal resume {app}", app=app
        )
        raise Stalled(Reason.ROLLBACK_REFUSED, told)
    if status.attempted_revision == "" or not entries:
        told = Localizable("nothing was applied to {app} yet, so it cannot go back", app=app)
        raise Stalled(Reason.UNKNOWN_REVISION, told)
    replaced = status.attempted
    revision = _last_good(status, entries) if wanted is None else _named(status, entries, wanted)
    if revision == replaced:
        go_on = Localizable("go on to it with: prichal resume {app}", app=app)
        told = Localizable(
            "{revision} is the newest commit that {app} knows of: {how}",
            revision=short_release(revision),
            app=app,
            how=go_on if status.rollback else Localizable("name an earlier one"),
        )
        raise Stalled(Reason.ROLLBACK_REFUSED, told)
    if status.rollback and (status.rollback.revision, status.rollback.replaced) == (revision, replaced):
        return status.rollback
    return Rollback(revision, replaced, by, at)


def ends_rollback(status: AppStatus) -> bool:
    """Return whether `resume` ends a rollback. Of an app that is suspended besides, it ends the suspension, so that the
    version from which somebody went back does not return together with everything else."""
    return status.rollback is not None and not is_suspended(status)


def _last_good(status: AppStatus, entries: tuple[AppliedRevision, ...]) -> str:
    """Return the newest release that was ready, besides the present one. While a newer one waits for a person or a
    window, the one in force is the present one, too."""
    is_held = find(status.conditions, ConditionType.DEPLOY_PENDING) is not None
    present = {status.attempted, status.desired} if is_held else {status.attempted}
    for each in entries:
        if each.outcome == Outcome.READY and each.release not in present:
            return each.release
    told = Localizable(
        "no revision of {app} before {revision} was ready: choose one with --to; see: prichal history {app}",
        app=status.app,
        revision=short_release(status.attempted),
    )
    raise Stalled(Reason.UNKNOWN_REVISION, told)


def _named(status: AppStatus, entries: tuple[AppliedRevision, ...], wanted: str) -> str:
    named = [each for each in entries if len(wanted) >= SHORTEST and each.release.startswith(wanted)]
    named = named or [each for each in entries if str(each.id) == wanted]
    if not named:
        raise Stalled(Reason.UNKNOWN_REVISION, unknown_revision(status.app, wanted))
    found = sorted({each.revision for each in named})
    if len(found) > 1:
        several = ", ".join(revision[:12] for revision in found)
        told = Localizable(
            "{wanted!r} is the beginning of {several}: write more; see: prichal history {app}",
            wanted=wanted,
            several=several,
            app=status.app,
        )
        raise Stalled(Reason.UNKNOWN_REVISION, told)
    return _best(named, status.attempted)


def _best(entries: list[AppliedRevision], present: str) -> str:
    """Return the release that is meant by entries of one commit, newest first: one that was ready, and is not the
    present one, goes before others."""
    order = sorted(entries, key=lambda each: (each.release == present, each.outcome != Outcome.READY))
    return order[0].release


def unknown_revision(app: str, wanted: str) -> Localizable:
    return Localizable(
        "the history of {app} has no revision {wanted!r}; see: prichal history {app}", app=app, wanted=wanted
    )


def is_credible(status: AppStatus, history: Iterable[AppliedRevision]) -> bool:
    """Return whether the rollback of `status` leads to a revision that the daemon has applied before, and so has
    verified. Others than the daemon write rollbacks; a history that was lost meanwhile does not end one."""
    wanted = status.rollback.revision if status.rollback else ""
    return wanted in {status.desired, status.applied, *(each.release for each in history)}


def images_of(status: AppStatus, history: Iterable[AppliedRevision], release: str) -> Images:
    """Return the followed images of a release that was applied before."""
    for known, images in (
        (status.desired, status.desired_images),
        (status.applied, status.applied_images),
        *((each.release, each.images) for each in history),
    ):
        if known == release:
            return images
    return ()


def is_of_images(rollback: Rollback) -> bool:
    """Return True if only followed images are rolled back, at the same commit."""
    return commit_of(rollback.revision) == commit_of(rollback.replaced)


def rejected_images(rollback: Rollback, back: Images, replaced: Images) -> Images:
    """Return the images that a rollback refuses, so that they are not chosen again before there are others. Images of
    a rollback to another commit are those of that commit, and not refused."""
    if not is_of_images(rollback):
        return ()
    before = dict(back)
    return tuple((name, image) for name, image in replaced if before.get(name) != image)


def entry_of(history: Iterable[AppliedRevision], revision: str) -> AppliedRevision | None:
    """Return the newest entry in which the release was ready, or else the newest one."""
    entries = [each for each in history if each.release == revision]
    return next((each for each in entries if each.outcome == Outcome.READY), next(iter(entries), None))


def earlier_images(history: Collection[AppliedRevision], present: str, revisions: int) -> Mapping[str, str]:
    """Return the images of so many releases beside the present one that were ready, the newest first, each with the
    newest release that had it."""
    good = dict.fromkeys(
        each.release for each in history if each.outcome == Outcome.READY and each.release != present
    )
    entries = [entry for revision in list(good)[:revisions] if (entry := entry_of(history, revision))]
    found: dict[str, str] = {}
    for entry in entries:
        for image in resolved_images(entry.pins):
            found.setdefault(image, entry.release)
    return found


def resolved_images(pins: Iterable[tuple[str, str]]) -> Iterable[str]:
    """Return what references of images were resolved to: ids, and digests with the name of the image."""
    return filter(None, (pin.partition(" ")[2] for _, pin in pins))


def why_failed(rollback: Rollback, known: FailedRollout | None) -> FailedRollout | None:
    """Return why a rollback was decided without a person; None if a person has asked for it. `known` is what was saved
    of the last one: the daemon may have died before it could save this one's."""
    if rollback.by != AUTOMATIC:
        return None
    if known and (known.replaced or known.revision) == rollback.replaced:
        return known
    return FailedRollout(
        rollback.replaced, Localizable("a version failed soon after it had taken over; see the events")
    )


def holding(app: str, rollback: Rollback, is_there: bool, failed: FailedRollout | None = None) -> Condition:
    """Return the condition of an app that was rolled back. `is_there`: the revision could be read."""
    how = Localizable("is held") if is_there else Localizable("is wanted")
    until = (
        Localizable("a newer image, a new commit or `prichal resume {app}` goes on", app=app)
        if is_of_images(rollback)
        else Localizable("a new commit or `prichal resume {app}` goes on", app=app)
    )
    message: str = Localizable(
        "revision {revision} {how} since {at}, by {by}; {until}",
        revision=short_release(rollback.revision),
        how=how,
        at=rfc3339(rollback.at),
        by=rollback.by,
        until=until,
    )
    if failed:
        message = sentences(message, failed.message)
    return Condition(ConditionType.ROLLED_BACK, True, Reason.ROLLED_BACK, message, revision=rollback.revision)
