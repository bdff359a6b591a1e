"""Plans and applies until an app is as it is wanted. Called by a pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from controller.domain.apps.desired import DesiredApp
from controller.domain.apps.observed import ObservedApp
from controller.domain.apps.plan import BuildImageAction, CopyBox, Plan
from controller.domain.apps.planner import plan_app
from controller.domain.apps.status import AppStatus
from controller.domain.errors import Superseded, Transient, Waiting
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.reconcile.deps import ReconcilerDeps
from controller.reconcile.execution_context import ExecutionContext
from controller.reconcile.executor import ActionFailure, Executor
from controller.reconcile.observe import observe
from controller.reconcile.status_writer import StatusWriter
from controller.tracing import span

_MAX_ROUNDS = 4  # plan → apply → observe; more rounds would hide a planner that never finishes


@dataclass(frozen=True)
class Converged:
    """How the actions of a pass ended: what was wanted, what exists, the last plan, and all failures."""

    desired: DesiredApp
    observed: ObservedApp
    plan: Plan
    failures: list[ActionFailure]
    acted: bool


def plan_of(
    deps: ReconcilerDeps, desired: DesiredApp, observed: ObservedApp, status: AppStatus, now: float
) -> Plan:
    routes = deps.store.routes.of(desired.app)
    gpus = deps.gpu_leases.view(desired)
    with span(deps.tracer, "plan"):
        return plan_app(desired, observed, routes, status, deps.policy, now, gpus)


def converge(
    deps: ReconcilerDeps,
    status_writer: StatusWriter,
    desired: DesiredApp,
    context: ExecutionContext,
    resolve: Callable[[], DesiredApp],
) -> Converged:
    """Plan and apply until there is nothing to do. A failed rollout needs a second round, which removes
    it and keeps the last good version running, and built images have to be resolved again; more than a
    few rounds would be a bug. All rounds plan as of the start of the pass, so nothing that failed is
    tried twice in it.
    """
    gpu_leases, executor = deps.gpu_leases, _executor(deps)
    failures: list[ActionFailure] = []
    observed = observe(deps, desired)
    status_writer.record_observed(observed)
    plan = plan_of(deps, desired, observed, status_writer.status, status_writer.begun)
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
        deps.tidied.pop(desired.app, None)
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
        plan = plan_of(deps, desired, observed, status_writer.status, status_writer.begun)
        gpu_leases.correct(observed, plan)
    return Converged(desired, observed, plan, failures, acted=rounds > 0)


def _executor(deps: ReconcilerDeps) -> Executor:
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
        deps.gpu_leases,
        deps.clock,
        deps.finish_log,
        deps.build_log,
        deps.tracer,
        deps.copies,
    )
