"""One pass over one app: load, observe, plan, apply, judge, and save on every exit path.

A pass is level-based: it compares what is declared with what exists, and ignores what an event said. It is
safe at any time, any number of times, and after a crash at any line.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial

from controller.domain.apps.conditions import Condition, ConditionType, find, is_ready
from controller.domain.apps.desired import DesiredApp
from controller.domain.apps.followed_images import followed_by
from controller.domain.apps.history import AppliedRevision
from controller.domain.apps.quiet import QuietPass, is_comparable, is_settled
from controller.domain.apps.releases import commit_of, release
from controller.domain.apps.requests import Outcome, ReconcileRequest, Trigger
from controller.domain.apps.spec import PlatformAppSpec, undeclared_app
from controller.domain.apps.status import AppStatus
from controller.domain.errors import ControllerError, Stalled, Transient, Waiting
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.runs.run import cancel
from controller.domain.runs.stage_slots import Use
from controller.domain.secret import scrub
from controller.ports import Revision
from controller.reconcile import quiet
from controller.reconcile.builds import Builds
from controller.reconcile.cleanup import Cleanup
from controller.reconcile.commit_manifests import manifests_of
from controller.reconcile.convergence import Converged, converge
from controller.reconcile.deps import PassOutcome, ReconcilerDeps
from controller.reconcile.execution_context import ExecutionContext
from controller.reconcile.judging import PassJudge
from controller.reconcile.loading import CommitLoader, LoadedCommit
from controller.reconcile.secret_sources import hidden_of
from controller.reconcile.status_writer import STAYS_DECLARED, STAYS_SUSPENDED, StatusWriter
from controller.tracing import span

log = logging.getLogger(__name__)

_NO_REPAIRS = Localizable("its app is suspended, and is not repaired until it is resumed")
_DEPENDENCY_PAUSE = 5.0
_IMAGES_PAUSE = 5.0
_RUNS_PAUSE = 1.0
_PERSON = {Trigger.MANUAL}  # triggers for which tags are resolved again
_FORGIVING = _PERSON | {
    Trigger.ROLLBACK,
    Trigger.PLATFORM,
    Trigger.SECRET,
}  # something outside Git has changed: what failed may now succeed
#: Outcomes that mark the span of a pass as failed.
_ALARMING = {Outcome.FAILED, Outcome.DEGRADED}
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
    judge = PassJudge(deps, request, status_writer)
    this = Reconciliation(deps, request, status_writer, begun, judge)
    try:
        outcome = this.run()
    except Waiting as error:
        outcome = judge.waited(error)
    except ControllerError as error:
        outcome = judge.failed(error)
    # a bug is logged as an error and retried slowly, and other apps are not affected
    except Exception as error:
        log.exception("bug in a pass", extra={"app": request.app})
        outcome = judge.failed(Transient(Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}"), bug=True)
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


class Reconciliation:
    """The state of one pass, created for one request and then discarded."""

    def __init__(
        self,
        deps: ReconcilerDeps,
        request: ReconcileRequest,
        status_writer: StatusWriter,
        begun: quiet.Beginning,
        judge: PassJudge,
    ) -> None:
        self._deps = deps
        self._begun = begun
        self._judge = judge
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
            return self._stay_suspended(STAYS_DECLARED if declared.suspend else STAYS_SUSPENDED)
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
        end = converge(deps, self._status_writer, desired, context, resolve)
        if not end.failures and loader.follow_models(loaded):
            end = converge(deps, self._status_writer, resolve(), context, resolve)
        self._status_writer.drop_setbacks(end.plan)
        settled = not end.failures and not self._status_writer.status.setbacks
        cleanup = Cleanup(deps, self._app, self._status_writer)
        cleaned = settled and cleanup.is_due() and cleanup.remove_old_images(end.desired)
        outcome = self._judge.judge(end, loaded, loader)
        self._record(end, loaded, declared, outcome)
        if cleaned:
            cleanup.remove_unused_models(self._status_writer.status)
            cleanup.end()
        if not end.acted and not declared.preview and not loader.is_earlier:
            self._remember_quiet(end, outcome)
        return outcome

    def _remember_quiet(self, end: Converged, outcome: PassOutcome) -> None:
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
        was rolled back to be tried again; one who approves something or ends a suspension does not."""
        if loader.is_earlier:
            return
        images, before = self._deps.store.images, self._status_writer.before
        images.declare(self._app, followed_by(loaded.spec))
        if personal:
            images.ask_now(self._app, self._status_writer.begun)
            waited = (ConditionType.DEPLOY_PENDING, ConditionType.PRUNE_PENDING, ConditionType.SUSPENDED)
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
            loaded = loader.load(fetch=not self._request.callers_wait)
        except ControllerError:
            self._settle_rollback(loader)
            raise
        self._settle_rollback(loader)
        return loaded

    def _settle_rollback(self, loader: CommitLoader) -> None:
        store = self._deps.store
        if loader.ended_rollback:
            store.apps.end_rollback(self._app, loader.ended_rollback)
        if loader.asks_later:
            store.requests.enqueue(self._app, Trigger.RETRY)

    def _record(
        self, end: Converged, loaded: LoadedCommit, declared: PlatformAppSpec, outcome: PassOutcome
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
        deps.store.history.add(applied, manifests_of(deps, loaded.revision, declared, writer.secrets))

    def _asked_by(self, revision: Revision) -> str:
        """Return which person has asked for this commit, if that is known."""
        rollback = self._status_writer.before.rollback
        if rollback and commit_of(rollback.revision) == revision.commit:
            return rollback.by
        declared = self._deps.catalog.spec.app(self._app)
        if declared is None or not (declared.preview or Trigger.PUSH in self._request.reasons):
            return ""
        return self._deps.store.repositories.pusher(declared.pushed_to, revision.commit)

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
        end = converge(deps, self._status_writer, desired, context, lambda: desired)
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
        cleanup = Cleanup(deps, self._app, self._status_writer)
        if not cleanup.remove_all_images():
            raise Waiting(
                Reason.IMAGES_STAY,
                Localizable("its images cannot be removed yet; see the daemon's log"),
                _IMAGES_PAUSE,
            )
        cleanup.remove_unused_models(AppStatus(self._app))
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

    def _stay_suspended(self, message: str) -> PassOutcome:
        condition = Condition(
            ConditionType.SUSPENDED,
            True,
            Reason.SUSPENDED,
            message,
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
