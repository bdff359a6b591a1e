"""One pass over one app: load, observe, plan, apply, judge, and save on every exit path.

A pass is level-based: it compares what is declared with what exists, and ignores what an event said. It is
safe at any time, any number of times, and after a crash at any line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from controller.domain.apps.conditions import Condition, Conditions, ConditionType, find, is_ready
from controller.domain.apps.desired import DesiredApp, DesiredComponent, Unresolved
from controller.domain.apps.followed_images import followed_by
from controller.domain.apps.gpu_plan import beside_itself, gpu_failures
from controller.domain.apps.health import judge_app, judge_component
from controller.domain.apps.history import AppliedRevision, ManifestText, shown_manifests
from controller.domain.apps.kept_images import needs_of
from controller.domain.apps.observed import ObservedApp
from controller.domain.apps.plan import BuildImageAction, CopyBox, Plan
from controller.domain.apps.planner import pause_left, plan_app
from controller.domain.apps.quiet import QuietPass, is_comparable, is_settled
from controller.domain.apps.releases import commit_of, release
from controller.domain.apps.requests import Outcome, ReconcileRequest, Trigger
from controller.domain.apps.rollback import earlier_images
from controller.domain.apps.spec import ComponentKind, MLComponentSpec, PlatformAppSpec, undeclared_app
from controller.domain.apps.status import AppStatus, BoxStatus, ComponentStatus
from controller.domain.errors import ControllerError, Stalled, Superseded, Transient, Waiting
from controller.domain.localizable import Localizable, joined
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.routing.routes import Route
from controller.domain.runs.run import cancel, images_to_repeat
from controller.domain.runs.stage_slots import Use
from controller.domain.secret import Secret, scrub
from controller.domain.storage.planner import judge_box
from controller.ports import Revision
from controller.reconcile import quiet
from controller.reconcile.builds import Builds
from controller.reconcile.deps import PROBE_TIMEOUT, PassOutcome, ReconcilerDeps
from controller.reconcile.execution_context import ExecutionContext
from controller.reconcile.executor import ActionFailure, Executor
from controller.reconcile.gpu_leases import GpuLeases
from controller.reconcile.loading import SUFFIXES, CommitLoader, LoadedCommit
from controller.reconcile.models import in_use
from controller.reconcile.observe import observe
from controller.reconcile.rollouts import RolloutWatcher
from controller.reconcile.status_writer import StatusWriter
from controller.tracing import span

log = logging.getLogger(__name__)

_REPEATABLE = 100  # the newest failed runs, whose images are kept for repetitions,
_REPEATABLE_IMAGES = 10  # and the number of their images

_STAYS = Localizable("nothing is changed until the app is resumed: prichal resume")
_NO_REPAIRS = Localizable("its app is suspended, and is not repaired until it is resumed")
_MAX_ROUNDS = 4  # plan → apply → observe; more rounds would hide a planner that never finishes
_DEPENDENCY_PAUSE = 5.0
_UNREADY_PAUSE = 5.0
_SETTLING = 0.05  # the same right after something happened to a container
_RUNS_PAUSE = 1.0
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
_LEAST_PAUSE = 5.0  # seconds between looks whether a component may sleep: each asks Git, too
_TIDY_INTERVAL = 30.0  # seconds between two removals of what is old, while nothing changes
_KEPT_BUILDS = 2  # of each image that is declared: the one in service and the one before it
_PERSON = {Trigger.MANUAL}  # triggers for which tags are resolved again
_FORGIVING = _PERSON | {
    Trigger.ROLLBACK,
    Trigger.PLATFORM,
    Trigger.SECRET,
}  # something outside Git has changed: what failed may now succeed
_QUIET = {
    Trigger.WAKE,
    Trigger.DRIFT,
    Trigger.CONTAINER,
    Trigger.RETRY,
    Trigger.SECRET,
}  # those that say nothing of a newer commit
#: Outcomes that mark the span of a pass as failed.
_ALARMING = {Outcome.FAILED, Outcome.DEGRADED}
_URGENT = {Trigger.WAKE, Trigger.CONTAINER}  # those for which calls may wait
_MOVES = {
    Trigger.WEBHOOK,
    Trigger.PUSH,
    Trigger.POLL,
    Trigger.MANUAL,
    Trigger.ROLLBACK,
    Trigger.IMAGE,
}  # those that may stand for another commit


def reconcile(deps: ReconcilerDeps, request: ReconcileRequest) -> PassOutcome:
    """Bring one app to its declared state. Failures are in the status and the outcome. An exception is raised
    only if the status cannot be read or saved; the loop logs it and tries again.
    """
    asked = {"prichal.app": request.app, "prichal.triggers": ",".join(sorted(request.reasons))}
    with span(deps.tracer, "reconcile", asked) as made:
        outcome = _reconcile(deps, request)
        made.set("prichal.outcome", outcome.name)
        made.set("vcs.ref.head.revision", outcome.revision)
        if outcome.name in _ALARMING:
            made.fail(outcome.name)
        return outcome


def _reconcile(deps: ReconcilerDeps, request: ReconcileRequest) -> PassOutcome:
    begun = quiet.look(deps, request)
    if isinstance(begun, PassOutcome):
        return begun
    deps.quiet.pop(request.app, None)
    hidden, forge = hidden_of(deps, request.app), deps.forge(request.app)
    status_writer = StatusWriter(deps.store, deps.clock, request.app, hidden, forge=forge)
    this = Reconciliation(deps, request, status_writer, begun)
    try:
        outcome = this.run()
    except Waiting as error:
        outcome = this.waited(error)
    except ControllerError as error:
        outcome = this.failed(error)
    # a bug is logged as an error and retried slowly, and other apps are not affected
    except Exception as error:
        log.exception("bug in a pass", extra={"app": request.app})
        outcome = this.failed(Transient(Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}"), bug=True)
    if outcome.name is Outcome.REMOVED:
        with deps.store.transaction():
            status_writer.delete()
            deps.store.notifications.declare(request.app, ())
            deps.store.images.declare(request.app, ())
            if deps.catalog.spec.app(request.app) is None:  # it was not wanted again meanwhile
                # Once nothing says whose preview it was, its name decides who may read what it has said.
                if deps.store.branches.preview(request.app):
                    deps.store.events.forget(request.app)
                deps.store.branches.forget(request.app)
    else:
        status_writer.save()
    return outcome


@dataclass(frozen=True)
class NextPass:
    """What a pass would do now. `warnings` hold besides, `hidden` must not appear in what people see of it."""

    plan: Plan
    revision: Revision
    manifests: tuple[ManifestText, ...]
    warnings: tuple[str, ...]
    hidden: tuple[Secret, ...]


def preview(deps: ReconcilerDeps, app: AppName) -> NextPass:
    """Return what would be done as things stand, without acting or writing; the repository is fetched. Raises what
    prevents a plan."""
    declared = deps.catalog.spec.app(app)
    if declared is None:
        raise Stalled(Reason.UNKNOWN_APP, Localizable("there is no PlatformApp {app!r}", app=app))
    writer = StatusWriter(deps.store, deps.clock, app, hidden_of(deps, app), silent=True)
    loader = CommitLoader(deps, writer, declared, ungated=True)
    loaded = loader.load()
    desired = loader.desired(loaded, fresh=False)
    if loader.follow_models(loaded):
        desired = loader.desired(loaded, fresh=False)
    observed = observe(deps, desired)
    # what was never created can be planned without observing the storage
    if observed.storage and not observed.boxes:
        observed = replace(observed, storage=None)
    plan = _plan(deps, desired, observed, writer.status, deps.clock.now())
    warnings = [joined((each.reason, each.message), ": ") for each in writer.extra_conditions]
    if held := find(writer.before.conditions, ConditionType.DEPLOY_PENDING):
        warnings.append(joined((held.reason, held.message), ": "))
    if writer.rolled_back:
        warnings.append(joined((Reason.ROLLED_BACK, writer.rolled_back.message), ": "))
    if declared.suspend or writer.before.suspended:
        warnings.append(joined((Reason.SUSPENDED, _STAYS), ": "))
    gpus = deps.gpu_leases.view(desired)
    warnings += [*gpu_failures(plan, gpus), *beside_itself(desired, gpus.pool)]
    manifests = _manifests(deps, loaded, declared, writer.secrets)
    return NextPass(plan, loaded.revision, manifests, tuple(warnings), writer.secrets)


def hidden_of(deps: ReconcilerDeps, app: AppName) -> tuple[Secret, ...]:
    declared = deps.catalog.spec.app(app)
    owned = deps.store.secrets.of(app).values
    if declared and declared.preview:
        owned = (*owned, *deps.store.secrets.of(declared.preview.app).values)
    return (*deps.catalog.secret_values(app), *owned)


def _manifests(
    deps: ReconcilerDeps, loaded: LoadedCommit, declared: PlatformAppSpec, hidden: tuple[Secret, ...]
) -> tuple[ManifestText, ...]:
    """Return the manifests of a commit for people."""
    return shown_manifests(deps.sources.files(loaded.revision, declared.path, SUFFIXES), hidden)


def _plan(
    deps: ReconcilerDeps, desired: DesiredApp, observed: ObservedApp, status: AppStatus, now: float
) -> Plan:
    routes = deps.store.routes.of(desired.app)
    gpus = deps.gpu_leases.view(desired)
    with span(deps.tracer, "plan"):
        return plan_app(desired, observed, routes, status, deps.policy, now, gpus)


def _images_built(desired: DesiredApp) -> int:
    """Return the number of different images that are built for the app."""
    pins = [component.pin for component in desired.components if component.build]
    pins += [stage.pin for pipeline in desired.pipelines for stage in pipeline.stages if stage.build]
    return len({pin.deploy for pin in pins})


def _executor(deps: ReconcilerDeps, gpu_leases: GpuLeases) -> Executor:
    return Executor(
        deps.engine,
        deps.prober,
        deps.sources,
        deps.store.routes,
        deps.store.gateways,
        deps.store.activity,
        deps.storage,
        deps.models,
        deps.store.boxes,
        deps.store.runs,
        gpu_leases,
        deps.clock,
        deps.finish_log,
        deps.build_log,
        deps.tracer,
        deps.copies,
    )


@dataclass(frozen=True)
class _Converged:
    """How the actions of a pass ended: what was wanted, what exists, the last plan, and all failures."""

    desired: DesiredApp
    observed: ObservedApp
    plan: Plan
    failures: list[ActionFailure]
    acted: bool


class Reconciliation:
    """The state of one pass, created for one request and then discarded."""

    def __init__(
        self,
        deps: ReconcilerDeps,
        request: ReconcileRequest,
        status_writer: StatusWriter,
        begun: quiet.Beginning,
    ) -> None:
        self._deps = deps
        self._begun = begun
        self._request = request
        self._status_writer = status_writer
        self._app = request.app
        self._next_head_check = 0.0

    def run(self) -> PassOutcome:
        deps = self._deps
        declared = deps.catalog.spec.app(self._app)
        if declared is None:
            return self._disconnect()
        if declared.preview is None:
            deps.store.age_keys.ensure(self._app)
        if Trigger.SECRET in self._request.reasons:
            self._tell_previews()
        if declared.suspend or self._status_writer.before.suspended:
            return self._stay_suspended()
        personal = bool(_PERSON.intersection(self._request.reasons))
        if _FORGIVING.intersection(self._request.reasons):
            self._status_writer.reset_backoff()
        self._await_dependencies(declared)
        loader = CommitLoader(deps, self._status_writer, declared, head=self._begun.head)
        loaded = self._load(loader)
        deps.store.notifications.declare(self._app, loaded.spec.notifications)
        self._declare_images(loader, loaded, personal)
        declared_uses = (Use.of(each.resources, each.replicas) for each in loaded.spec.ml_components)
        deps.uses[self._app] = sum(declared_uses, Use())
        desired = loader.desired(loaded, fresh=personal and not loader.is_earlier)
        context = self._context(declared, loaded.revision, loader)
        resolve = partial(loader.desired, loaded, fresh=False)
        end = self._apply_until_quiet(desired, context, resolve)
        if not end.failures and loader.follow_models(loaded):
            end = self._apply_until_quiet(resolve(), context, resolve)
        self._status_writer.drop_setbacks(end.plan)
        settled = not end.failures and not self._status_writer.status.setbacks
        keep = _KEPT_BUILDS * max(1, _images_built(end.desired))
        tidied = settled and self._is_untidy() and self._tidy_images(keep)
        outcome = self._judge(end, loaded, loader)
        self._record(end, loaded, declared, outcome)
        if tidied:
            self._tidy_models(self._status_writer.status)
            deps.tidied[self._app] = deps.clock.monotonic()
        if not end.acted and not declared.preview and not loader.is_earlier:
            self._remember_quiet(end, outcome)
        return outcome

    def _remember_quiet(self, end: _Converged, outcome: PassOutcome) -> None:
        """Let the next passes look whether anything has changed since this one, if it has found nothing to do."""
        writer, now = self._status_writer, self._deps.clock.now()
        if outcome.name is not Outcome.READY or not is_comparable(end.desired):
            return
        if not is_settled(writer.before, writer.status, end.plan):
            return
        routes = {route.component: route for route in self._deps.store.routes.of(self._app)}
        retry_at = None if outcome.retry_after is None else now + outcome.retry_after
        inputs = self._begun.inputs(outcome.revision, end.observed)
        asked = quiet.endpoints(end.desired, routes)
        self._deps.quiet[self._app] = QuietPass(inputs, asked, writer.begun, retry_at, outcome.message)

    def _declare_images(self, loader: CommitLoader, loaded: LoadedCommit, personal: bool) -> None:
        """Let the follower know what is followed. A person who asks for a pass wants registries to be asked, and what
        was rolled back to be tried again; one who approves something does not."""
        if loader.is_earlier:
            return
        images, before = self._deps.store.images, self._status_writer.before
        images.declare(self._app, followed_by(loaded.spec))
        if personal:
            images.ask_now(self._app, self._status_writer.begun)
            waited = (ConditionType.DEPLOY_PENDING, ConditionType.PRUNE_PENDING)
            if not any(find(before.conditions, kind) for kind in waited):
                images.reject(self._app, ())

    def _tell_previews(self) -> None:
        """Request passes over the previews that may have Secrets of this app."""
        for app in self._deps.catalog.spec.apps:
            if app.preview and app.preview.app == self._app:
                self._deps.store.requests.enqueue(app.name, Trigger.SECRET)

    def _load(self, loader: CommitLoader) -> LoadedCommit:
        """Load the app. What was found out about a rollback counts even if no commit can be loaded."""
        try:
            loaded = loader.load(fetch=not self._waited_for())
        except ControllerError:
            self._settle_rollback(loader)
            raise
        self._settle_rollback(loader)
        return loaded

    def _settle_rollback(self, loader: CommitLoader) -> None:
        store = self._deps.store
        if loader.over:
            store.apps.end_rollback(self._app, loader.over)
        if loader.asks_later:
            store.requests.enqueue(self._app, Trigger.RETRY)

    def _record(
        self, end: _Converged, loaded: LoadedCommit, declared: PlatformAppSpec, outcome: PassOutcome
    ) -> None:
        """Add the pass to the history, if it acted or met another commit than the entry before."""
        deps, revision, writer = self._deps, loaded.revision, self._status_writer
        before = deps.store.history.list(self._app, 1)
        became_ready = writer.status.applied != writer.before.applied
        present = release(revision.commit, writer.status.desired_images)
        if before and before[0].release == present and not (end.acted or became_ready):
            return
        applied = AppliedRevision(
            self._app,
            revision.commit,
            revision.subject,
            revision.author,
            tuple(self._request.reasons),
            writer.begun,
            deps.clock.now(),
            outcome.name,
            scrub(outcome.message, writer.secrets),
            writer.status.plan if end.acted else "",
            by=self._asked_by(revision),
            pins=writer.status.pins,
            models=writer.status.models,
            images=writer.status.desired_images,
        )
        deps.store.history.add(applied, _manifests(deps, loaded, declared, writer.secrets))

    def _asked_by(self, revision: Revision) -> str:
        """Return which person has asked for this commit, if that is known."""
        rollback = self._status_writer.before.rollback
        if rollback and commit_of(rollback.revision) == revision.commit:
            return rollback.by
        declared = self._deps.catalog.spec.app(self._app)
        if declared is None or not (declared.preview or Trigger.PUSH in self._request.reasons):
            return ""
        return self._deps.store.repositories.pusher(declared.pushed_to, revision.commit)

    def _is_untidy(self) -> bool:
        """Return whether old images may be left. This does not depend on actions of this pass: an earlier
        pass may have been interrupted before it tidied up, and an image may have been used by a run that has
        ended since.
        """
        last = self._deps.tidied.get(self._app)
        return last is None or self._deps.clock.monotonic() - last >= _TIDY_INTERVAL

    def _waited_for(self) -> bool:
        """Return whether callers may wait for a component to wake up or to heal, and must not wait for Git unless
        there may be a newer commit.
        """
        reasons = self._request.reasons
        return not _URGENT.isdisjoint(reasons) and _QUIET.issuperset(reasons)

    def _await_dependencies(self, declared: PlatformAppSpec) -> None:
        if self._status_writer.before.applied_revision:
            return  # it has run before; problems of another app must not prevent repairs
        for name in declared.depends_on:
            if not is_ready(self._deps.store.apps.status(name).conditions):
                raise Waiting(
                    Reason.DEPENDENCY_NOT_READY,
                    Localizable("it waits until the app {name} is ready", name=name),
                    _DEPENDENCY_PAUSE,
                )

    def _disconnect(self) -> PassOutcome:
        """Remove everything of an app whose PlatformApp is gone, except its data; and of a preview that has ended,
        with its data."""
        deps = self._deps
        preview = deps.store.branches.preview(self._app)
        self._cancel_runs()
        desired = DesiredApp(
            self._app, "", prune=True, approved=True, disconnected=True, is_preview=preview is not None
        )
        nowhere = undeclared_app(self._app)
        context = self._context(nowhere, Revision("", "", ""), None)
        end = self._apply_until_quiet(desired, context, lambda: desired)
        for hold in end.plan.holds:  # what cannot be removed, and a storage that does not answer
            if hold.failed and not hold.transient:
                raise Stalled(hold.reason, hold.why)
            raise Waiting(hold.reason, hold.why, hold.retry_after or deps.settings.reconcile.backoff_max)
        if end.failures:
            raise end.failures[0].error
        if deps.store.runs.unfinished(self._app, limit=1):
            raise Waiting(Reason.RUNS_STOPPING, Localizable("its runs are being stopped"), _RUNS_PAUSE)
        for route in deps.store.routes.of(self._app):
            deps.store.routes.withdraw(self._app, route.component)
        if not self._remove_images():
            raise Waiting(
                Reason.IMAGES_STAY,
                Localizable("its images cannot be removed yet; see the daemon's log"),
                _UNREADY_PAUSE,
            )
        self._tidy_models(AppStatus(self._app))
        if preview is not None:
            deps.sources.forget([f"@{self._app}"])
        deps.store.secrets.forget(self._app)  # the next app of this name may be somebody else's
        deps.store.history.forget(self._app)
        if self._status_writer.before != AppStatus(self._app):
            self._status_writer.record_event(
                Reason.DISCONNECTED,
                Localizable("its PlatformApp was removed; its containers and routes are gone"),
            )
        return PassOutcome(Outcome.REMOVED, Localizable("disconnected: its containers and routes are gone"))

    def _cancel_runs(self) -> None:
        """Cancel the app's runs. Waiting ones end at once; the runner stops those that have begun. The next
        pass cancels a run that was changed concurrently.
        """
        runs, now = self._deps.store.runs, self._deps.clock.now()
        for run in runs.unfinished(self._app):
            canceled = cancel(run, now, Reason.APP_DISCONNECTED, Localizable("its app was disconnected"))
            if canceled is not run:
                runs.save(canceled)

    def _stay_suspended(self) -> PassOutcome:
        condition = Condition(
            ConditionType.SUSPENDED,
            True,
            Reason.SUSPENDED,
            _STAYS,
        )
        self._deps.gpu_leases.correct_suspended(self._app)
        before = self._status_writer.before.conditions
        lasting = (ConditionType.READY, ConditionType.DEGRADED, ConditionType.ROLLED_BACK)
        kept = [c for c in before if c.type in lasting]
        self._status_writer.set_conditions([*kept, condition])
        self._expect_no_repairs()
        return PassOutcome(Outcome.SUSPENDED, condition.message)

    def _expect_no_repairs(self) -> None:
        """Let no call wait for repairs that a suspended app does not get. The first pass after `resume` restores
        the routes."""
        for route in self._deps.store.routes.of(self._app):
            if not route.stalled:
                stalled = replace(route, stalled=_NO_REPAIRS)
                self._deps.store.routes.switch(stalled, frozenset(api.path for api in route.apis))

    # --- acting ------------------------------------------------------------------------------------------------

    def _apply_until_quiet(
        self, desired: DesiredApp, context: ExecutionContext, resolve: Callable[[], DesiredApp]
    ) -> _Converged:
        """Plan and apply until there is nothing to do. A failed rollout needs a second round, which removes
        it and keeps the last good version running, and built images have to be resolved again; more than a
        few rounds would be a bug. All rounds plan as of the start of the pass, so nothing that failed is
        tried twice in it.
        """
        deps, status_writer = self._deps, self._status_writer
        gpu_leases = deps.gpu_leases
        executor = _executor(deps, gpu_leases)
        failures: list[ActionFailure] = []
        observed = observe(deps, desired)
        status_writer.record_observed(observed)
        plan = _plan(deps, desired, observed, status_writer.status, status_writer.begun)
        gpu_leases.correct(observed, plan)
        rounds = 0
        while not plan.empty:
            if rounds == _MAX_ROUNDS + sum(bool(each.spec.depends_on) for each in desired.components):
                raise Transient(
                    Reason.RESTLESS,
                    Localizable(
                        "after {rounds} rounds there are still actions to do:\n{plan}",
                        rounds=rounds,
                        plan=plan.render(),
                    ),
                )
            rounds += 1
            status_writer.record_plan(plan)
            deps.tidied.pop(self._app, None)
            new = executor.apply(plan, context)
            failed = [failure for failure in new if not isinstance(failure.error, Waiting)]
            failures += failed
            status_writer.record_failures(plan, new, deps.settings.reconcile.crash_window)
            for failure in new:  # what waits for something that has failed tells less than that
                if not failed or isinstance(failure.error, Superseded):
                    raise failure.error
            observed = observe(deps, desired)
            if new or any(isinstance(action, (BuildImageAction, CopyBox)) for action in plan.actions):
                desired = resolve()
            plan = _plan(deps, desired, observed, status_writer.status, status_writer.begun)
            gpu_leases.correct(observed, plan)
        return _Converged(desired, observed, plan, failures, acted=rounds > 0)

    def _tidy_images(self, keep: int) -> bool:
        """Remove old images, and return whether that worked."""
        engine, needed, earlier = self._deps.engine, self._needed_images(), self._earlier_images()
        return self._has_removed(lambda: engine.prune_images(self._app, keep, needed, earlier))

    def _remove_images(self) -> bool:
        """Remove all images of an app that goes, and return whether that worked."""
        engine, needed = self._deps.engine, self._needed_elsewhere()
        return self._has_removed(lambda: engine.prune_images(self._app, keep=0)) and self._has_removed(
            lambda: engine.remove_pulled_images(self._app, needed)
        )

    def _has_removed(self, remove: Callable[[], None]) -> bool:
        try:
            remove()
        except ControllerError as error:  # doctor reports a full disk; running containers are not affected
            log.warning("could not remove old images: %s", error.message, extra={"app": self._app})
            return False
        return True

    def _needed_images(self) -> frozenset[str]:
        """Return images of the app that no container may keep. A sleeping component has none, and a pipeline has one
        only while it runs. Runs that can be repeated may be of older commits."""
        asleep = {r.component for r in self._deps.store.routes.of(self._app) if r.asleep}
        needed = {c.image for c in self._status_writer.status.components if c.name in asleep}
        runs = self._deps.store.runs
        for pipeline in runs.pipelines(self._app):
            needed.update(stage.image for stage in pipeline.stages)
        needed |= runs.images(self._app)
        needed |= images_to_repeat(runs.ended_badly(self._app, _REPEATABLE), _REPEATABLE_IMAGES)
        return frozenset(needed)

    def _needed_elsewhere(self) -> Mapping[str, AppName]:
        """Return images that other apps need, and which app does, the first by name: it may have found one here that
        was pulled for this app."""
        history, revisions = self._deps.store.history, self._deps.settings.docker.kept_revisions
        others = (status for status in self._deps.store.apps.all() if status.app != self._app)
        return {
            image: status.app
            for status in sorted(others, key=lambda status: status.app, reverse=True)
            for image in needs_of(status, history.releases(status.app), revisions)
        }

    def _earlier_images(self) -> tuple[str, ...]:
        """Return the images by which the app can be rolled back without a build."""
        history, present = self._deps.store.history, self._status_writer.status.desired
        revisions = self._deps.settings.docker.kept_revisions
        return tuple(earlier_images(history.releases(self._app), present, revisions))

    def _tidy_models(self, now: AppStatus) -> None:
        """Remove models that are not used. `now` is the app's status as it will be saved."""

        def used() -> frozenset[str]:
            others = (status for status in self._deps.store.apps.all() if status.app != self._app)
            return in_use((*others, now))

        try:
            self._deps.models.prune(used)
        except ControllerError as error:
            log.warning("could not remove old models: %s", error.message, extra={"app": self._app})

    def _context(
        self, declared: PlatformAppSpec, revision: Revision, loader: CommitLoader | None
    ) -> ExecutionContext:
        deps = self._deps
        deps.keep_secret(self._app, self._status_writer.secrets)
        return ExecutionContext(
            revision=revision,
            builds=Builds(partial(deps.builds.turn, self._app)),
            registries=deps.catalog.registries(declared),
            secrets=self._status_writer.secrets,
            superseded=lambda: deps.stopping() or (loader is not None and self._is_superseded(loader)),
            record=self._status_writer.record_progress,
        )

    def _is_superseded(self, loader: CommitLoader) -> bool:
        """Return whether a waiting request means another commit; the remote is called at most once a second."""
        now = self._deps.clock.now()
        if self._deps.catalog.spec.app(self._app) is None:  # it is to be removed: waiting for it is in vain
            return True
        queued = self._deps.store.requests.queued(self._app)
        if not queued or queued.not_before > now or not _MOVES.intersection(queued.reasons):
            return False
        if self._deps.store.apps.status(self._app).rollback != self._status_writer.before.rollback:
            return True
        if loader.newer_images():
            return True
        if now < self._next_head_check:
            return False
        self._next_head_check = now + 1.0
        return loader.newer_commit()

    # --- the verdict -------------------------------------------------------------------------------------------

    def _judge(self, end: _Converged, loaded: LoadedCommit, loader: CommitLoader) -> PassOutcome:
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
        repairs = Trigger.CONTAINER in self._request.reasons and self._waited_for()
        # What is repaired does not wait for Git at the next attempt either.
        return replace(outcome, retry_as=Trigger.CONTAINER) if repairs else outcome

    def _components(
        self, end: _Converged, routes: Mapping[ComponentName, Route], loader: CommitLoader
    ) -> tuple[ComponentStatus, ...]:
        """Return the status of each component, by name."""
        desired, plan = end.desired, end.plan
        judged = [
            self._judged(
                c, end.observed, routes.get(c.spec.name), plan, loader.news.warnings.get(c.spec.name)
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
            for name, found in loader.news.warnings.items()
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
