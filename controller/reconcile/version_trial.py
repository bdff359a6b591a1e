"""How a version is tried before it gets traffic: its workloads are probed until all are ready, and one gets the request
of its smoke test. Called by the executor for the actions `AwaitReady` and `RunSmokeTest`.

A version that fails is Stalled, so that it is not tried again unchanged; a container that was removed, or that the
engine does not run yet, is Transient.
"""

from __future__ import annotations

import http.client
import math
from collections.abc import Callable
from functools import partial

from controller.domain.apps.health import cannot_write
from controller.domain.apps.observed import ObservedApp, ObservedWorkload, WorkloadState
from controller.domain.apps.plan import AwaitReady, RunSmokeTest
from controller.domain.apps.smoke import SmokeAnswer, verdict
from controller.domain.errors import ControllerError, Stalled, Superseded, Transient
from controller.domain.localizable import Localizable, joined
from controller.domain.names import AppName, short
from controller.domain.reasons import Reason
from controller.domain.secret import scrub
from controller.ports import Clock, Engine, Prober
from controller.reconcile.deps import PROBE_TIMEOUT
from controller.reconcile.execution_context import ExecutionContext

LOG_TAIL = 20  # lines shown to people when a version fails
REMOVE_GRACE = 10.0  # seconds between SIGTERM and SIGKILL for containers that have no traffic any more
_SMOKE_MARGIN = 2.0  # seconds that the container has to say itself that its call timed out
# seconds, minimum and maximum; between them a share of the time waited so far, by half of which an answer is late
_PROBE_PAUSE, _PROBE_SHARE = (0.005, 0.2), 1 / 30
# seconds for which a snapshot is reused: listing costs ten times as much as probing a workload
_SNAPSHOT_AGE = 0.1


class VersionTrial:
    """The trial of one group of actions. It keeps the snapshot in which the workloads were ready, to avoid another
    listing."""

    def __init__(
        self,
        engine: Engine,
        prober: Prober,
        clock: Clock,
        finish_log: Callable[[str], object],
        app: AppName,
        context: ExecutionContext,
    ) -> None:
        self._engine = engine
        self._prober = prober
        self._clock = clock
        self._finish_log = finish_log
        self._app = app
        self._context = context
        self._snapshot: ObservedApp | None = None
        self._pending: dict[str, str] = {}  # name of a workload -> why the engine does not run it yet

    def run(self, action: AwaitReady | RunSmokeTest) -> None:
        if isinstance(action, AwaitReady):
            self._await_ready(action)
        else:
            self._smoke_test(action)

    def snapshot(self) -> ObservedApp:
        """Return what was seen when the workloads were ready, or what exists now if nothing was awaited."""
        return self._snapshot or self._engine.observe(self._app)

    # --- readiness ---------------------------------------------------------------------------------------------

    def _await_ready(self, action: AwaitReady) -> None:
        """Probe all workloads until each is ready. Ends early if one has exited or a newer commit is there."""
        begun = self._clock.now()
        looked, found = -math.inf, dict[str, ObservedWorkload]()
        waiting = dict.fromkeys(action.names, "")
        while waiting:
            if self._clock.now() - looked > _SNAPSHOT_AGE:
                looked, found = self._clock.now(), self._observed()
            for name in list(waiting):
                waiting[name] = self._why_unready(found.get(name), name, action)
                if not waiting[name]:
                    del waiting[name]
            if not waiting:
                break
            waited = self._clock.now() - begun
            if waited > action.deadline:
                raise self._not_ready(action, waiting, found)
            if self._context.superseded():
                raise Superseded(
                    Localizable(
                        "{component}: no longer waited for, because there is a newer commit",
                        component=action.component,
                    )
                )
            self._clock.sleep(min(max(_PROBE_PAUSE[0], waited * _PROBE_SHARE), _PROBE_PAUSE[1]))
        self._context.record_event(
            Reason.BECAME_READY,
            Localizable("version {fingerprint} is ready", fingerprint=short(action.fingerprint)),
            action.component,
        )

    def _observed(self) -> dict[str, ObservedWorkload]:
        self._snapshot = self._engine.observe(self._app)
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
        readiness = self._prober.probe(workload.endpoint, action.path, PROBE_TIMEOUT)
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
            self._context.record_event(Reason.START_PENDING, text, action.component, warn=True)
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
        self._engine.let_write(workload, self._app)
        self._engine.remove(workload.id, REMOVE_GRACE, partial(self._finish_log, workload.id))
        text = Localizable(
            "version {fingerprint} of {component} does not start with a read-only root file system, "
            "and is started with one that it can write. It had better write below /tmp; or say "
            "`readOnlyRootFilesystem: false`",
            fingerprint=short(action.fingerprint),
            component=action.component,
        )
        self._context.record_event(Reason.ROOT_NOT_WRITABLE, text, action.component, warn=True)
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
        answer = self._prober.call(
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
        self._context.record_event(Reason.SMOKE_TEST_PASSED, text, action.component)

    def _tested(self, action: RunSmokeTest) -> ObservedWorkload:
        snapshot = self.snapshot()
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
            text = self._engine.logs(workload.id, LOG_TAIL).strip()
        except ControllerError as error:  # the failure is reported even without the log
            return Localizable(" (its log cannot be read: {error})", error=error.message)
        return (
            Localizable("\nLast log lines:\n{lines}", lines=scrub(text, self._context.secrets))
            if text
            else Localizable(" It logged nothing.")
        )


def _end_of(workload: ObservedWorkload) -> str:
    if workload.oom_killed:
        return Localizable("ran out of memory")
    return Localizable("exited with code {exit_code}", exit_code=workload.exit_code)
