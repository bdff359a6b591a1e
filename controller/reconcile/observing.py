"""One look at all that there is of an app: what the engine has, its boxes in the storage, its services in force.

A storage that does not answer must not keep containers from being healed: that it does not is part of what is seen.
"""

from __future__ import annotations

from dataclasses import replace

from controller.domain.accounts import account_prefix
from controller.domain.desired import DesiredApp
from controller.domain.errors import Stalled, Transient
from controller.domain.observed import ObservedApp, ObservedBox, StorageFault
from controller.domain.storage import BoxRecord, BoxState
from controller.reconcile.house import House


def observe(house: House, desired: DesiredApp) -> ObservedApp:
    app = desired.app
    seen = replace(
        house.engine.observe(app),
        services=house.store.routes.services(app),
        pipelines=house.store.runs.pipelines(app),
        runs=bool(house.store.runs.unfinished(app, limit=1)),
    )
    records = house.store.boxes.of(app)
    seen = replace(seen, boxes=tuple(ObservedBox(record) for record in records))
    leaving = desired.disconnected and records and house.settings.storage.gives_accounts
    if not desired.boxes and all(record.state is BoxState.KEPT for record in records) and not leaving:
        return seen  # nothing to be done there, whatever there is: a storage of our own need not even run
    try:
        return _look_at_storage(house, seen, records)
    except (Transient, Stalled) as error:
        fault = StorageFault(error.reason, error.message, isinstance(error, Transient))
        return replace(seen, storage=fault)


def _look_at_storage(house: House, seen: ObservedApp, records: tuple[BoxRecord, ...]) -> ObservedApp:
    present = house.storage.objects().buckets()
    boxes = tuple(ObservedBox(record, record.bucket in present) for record in records)
    return replace(seen, boxes=boxes, accounts=_accounts(house, seen))


def _accounts(house: House, seen: ObservedApp) -> frozenset[str]:
    if not house.settings.storage.gives_accounts or (admin := house.storage.admin()) is None:
        return frozenset()
    prefix = account_prefix(house.settings.instance, seen.app)
    return frozenset(name for name in admin.accounts() if name.startswith(prefix))
