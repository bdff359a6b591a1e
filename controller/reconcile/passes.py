"""One pass over one app: load, observe, plan, apply, judge, and save on every exit path.

A pass is level-based: it looks at what is declared and what is there, never at what an event said. It is safe at any
time, any number of times, and after a crash at any line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from controller.domain.boxes import judge_box
from controller.domain.conditions import Condition, Conditions, ConditionType, find, is_ready
from controller.domain.desired import DesiredApp, DesiredComponent, Unresolved
from controller.domain.errors import ControllerError, Stalled, Transient, Waiting
from controller.domain.health import judge_app, judge_component
from controller.domain.names import AppName, ComponentName, RepositoryName
from controller.domain.observed import ObservedApp
from controller.domain.plan import BuildImageAction, Plan
from controller.domain.planner import backoff, plan_app
from controller.domain.routes import Route
from controller.domain.runs import cancel
from controller.domain.spec import Kind, MLComponentSpec, PlatformAppSpec
from controller.domain.status import AppStatus, BoxStatus, ComponentStatus, Request
from controller.ports import Revision
from controller.reconcile.executor import Context, Executor, Failure
from controller.reconcile.house import House, Outcome
from controller.reconcile.journal import Journal
from controller.reconcile.loading import Loaded, Loader
from controller.reconcile.models import in_use
from controller.reconcile.observing import observe

log = logging.getLogger(__name__)

_MAX_ROUNDS = 4  # plan → apply → look again; more would hide a planner that does not come to rest
_DEPENDENCY_PAUSE = 5.0
_UNREADY_PAUSE = 5.0
_RUNS_PAUSE = 1.0
_LEAST_PAUSE = 5.0  # seconds between looks whether a component may sleep: each asks Git, too
_KEPT_BUILDS = 2  # of each component: the one in service and the one before it
_PERSON = {"manual"}  # reasons for which tags are asked for anew
_FORGIVING = _PERSON | {"platform"}  # something outside Git has changed: what failed may now succeed
_QUIET = {"wake", "drift", "retry"}  # reasons that say nothing of a newer commit
_MOVES = {"webhook", "push", "poll", "manual"}  # reasons that may stand for a newer commit


def reconcile(house: House, request: Request) -> Outcome:
    """Bring one app to its declared state. Never raises: what went wrong is in the status and the outcome."""
    try:
        return _reconcile(house, request)
    except ControllerError as error:  # of the store itself: there is no place to write it down
        log.error("status not saved: %s", error.message, extra={"app": request.app})
        return Outcome("Failed", error.message, retry_after=house.settings.reconcile.backoff_max)


def _reconcile(house: House, request: Request) -> Outcome:
    journal = Journal(house.store, house.clock, request.app, house.directory.secret_values(request.app))
    this = Pass(house, request, journal)
    try:
        outcome = this.run()
    except Waiting as error:
        outcome = this.waited(error)
    except ControllerError as error:
        outcome = this.failed(error)
    except Exception as error:  # a bug: told loudly, retried slowly, and the other apps go on
        log.exception("bug in a pass", extra={"app": request.app})
        outcome = this.failed(Transient("InternalError", f"{type(error).__name__}: {error}"), bug=True)
    if outcome.name == "Removed":
        journal.close()
    else:
        journal.save()
    return outcome


def preview(house: House, app: AppName) -> Plan:
    """The plan for the app as things stand, without acting and without writing. Raises what stands in the way."""
    declared = house.directory.spec.app(app)
    if declared is None:
        raise Stalled("UnknownApp", f"no PlatformApp is called {app!r}")
    status = house.store.apps.status(app)
    loader = Loader(house, Journal(house.store, house.clock, app, (), silent=True), declared)
    loaded = loader.load()
    desired = loader.desired(loaded, fresh=False)
    if loader.follow_models(loaded):
        desired = loader.desired(loaded, fresh=False)
    observed = observe(house, desired)
    if observed.storage and not observed.boxes:  # what was never made can be planned without a look
        observed = replace(observed, storage=None)
    return _plan(house, desired, observed, status)


def _plan(house: House, desired: DesiredApp, observed: ObservedApp, status: AppStatus) -> Plan:
    routes = house.store.routes.of(desired.app)
    return plan_app(desired, observed, routes, status, house.policy, house.clock.now())


@dataclass(frozen=True)
class _Settled:
    """Where the acting of a pass ended: what was wanted, what is there, the last plan, everything that failed."""

    desired: DesiredApp
    observed: ObservedApp
    plan: Plan
    failures: list[Failure]
    acted: bool


class Pass:
    """The state of one pass; made for one request and thrown away."""

    def __init__(self, house: House, request: Request, journal: Journal) -> None:
        self._house = house
        self._request = request
        self._journal = journal
        self._app = request.app
        self._next_head_check = 0.0

    def run(self) -> Outcome:
        declared = self._house.directory.spec.app(self._app)
        if declared is None:
            return self._disconnect()
        if declared.suspend or self._journal.before.suspended:
            return self._stay_suspended()
        personal = bool(_PERSON.intersection(self._request.reasons))
        if _FORGIVING.intersection(self._request.reasons):
            self._journal.forgive()
        self._await_dependencies(declared)
        loader = Loader(self._house, self._journal, declared)
        loaded = loader.load(fetch=not self._waited_for())
        desired = loader.desired(loaded, fresh=personal)
        context = self._context(declared, loaded.revision, loader)
        resolve = partial(loader.desired, loaded, fresh=False)
        end = self._apply_until_quiet(desired, context, resolve)
        if not end.failures and loader.follow_models(loaded):
            end = self._apply_until_quiet(resolve(), context, resolve)
        end.failures.extend(Failure(None, setback) for setback in loader.setbacks)
        if end.acted and not end.failures:
            self._tidy_images(keep=_KEPT_BUILDS)
        outcome = self._verdict(end, loaded, loader)
        if end.acted and not end.failures:
            self._tidy_models(self._journal.status)
        return outcome

    def _waited_for(self) -> bool:
        """Whether somebody waits for a component to wake up: not for Git, too, unless there may be news."""
        return "wake" in self._request.reasons and _QUIET.issuperset(self._request.reasons)

    def _await_dependencies(self, declared: PlatformAppSpec) -> None:
        if self._journal.before.applied_revision:
            return  # it has run once; a neighbour's bad day must not stop healing
        for name in declared.depends_on:
            if not is_ready(self._house.store.apps.status(name).conditions):
                raise Waiting("DependencyNotReady", f"waits for the app {name}", _DEPENDENCY_PAUSE)

    def _disconnect(self) -> Outcome:
        """The PlatformApp is gone: everything of it goes, data stays."""
        house = self._house
        self._cancel_runs()
        desired = DesiredApp(self._app, "", prune=True, approved=True, disconnected=True)
        nowhere = PlatformAppSpec(self._app, RepositoryName(""))
        context = self._context(nowhere, Revision("", "", ""), None)
        end = self._apply_until_quiet(desired, context, lambda: desired)
        if end.failures:
            raise end.failures[0].error
        for hold in end.plan.holds:  # data that a person wants to be gone, and a storage that does not answer
            raise Waiting(hold.reason, hold.why, hold.retry_after or house.settings.reconcile.backoff_max)
        if house.store.runs.unfinished(self._app, limit=1):
            raise Waiting("RunsStopping", "its runs are being stopped", _RUNS_PAUSE)
        for route in house.store.routes.of(self._app):
            house.store.routes.withdraw(self._app, route.component)
        self._tidy_images(keep=0)
        self._tidy_models(AppStatus(self._app))
        if self._journal.before != AppStatus(self._app):
            self._journal.emit(
                "Disconnected", "no PlatformApp names it any more; its containers and routes are gone"
            )
        return Outcome("Removed", "disconnected: its containers and routes are gone")

    def _cancel_runs(self) -> None:
        """Those that wait are over at once, the runner stops those that have begun. The next pass finds one that
        somebody has changed just now."""
        runs, now = self._house.store.runs, self._house.clock.now()
        for run in runs.unfinished(self._app):
            canceled = cancel(run, now, "AppDisconnected", "its app was disconnected")
            if canceled is not run:
                runs.save(canceled)

    def _stay_suspended(self) -> Outcome:
        condition = Condition(
            ConditionType.SUSPENDED, True, "Suspended", "nothing is changed until it is resumed"
        )
        before = self._journal.before.conditions
        kept = [c for c in before if c.type in (ConditionType.READY, ConditionType.DEGRADED)]
        self._journal.conclude([*kept, condition])
        return Outcome("Suspended", condition.message)

    # --- acting ------------------------------------------------------------------------------------------------

    def _apply_until_quiet(
        self, desired: DesiredApp, context: Context, resolve: Callable[[], DesiredApp]
    ) -> _Settled:
        """A failed rollout needs a second look that clears it away and keeps up the last good version, and what was
        built has to be resolved anew; more than a few rounds would be a bug."""
        house, journal = self._house, self._journal
        executor = Executor(
            house.engine,
            house.prober,
            house.sources,
            house.store.routes,
            house.store.gateways,
            house.store.activity,
            house.storage,
            house.models,
            house.store.boxes,
            house.store.runs,
            house.clock,
        )
        failures: list[Failure] = []
        observed = observe(house, desired)
        plan = _plan(house, desired, observed, journal.status)
        rounds = 0
        while not plan.empty:
            if rounds == _MAX_ROUNDS:
                raise Transient(
                    "Restless", f"after {rounds} rounds there is still something to do:\n{plan.render()}"
                )
            rounds += 1
            journal.intend(plan)
            new = executor.apply(plan, context)
            failures += new
            journal.learn(plan, new, house.settings.reconcile.crash_window)
            for failure in new:
                if isinstance(failure.error, Waiting):
                    raise failure.error
            observed = observe(house, desired)
            if any(isinstance(failure.error, Transient) for failure in new):
                break
            if new or any(isinstance(action, BuildImageAction) for action in plan.actions):
                desired = resolve()
            plan = _plan(house, desired, observed, journal.status)
        return _Settled(desired, observed, plan, failures, acted=rounds > 0)

    def _tidy_images(self, keep: int) -> None:
        """What sleeps has no container that would keep its image, and a pipeline has one only while it runs."""
        asleep = {r.component for r in self._house.store.routes.of(self._app) if r.asleep}
        spare = {c.image for c in self._journal.status.components if c.name in asleep}
        runs = self._house.store.runs
        for pipeline in (*runs.pipelines(self._app), *(run.pipeline for run in runs.unfinished(self._app))):
            spare.update(stage.image for stage in pipeline.stages)
        try:
            self._house.engine.prune_images(self._app, keep, frozenset(spare))
        except ControllerError as error:  # a full disk is told by doctor; what runs is not touched by it
            log.warning("old images stay: %s", error.message, extra={"app": self._app})

    def _tidy_models(self, now: AppStatus) -> None:
        """`now`: the app's status as it is to be written down."""
        others = (status for status in self._house.store.apps.all() if status.app != self._app)
        try:
            self._house.models.prune(in_use((*others, now)))
        except ControllerError as error:
            log.warning("old models stay: %s", error.message, extra={"app": self._app})

    def _context(self, declared: PlatformAppSpec, revision: Revision, loader: Loader | None) -> Context:
        house = self._house
        return Context(
            revision=revision,
            registries=house.directory.registries(declared),
            secrets=self._journal.secrets,
            superseded=lambda: house.stopping() or (loader is not None and self._newer_commit(loader)),
            emit=lambda event: house.store.events.add([event]),
        )

    def _newer_commit(self, loader: Loader) -> bool:
        """Whether a waiting request stands for a newer commit; the remote is asked at most once a second."""
        now = self._house.clock.now()
        if now < self._next_head_check:
            return False
        queued = self._house.store.requests.queued(self._app)
        if not queued or queued.not_before > now or not _MOVES.intersection(queued.reasons):
            return False
        self._next_head_check = now + 1.0
        return loader.newer_commit()

    # --- the verdict -------------------------------------------------------------------------------------------

    def _verdict(self, end: _Settled, loaded: Loaded, loader: Loader) -> Outcome:
        house, journal = self._house, self._journal
        desired, observed, plan = end.desired, end.observed, end.plan
        routes = {route.component: route for route in house.store.routes.of(self._app)}
        judged = [
            self._judged(
                c, observed, routes.get(c.spec.name), plan.revision, loader.news.warnings.get(c.spec.name)
            )
            for c in desired.components
        ]
        judged += [
            self._unresolved(missing, plan.revision)
            for missing in desired.unresolved
            if missing.kind is Kind.ML_COMPONENT
        ]
        judged += self._unbuilt_stages(desired, plan.revision)
        components = tuple(sorted(judged, key=lambda c: c.name))
        journal.remember(components, {*routes, *(w.component for w in observed.workloads)})
        transient = next((f.error for f in end.failures if isinstance(f.error, Transient)), None)
        if transient:
            return self.failed(transient)
        boxes = self._boxes(desired, plan)
        journal.status = replace(journal.status, boxes=boxes)
        models = (f"MLComponent {name}: {found.message}" for name, found in loader.news.warnings.items())
        warnings = (*loaded.spec.warnings, *models)
        conditions = judge_app(components, plan, warnings, boxes)
        retries = [hold.retry_after for hold in plan.holds if hold.retry_after is not None]
        if any(
            (d := find(c.conditions, ConditionType.DEGRADED)) and d.reason == "NotAnswering"
            for c in components
        ):
            retries.append(_UNREADY_PAUSE)
        awake = [c for c in desired.components if not c.asleep]
        retries += [max(left, _LEAST_PAUSE) for left in loader.naps(awake).values()]
        if loaded.current:
            journal.converged(desired.revision, conditions)
        else:
            journal.conclude(conditions)
        if any(c.type is ConditionType.FETCH_FAILED for c in journal.beside):
            journal.status = replace(journal.status, failures=journal.before.failures + 1)
            retries.append(self._pause())
        return self._outcome(conditions, desired.revision, min(retries, default=None))

    def _boxes(self, desired: DesiredApp, plan: Plan) -> tuple[BoxStatus, ...]:
        records = {record.box: record for record in self._house.store.boxes.of(self._app)}
        holds = {hold.component: hold for hold in plan.holds if hold.kind is Kind.DATA_BOX}
        before = {box.name: box.conditions for box in self._journal.before.boxes}
        judged = [
            judge_box(spec, records.get(spec.name), holds.get(spec.name), plan.revision)
            for spec in desired.boxes
        ]
        return tuple(
            replace(box, conditions=self._journal.merged(box.conditions, before.get(box.name, ())))
            for box in judged
        )

    def _judged(
        self,
        component: DesiredComponent,
        observed: ObservedApp,
        route: Route | None,
        revision: str,
        warning: Condition | None,
    ) -> ComponentStatus:
        memory = self._journal.component(component.spec.name)
        unready = self._why_unready(component.spec, route) if route else ""
        judged = judge_component(component, observed, route, memory, unready)
        if warning:
            judged = (*judged, warning)
            self._tell_once(component.spec.name, warning, memory)
        conditions = self._journal.merged((replace(c, revision=revision) for c in judged), memory.conditions)
        if is_ready(conditions):
            memory = replace(memory, failed_fingerprint="", failure_reason="", failure="")
        serving = route is not None and route.fingerprint in component.fingerprints
        return replace(
            memory,
            fingerprint=route.fingerprint if route else "",
            image=component.pin.deploy if serving else memory.image,
            model=(component.model.digest if component.model else "") if serving else memory.model,
            conditions=conditions,
        )

    def _tell_once(self, name: ComponentName, warning: Condition, memory: ComponentStatus) -> None:
        said = find(memory.conditions, warning.type)
        if not said or (said.reason, said.message) != (warning.reason, warning.message):
            self._journal.emit(warning.reason, warning.message, name)

    def _why_unready(self, spec: MLComponentSpec, route: Route) -> str:
        """What a serving workload itself says when asked; empty when all of them are ready."""
        for upstream in route.upstreams:
            readiness = self._house.prober.probe(upstream, spec.server.ready_path, timeout=2.0)
            if not readiness.ready:
                return readiness.detail or "does not say that it is ready"
        return ""

    def _unresolved(self, missing: Unresolved, revision: str) -> ComponentStatus:
        memory = self._journal.component(missing.name)
        kind = ConditionType.APPLY_FAILED if missing.transient else ConditionType.STALLED
        if (memory.failure_reason, memory.failure) != (missing.reason, missing.why):
            self._journal.emit(missing.reason, missing.why, missing.name, warn=True)
        conditions = (
            Condition(ConditionType.READY, False, missing.reason, missing.why, revision=revision),
            Condition(kind, True, missing.reason, missing.why, revision=revision),
        )
        return replace(
            memory,
            failure_reason=missing.reason,
            failure=missing.why,
            conditions=self._journal.merged(conditions, memory.conditions),
        )

    def _unbuilt_stages(self, desired: DesiredApp, revision: str) -> list[ComponentStatus]:
        """That a build has failed is remembered, so that it is not tried again before something changes."""
        stages = [s for wanted in desired.pipelines for s in wanted.stages if not s.pin.present]
        memories = [self._journal.component(stage.name) for stage in stages]
        return [
            replace(
                self._unresolved(Unresolved(memory.name, memory.failure_reason, memory.failure), revision),
                kind=Kind.EXPERIMENT_PIPELINE,
            )
            for memory in memories
            if memory.failed_fingerprint
        ]

    def _outcome(self, conditions: Conditions, revision: str, retry_after: float | None) -> Outcome:
        beside = self._journal.beside
        if beside:
            return Outcome("Failed", beside[0].message, beside[0].revision, retry_after)
        ready = conditions[0]
        degraded = any(c.type is ConditionType.DEGRADED for c in conditions)
        return Outcome(
            "Ready" if ready.status else "Degraded" if degraded else "Failed",
            ready.message,
            revision,
            retry_after,
        )

    def waited(self, error: Waiting) -> Outcome:
        journal = self._journal
        superseded = error.reason == "Superseded"
        if not superseded:
            journal.conclude([Condition(ConditionType.READY, False, error.reason, error.message)])
        name = "Superseded" if superseded else "Waiting"
        return Outcome(name, error.message, journal.status.attempted_revision, error.retry_after)

    def failed(self, error: ControllerError, bug: bool = False) -> Outcome:
        stalled = isinstance(error, Stalled)
        journal = self._journal
        journal.failed(ConditionType.STALLED if stalled else ConditionType.APPLY_FAILED, error)
        if error.reason == "ImageGone":  # what the pins say is on this host no longer is
            journal.status = replace(journal.status, pins=())
        longest = self._house.settings.reconcile.backoff_max
        serving = any(route.in_service for route in self._house.store.routes.of(self._app))
        return Outcome(
            "Degraded" if serving else "Failed",
            journal.status.conditions[0].message,
            journal.status.attempted_revision,
            longest if bug else None if stalled else self._pause(),
        )

    def _pause(self) -> float:
        chosen = self._house.settings.reconcile
        return backoff(self._journal.status.failures, chosen.backoff_initial, chosen.backoff_max)
