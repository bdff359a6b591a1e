"""Observes all that exists of an app: its containers, its boxes in the storage, its services in force. A
storage that does not answer must not prevent repairs of containers, so its failure is part of the
observation.
"""

from __future__ import annotations

from dataclasses import replace

from controller.domain.apps.desired import DesiredApp
from controller.domain.apps.observed import ObservedApp, ObservedBox, StorageFault
from controller.domain.errors import Stalled, Transient
from controller.domain.names import AppName
from controller.domain.storage.accounts import account_prefix
from controller.domain.storage.box import BoxRecord, BoxState
from controller.reconcile.deps import ReconcilerDeps
from controller.tracing import span


def observe(deps: ReconcilerDeps, desired: DesiredApp) -> ObservedApp:
    with span(deps.tracer, "observe"):
        return _observe(deps, desired)


def _observe(deps: ReconcilerDeps, desired: DesiredApp) -> ObservedApp:
    app = desired.app
    seen = replace(
        deps.engine.observe(app),
        services=deps.store.routes.services(app),
        pipelines=deps.store.runs.pipelines(app),
        runs=bool(deps.store.runs.unfinished(app, limit=1)),
    )
    records = deps.store.boxes.of(app)
    seen = replace(
        seen,
        boxes=tuple(ObservedBox(record) for record in records),
        sources=sources_of(deps, desired.boxes_of),
    )
    leaving = desired.disconnected and records and deps.settings.storage.gives_accounts
    if not desired.boxes and all(record.state is BoxState.KEPT for record in records) and not leaving:
        return seen  # nothing needs to be done there, so our own storage need not even run
    try:
        return _observe_storage(deps, seen, records)
    except (Transient, Stalled) as error:
        fault = StorageFault(error.reason, error.message, isinstance(error, Transient))
        return replace(seen, storage=fault)


def _observe_storage(deps: ReconcilerDeps, seen: ObservedApp, records: tuple[BoxRecord, ...]) -> ObservedApp:
    present = deps.storage.objects().buckets()
    boxes = tuple(ObservedBox(record, record.bucket in present) for record in records)
    sources = tuple(record for record in seen.sources if record.bucket in present)
    return replace(seen, boxes=boxes, sources=sources, accounts=_accounts(deps, seen))


def sources_of(deps: ReconcilerDeps, app: AppName | None) -> tuple[BoxRecord, ...]:
    """Return the boxes of the app whose boxes those of a preview begin as copies of."""
    return tuple(each for each in deps.store.boxes.of(app) if each.state is BoxState.BOUND) if app else ()


def _accounts(deps: ReconcilerDeps, seen: ObservedApp) -> frozenset[str]:
    """Return the accounts of components. They are in the state; earlier releases created some in the storage
    itself.
    """
    prefix = account_prefix(deps.settings.instance, seen.app)
    granted = deps.store.boxes.accounts(prefix)
    if not deps.settings.storage.gives_accounts or (admin := deps.storage.admin()) is None:
        return granted
    return granted | {name for name in admin.accounts() if name.startswith(prefix)}
