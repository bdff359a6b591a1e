"""Passes over apps in which nothing has changed, which are nearly all: what the last whole pass was decided by is
looked at again, and if it is the same, nothing is loaded, planned, judged or written. Called at the begin and the end
of each pass; controller/domain/apps/quiet.py decides.

What is known of a pass is in memory alone: after a restart, the first pass over each app is a whole one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from controller.domain.apps.desired import DesiredApp
from controller.domain.apps.observed import ObservedApp
from controller.domain.apps.quiet import PassInputs, QuietPass
from controller.domain.apps.requests import Outcome, ReconcileRequest
from controller.domain.apps.spec import PlatformSpec
from controller.domain.errors import ControllerError
from controller.domain.names import AppName, ComponentName
from controller.domain.routing.routes import Route
from controller.ports import Revision
from controller.reconcile.bugs import as_transient
from controller.reconcile.deps import PROBE_TIMEOUT, PassOutcome, ReconcilerDeps
from controller.reconcile.loading import fetch


@dataclass(frozen=True)
class Beginning:
    """What was read before all else of a pass, so that what changes during it makes the next one a whole one. `head`:
    the commit, if it was fetched already."""

    platform: PlatformSpec
    rows: bytes
    head: Revision | None = None

    @classmethod
    def of(cls, deps: ReconcilerDeps, app: AppName) -> Self:
        return cls(deps.catalog.spec, deps.store.apps.inputs(app))

    def inputs(self, commit: str, observed: ObservedApp) -> PassInputs:
        """Return the inputs, with what the engine alone shows."""
        seen = ObservedApp(observed.app, observed.workloads, observed.network)
        return PassInputs(self.platform, self.rows, commit, seen)


def look(deps: ReconcilerDeps, request: ReconcileRequest) -> PassOutcome | Beginning:
    """Return the outcome of a pass that finds nothing changed, or how a whole one begins. What cannot be looked at is a
    matter for a whole pass, too."""
    app = request.app
    begin, known = Beginning.of(deps, app), deps.quiet.get(app)
    if known is None or not known.holds(frozenset(request.reasons), deps.clock.now()):
        return begin
    before = known.inputs
    if begin.platform is not before.platform or begin.rows != before.rows:
        return begin
    try:
        with as_transient(app, "looking for changes"):
            head = _head(deps, app, begin.platform)
            begin = replace(begin, head=head)
            is_same = head.commit == before.commit and deps.engine.observe(app) == before.observed
            return _outcome(deps, known) if is_same and _all_ready(deps, known) else begin
    except ControllerError:
        return begin


def _head(deps: ReconcilerDeps, app: AppName, platform: PlatformSpec) -> Revision:
    """Return the newest commit. An app is known to have a repository if a pass over it was quiet."""
    declared = platform.app(app)
    repository = declared and platform.repository(declared.repository)
    assert repository
    return fetch(deps, repository)


def _all_ready(deps: ReconcilerDeps, known: QuietPass) -> bool:
    return all(deps.prober.probe(upstream, path, PROBE_TIMEOUT).ready for upstream, path in known.endpoints)


def _outcome(deps: ReconcilerDeps, known: QuietPass) -> PassOutcome:
    left = None if known.retry_at is None else max(0.0, known.retry_at - deps.clock.now())
    return PassOutcome(Outcome.READY, known.message, known.inputs.commit, left)


def endpoints(desired: DesiredApp, routes: dict[ComponentName, Route]) -> tuple[tuple[str, str], ...]:
    """Return what is asked whether it is ready: the containers in service, each with its path."""
    return tuple(
        (upstream, component.spec.server.ready_path)
        for component in desired.components
        if (route := routes.get(component.spec.name))
        for upstream in route.upstreams
    )
