"""Watches versions that have taken over, and rolls the app back if one of them fails. Part of each pass: what is known
of a watch is in the status of its component, so that a restart of the daemon ends none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from controller.domain.apps.desired import DesiredComponent
from controller.domain.apps.releases import release, short_release
from controller.domain.apps.requests import Trigger
from controller.domain.apps.rollback import decide_rollback
from controller.domain.apps.rollout_watch import (
    AUTOMATIC,
    FailedRollout,
    RolloutWatch,
    counts_of,
    fault_of,
    is_over,
    next_look,
    watch_of,
)
from controller.domain.apps.samples import RequestCounts
from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable, joined
from controller.domain.names import ComponentName
from controller.domain.reasons import Reason
from controller.domain.routing.routes import Route
from controller.reconcile.deps import ReconcilerDeps
from controller.reconcile.status_writer import StatusWriter


class RolloutWatcher:
    """`held`: the app is at an earlier revision, where nothing is watched: there is only one way back."""

    def __init__(self, deps: ReconcilerDeps, status_writer: StatusWriter, held: bool) -> None:
        self._deps = deps
        self._status_writer = status_writer
        self._held = held
        self._counts: Mapping[str, RequestCounts] | None = None

    def look(
        self, components: Iterable[DesiredComponent], routes: Mapping[ComponentName, Route]
    ) -> Iterator[float]:
        """Begin, go on with, or end the watch of each component. Yield the seconds until the next look at each."""
        for component in components:
            route = routes.get(component.spec.name)
            watch = None if self._held or route is None else self._watch(component, route)
            if watch and route and (fault := self._fault(component, route, watch)):
                self._go_back(component.spec.name, watch, fault)
                watch = None
            self._status_writer.record_watch(component.spec.name, watch)
            if watch:
                yield next_look(watch, component.spec.rollout, self._deps.clock.now())

    def _watch(self, component: DesiredComponent, route: Route) -> RolloutWatch | None:
        if component.spec.rollout.watch is None:
            return None
        before, now = self._status_writer.before, self._deps.clock.now()
        known = before.component(component.spec.name)
        watch = watch_of(
            known.watch if known else None,
            route,
            known.fingerprint if known else "",
            before.applied,
            self._count(route),
            now,
            release(route.revision, self._status_writer.status.desired_images),
        )
        return None if watch is None or is_over(watch, component.spec.rollout, now) else watch

    def _fault(self, component: DesiredComponent, route: Route, watch: RolloutWatch) -> str:
        restarts = self._status_writer.component(component.spec.name).restarts
        now = self._deps.clock.now()
        return fault_of(watch, component.spec.rollout, self._count(route), restarts, now)

    def _count(self, route: Route) -> RequestCounts:
        if self._counts is None:
            self._counts = self._deps.request_counts()
        return counts_of(route, self._counts)

    def _go_back(self, name: ComponentName, watch: RolloutWatch, fault: str) -> None:
        """Decide to roll back, as a person would; another pass does it. A second component that fails in this pass
        changes nothing."""
        store, writer = self._deps.store, self._status_writer
        now = self._deps.clock.now()
        try:
            rollback = decide_rollback(
                writer.status, store.history.releases(writer.status.app), watch.revision, AUTOMATIC, now
            )
        except Stalled as error:
            told = Localizable(
                "{fault}, but the app stays at its revision: {error}", fault=fault, error=error.message
            )
            writer.record_event(Reason.ROLLOUT_FAILED, told, name, warn=True)
            return
        writer.record_event(
            Reason.ROLLOUT_FAILED,
            Localizable(
                "{fault}: going back to {revision}", fault=fault, revision=short_release(rollback.revision)
            ),
            name,
            warn=True,
        )
        why = joined((name, fault), ": ")
        with store.transaction():
            writer.record_failed_rollout(FailedRollout(writer.status.desired, why, rollback.replaced))
            if store.apps.status(writer.status.app).rollback is None:  # a person may just have asked for one
                store.apps.roll_back(writer.status.app, rollback)
            store.requests.enqueue(writer.status.app, Trigger.ROLLBACK)
