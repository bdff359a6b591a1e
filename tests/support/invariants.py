"""`check_invariants` checks what must hold after every pass."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from controller.domain.apps.conditions import Conditions, ConditionType, find, is_ready
from controller.domain.apps.status import AppStatus
from controller.domain.names import AppName
from controller.ports import Engine, Store


def check_invariants(store: Store, engine: Engine, database: Path, secrets: Iterable[str] = ()) -> None:
    for status in store.apps.all():
        _conditions_are_sound(status.conditions)
        for component in status.components:
            _conditions_are_sound(component.conditions)
        _revisions_agree(status)
    for app in {route.app for route in store.routes.all()}:
        _traffic_goes_to_what_runs(store, engine, app)
    _no_secret_is_stored(database, secrets)


def _conditions_are_sound(conditions: Conditions) -> None:
    types = [condition.type for condition in conditions]
    assert types.count(ConditionType.READY) == 1, f"Ready is not there exactly once: {conditions}"
    assert len(types) == len(set(types)), f"a condition twice: {types}"
    assert types == [kind for kind in ConditionType if kind in types], f"not in order: {types}"
    assert ConditionType.RECONCILING not in types, "no pass runs, yet it says Reconciling"
    untrue = [c for c in conditions if not c.status and c.type is not ConditionType.READY]
    assert not untrue, f"only what is true is said: {untrue}"
    silent = [c for c in conditions if not c.reason or not c.message or not c.since]
    assert not silent, f"without reason, message or time: {silent}"


def _revisions_agree(status: AppStatus) -> None:
    troubled = [ConditionType.FETCH_FAILED, ConditionType.MANIFEST_INVALID, ConditionType.SUSPENDED]
    if is_ready(status.conditions) and not any(find(status.conditions, kind) for kind in troubled):
        ready = find(status.conditions, ConditionType.READY)
        assert ready is not None
        assert ready.revision == status.applied_revision, f"{ready}, but applied is {status.applied_revision}"


def _traffic_goes_to_what_runs(store: Store, engine: Engine, app: AppName) -> None:
    observed, status = engine.observe(app), store.apps.status(app)
    if find(status.conditions, ConditionType.SUSPENDED):
        return  # nobody looks
    for route in store.routes.of(app):
        alive = {
            w.endpoint
            for w in observed.of(route.component)
            if w.fingerprint == route.fingerprint and w.endpoint
        }
        strange = set(route.upstreams) - {w.endpoint for w in observed.of(route.component)}
        component = status.component(route.component)
        if component and is_ready(component.conditions):
            assert set(route.upstreams) == alive, (
                f"{route.component}: routed {route.upstreams}, running {alive}"
            )
        elif strange:
            assert not is_ready(status.conditions), f"traffic goes to {strange}, yet the app says Ready"


def _no_secret_is_stored(database: Path, secrets: Iterable[str]) -> None:
    stored = b"".join(path.read_bytes() for path in sorted(database.parent.glob(f"{database.name}*")))
    assert stored
    for secret in secrets:
        assert secret.encode() not in stored, f"the secret {secret!r} lies in {database}"
