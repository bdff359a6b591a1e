"""The executor carries a plan out: one action, one method, one call. It decides nothing.

The groups of a plan run side by side, but for the network, which is there before all others and goes after them;
within a group the first error ends the group and becomes a `Failure`. What was begun and not ended (a started
container, say) is found by the next observation and dealt with by its plan.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from controller.domain.errors import ControllerError, Stalled, Superseded, Transient, Waiting
from controller.domain.names import AppName, ComponentName, short
from controller.domain.observed import ObservedApp, ObservedWorkload, WorkloadState
from controller.domain.plan import (
    Action,
    AwaitReady,
    BuildImageAction,
    CreateBucket,
    DrainWorkload,
    EnsureAccount,
    EnsureNetwork,
    KeepBucket,
    Plan,
    PublishPipelines,
    PublishServices,
    PullImage,
    RemoveAccount,
    RemoveBucket,
    RemoveNetwork,
    RemoveWorkload,
    StageModel,
    StartWorkload,
    StorageAction,
    SwitchRoute,
    UpdateBox,
    WithdrawRoute,
)
from controller.domain.secret import Secret, scrub
from controller.domain.status import Event, EventType
from controller.domain.storage import BoxRecord, BoxState
from controller.domain.units import about_size
from controller.ports import (
    Activity,
    Boxes,
    Clock,
    Engine,
    Gateways,
    Models,
    Prober,
    Revision,
    Routes,
    Runs,
    Sources,
    Storage,
)
from controller.reconcile.directory import Credentials

log = logging.getLogger(__name__)

PARALLEL_GROUPS = 4
LOG_TAIL = 20  # lines quoted to people when a version fails
_REMOVE_GRACE = 10.0  # seconds between SIGTERM and SIGKILL for what has no traffic any more
_BRINGING_UP = (PullImage, BuildImageAction, StageModel, StartWorkload, AwaitReady)
_NETWORK_PAUSE = 5.0  # seconds until the network is looked at again that others still use
_PROBE_TIMEOUT = 2.0
_PROBE_PAUSE = (0.005, 0.2)  # seconds, least and most; between them a tenth of the time waited so far
_SNAPSHOT_AGE = 0.1  # seconds for which one will do: listing costs ten times as much as asking a workload


@dataclass(frozen=True)
class Context:
    """What the actions of one pass need beside the plan. `superseded` tells that a newer commit is there or that
    the daemon stops; it is asked while waiting."""

    revision: Revision
    registries: Credentials
    secrets: tuple[Secret, ...] = field(repr=False)
    superseded: Callable[[], bool]
    emit: Callable[[Event], None]


@dataclass(frozen=True)
class Failure:
    """`fingerprint` is set when the version itself failed and must not be tried again as it is."""

    component: ComponentName | None
    error: ControllerError
    fingerprint: str = ""


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
    clock: Clock

    def apply(self, plan: Plan, context: Context) -> tuple[Failure, ...]:
        first = [group for group in plan.steps if isinstance(group[0], EnsureNetwork)]
        last = [group for group in plan.steps if isinstance(group[0], RemoveNetwork)]
        between = [group for group in plan.steps if group not in first and group not in last]
        for groups in (first, between, last):
            if failures := self._side_by_side(plan.app, groups, context):
                return failures
        return ()

    def _side_by_side(
        self, app: AppName, groups: list[tuple[Action, ...]], context: Context
    ) -> tuple[Failure, ...]:
        if len(groups) <= 1:
            outcomes = [self._run(app, group, context) for group in groups]
        else:
            with ThreadPoolExecutor(PARALLEL_GROUPS, thread_name_prefix=f"apply-{app}") as pool:
                outcomes = list(pool.map(lambda group: self._run(app, group, context), groups))
        return tuple(failure for failure in outcomes if failure)

    def _run(self, app: AppName, group: tuple[Action, ...], context: Context) -> Failure | None:
        group_run = _Group(self, app, context)
        for action in group:
            try:
                group_run.act(action)
            except ControllerError as error:
                text = scrub(error.message, context.secrets)
                level = logging.INFO if isinstance(error, Waiting) else logging.WARNING
                log.log(level, "group left: %s", error.reason, extra={"app": app, "error": text})
                return Failure(_component(group), error, _failed_version(group, action, error))
        return None


def _component(group: tuple[Action, ...]) -> ComponentName | None:
    for action in group:
        match action:
            case StartWorkload(workload=workload):
                return workload.component
            case (
                AwaitReady(component=name)
                | PullImage(component=name)
                | BuildImageAction(component=name)
                | StageModel(component=name)
                | WithdrawRoute(component=name)
            ):
                return name
            case SwitchRoute(route=route):
                return route.component
    return None


def _failed_version(group: tuple[Action, ...], action: Action, error: ControllerError) -> str:
    """The version that the failed action was to bring up; none where a retry may help or it is up already."""
    if not isinstance(error, Stalled) or not isinstance(action, _BRINGING_UP):
        return ""
    return next((a.fingerprint for a in group if isinstance(a, (AwaitReady, BuildImageAction))), "")


class _Group:
    """One group under way; remembers the snapshot that readiness was seen in, so that it is not asked for twice."""

    def __init__(self, executor: Executor, app: AppName, context: Context) -> None:
        self._do = executor
        self._app = app
        self._context = context
        self._snapshot: ObservedApp | None = None

    def act(self, action: Action) -> None:
        match action:
            case EnsureNetwork():
                self._do.engine.ensure_network(self._app)
            case PullImage():
                self._pull_image(action)
            case BuildImageAction():
                self._build_image(action)
            case StartWorkload():
                self._do.engine.start(action.workload, action.name)
                self._tell("Started", f"started {action.name}: {action.why}", action.workload.component)
            case AwaitReady():
                self._await_ready(action)
            case SwitchRoute():
                self._switch_route(action)
            case WithdrawRoute():
                self._do.routes.withdraw(self._app, action.component)
                self._tell("Withdrawn", f"no longer published: {action.why}", action.component)
            case DrainWorkload():
                self._drain_workload(action)
            case RemoveWorkload():
                self._do.engine.remove(action.id, _REMOVE_GRACE)
                self._tell("Removed", f"removed {action.name}: {action.why}")
            case RemoveNetwork():
                self._remove_network()
            case PublishPipelines() | PublishServices():
                self._publish(action)
            case _:
                self._act_on_storage(action)

    def _remove_network(self) -> None:
        """Containers that a person has put there, or of a run that has just begun, are no failure of the app."""
        try:
            self._do.engine.remove_network(self._app)
        except Transient as error:
            if error.reason != "NetworkInUse":
                raise
            raise Waiting("NetworkInUse", error.message, _NETWORK_PAUSE) from error

    def _publish(self, action: PublishPipelines | PublishServices) -> None:
        if isinstance(action, PublishPipelines):
            self._do.runs.publish(self._app, action.pipelines)
            self._tell("Published", f"pipelines: {action.why}")
        else:
            self._do.routes.publish(self._app, action.services)
            self._tell("Published", f"services of the platform: {action.why}")

    # --- storage -----------------------------------------------------------------------------------------------

    def _act_on_storage(self, action: StorageAction) -> None:
        match action:
            case CreateBucket():
                self._create_bucket(action)
            case UpdateBox():
                self._save_box(action.record, BoxState.BOUND)
                self._set_quota(action.record)
                self._tell("BoxUpdated", f"box {action.record.box}: {action.why}")
            case KeepBucket():
                self._keep_bucket(action)
            case RemoveBucket():
                self._remove_bucket(action)
            case EnsureAccount():
                if admin := self._do.storage.admin():
                    admin.ensure_account(action.account)
            case RemoveAccount():
                if admin := self._do.storage.admin():
                    admin.remove_account(action.name)
            case StageModel():
                self._stage_model(action)

    def _create_bucket(self, action: CreateBucket) -> None:
        record = action.record
        self._save_box(record, BoxState.BOUND)
        self._do.storage.objects().create_bucket(record.bucket)
        self._set_quota(record)
        self._do.boxes.tell_access(self._do.storage.access())
        self._tell("BoxCreated", f"box {record.box} has bucket {record.bucket}: {action.why}")

    def _set_quota(self, record: BoxRecord) -> None:
        if admin := self._do.storage.admin():
            admin.set_quota(record.bucket, record.capacity)

    def _keep_bucket(self, action: KeepBucket) -> None:
        record = action.record
        self._save_box(record, BoxState.KEPT)
        size = f"{about_size(record.used)} in {record.files} files"
        text = (
            f"box {record.box}: {action.why}. It lies in bucket {record.bucket} ({size}); see: prichal boxes"
        )
        self._tell("DataKept", text, warn=True)

    def _remove_bucket(self, action: RemoveBucket) -> None:
        """The record goes last: a bucket of ours is never unknown."""
        record = action.record
        self._do.storage.objects().remove_bucket(record.bucket)
        self._do.boxes.forget(record.bucket)
        self._tell("DataRemoved", f"bucket {record.bucket} of box {record.box}: {action.why}", warn=True)

    def _save_box(self, record: BoxRecord, state: BoxState) -> None:
        self._do.boxes.save(replace(record, state=state, since=self._do.clock.now()))

    def _stage_model(self, action: StageModel) -> None:
        model = action.model
        what = f"model {model.name}@{short(model.digest)} ({about_size(model.size)})"
        self._tell("Staging", f"bringing {what} here from bucket {model.bucket}", action.component)
        self._do.models.stage(model)

    # --- images ------------------------------------------------------------------------------------------------

    def _pull_image(self, action: PullImage) -> None:
        self._tell("Pulling", f"pulling {action.reference}", action.component)
        self._do.engine.pull(action.reference, self._context.registries)

    def _build_image(self, action: BuildImageAction) -> None:
        source = action.build.source
        self._tell("Building", f"building {source.dockerfile} in {source.context or '.'}", action.component)
        context = self._do.sources.archive(self._context.revision, source.context)
        self._do.engine.build(action.tag, action.build, context, lambda line: log.debug("build: %s", line))

    # --- readiness ---------------------------------------------------------------------------------------------

    def _await_ready(self, action: AwaitReady) -> None:
        """Ask all workloads until each is ready. Ends early when one has exited or something newer is asked for."""
        begun = self._do.clock.now()
        looked, found = -math.inf, dict[str, ObservedWorkload]()
        waiting = dict.fromkeys(action.names, "")
        while waiting:
            if self._do.clock.now() - looked > _SNAPSHOT_AGE:
                looked, found = self._do.clock.now(), self._look()
            for name in list(waiting):
                waiting[name] = self._why_unready(found.get(name), name, action)
                if not waiting[name]:
                    del waiting[name]
            if not waiting:
                break
            waited = self._do.clock.now() - begun
            if waited > action.deadline:
                raise self._not_ready(action, waiting, found)
            if self._context.superseded():
                raise Superseded(f"{action.component}: left waiting, something newer is there")
            self._do.clock.sleep(min(max(_PROBE_PAUSE[0], waited / 10), _PROBE_PAUSE[1]))
        self._tell("BecameReady", f"version {short(action.fingerprint)} is ready", action.component)

    def _look(self) -> dict[str, ObservedWorkload]:
        self._snapshot = self._do.engine.observe(self._app)
        return {w.name: w for w in self._snapshot.workloads}

    def _why_unready(self, workload: ObservedWorkload | None, name: str, action: AwaitReady) -> str:
        if workload is None:
            raise Transient("ContainerLost", f"{name} was removed while it was waited for")
        if workload.state is WorkloadState.STOPPED:
            raise self._exited(workload, action)
        if workload.endpoint is None:
            return "has no address yet"
        readiness = self._do.prober.probe(workload.endpoint, action.path, _PROBE_TIMEOUT)
        return "" if readiness.ready else readiness.detail or "not ready"

    def _exited(self, workload: ObservedWorkload, action: AwaitReady) -> Stalled:
        how = "ran out of memory" if workload.oom_killed else f"exited with code {workload.exit_code}"
        return Stalled("Exited", f"{action.component} {how} before it was ready.{self._last_lines(workload)}")

    def _not_ready(
        self, action: AwaitReady, waiting: dict[str, str], found: dict[str, ObservedWorkload]
    ) -> Stalled:
        name, detail = next(iter(waiting.items()))
        lines = self._last_lines(found[name]) if name in found else ""
        message = f"{action.component} was not ready within {action.deadline:.0f} s: {detail}.{lines}"
        return Stalled("NotReady", message)

    def _last_lines(self, workload: ObservedWorkload) -> str:
        try:
            text = self._do.engine.logs(workload.id, LOG_TAIL).strip()
        except ControllerError as error:  # the logs are an extra: without them the failure is still told
            return f" (its log cannot be read: {error.message})"
        return "\nLast log lines:\n" + scrub(text, self._context.secrets) if text else " It logged nothing."

    # --- traffic -----------------------------------------------------------------------------------------------

    def _switch_route(self, action: SwitchRoute) -> None:
        route = action.route
        if action.names:
            snapshot = self._snapshot or self._do.engine.observe(self._app)
            endpoints = {w.name: w.endpoint for w in snapshot.workloads}
            upstreams = tuple(e for name in action.names if (e := endpoints.get(name)))
            if len(upstreams) < len(action.names):
                raise Transient(
                    "ContainerLost", f"{route.component}: a ready container vanished before the switch"
                )
            route = replace(route, upstreams=upstreams)
        self._do.routes.switch(route)
        if action.names and route.wake_within:  # a version is not idle from its first moment on
            self._do.activity.touch([(self._app, route.component)], self._do.clock.now())
        target = f"version {short(route.fingerprint)}" if action.names else "nothing"
        self._tell("Switched", f"traffic goes to {target}: {action.why}", route.component)

    def _drain_workload(self, action: DrainWorkload) -> None:
        version = self._do.routes.version()
        begun = self._do.clock.now()
        while not self._do.gateways.drained(action.endpoint, version, self._do.clock.now()):
            if self._do.clock.now() - begun > action.timeout:
                self._tell(
                    "DrainTimeout",
                    f"{action.name} still had requests after {action.timeout:.0f} s",
                    warn=True,
                )
                return
            if self._context.superseded():  # the next pass drains whatever runs and is not wanted
                raise Superseded(f"{action.name}: left draining, something newer is there")
            self._do.clock.sleep(0.02)

    def _tell(
        self, reason: str, message: str, component: ComponentName | None = None, warn: bool = False
    ) -> None:
        kind = EventType.WARNING if warn else EventType.NORMAL
        at, commit = self._do.clock.now(), self._context.revision.commit
        self._context.emit(Event(self._app, kind, reason, message, component, commit, at))
