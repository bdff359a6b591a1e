"""GPUs that this host lends to containers: who has which, and who is next. Pure; called in the transaction
that writes down what comes of it, by the runner for stages of runs and by the reconciler for components.

All take from one pool, and no GPU has two holders. One that a stage has belongs to the attempt that it is written on,
from the attempt's begin until its end is written down, when nothing of it runs any more. One that a component has
belongs to the container, until that is removed; the container's label says so, too, and is believed after a restart.

Stages are served in the order of their asking: one that asks for much is not passed by those that ask for little.
Components do not stand in that line, since what they have they keep: they take what is free.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace

from controller.domain.errors import Stalled, Waiting
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Stage
from controller.domain.runs.run import Run, RunState, StageRun
from controller.domain.runs.steps import begin, can_begin

WAITING = Reason.WAITING_FOR_GPU
_PAUSE, _LONG_PAUSE = 5.0, 60.0  # seconds until a component looks again


@dataclass(frozen=True)
class Lease:
    """The GPUs that a component's container holds. `workload` is the container's name."""

    workload: str
    app: AppName
    component: ComponentName
    gpus: tuple[str, ...] = ()


def held(active: Iterable[Run]) -> frozenset[str]:
    """Return the GPUs held by attempts that have not ended."""
    attempts = (attempt for run in active for stage in run.stages for attempt in stage.attempts)
    return frozenset(gpu for attempt in attempts if not attempt.ended for gpu in attempt.gpus)


def allocated(leases: Iterable[Lease]) -> frozenset[str]:
    """Return the GPUs that components hold."""
    return frozenset(gpu for lease in leases for gpu in lease.gpus)


# --- components -------------------------------------------------------------------------------------------------


def allocate(
    asked: Lease, wanted: int, gpus: tuple[str, ...], leases: tuple[Lease, ...], active: Iterable[Run]
) -> Lease:
    """Return the lease of a container that is about to be started, or the one that it has already. Raises
    Waiting `WaitingForGpu`, or Stalled `NoGpu` if the host has fewer."""
    others = tuple(lease for lease in leases if lease.workload != asked.workload)
    has = next((lease.gpus for lease in leases if lease.workload == asked.workload), ())
    by_components, by_stages = allocated(others), held(active)
    free = tuple(gpu for gpu in gpus if gpu not in by_components | by_stages)
    if len(has) == wanted and set(has) <= set(free):
        return replace(asked, gpus=has)
    if wanted <= len(free):
        return replace(asked, gpus=free[:wanted])
    if wanted > len(gpus):
        raise Stalled(Reason.NO_GPU, f"{asked.component}: {_too_many(wanted, gpus)}")
    own = allocated(lease for lease in others if (lease.app, lease.component) == (asked.app, asked.component))
    if wanted > len(gpus) - len(own & set(gpus)):
        # Waits as well, since what helps (another strategy, fewer replicas) makes no other version of it.
        raise Waiting(
            Reason.WAITING_FOR_GPU,
            f"{asked.component} {_in_its_own_way(wanted, len(own), gpus)}",
            _LONG_PAUSE,
        )
    taken = f"components have {len(by_components & set(gpus))} of them and stages of runs {len(by_stages & set(gpus))}"
    raise Waiting(Reason.WAITING_FOR_GPU, f"{asked.component} {_in_line(wanted, gpus)}, and {taken}", _PAUSE)


# --- stages -----------------------------------------------------------------------------------------------------


def begin_with_gpus(
    run: Run,
    stages: Iterable[Stage],
    gpus: tuple[str, ...],
    active: Iterable[Run],
    at: float,
    to_components: Collection[str] = (),
) -> Run:
    """Begin a new attempt of each of these stages whose turn it is. The others wait in the queue; stages that ask
    for more GPUs than the host has (`gpus`) fail. `active` are all runs under way as they are written."""
    others = [other for other in active if other.id != run.id]
    for stage in stages:
        run = _allocate(run, stage, gpus, (*others, run), at, to_components)
    return run


def _allocate(
    run: Run,
    stage: Stage,
    gpus: tuple[str, ...],
    active: tuple[Run, ...],
    at: float,
    to_components: Collection[str],
) -> Run:
    wanted, waiting = stage.resources.gpus, run.stage(stage.name)
    if not wanted:
        return begin(run, (stage,), at)
    if wanted > len(gpus):
        return run.with_stage(waiting.to(RunState.FAILED, at, Reason.NO_GPU, _too_many(wanted, gpus)))
    left = tuple(gpu for gpu in gpus if gpu not in to_components)
    taken = held(active)
    free = tuple(gpu for gpu in left if gpu not in taken)
    line = dict(_line(active))
    # Stages that wait for GPUs of components do not delay stages behind them.
    ahead = [
        count for ticket, count in line.items() if not 0 < waiting.ticket <= ticket and count <= len(left)
    ]
    if sum(ahead) + wanted <= len(free):
        return begin(run, (stage,), at, free[:wanted])
    message = _in_line(wanted, gpus) + (
        f", components have {len(gpus) - len(left)} of them" if left != gpus else ""
    )
    return in_line(run, waiting, active, WAITING, message)


def in_line(run: Run, waiting: StageRun, active: Iterable[Run], reason: Reason, message: str) -> Run:
    """Mark the stage as waiting for the given reason; it keeps the place in the queue that it already has."""
    if waiting.ticket and waiting.reason == reason:
        return run
    last = max((stage.ticket for other in active for stage in other.stages), default=0)
    return run.with_stage(replace(waiting, ticket=waiting.ticket or last + 1, reason=reason, message=message))


def _line(active: Iterable[Run]) -> Iterator[tuple[int, int]]:
    """Return tickets with the number of GPUs that each waits for. Runs that are ending start nothing more."""
    for run in active:
        for stage in run.stages if can_begin(run) else ():
            if stage.ticket and stage.reason == WAITING:
                yield stage.ticket, run.pipeline.stage(stage.name).resources.gpus


def _too_many(wanted: int, gpus: tuple[str, ...]) -> str:
    has = f"{len(gpus)}" if gpus else "none"
    return (
        f"it asks for {_count(wanted)}, and this host lends {has}: ask for less, or have more in `runs.gpus`"
    )


def _in_its_own_way(wanted: int, own: int, gpus: tuple[str, ...]) -> str:
    return (
        f"waits for {_count(wanted)} while its other containers have {own} of the {len(gpus)} that this host lends:"
        " with `rollout: {strategy: Recreate}` the old version gives up its own first; else ask for less or for fewer"
        " `replicas`, or have more in `runs.gpus`"
    )


def _in_line(wanted: int, gpus: tuple[str, ...]) -> str:
    return f"waits for {_count(wanted)}; this host lends {len(gpus)}"


def _count(gpus: int) -> str:
    return f"{gpus} GPU{'s' if gpus != 1 else ''}"
