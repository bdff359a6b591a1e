"""Which GPUs the groups of a plan take, before anything is done: a version that would not get its own is not begun, so
that nothing is pulled for it and, with `strategy: Recreate`, nothing is stopped for it. Pure; called by the planner,
and by the executor in the transaction that writes the leases down.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from controller.domain.apps.desired import DesiredApp
from controller.domain.apps.observed import ObservedApp
from controller.domain.apps.plan import (
    Action,
    Hold,
    Plan,
    RemoveWorkload,
    StartWorkload,
    rerouted,
)
from controller.domain.apps.spec import MLComponentSpec, Strategy
from controller.domain.errors import Stalled, Waiting
from controller.domain.localizable import Localizable, joined
from controller.domain.names import AppName
from controller.domain.runs.gpus import GpuPool, GpuRequest, Lease, allocate, corrected
from controller.domain.runs.run import Run


@dataclass(frozen=True)
class GpuView:
    """What the planner knows of the host's GPUs: the pool, and the runs under way."""

    pool: GpuPool
    active: tuple[Run, ...] = ()


NO_GPUS = GpuView(GpuPool())


def asked(action: StartWorkload) -> Lease:
    """Return the lease of the container that is to be started, without GPUs."""
    workload = action.workload
    share = workload.spec.resources.per_gpu
    return Lease(action.name, workload.app, workload.component, share=share)


def gpu_starts(actions: Iterable[Action]) -> tuple[StartWorkload, ...]:
    """Return the actions that start containers with GPUs."""
    return tuple(a for a in actions if isinstance(a, StartWorkload) and a.workload.spec.resources.gpus)


def hands_over(group: Sequence[Action]) -> bool:
    """Return True if the group removes a container and starts one with GPUs afterwards."""
    removals = [place for place, action in enumerate(group) if isinstance(action, RemoveWorkload)]
    starts = [place for place, action in enumerate(group) if action in gpu_starts(group)]
    return bool(removals and starts and removals[0] < starts[-1])


def claims(group: Sequence[Action], view: GpuView) -> tuple[Lease, ...]:
    """Return the leases of all containers that the group starts, which get what it frees before. Raises Waiting,
    Stalled as `allocate`."""
    pool, freed, found = view.pool, set[str](), list[Lease]()
    for action in group:
        if isinstance(action, RemoveWorkload):
            freed.add(action.name)
        elif isinstance(action, StartWorkload) and (wanted := action.workload.spec.resources.gpus):
            lease = allocate(asked(action), wanted, pool, view.active, freed - {action.name})
            found.append(lease)
            others = tuple(each for each in pool.leases if each.workload != lease.workload)
            pool = replace(pool, leases=(*others, lease))
    return tuple(found)


def of_containers(observed: ObservedApp) -> tuple[Lease, ...]:
    """Return the GPUs that the app's containers have."""
    return tuple(
        Lease(w.name, observed.app, w.component, w.gpus, w.gpu_share) for w in observed.workloads if w.gpus
    )


def leases_of_app(
    app: AppName, leases: Iterable[Lease], observed: ObservedApp, actions: Iterable[Action]
) -> tuple[Lease, ...]:
    """Return the app's leases as its containers have them, with those of containers that are about to be started."""
    own = (lease for lease in leases if lease.app == app)
    starting = [asked(action) for action in gpu_starts(actions)]
    return corrected(own, of_containers(observed), starting)


Groups = Sequence[tuple[Action, ...]]


def hold_without_gpus(
    steps: Groups, observed: ObservedApp, view: GpuView, paused: tuple[StartWorkload, ...] = ()
) -> tuple[list[tuple[Action, ...]], list[Hold], tuple[GpuRequest, ...]]:
    """Hold the groups that start containers for which there are not enough GPUs now, beside what `paused` starts keep.
    Traffic is still routed away from dead containers. A host that has fewer GPUs than asked for is reported by the
    executor, as a failure of the version."""
    actions = (*(action for group in steps for action in group), *paused)
    others = tuple(lease for lease in view.pool.leases if lease.app != observed.app)
    own = leases_of_app(observed.app, view.pool.leases, observed, actions)
    view = replace(view, pool=replace(view.pool, leases=(*others, *own)))
    kept: list[tuple[Action, ...]] = []
    holds: list[Hold] = []
    requests: list[GpuRequest] = []
    for group in steps:
        try:
            taken = claims(group, view)
        except Stalled:
            kept.append(group)
        except Waiting as error:
            first = gpu_starts(group)[0].workload
            holds.append(Hold(first.component, error.reason, error.message, retry_after=error.retry_after))
            wanted = sum(start.workload.spec.resources.gpus for start in gpu_starts(group))
            requests.append(GpuRequest(first.component, wanted, first.spec.resources.per_gpu))
            if switches := rerouted(group):
                kept.append(switches)
        else:
            kept.append(group)
            names = {lease.workload for lease in taken}
            rest = tuple(lease for lease in view.pool.leases if lease.workload not in names)
            view = replace(view, pool=replace(view.pool, leases=(*rest, *taken)))
    return kept, holds, tuple(requests)


def gpu_failures(plan: Plan, view: GpuView) -> Iterator[str]:
    """Return the groups that will fail, since the host has fewer GPUs than they ask for."""
    for group in plan.steps:
        try:
            claims(group, view)
        except Stalled as error:
            yield joined((error.reason, error.message), ": ")
        except Waiting:
            continue


def beside_itself(desired: DesiredApp, pool: GpuPool) -> Iterator[str]:
    """Return, for each component whose next version cannot start beside the present one on this host, what to do about
    it."""
    for component in desired.components:
        if message := _beside_itself(component.spec, pool):
            yield Localizable("MLComponent {spec}: {message}", spec=component.spec.name, message=message)


def _beside_itself(spec: MLComponentSpec, pool: GpuPool) -> str:
    wanted = spec.resources.gpus * spec.replicas
    if not wanted or spec.resources.per_gpu > 1 or spec.rollout.strategy is Strategy.RECREATE:
        return ""
    if wanted > len(pool.gpus) or 2 * wanted <= len(pool.gpus):
        return ""
    return Localizable(
        "a new version will not start, since it needs {wanted} GPUs beside those of the present one "
        "and this host lends {count}: with `rollout: {strategy: Recreate}` the old version gives up "
        "its own first",
        wanted=wanted,
        count=len(pool.gpus),
    )
