"""The executor carries out a plan: one method call for each action. It decides nothing.

The groups of a plan run in parallel, with two exceptions: the network is created before and removed after all
others, and groups that only remove things wait until all others have succeeded. Within a group, the first
error ends the group and becomes a `ActionFailure`. What was begun and not ended (a started container, say) is found
by the next observation and dealt with by its plan.
"""

from __future__ import annotations

import http.client
import logging
import math
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import cache, partial

from controller.domain.apps.gpu_plan import gpu_starts
from controller.domain.apps.health import cannot_write
from controller.domain.apps.observed import ObservedApp, ObservedWorkload, WorkloadState
from controller.domain.apps.plan import (
    GOING,
    Action,
    AwaitReady,
    BuildImageAction,
    CopyBox,
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
    RunSmokeTest,
    StageModel,
    StartWorkload,
    StorageAction,
    SwitchRoute,
    UpdateBox,
    WithdrawRoute,
    describe,
    subject,
    version_of,
)
from controller.domain.apps.smoke import SmokeAnswer, verdict
from controller.domain.apps.spec import ComponentKind
from controller.domain.errors import ControllerError, Stalled, Superseded, Transient, Waiting
from controller.domain.localizable import Localizable, joined
from controller.domain.names import AppName, ComponentName, short
from controller.domain.reasons import Reason
from controller.domain.secret import Secret, scrub
from controller.domain.storage.box import BoxRecord, BoxState
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
from controller.reconcile.box_copies import BoxCopies, CopyMemory, remove_bucket
from controller.reconcile.bugs import as_transient
from controller.reconcile.builds import BuildLog, Builds, no_build_log
from controller.reconcile.catalog import Credentials
from controller.reconcile.deps import PROBE_TIMEOUT
from controller.reconcile.gpu_leases import GpuLeases
from controller.tracing import OFF, Tracer, span

log = logging.getLogger(__name__)

PARALLEL_GROUPS = 4
LOG_TAIL = 20  # lines shown to people when a version fails
_REMOVE_GRACE = 10.0  # seconds between SIGTERM and SIGKILL for containers that have no traffic any more
_BRINGING_UP = (PullImage, BuildImageAction, StageModel, StartWorkload, AwaitReady, RunSmokeTest)
_NETWORK_PAUSE = 5.0  # seconds until a network that is still in use is checked again
_SMOKE_MARGIN = 2.0  # seconds that the container has to say itself that its call timed out
# seconds, minimum and maximum; between them a share of the time waited so far, by half of which an answer is late
_PROBE_PAUSE, _PROBE_SHARE = (0.005, 0.2), 1 / 30
# seconds for which a snapshot is reused: listing costs ten times as much as probing a workload
_SNAPSHOT_AGE = 0.1


#: Reason, message, commit, component, and whether it is a warning.
RecordProgress = Callable[[Reason, str, str, ComponentName | None, bool], None]


@dataclass(frozen=True)
class ExecutionContext:
    """What the actions of one pass need besides the plan. `superseded` returns whether there is a newer
    commit or the daemon stops; it is called while waiting.
    """

    revision: Revision
    registries: Credentials
    secrets: tuple[Secret, ...] = field(repr=False)
    superseded: Callable[[], bool]
    record: RecordProgress
    builds: Builds = field(default_factory=Builds)


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
    """One group under way. It keeps the snapshot in which the workloads were ready, to avoid another listing."""

    def __init__(self, executor: Executor, app: AppName, context: ExecutionContext) -> None:
        self._do = executor
        self._app = app
        self._context = context
        self._snapshot: ObservedApp | None = None
        self._pending: dict[str, str] = {}  # name of a workload -> why the engine does not run it yet
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
                self._record_event(
                    Reason.STARTED,
                    Localizable("started {action}: {why}", action=action.name, why=action.why),
                    action.workload.component,
                )
            case AwaitReady() | RunSmokeTest():
                self._try(action)
            case SwitchRoute():
                self._switch_route(action)
            case WithdrawRoute():
                self._do.routes.withdraw(self._app, action.component)
                self._record_event(
                    Reason.WITHDRAWN,
                    Localizable("no longer published: {why}", why=action.why),
                    action.component,
                )
            case DrainWorkload():
                self._drain_workload(action)
            case RemoveWorkload():
                self._do.engine.remove(action.id, _REMOVE_GRACE, partial(self._do.finish_log, action.id))
                self._release_gpus(action.name)
                self._record_event(
                    Reason.REMOVED,
                    Localizable("removed {action}: {why}", action=action.name, why=action.why),
                    action.component,
                )
            case RemoveNetwork():
                self._remove_network()
            case PublishPipelines() | PublishServices():
                self._publish(action)
            case _:
                self._act_on_storage(action)

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
            self._record_event(Reason.PUBLISHED, Localizable("pipelines: {why}", why=action.why))
        else:
            self._do.routes.publish(self._app, action.services, action.keeps)
            self._record_event(Reason.PUBLISHED, Localizable("platform services: {why}", why=action.why))

    # --- storage -----------------------------------------------------------------------------------------------

    def _act_on_storage(self, action: StorageAction) -> None:
        match action:
            case CreateBucket():
                self._create_bucket(action)
            case CopyBox():
                self._copy_box(action)
            case UpdateBox():
                self._save_box(action.record, BoxState.BOUND)
                self._set_quota(action.record)
                self._record_event(
                    Reason.BOX_UPDATED, Localizable("box {box}: {why}", box=action.record.box, why=action.why)
                )
            case KeepBucket():
                self._keep_bucket(action)
            case RemoveBucket():
                self._remove_bucket(action)
            case EnsureAccount():
                buckets = [grant.bucket for grant in action.account.grants]
                self._do.boxes.grant(action.account.name, buckets)
            case RemoveAccount():
                self._do.boxes.grant(action.name, ())
                # Earlier releases created accounts in the storage itself.
                if admin := self._do.storage.admin():
                    admin.remove_account(action.name)
            case StageModel():
                self._stage_model(action)

    def _create_bucket(self, action: CreateBucket) -> None:
        record = action.record
        self._save_box(record, BoxState.BOUND)
        self._do.storage.objects().create_bucket(record.bucket)
        self._set_quota(record)
        self._do.boxes.record_access(self._do.storage.access())
        self._record_event(
            Reason.BOX_CREATED,
            Localizable(
                "box {box} has bucket {bucket}: {why}", box=record.box, bucket=record.bucket, why=action.why
            ),
        )

    def _copy_box(self, action: CopyBox) -> None:
        record, source = action.record, action.source
        copies = BoxCopies(self._do.storage, self._do.boxes, self._do.clock, self._do.copies, self._set_quota)
        done = copies.copy(record, source, self._context.superseded)
        self._do.boxes.record_access(self._do.storage.access())
        self._record_event(
            Reason.BOX_COPIED,
            Localizable(
                "box {box} is a copy of the one of {app}: {size} in {files} files",
                box=record.box,
                app=source.app,
                size=about_size(done.size),
                files=done.files,
            ),
        )

    def _set_quota(self, record: BoxRecord) -> None:
        if admin := self._do.storage.admin():
            admin.set_quota(record.bucket, record.capacity)

    def _keep_bucket(self, action: KeepBucket) -> None:
        record = action.record
        self._save_box(record, BoxState.KEPT)
        size = Localizable("{used} in {files} files", used=about_size(record.used), files=record.files)
        text = Localizable(
            "box {box}: {why}. Its data is in bucket {bucket} ({size}); see: prichal box ls",
            box=record.box,
            why=action.why,
            bucket=record.bucket,
            size=size,
        )
        self._record_event(Reason.DATA_KEPT, text, warn=True)

    def _remove_bucket(self, action: RemoveBucket) -> None:
        record = action.record
        remove_bucket(self._do.storage.objects(), self._do.boxes, record.bucket)
        self._do.copies.progress.pop(record.bucket, None)
        self._record_event(
            Reason.DATA_REMOVED,
            Localizable(
                "bucket {bucket} of box {box}: {why}", bucket=record.bucket, box=record.box, why=action.why
            ),
            warn=True,
        )

    def _save_box(self, record: BoxRecord, state: BoxState) -> None:
        self._do.boxes.save(replace(record, state=state, since=self._do.clock.now()))

    def _stage_model(self, action: StageModel) -> None:
        model = action.model
        what = Localizable(
            "model {model}@{digest} ({size})",
            model=model.name,
            digest=short(model.digest),
            size=about_size(model.size),
        )
        self._record_event(
            Reason.STAGING,
            Localizable("downloading {what} from bucket {bucket}", what=what, bucket=model.bucket),
            action.component,
        )
        self._do.models.stage(model)

    # --- images ------------------------------------------------------------------------------------------------

    def _pull_image(self, action: PullImage) -> None:
        self._record_event(
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
            self._record_event(Reason.BUILDING, where)
            context = self._do.sources.build_context(self._context.revision, source)
            stop = self._context.superseded
            with self._do.build_log(self._app, action.tag) as line:
                self._do.engine.build(action.tag, action.build, context, line, stop)

        self._context.builds.once(action.tag, build)

    def _try(self, action: AwaitReady | RunSmokeTest) -> None:
        if isinstance(action, AwaitReady):
            self._await_ready(action)
        else:
            self._smoke_test(action)

    # --- readiness ---------------------------------------------------------------------------------------------

    def _await_ready(self, action: AwaitReady) -> None:
        """Probe all workloads until each is ready. Ends early if one has exited or a newer commit is there."""
        begun = self._do.clock.now()
        looked, found = -math.inf, dict[str, ObservedWorkload]()
        waiting = dict.fromkeys(action.names, "")
        while waiting:
            if self._do.clock.now() - looked > _SNAPSHOT_AGE:
                looked, found = self._do.clock.now(), self._observed()
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
                raise Superseded(
                    Localizable(
                        "{component}: no longer waited for, because there is a newer commit",
                        component=action.component,
                    )
                )
            self._do.clock.sleep(min(max(_PROBE_PAUSE[0], waited * _PROBE_SHARE), _PROBE_PAUSE[1]))
        self._record_event(
            Reason.BECAME_READY,
            Localizable("version {fingerprint} is ready", fingerprint=short(action.fingerprint)),
            action.component,
        )

    def _observed(self) -> dict[str, ObservedWorkload]:
        self._snapshot = self._do.engine.observe(self._app)
        return {w.name: w for w in self._snapshot.workloads}

    def _why_unready(self, workload: ObservedWorkload | None, name: str, action: AwaitReady) -> str:
        if workload is None:
            raise Transient(
                Reason.CONTAINER_LOST,
                Localizable("the container {name} was removed before it was ready", name=name),
            )
        if workload.state is WorkloadState.STOPPED:
            raise self._exited(workload, action)
        if workload.state is WorkloadState.REFUSED:
            text = Localizable(
                "the engine does not start {component}: {workload}",
                component=action.component,
                workload=workload.detail or Localizable("it gives no reason"),
            )
            raise Stalled(Reason.START_REFUSED, text)
        if workload.state is WorkloadState.LOST:
            text = Localizable(
                "the node of {name} does not answer: {workload}",
                name=name,
                workload=workload.detail or Localizable("it is unknown whether it runs"),
            )
            raise Transient(Reason.NODE_LOST, text)
        if workload.state is WorkloadState.PENDING:
            return self._tell_pending(workload, action)
        if workload.endpoint is None:
            return Localizable("it has no address yet")
        readiness = self._do.prober.probe(workload.endpoint, action.path, PROBE_TIMEOUT)
        return "" if readiness.ready else readiness.detail or Localizable("it is not ready")

    def _tell_pending(self, workload: ObservedWorkload, action: AwaitReady) -> str:
        """Record why the engine does not run it yet, whenever that changes."""
        why = workload.detail or Localizable("it gives no reason")
        if self._pending.get(workload.name) != why:
            self._pending[workload.name] = why
            text = Localizable(
                "the engine has accepted {workload} and does not run it yet: {why}",
                workload=workload.name,
                why=why,
            )
            self._record_event(Reason.START_PENDING, text, action.component, warn=True)
        return why

    def _exited(self, workload: ObservedWorkload, action: AwaitReady) -> Stalled:
        how = _end_of(workload)
        lines = self._last_lines(workload)
        self._let_write(workload, action, lines)
        return Stalled(
            Reason.EXITED,
            Localizable(
                "{component} {how} before it was ready.{lines}",
                component=action.component,
                how=how,
                lines=lines,
            ),
        )

    def _let_write(self, workload: ObservedWorkload, action: AwaitReady, lines: str) -> None:
        """Transient `RootNotWritable` where a version says that it cannot write to its root file system, and was not
        asked whether it has to: the next pass starts it so that it can."""
        if workload.root != "read-only" or not cannot_write(lines):
            return
        self._do.engine.let_write(workload, self._app)
        self._do.engine.remove(workload.id, _REMOVE_GRACE, partial(self._do.finish_log, workload.id))
        text = Localizable(
            "version {fingerprint} of {component} does not start with a read-only root file system, "
            "and is started with one that it can write. It had better write below /tmp; or say "
            "`readOnlyRootFilesystem: false`",
            fingerprint=short(action.fingerprint),
            component=action.component,
        )
        self._record_event(Reason.ROOT_NOT_WRITABLE, text, action.component, warn=True)
        raise Transient(Reason.ROOT_NOT_WRITABLE, joined((text, ".", lines), ""))

    def _not_ready(
        self, action: AwaitReady, waiting: dict[str, str], found: dict[str, ObservedWorkload]
    ) -> Stalled | Transient:
        name, detail = next(iter(waiting.items()))
        if name in found and found[name].state is WorkloadState.PENDING:
            text = Localizable(
                "the engine did not start {component} within {deadline} s: {detail}",
                component=action.component,
                deadline=format(action.deadline, ".0f"),
                detail=detail,
            )
            return Transient(Reason.START_PENDING, text)
        lines = self._last_lines(found[name]) if name in found else ""
        if name in found:
            self._let_write(found[name], action, joined((detail, lines), ""))
        message = Localizable(
            "{component} was not ready within {deadline} s: {detail}.{lines}",
            component=action.component,
            deadline=format(action.deadline, ".0f"),
            detail=detail,
            lines=lines,
        )
        return Stalled(Reason.NOT_READY, message)

    # --- smoke tests -------------------------------------------------------------------------------------------

    def _smoke_test(self, action: RunSmokeTest) -> None:
        """Stalled `SmokeTestFailed` if the version does not answer as expected."""
        workload = self._tested(action)
        answer = self._do.prober.call(
            workload.endpoint or "",
            action.case,
            action.case.headers(action.server),
            action.server.timeout + _SMOKE_MARGIN,
            self._context.superseded,
        )
        if answer.failure and self._context.superseded():
            raise Superseded(
                Localizable(
                    "{component}: no longer tested, because there is a newer commit",
                    component=action.component,
                )
            )
        wrong = verdict(action.case, answer)
        if wrong:
            raise self._not_as_expected(action, workload, wrong, answer)
        text = Localizable(
            "version {fingerprint} has passed its smoke test, {input}",
            fingerprint=short(action.fingerprint),
            input=action.case.test.input,
        )
        self._record_event(Reason.SMOKE_TEST_PASSED, text, action.component)

    def _tested(self, action: RunSmokeTest) -> ObservedWorkload:
        snapshot = self._snapshot or self._do.engine.observe(self._app)
        found = next((w for w in snapshot.workloads if w.name == action.names[0] and w.endpoint), None)
        if found is None:
            raise self._lost(action)
        return found

    def _not_as_expected(
        self, action: RunSmokeTest, workload: ObservedWorkload, wrong: str, answer: SmokeAnswer
    ) -> Stalled | Transient:
        """Return the failure of the version, or of the container, if somebody has removed it meanwhile. The log says
        more where the answer is an error."""
        now = self._observed().get(workload.name)
        if now is None:
            return self._lost(action)
        if now.state is WorkloadState.STOPPED:
            wrong = joined((wrong, Localizable("it {how}", how=_end_of(now))))
        text = Localizable(
            "{component} does not pass its smoke test, {input}: {wrong}",
            component=action.component,
            input=action.case.test.input,
            wrong=wrong,
        )
        lines = joined((".", self._last_lines(workload)), "") if answer.status != http.client.OK else ""
        return Stalled(Reason.SMOKE_TEST_FAILED, scrub(text, self._context.secrets) + lines)

    @staticmethod
    def _lost(action: RunSmokeTest) -> Transient:
        text = Localizable("the container {names} was removed before it was tested", names=action.names[0])
        return Transient(Reason.CONTAINER_LOST, text)

    def _last_lines(self, workload: ObservedWorkload) -> str:
        try:
            text = self._do.engine.logs(workload.id, LOG_TAIL).strip()
        except ControllerError as error:  # the failure is reported even without the log
            return Localizable(" (its log cannot be read: {error})", error=error.message)
        return (
            Localizable("\nLast log lines:\n{lines}", lines=scrub(text, self._context.secrets))
            if text
            else Localizable(" It logged nothing.")
        )

    # --- traffic -----------------------------------------------------------------------------------------------

    def _switch_route(self, action: SwitchRoute) -> None:
        route = action.route
        if action.names:
            snapshot = self._snapshot or self._do.engine.observe(self._app)
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
        self._record_event(
            Reason.SWITCHED,
            Localizable("traffic goes to {target}: {why}", target=target, why=action.why),
            route.component,
        )

    def _drain_workload(self, action: DrainWorkload) -> None:
        version = self._do.routes.version()
        begun = self._do.clock.now()
        while not self._do.gateways.drained(action.endpoint, version, self._do.clock.now()):
            if self._do.clock.now() - begun > action.timeout:
                self._record_event(
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

    def _record_event(
        self, reason: Reason, message: str, component: ComponentName | None = None, warn: bool = False
    ) -> None:
        self._context.record(reason, message, self._context.revision.commit, component, warn)


def _end_of(workload: ObservedWorkload) -> str:
    if workload.oom_killed:
        return Localizable("ran out of memory")
    return Localizable("exited with code {exit_code}", exit_code=workload.exit_code)
