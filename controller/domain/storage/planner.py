"""Planning for boxes: which buckets to create, change, keep and remove, and the conditions of boxes. Pure; called by
`planner.plan_app` and after every pass.

Safety rules, each held by a test:
- data is removed only if its manifest asked for it (`reclaimPolicy: Delete`) and was removed from Git, or if
  a person asked for it;
- disconnecting an app never removes data, unless it was a preview of a branch;
- a capacity below what is stored is not put in force;
- a box that begins as a copy is nobody's until the copy is complete."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from controller.domain.apps.conditions import Condition, Conditions, ConditionType
from controller.domain.apps.desired import DesiredApp
from controller.domain.apps.observed import ObservedApp, ObservedBox, StorageFault
from controller.domain.apps.plan import (
    Action,
    CopyBox,
    CreateBucket,
    Hold,
    KeepBucket,
    RemoveBucket,
    UpdateBox,
)
from controller.domain.apps.spec import BoxSpec, ComponentKind, Reclaim
from controller.domain.apps.status import BoxStatus
from controller.domain.localizable import Localizable
from controller.domain.names import ComponentName, bucket_name
from controller.domain.reasons import Reason
from controller.domain.storage.box import BoxRecord, BoxState
from controller.domain.units import about_size

_STORAGE_PAUSE = 5.0  # seconds until a storage that did not answer is asked again


def plan_boxes(
    desired: DesiredApp, observed: ObservedApp, instance: str
) -> tuple[list[tuple[Action, ...]], list[Hold]]:
    """A group of actions for each box that needs any. While the storage does not answer nothing is planned."""
    found = {box.record.box: box for box in observed.boxes}
    sources = {record.box: record for record in observed.sources}
    if observed.storage is not None:
        return _without_storage(desired, found, observed.storage)
    steps: list[tuple[Action, ...]] = []
    holds: list[Hold] = []
    for spec in desired.boxes:
        actions, hold = _declared(desired, spec, found.get(spec.name), sources.get(spec.name), instance)
        steps.append(actions)
        holds += [hold] if hold else []
    declared = {spec.name for spec in desired.boxes}
    for name in sorted(found.keys() - declared):
        actions, hold = _gone(desired, found[name])
        steps.append(actions)
        holds += [hold] if hold else []
    return [step for step in steps if step], holds


def _without_storage(
    desired: DesiredApp, found: dict[ComponentName, ObservedBox], fault: StorageFault
) -> tuple[list[tuple[Action, ...]], list[Hold]]:
    """Keep the records of kept data even without a storage, since nothing else says that it is kept."""
    retry = _STORAGE_PAUSE if fault.transient else None
    waiting = {spec.name for spec in desired.boxes}
    steps: list[tuple[Action, ...]] = []
    for name in sorted(found.keys() - waiting):
        actions, _ = _gone(desired, found[name])
        if any(isinstance(action, RemoveBucket) for action in actions):
            waiting.add(name)
        elif actions:
            steps.append(actions)
    return steps, [
        Hold(name, fault.reason, fault.why, retry, ComponentKind.DATA_BOX) for name in sorted(waiting)
    ]


def judge_box(spec: BoxSpec, record: BoxRecord | None, hold: Hold | None, revision: str) -> BoxStatus:
    """Return the status of a box. `record` and `hold` are those after the pass; without a record, the bucket
    could not be created yet."""
    if record is None or record.state is not BoxState.BOUND:
        conditions = (
            _not_ready(hold.reason, hold.why, revision)
            if hold
            else _not_ready(Reason.NOT_MADE, Localizable("its bucket has not been made yet"), revision)
        )
        return BoxStatus(spec.name, "", spec.capacity, 0, 0, conditions)
    return BoxStatus(
        spec.name,
        record.bucket,
        record.capacity,
        record.used,
        record.files,
        _conditions(record, hold, revision),
    )


def _conditions(record: BoxRecord, hold: Hold | None, revision: str) -> Conditions:
    if hold and hold.reason != Reason.CAPACITY_BELOW_USE:
        return _not_ready(hold.reason, hold.why, revision)
    stored = Localizable(
        "{used} of {capacity} in {files} files",
        used=about_size(record.used),
        capacity=about_size(record.capacity),
        files=record.files,
    )
    ready = Condition(ConditionType.READY, True, Reason.STORED, stored, revision=revision)
    if record.used > record.capacity:
        why = Localizable("{stored}: uploads are refused until there is space", stored=stored)
        return ready, Condition(ConditionType.DEGRADED, True, Reason.OVER_CAPACITY, why, revision=revision)
    if hold:
        return ready, Condition(ConditionType.DEGRADED, True, hold.reason, hold.why, revision=revision)
    return (ready,)


def _not_ready(reason: Reason, why: str, revision: str) -> Conditions:
    return (
        Condition(ConditionType.READY, False, reason, why, revision=revision),
        Condition(ConditionType.DEGRADED, True, reason, why, revision=revision),
    )


def bound(observed: ObservedApp) -> tuple[ComponentName, ...]:
    """Return the boxes that were declared in the last pass."""
    return tuple(box.record.box for box in observed.boxes if box.record.state is BoxState.BOUND)


def begins_as_copy(record: BoxRecord | None, source: BoxRecord | None) -> bool:
    """Return True if a box has no data of its own yet, and is to begin with that of `source`."""
    return source is not None and (record is None or record.state in (BoxState.COPYING, BoxState.DELETING))


def incomplete_copies(desired: DesiredApp, observed: ObservedApp) -> tuple[ComponentName, ...]:
    """Return the boxes that are to begin as copies, and are not complete yet."""
    found = {box.record.box: box.record for box in observed.boxes}
    sources = {record.box: record for record in observed.sources}
    names = (spec.name for spec in desired.boxes)
    return tuple(name for name in names if begins_as_copy(found.get(name), sources.get(name)))


def _declared(
    desired: DesiredApp,
    spec: BoxSpec,
    found: ObservedBox | None,
    source: BoxRecord | None,
    instance: str,
) -> tuple[tuple[Action, ...], Hold | None]:
    new = _first(_new(desired, spec, instance), source)
    if found is None:
        return (new,), None
    if found.record.state is BoxState.DELETING:
        return (RemoveBucket(found.record, why=Localizable("its deletion was asked for")), new), None
    if found.record.state is BoxState.COPYING:
        if source is not None:
            return (new,), None
        why = Localizable("the box that it was to be a copy of is not there any more")
        return (RemoveBucket(found.record, why=why), new), None
    record, hold = _wanted(spec, found.record)
    if not found.present:
        return (CreateBucket(record, why=Localizable("its bucket is gone, and all data in it")),), hold
    if record == found.record:
        return (), hold
    return (UpdateBox(record, why="; ".join(_changes(found.record, record))),), hold


def _new(desired: DesiredApp, spec: BoxSpec, instance: str) -> BoxRecord:
    bucket = bucket_name(instance, desired.app, spec.name)
    return BoxRecord(desired.app, spec.name, bucket, spec.capacity, spec.reclaim)


def _first(record: BoxRecord, source: BoxRecord | None) -> CreateBucket | CopyBox:
    """Return how a box gets its first content."""
    if source is None:
        return CreateBucket(record, why=Localizable("declared, not there"))
    return CopyBox(record, source, why=Localizable("a box of a preview begins as a copy"))


def _wanted(spec: BoxSpec, record: BoxRecord) -> tuple[BoxRecord, Hold | None]:
    wanted = replace(record, capacity=spec.capacity, reclaim=spec.reclaim, state=BoxState.BOUND)
    if spec.capacity >= record.used or spec.capacity >= record.capacity:
        return wanted, None
    why = Localizable(
        "{capacity} are declared, but {used} are stored: the capacity stays {capacity2} until there is less",
        capacity=about_size(spec.capacity),
        used=about_size(record.used),
        capacity2=about_size(record.capacity),
    )
    return replace(wanted, capacity=record.capacity), Hold(
        spec.name, Reason.CAPACITY_BELOW_USE, why, kind=ComponentKind.DATA_BOX
    )


def _changes(before: BoxRecord, after: BoxRecord) -> Iterator[str]:
    if before.state is not after.state:
        yield Localizable("declared again, its data was kept")
    if before.capacity != after.capacity:
        yield Localizable("capacity was {capacity}", capacity=about_size(before.capacity))
    if before.reclaim is not after.reclaim:
        yield Localizable("reclaimPolicy was {reclaim}", reclaim=before.reclaim)


def _gone(desired: DesiredApp, found: ObservedBox) -> tuple[tuple[Action, ...], Hold | None]:
    """A box that no manifest declares."""
    record = found.record
    if record.state is BoxState.DELETING:
        return (RemoveBucket(record, why=Localizable("its deletion was asked for")),), None
    if desired.disconnected and desired.is_preview:
        return (RemoveBucket(record, why=Localizable("the preview has ended")),), None
    if record.state is BoxState.COPYING:
        return (RemoveBucket(record, why=Localizable("left Git before its copy was complete")),), None
    if record.state is BoxState.KEPT:
        return (), None
    if desired.disconnected:
        return (KeepBucket(record, why=Localizable("the app was disconnected, data stays")),), None
    if not desired.prune:
        return (), Hold(
            record.box,
            Reason.PRUNE_DISABLED,
            Localizable("left Git, kept because prune is off"),
            kind=ComponentKind.DATA_BOX,
        )
    if record.reclaim is Reclaim.DELETE:
        return (RemoveBucket(record, why=Localizable("left Git, reclaimPolicy is Delete")),), None
    return (KeepBucket(record, why=Localizable("left Git, data stays")),), None
