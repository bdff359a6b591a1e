"""Previews of branches: looks at the branches of an app's repository, and derives which previews there are.

A look is a request of its own (`previews_key`), so that a Git server that does not answer holds up this app's previews
and nothing else. It asks the server once for all refs, however many there are, and stores those that the rules of the
app are about. What follows from that is decided by `wanted_previews` and put in force with the platform folder.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from controller.domain.apps.branch_previews import (
    BranchPreviews,
    gone_pulls,
    listed_branches,
    preview_name,
    shown_ref,
    wanted_previews,
    with_previews,
)
from controller.domain.apps.requests import Outcome
from controller.domain.apps.spec import PlatformSpec
from controller.domain.apps.status import Event, EventType
from controller.domain.errors import ControllerError, Stalled, Waiting
from controller.domain.localizable import Localizable
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.secret import scrub
from controller.reconcile.bugs import as_transient
from controller.reconcile.deps import PassOutcome, ReconcilerDeps

log = logging.getLogger(__name__)

_RETRY = 30.0


def wanted_now(deps: ReconcilerDeps, declared: PlatformSpec) -> BranchPreviews:
    """Return which previews there are to be, from what is stored."""
    store = deps.store
    apps = [app.name for app in declared.apps if app.previews]
    if not apps:
        return BranchPreviews()
    suspended = frozenset(app for app in apps if store.apps.status(app).suspended)
    return wanted_previews(
        declared,
        store.branches.seen(),
        store.branches.decisions(),
        suspended,
        deps.clock.now(),
        store.branches.previews(),
    )


def derive_previews(deps: ReconcilerDeps, declared: PlatformSpec) -> PlatformSpec:
    """Record which previews there are, and return the platform folder with them. They are
    recorded before anything is created, so that what was created is also removed."""
    found = wanted_now(deps, declared)
    branches = deps.store.branches
    before = {each.app: each for each in branches.previews()}
    reasons = {(each.of, each.ref): each.why for each in branches.left_out()}
    now = {each.app: each for each in found.wanted}
    with deps.store.transaction():
        for app in {each.app for each in branches.seen()} - {a.name for a in declared.apps if a.previews}:
            branches.drop_decisions(preview_name(app, each.ref) for each in branches.seen(app))
            branches.see(app, ())
        branches.record(found, (app.name for app in declared.apps), deps.clock.now())
        for new in (each for each in found.wanted if each.app not in before):
            shown = shown_ref(new.ref)
            told = Localizable("{preview} is the preview of {branch}", preview=new.app, branch=shown)
            _record(deps, new.of, Reason.PREVIEW_ADDED, told)
        for each in found.left_out:
            name = preview_name(each.of, each.ref)
            if reasons.get((each.of, each.ref)) != each.why and name not in now:
                was = before.get(name)
                reason = Reason.PREVIEW_REMOVED if was else Reason.PREVIEW_LEFT_OUT
                _record(deps, each.of, reason, _without(each.ref, each.why))
    return with_previews(declared, found.wanted)


def _without(ref: str, why: str) -> Localizable:
    return Localizable("no preview of {branch}: {why}", branch=shown_ref(ref), why=why)


def _record(deps: ReconcilerDeps, app: AppName, reason: Reason, message: Localizable) -> None:
    deps.store.events.add([Event(app, EventType.NORMAL, reason, message, None, "", deps.clock.now())])


def look_at_branches(deps: ReconcilerDeps, app: AppName, refresh: Callable[[], object]) -> PassOutcome:
    """List the branches of an app's repository, and call `refresh` if that may change its previews."""
    try:
        with as_transient(app, "listing branches"):
            changed = _list(deps, app)
        if changed:
            refresh()
    except Waiting as error:
        return PassOutcome(Outcome.WAITING, error.message, retry_after=error.retry_after)
    except ControllerError as error:
        log.warning("cannot list branches: %s", error.message, extra={"app": app})
        retry = None if isinstance(error, Stalled) else _RETRY
        told = Localizable("{reason}: {message}", reason=error.reason, message=error.message)
        message = scrub(told, deps.catalog.secret_values(app))
        return PassOutcome(Outcome.FAILED, message, retry_after=retry)
    return PassOutcome(Outcome.READY, _summary(deps, app))


def _list(deps: ReconcilerDeps, app: AppName) -> bool:
    spec, branches = deps.catalog.spec, deps.store.branches
    declared = spec.app(app)
    repository = spec.repository(declared.repository) if declared else None
    if declared is None or repository is None or declared.previews is None:
        return branches.see(app, ())
    secret = deps.catalog.repository_secret(repository, repository.credentials)
    # Before the branches are listed: a branch is there before a request to merge it.
    began, pulls = deps.clock.now(), branches.pulls(repository.name)
    heads = deps.sources.refs(repository, secret)
    before = branches.seen(app)
    seen = listed_branches(app, declared.previews, repository.ref, heads, pulls, before, deps.clock.now())
    with deps.store.transaction():
        branches.close_pulls(repository.name, (each.number for each in gone_pulls(heads, pulls)), began)
        gone = {each.ref for each in before} - {each.ref for each in seen}
        for ref in sorted(gone):
            name = preview_name(app, ref)
            if branches.preview(name):
                _record(deps, app, Reason.PREVIEW_REMOVED, _without(ref, Localizable("its branch is gone")))
        branches.drop_decisions(preview_name(app, ref) for ref in gone)
        return branches.see(app, seen)


def _summary(deps: ReconcilerDeps, app: AppName) -> str:
    count = sum(each.preview is not None and each.preview.app == app for each in deps.catalog.spec.apps)
    return Localizable("1 preview") if count == 1 else Localizable("{count} previews", count=count)
