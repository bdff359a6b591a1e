"""Judges an app at the end of a pass: the conditions of its components and boxes, how the pass ended, and when the next
one is due. Called by the pass, whatever happened in it; changes nothing but the status.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from controller.domain.apps.conditions import Condition, Conditions, ConditionType, find, is_ready
from controller.domain.apps.desired import DesiredApp, DesiredComponent, Unresolved
from controller.domain.apps.gpu_plan import beside_itself
from controller.domain.apps.health import judge_app, judge_component
from controller.domain.apps.observed import ObservedApp
from controller.domain.apps.pauses import pause_left
from controller.domain.apps.plan import Plan
from controller.domain.apps.requests import Outcome, ReconcileRequest, Trigger
from controller.domain.apps.spec import ComponentKind, MLComponentSpec
from controller.domain.apps.status import BoxStatus, ComponentStatus
from controller.domain.errors import ControllerError, Stalled, Superseded, Waiting
from controller.domain.localizable import Localizable
from controller.domain.names import ComponentName
from controller.domain.reasons import Reason
from controller.domain.routing.routes import Route
from controller.domain.storage.planner import judge_box
from controller.reconcile.convergence import Converged
from controller.reconcile.deps import PROBE_TIMEOUT, PassOutcome, ReconcilerDeps
from controller.reconcile.loading import CommitLoader, LoadedCommit
from controller.reconcile.rollouts import RolloutWatcher
from controller.reconcile.status_writer import StatusWriter

_UNREADY_PAUSE = 5.0  # seconds until a component that does not answer is looked at again
_SETTLING = 0.05  # the same right after something happened to a container
_LEAST_PAUSE = 5.0  # seconds between looks whether a component may sleep: each asks Git, too
#: Waiting that may last as long as others like: for a container of theirs in the network, or an image in use.
_HELD_UP = {Reason.NETWORK_IN_USE, Reason.RUNS_STOPPING, Reason.IMAGES_STAY}
#: What a component waits for although nothing is wrong: a person has to do something first, or others have the GPUs.
_FIRST_NEEDED = {
    Reason.AWAITING_MODEL,
    Reason.AWAITING_SECRET,
    Reason.AWAITING_IMAGE,
    Reason.WAITING_FOR_GPU,
    Reason.DEPENDENCY_NOT_READY,
    Reason.AWAITING_BOX,
}
#: Reasons for which a component is held, and that its condition names.
_HOLDING = {Reason.WAITING_FOR_GPU, Reason.DEPENDENCY_NOT_READY, Reason.AWAITING_BOX}


class PassJudge:
    def __init__(self, deps: ReconcilerDeps, request: ReconcileRequest, status_writer: StatusWriter) -> None:
        self._deps = deps
        self._request = request
        self._status_writer = status_writer
        self._app = request.app

    def judge(self, end: Converged, loaded: LoadedCommit, loader: CommitLoader) -> PassOutcome:
        deps, status_writer = self._deps, self._status_writer
        desired, observed, plan = end.desired, end.observed, end.plan
        routes = {route.component: route for route in deps.store.routes.of(self._app)}
        components = self._components(end, routes, loader)
        status_writer.record_components(components, {*routes, *(w.component for w in observed.workloads)})
        status_writer.record_observed(observed)
        boxes = self._boxes(desired, plan)
        status_writer.record_boxes(boxes)
        conditions = judge_app(components, plan, self._warnings(desired, loaded, loader), boxes)
        retries = self._retries(plan, components)
        retries += RolloutWatcher(deps, status_writer, held=loader.is_earlier).look(
            desired.components, routes
        )
        retries += [loader.held.retry_after] if loader.held and loader.held.retry_after else []
        awake = [c for c in desired.components if not c.asleep]
        retries += [max(left, _LEAST_PAUSE) for left in loader.idle_timeouts(awake).values()]
        if loaded.current:
            status_writer.record_success(desired.revision, conditions)
        else:
            status_writer.set_conditions(conditions)
        if any(c.type is ConditionType.FETCH_FAILED for c in status_writer.extra_conditions):
            status_writer.count_failure()
            retries.append(self._pause())
        outcome = self._outcome(conditions, desired.revision, min(retries, default=None))
        repairs = Trigger.CONTAINER in self._request.reasons and self._request.callers_wait
        # What is repaired does not wait for Git at the next attempt either.
        return replace(outcome, retry_as=Trigger.CONTAINER) if repairs else outcome

    def _components(
        self, end: Converged, routes: Mapping[ComponentName, Route], loader: CommitLoader
    ) -> tuple[ComponentStatus, ...]:
        """Return the status of each component, by name."""
        desired, plan = end.desired, end.plan
        judged = [
            self._judged(
                c, end.observed, routes.get(c.spec.name), plan, loader.model_updates.warnings.get(c.spec.name)
            )
            for c in desired.components
        ]
        judged += [
            self._unresolved(missing, plan.revision)
            for missing in desired.unresolved
            if missing.kind is ComponentKind.ML_COMPONENT
        ]
        judged += self._unbuilt_stages(desired, plan.revision)
        return tuple(sorted(judged, key=lambda c: c.name))

    def _warnings(self, desired: DesiredApp, loaded: LoadedCommit, loader: CommitLoader) -> tuple[str, ...]:
        models = (
            Localizable("MLComponent {name}: {found}", name=name, found=found.message)
            for name, found in loader.model_updates.warnings.items()
        )
        beside = beside_itself(desired, self._deps.gpu_leases.view(desired).pool)
        return (
            *loaded.spec.warnings,
            *models,
            *loader.secrets.replaced(),
            *beside,
            *loader.image_warnings(),
        )

    def _retries(self, plan: Plan, components: tuple[ComponentStatus, ...]) -> list[float]:
        """Return the seconds until each result may change by itself. What does not answer is checked less and
        less often.
        """
        now = self._deps.clock.now()
        passed = now - self._status_writer.begun
        retries = [max(0.0, hold.retry_after - passed) for hold in plan.holds if hold.retry_after is not None]
        retries += [
            max(0.0, pause_left(setback, self._deps.policy, now))
            for setback in self._status_writer.status.setbacks
            if not setback.stalled
        ]
        silent = [
            now - degraded.since
            for component in components
            if (degraded := find(component.conditions, ConditionType.DEGRADED))
            and degraded.reason == Reason.NOT_ANSWERING
        ]
        longest = self._deps.settings.reconcile.backoff_max
        least = _SETTLING if self._settles(silent) else _UNREADY_PAUSE
        return retries + [min(max(least, since), longest) for since in silent]

    def _settles(self, silent: list[float]) -> bool:
        """Return whether a container that does not answer may be shown as dead in a moment: an engine may report a
        death before its lists show it, and callers wait."""
        asked = Trigger.CONTAINER in self._request.reasons
        return asked and any(since < _UNREADY_PAUSE for since in silent)

    def _boxes(self, desired: DesiredApp, plan: Plan) -> tuple[BoxStatus, ...]:
        records = {record.box: record for record in self._deps.store.boxes.of(self._app)}
        holds = {hold.component: hold for hold in plan.holds if hold.kind is ComponentKind.DATA_BOX}
        before = {box.name: box.conditions for box in self._status_writer.before.boxes}
        judged = [
            judge_box(spec, records.get(spec.name), holds.get(spec.name), plan.revision)
            for spec in desired.boxes
        ]
        return tuple(
            replace(box, conditions=self._status_writer.merged(box.conditions, before.get(box.name, ())))
            for box in judged
        )

    def _judged(
        self,
        component: DesiredComponent,
        observed: ObservedApp,
        route: Route | None,
        plan: Plan,
        warning: Condition | None,
    ) -> ComponentStatus:
        memory = self._status_writer.component(component.spec.name)
        unready = self._why_unready(component.spec, route) if route else ""
        setback = next(
            (s for s in self._status_writer.status.setbacks if s.subject == component.spec.name), None
        )
        held = next(
            (h for h in plan.holds if h.component == component.spec.name and h.reason in _HOLDING), None
        )
        judged = judge_component(component, observed, route, memory, unready, setback, held)
        if warning:
            judged = (*judged, warning)
            self._report_once(component.spec.name, warning, memory)
        conditions = self._status_writer.merged(
            (replace(c, revision=plan.revision) for c in judged), memory.conditions
        )
        if is_ready(conditions):
            memory = replace(memory, failed_fingerprint="", failure_reason=Reason.NONE, failure="")
        serving = route is not None and route.fingerprint in component.fingerprints
        return replace(
            memory,
            fingerprint=route.fingerprint if route else "",
            image=component.pin.deploy if serving else memory.image,
            model=(component.model.digest if component.model else "") if serving else memory.model,
            conditions=conditions,
        )

    def _report_once(self, name: ComponentName, warning: Condition, memory: ComponentStatus) -> None:
        said = find(memory.conditions, warning.type)
        if not said or (said.reason, said.message) != (warning.reason, warning.message):
            self._status_writer.record_event(warning.reason, warning.message, name)

    def _why_unready(self, spec: MLComponentSpec, route: Route) -> str:
        """Return why a workload in service is not ready; empty if all are ready."""
        for upstream in route.upstreams:
            readiness = self._deps.prober.probe(upstream, spec.server.ready_path, PROBE_TIMEOUT)
            if not readiness.ready:
                return readiness.detail or Localizable("it is not ready")
        return ""

    def _unresolved(self, missing: Unresolved, revision: str) -> ComponentStatus:
        memory = self._status_writer.component(missing.name)
        kind = ConditionType.APPLY_FAILED if missing.transient else ConditionType.STALLED
        if (memory.failure_reason, memory.failure) != (missing.reason, missing.why):
            self._status_writer.record_event(
                missing.reason, missing.why, missing.name, warn=not missing.waiting
            )
        ready = Condition(ConditionType.READY, False, missing.reason, missing.why, revision=revision)
        conditions = (ready,) if missing.waiting else (ready, replace(ready, type=kind, status=True))
        return replace(
            memory,
            failure_reason=missing.reason,
            failure=missing.why,
            conditions=self._status_writer.merged(conditions, memory.conditions),
        )

    def _unbuilt_stages(self, desired: DesiredApp, revision: str) -> list[ComponentStatus]:
        """Return the stages whose build has failed, so that it is not tried again before something changes."""
        stages = [s for wanted in desired.pipelines for s in wanted.stages if not s.pin.present]
        memories = [self._status_writer.component(stage.name) for stage in stages]
        return [
            replace(
                self._unresolved(Unresolved(memory.name, memory.failure_reason, memory.failure), revision),
                kind=ComponentKind.EXPERIMENT_PIPELINE,
            )
            for memory in memories
            if memory.failed_fingerprint
        ]

    def _outcome(self, conditions: Conditions, revision: str, retry_after: float | None) -> PassOutcome:
        beside = self._status_writer.extra_conditions
        if beside:
            return PassOutcome(Outcome.FAILED, beside[0].message, beside[0].revision, retry_after)
        ready, held = conditions[0], self._status_writer.held
        if held and ready.status:
            return PassOutcome(Outcome.HELD, held.message, held.revision, retry_after)
        degraded = any(c.type is ConditionType.DEGRADED for c in conditions) or (
            any(c.type is ConditionType.APPLY_FAILED for c in conditions) and self._serving
        )
        waiting = ready.reason in _FIRST_NEEDED and not any(
            c.type in (ConditionType.STALLED, ConditionType.APPLY_FAILED) for c in conditions
        )
        short = Outcome.DEGRADED if degraded else Outcome.WAITING if waiting else Outcome.FAILED
        name = Outcome.READY if ready.status else short
        return PassOutcome(name, ready.message, revision, retry_after)

    def waited(self, error: Waiting) -> PassOutcome:
        status_writer = self._status_writer
        superseded = isinstance(error, Superseded)
        if not superseded:
            status_writer.set_conditions([Condition(ConditionType.READY, False, error.reason, error.message)])
        name = Outcome.SUPERSEDED if superseded else Outcome.WAITING
        return PassOutcome(name, error.message, status_writer.revision, self._patience(error))

    def _patience(self, error: Waiting) -> float:
        """Seconds until it is looked at again: ever more while others hold it up."""
        ready = find(self._status_writer.status.conditions, ConditionType.READY)
        if error.reason not in _HELD_UP or not ready:
            return error.retry_after
        waited = self._deps.clock.now() - ready.since
        return min(max(error.retry_after, waited), self._deps.settings.reconcile.backoff_max)

    def failed(self, error: ControllerError, bug: bool = False) -> PassOutcome:
        stalled = isinstance(error, Stalled)
        status_writer = self._status_writer
        status_writer.record_failure(ConditionType.STALLED if stalled else ConditionType.APPLY_FAILED, error)
        longest = self._deps.settings.reconcile.backoff_max
        return PassOutcome(
            Outcome.DEGRADED if self._serving else Outcome.FAILED,
            status_writer.status.conditions[0].message,
            status_writer.revision,
            longest if bug else None if stalled else self._pause(),
        )

    @property
    def _serving(self) -> bool:
        return any(route.in_service for route in self._deps.store.routes.of(self._app))

    def _pause(self) -> float:
        return self._deps.settings.reconcile.backoff.after(self._status_writer.status.failures)
