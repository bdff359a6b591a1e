"""The executor carries out a plan: one method call for each action. It decides nothing. Actions on the storage are in
`storage_actions`, those that try a version in `version_trial`.

The groups of a plan run in parallel, with two exceptions: the network is created before and removed after all
others, and groups that only remove things wait until all others have succeeded. Within a group, the first
error ends the group and becomes a `ActionFailure`. What was begun and not ended (a started container, say) is found
by the next observation and dealt with by its plan.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import cache, partial

from controller.domain.apps.gpu_plan import gpu_starts
from controller.domain.apps.plan import (
    GOING,
    Action,
    AwaitReady,
    BuildImageAction,
    DrainWorkload,
    EnsureNetwork,
    Plan,
    PublishPipelines,
    PublishServices,
    PullImage,
    RemoveNetwork,
    RemoveWorkload,
    RunSmokeTest,
    StageModel,
    StartWorkload,
    SwitchRoute,
    WithdrawRoute,
    describe,
    subject,
    version_of,
)
from controller.domain.apps.spec import ComponentKind
from controller.domain.errors import ControllerError, Stalled, Superseded, Transient, Waiting
from controller.domain.localizable import Localizable
from controller.domain.names import AppName, ComponentName, short
from controller.domain.reasons import Reason
from controller.domain.secret import scrub
from controller.ports import (
    Activity,
    Boxes,
    Clock,
    Engine,
    Gateways,
    Models,
    Prober,
    Routes,
    Runs,
    Sources,
    Storage,
)
from controller.reconcile.box_copies import CopyMemory
from controller.reconcile.bugs import as_transient
from controller.reconcile.builds import BuildLog, no_build_log
from controller.reconcile.execution_context import ExecutionContext
from controller.reconcile.gpu_leases import GpuLeases
from controller.reconcile.storage_actions import StorageActions
from controller.reconcile.version_trial import REMOVE_GRACE, VersionTrial
from controller.tracing import OFF, Tracer, span

log = logging.getLogger(__name__)

PARALLEL_GROUPS = 4
_BRINGING_UP = (PullImage, BuildImageAction, StageModel, StartWorkload, AwaitReady, RunSmokeTest)
_NETWORK_PAUSE = 5.0  # seconds until a network that is still in use is checked again


@dataclass(frozen=True)
class ActionFailure:
    """`fingerprint` is set if the version itself failed and must not be tried again unchanged."""

    subject: tuple[ComponentKind, ComponentName]  # see `plan.subject`
    error: ControllerError
    fingerprint: str = ""
    version: str = ""  # the version that the group was to start, whatever the cause

    @property
    def component(self) -> ComponentName | None:
        kind, name = self.subject
        return name if kind in (ComponentKind.ML_COMPONENT, ComponentKind.EXPERIMENT_PIPELINE) else None


@dataclass(frozen=True)
class Executor:
    engine: Engine
    prober: Prober
    sources: Sources
    routes: Routes
    gateways: Gateways
    activity: Activity
    storage: Storage
    models: Models
    boxes: Boxes
    runs: Runs
    gpu_leases: GpuLeases
    clock: Clock
    finish_log: Callable[[str], object] = lambda id: None  # of a container that has stopped
    build_log: BuildLog = no_build_log
    tracer: Tracer = OFF
    copies: CopyMemory = field(default_factory=CopyMemory)

    def apply(self, plan: Plan, context: ExecutionContext) -> tuple[ActionFailure, ...]:
        first = [group for group in plan.steps if isinstance(group[0], EnsureNetwork)]
        going = [group for group in plan.steps if all(isinstance(action, GOING) for action in group)]
        last = [group for group in plan.steps if isinstance(group[0], RemoveNetwork)]
        between = [group for group in plan.steps if group not in (*first, *going, *last)]
        for groups in (first, between, going, last):
            if failures := self._side_by_side(plan.app, groups, context):
                return failures
        return ()

    def _side_by_side(
        self, app: AppName, groups: list[tuple[Action, ...]], context: ExecutionContext
    ) -> tuple[ActionFailure, ...]:
        if len(groups) <= 1:
            outcomes = [self._run(app, group, context) for group in groups]
        else:
            with ThreadPoolExecutor(PARALLEL_GROUPS, thread_name_prefix=f"apply-{app}") as pool:
                begun = [pool.submit(copy_context().run, self._run, app, group, context) for group in groups]
                outcomes = [each.result() for each in begun]
        return tuple(failure for failure in outcomes if failure)

    def _run(
        self, app: AppName, group: tuple[Action, ...], context: ExecutionContext
    ) -> ActionFailure | None:
        group_run, action = _Group(self, app, context), group[0]
        try:
            for action in gpu_starts(group)[:1]:
                with as_transient(app, Localizable("GPUs for: {action}", action=describe(action))):
                    group_run.claim_gpus(group)
            for action in group:
                with as_transient(app, describe(action)), self._span(action, group):
                    group_run.act(action)
        except ControllerError as error:
            text = scrub(error.message, context.secrets)
            level = logging.INFO if isinstance(error, Waiting) else logging.WARNING
            log.log(level, "group stopped by an error: %s", error.reason, extra={"app": app, "error": text})
            return ActionFailure(
                subject(group), error, _failed_version(group, action, error), version_of(group)
            )
        return None

    def _span(self, action: Action, group: tuple[Action, ...]) -> AbstractContextManager[object]:
        kind, name = subject(group)
        about = {"prichal.kind": str(kind), "prichal.component": name}
        return span(self.tracer, span_name(type(action).__name__), about)


@cache
def span_name(action: str) -> str:
    """`BuildImageAction` is recorded as "build image"."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", action.removesuffix("Action")).lower()


def _failed_version(group: tuple[Action, ...], action: Action, error: ControllerError) -> str:
    """Return the version that the failed action was to start; empty if a retry may help or it is already
    running.
    """
    if not isinstance(error, Stalled) or not isinstance(action, _BRINGING_UP):
        return ""
    return version_of(group)


class _Group:
    """One group under way."""

    def __init__(self, executor: Executor, app: AppName, context: ExecutionContext) -> None:
        self._do = executor
        self._app = app
        self._context = context
        self._trial = VersionTrial(
            executor.engine, executor.prober, executor.clock, executor.finish_log, app, context
        )
        self._storage = StorageActions(
            executor.storage, executor.boxes, executor.models, executor.copies, executor.clock, context
        )
        self._claimed: frozenset[str] = frozenset()  # containers to be started whose GPUs are lent already

    def claim_gpus(self, group: tuple[Action, ...]) -> None:
        self._claimed = self._do.gpu_leases.claim(group)

    def act(self, action: Action) -> None:
        match action:
            case EnsureNetwork():
                self._do.engine.ensure_network(self._app)
            case PullImage():
                self._pull_image(action)
            case BuildImageAction():
                self._build_image(action)
            case StartWorkload():
                self._do.engine.start(self._do.gpu_leases.allocate(action.workload, action.name), action.name)
                self._context.record_event(
                    Reason.STARTED,
                    Localizable("started {action}: {why}", action=action.name, why=action.why),
                    action.workload.component,
                )
            case AwaitReady() | RunSmokeTest():
                self._trial.run(action)
            case SwitchRoute():
                self._switch_route(action)
            case WithdrawRoute():
                self._do.routes.withdraw(self._app, action.component)
                self._context.record_event(
                    Reason.WITHDRAWN,
                    Localizable("no longer published: {why}", why=action.why),
                    action.component,
                )
            case DrainWorkload():
                self._drain_workload(action)
            case RemoveWorkload():
                self._do.engine.remove(action.id, REMOVE_GRACE, partial(self._do.finish_log, action.id))
                self._release_gpus(action.name)
                self._context.record_event(
                    Reason.REMOVED,
                    Localizable("removed {action}: {why}", action=action.name, why=action.why),
                    action.component,
                )
            case RemoveNetwork():
                self._remove_network()
            case PublishPipelines() | PublishServices():
                self._publish(action)
            case _:
                self._storage.act(action)

    def _release_gpus(self, removed: str) -> None:
        if removed not in self._claimed:  # else they are for the next one of that name
            self._do.gpu_leases.release(removed)

    def _remove_network(self) -> None:
        """Remove the network. Containers that a person added, or of a run that has just begun, are not a
        failure of the app.
        """
        try:
            self._do.engine.remove_network(self._app)
        except Transient as error:
            if error.reason != Reason.NETWORK_IN_USE:
                raise
            raise Waiting(Reason.NETWORK_IN_USE, error.message, _NETWORK_PAUSE) from error

    def _publish(self, action: PublishPipelines | PublishServices) -> None:
        if isinstance(action, PublishPipelines):
            self._do.runs.publish(self._app, action.pipelines)
            self._context.record_event(Reason.PUBLISHED, Localizable("pipelines: {why}", why=action.why))
        else:
            self._do.routes.publish(self._app, action.services, action.keeps)
            self._context.record_event(
                Reason.PUBLISHED, Localizable("platform services: {why}", why=action.why)
            )

    # --- images ------------------------------------------------------------------------------------------------

    def _pull_image(self, action: PullImage) -> None:
        self._context.record_event(
            Reason.PULLING, Localizable("pulling {reference}", reference=action.reference), action.component
        )
        self._do.engine.pull(self._app, action.reference, self._context.registries)

    def _build_image(self, action: BuildImageAction) -> None:
        """Build an image. The event names no component, because several may share the image."""
        source = action.build.source

        def build() -> None:
            if self._context.superseded():  # while it waited for its turn
                raise Superseded(
                    Localizable("{tag}: not built, because there is a newer commit", tag=action.tag)
                )
            where = Localizable(
                "building {dockerfile} in {context}",
                dockerfile=source.dockerfile,
                context=source.context or ".",
            )
            self._context.record_event(Reason.BUILDING, where)
            context = self._do.sources.build_context(self._context.revision, source)
            stop = self._context.superseded
            with self._do.build_log(self._app, action.tag) as line:
                self._do.engine.build(action.tag, action.build, context, line, stop)

        self._context.builds.once(action.tag, build)

    # --- traffic -----------------------------------------------------------------------------------------------

    def _switch_route(self, action: SwitchRoute) -> None:
        route = action.route
        if action.names:
            snapshot = self._trial.snapshot()
            endpoints = {w.name: w.endpoint for w in snapshot.workloads}
            upstreams = tuple(e for name in action.names if (e := endpoints.get(name)))
            if len(upstreams) < len(action.names):
                raise Transient(
                    Reason.CONTAINER_LOST,
                    Localizable(
                        "{component}: a ready container was removed before traffic was switched",
                        component=route.component,
                    ),
                )
            route = replace(route, upstreams=upstreams)
        self._do.routes.switch(route, action.keeps)
        if action.names and route.wake_within:  # a version is not idle from its first moment
            self._do.activity.touch([(self._app, route.component)], self._do.clock.now())
        target = (
            Localizable("version {fingerprint}", fingerprint=short(route.fingerprint))
            if action.names
            else "nothing"
        )
        self._context.record_event(
            Reason.SWITCHED,
            Localizable("traffic goes to {target}: {why}", target=target, why=action.why),
            route.component,
        )

    def _drain_workload(self, action: DrainWorkload) -> None:
        version = self._do.routes.version()
        begun = self._do.clock.now()
        while not self._do.gateways.drained(action.endpoint, version, self._do.clock.now()):
            if self._do.clock.now() - begun > action.timeout:
                self._context.record_event(
                    Reason.DRAIN_TIMEOUT,
                    Localizable(
                        "{action} still had requests after {timeout} s, and is removed",
                        action=action.name,
                        timeout=format(action.timeout, ".0f"),
                    ),
                    action.component,
                    warn=True,
                )
                return
            if self._context.superseded():  # the next pass drains all containers that run and are not wanted
                raise Superseded(
                    Localizable(
                        "{action}: draining was interrupted, because there is a newer commit",
                        action=action.name,
                    )
                )
            self._do.clock.sleep(0.02)
