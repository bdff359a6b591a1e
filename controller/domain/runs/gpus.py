"""GPUs that this host lends to containers: who has which, and who is next. Pure; called in the transaction
that writes down what comes of it, by the runner for stages of runs and by the reconciler for components.

All take from one pool. No GPU has two holders, unless each of them says with `gpuShare` how many may have it. One that
a stage has belongs to the attempt that it is written on, from the attempt's begin until its end is written down, when
nothing of it runs any more. One that a component has belongs to the container, until that is removed; the container's
labels say so, too, and are believed after a restart.

Stages are served in the order of their asking: one that asks for much is not passed by those that ask for little.
Components do not stand in that line, since what they have they keep: they take what is free, and no stage that begins
later takes what one of them waits for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from controller.domain.errors import Stalled, Waiting
from controller.domain.localizable import Localizable, joined
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Stage
from controller.domain.runs.run import Run, RunState, StageRun
from controller.domain.runs.steps import begin, can_begin

WAITING = Reason.WAITING_FOR_GPU
ASKED_WITHIN = 180.0  # seconds for which a component counts as waiting after it asked last
_PAUSE, _LONG_PAUSE = 5.0, 60.0  # seconds until a component looks again


@dataclass(frozen=True)
class Lease:
    """The GPUs that a component's container holds. `workload` is the container's name; `share` is how many containers
    may hold each of them, itself included."""

    workload: str
    app: AppName
    component: ComponentName
    gpus: tuple[str, ...] = ()
    share: int = 1


@dataclass(frozen=True)
class GpuRequest:
    """What a component waits for."""

    component: ComponentName
    wanted: int
    share: int = 1


@dataclass(frozen=True)
class GpuPool:
    """`gpus` are those of the configuration, `lost` those that do not work at the moment, with the reason. `leases` are
    what components hold, `requests` what they wait for."""

    gpus: tuple[str, ...] = ()
    leases: tuple[Lease, ...] = ()
    requests: tuple[GpuRequest, ...] = ()
    lost: Mapping[str, str] = field(default_factory=dict)

    @property
    def usable(self) -> tuple[str, ...]:
        return tuple(gpu for gpu in self.gpus if gpu not in self.lost)

    @property
    def told(self) -> str:
        """Say how many there are."""
        lent = Localizable("this host lends {count}", count=len(self.gpus))
        lost = [
            Localizable("{gpu} does not work ({lost})", gpu=gpu, lost=self.lost[gpu])
            for gpu in self.gpus
            if gpu in self.lost
        ]
        return Localizable("{lent}, of which {names}", lent=lent, names=joined(lost, ", ")) if lost else lent


@dataclass(frozen=True)
class _Holding:
    """What one container has: the GPUs, and how many may have each."""

    gpus: tuple[str, ...]
    share: int


def held(active: Iterable[Run]) -> frozenset[str]:
    """Return the GPUs held by attempts that have not ended."""
    return frozenset(gpu for holding in _of_stages(active) for gpu in holding.gpus)


def allocated(leases: Iterable[Lease]) -> frozenset[str]:
    """Return the GPUs that components hold."""
    return frozenset(gpu for lease in leases for gpu in lease.gpus)


def _of_stages(active: Iterable[Run]) -> Iterator[_Holding]:
    for run in active:
        for stage in run.stages:
            for attempt in stage.attempts:
                if attempt.gpus and not attempt.ended:
                    yield _Holding(attempt.gpus, run.pipeline.stage(stage.name).resources.per_gpu)


def _of_components(leases: Iterable[Lease]) -> Iterator[_Holding]:
    return (_Holding(lease.gpus, lease.share) for lease in leases)


def _lendable(gpus: Iterable[str], share: int, holdings: Iterable[_Holding]) -> tuple[str, ...]:
    """Return those that one more container may have that lets `share` have each of its own, shared ones first, so that
    whole ones stay for those that do not share. All holders have to agree to the number."""
    shares = defaultdict[str, list[int]](list)
    for holding in holdings:
        for gpu in holding.gpus:
            shares[gpu].append(holding.share)
    fitting = [gpu for gpu in gpus if len(shares[gpu]) < min((share, *shares[gpu]))]
    return tuple(sorted(fitting, key=lambda gpu: (not shares[gpu], len(shares[gpu]))))


# --- components -------------------------------------------------------------------------------------------------


def allocate(
    asked: Lease, wanted: int, pool: GpuPool, active: Iterable[Run], freed: Collection[str] = ()
) -> Lease:
    """Return the lease of a container that is about to be started; it keeps what it has already. `freed` are the
    containers that are removed before. Raises Waiting `WaitingForGpu`, or Stalled `NoGpu` if the host has fewer."""
    gone = {asked.workload, *freed}
    others = tuple(lease for lease in pool.leases if lease.workload not in gone)
    has = next((lease.gpus for lease in pool.leases if lease.workload == asked.workload), ())
    stages = tuple(_of_stages(active))
    free = _lendable(pool.usable, asked.share, (*_of_components(others), *stages))
    kept = tuple(gpu for gpu in has if gpu in free)[:wanted]
    if wanted <= len(free):
        return replace(asked, gpus=(*kept, *(gpu for gpu in free if gpu not in kept))[:wanted])
    if wanted > len(pool.gpus):
        raise Stalled(Reason.NO_GPU, _too_many(wanted, pool))
    own = tuple(
        lease
        for lease in others
        if (lease.app, lease.component) == (asked.app, asked.component) and lease.gpus
    )
    if own and wanted > len(_lendable(pool.usable, asked.share, _of_components(own))):
        # Waits as well, since what helps (another strategy, fewer replicas) makes no other version of it.
        raise Waiting(Reason.WAITING_FOR_GPU, _in_its_own_way(wanted, own, pool), _LONG_PAUSE)
    by_components = len(allocated(others) & set(pool.gpus))
    by_stages = len({gpu for holding in stages for gpu in holding.gpus} & set(pool.gpus))
    taken = Localizable(
        "components have {by_components} of them and stages of runs {by_stages}",
        by_components=by_components,
        by_stages=by_stages,
    )
    advice = joined(("", _GIVES_UP), ". ") if own else ""
    raise Waiting(
        Reason.WAITING_FOR_GPU,
        Localizable(
            "{in_line}, and {taken}{advice}", in_line=_in_line(wanted, pool), taken=taken, advice=advice
        ),
        _PAUSE,
    )


def corrected(
    leases: Iterable[Lease], containers: Sequence[Lease], starting: Sequence[Lease]
) -> tuple[Lease, ...]:
    """Return the leases of an app as its `containers` have them, and those of containers that are about to be started
    (`starting`, without GPUs): these keep what was written down for them, or get what is left of containers of the same
    component, so that a daemon that dies between the old one's end and the new one's start loses nothing."""
    present = {lease.workload for lease in containers}
    begun = {lease.workload for lease in starting} - present
    written = {lease.workload: lease for lease in leases if lease.gpus}
    vacant = [lease for name, lease in written.items() if name not in present | begun]
    found = list(containers)
    for asked in starting:
        if asked.workload in present:
            continue
        if asked.workload in written:
            found.append(replace(asked, gpus=written[asked.workload].gpus))
        elif left := next((lease for lease in vacant if lease.component == asked.component), None):
            vacant.remove(left)
            found.append(replace(asked, gpus=left.gpus))
    return tuple(sorted(found, key=lambda lease: lease.workload))


# --- stages -----------------------------------------------------------------------------------------------------


def begin_with_gpus(
    run: Run, stages: Iterable[Stage], pool: GpuPool, active: Iterable[Run], at: float
) -> Run:
    """Begin a new attempt of each of these stages whose turn it is. The others wait in the queue; stages that ask
    for more GPUs than the host has fail. `active` are all runs under way as they are written."""
    others = [other for other in active if other.id != run.id]
    for stage in stages:
        run = _allocate(run, stage, pool, (*others, run), at)
    return run


def _allocate(run: Run, stage: Stage, pool: GpuPool, active: tuple[Run, ...], at: float) -> Run:
    wanted, share = stage.resources.gpus, stage.resources.per_gpu
    waiting = run.stage(stage.name)
    if not wanted:
        return begin(run, (stage,), at)
    if wanted > len(pool.gpus):
        return run.with_stage(waiting.to(RunState.FAILED, at, Reason.NO_GPU, _too_many(wanted, pool)))
    to_components = allocated(pool.leases)
    free = _lendable(pool.usable, share, (*_of_components(pool.leases), *_of_stages(active)))
    # Stages that share none cannot use those of components, so that these do not delay stages that share them.
    shared = [gpu for gpu in free if gpu in to_components]
    rest = [gpu for gpu in free if gpu not in to_components]
    ahead = tuple(_ahead(waiting, pool, active))
    for_whole = sum(count for count, each in ahead if each == 1)
    for_shared = sum(count for count, each in ahead if each != 1)
    if wanted <= len(shared) + max(0, len(rest) - for_whole) - for_shared:
        return begin(run, (stage,), at, (*shared, *rest)[:wanted])
    message = _in_line(wanted, pool)
    if taken := to_components & set(pool.gpus):
        message += Localizable(", components have {count} of them", count=len(taken))
    return in_line(run, waiting, active, WAITING, message)


def _ahead(waiting: StageRun, pool: GpuPool, active: Iterable[Run]) -> Iterator[tuple[int, int]]:
    """Return how many GPUs each waits for that is served before, and with how many it shares them. What waits for
    GPUs of components delays nobody."""
    requests = [(request.wanted, request.share) for request in pool.requests]
    line = [(count, share) for ticket, count, share in _line(active) if not 0 < waiting.ticket <= ticket]
    for count, share in (*requests, *line):
        if count <= len(_lendable(pool.usable, share, _of_components(pool.leases))):
            yield count, share


def in_line(run: Run, waiting: StageRun, active: Iterable[Run], reason: Reason, message: str) -> Run:
    """Mark the stage as waiting for the given reason; it keeps the place in the queue that it already has."""
    if waiting.ticket and waiting.reason == reason:
        return run
    last = max((stage.ticket for other in active for stage in other.stages), default=0)
    return run.with_stage(replace(waiting, ticket=waiting.ticket or last + 1, reason=reason, message=message))


def _line(active: Iterable[Run]) -> Iterator[tuple[int, int, int]]:
    """Return tickets with the number of GPUs that each waits for, and its share. Runs that are ending start nothing
    more."""
    for run in active:
        for stage in run.stages if can_begin(run) else ():
            if stage.ticket and stage.reason == WAITING:
                asked = run.pipeline.stage(stage.name).resources
                yield stage.ticket, asked.gpus, asked.per_gpu


# --- words ------------------------------------------------------------------------------------------------------

_GIVES_UP = Localizable("With `rollout: {strategy: Recreate}` the old version gives up its own first")


def _too_many(wanted: int, pool: GpuPool) -> str:
    has = f"{len(pool.gpus)}" if pool.gpus else Localizable("none")
    return Localizable(
        "it asks for {wanted}, and this host lends {has}: ask for less, or have more in `runs.gpus`",
        wanted=_count(wanted),
        has=has,
    )


def _in_its_own_way(wanted: int, own: Sequence[Lease], pool: GpuPool) -> str:
    has = len(allocated(own) & set(pool.gpus))
    return Localizable(
        "waits for {wanted} while its other containers have {has} of the {count} that this host "
        "lends: with `rollout: {strategy: Recreate}` the old version gives up its own first; else "
        "ask for less or for fewer `replicas`, let versions share them (`gpuShare`), or have more in "
        "`runs.gpus`",
        wanted=_count(wanted),
        has=has,
        count=len(pool.gpus),
    )


def _in_line(wanted: int, pool: GpuPool) -> str:
    return Localizable("waits for {wanted}; {told}", wanted=_count(wanted), told=pool.told)


def _count(gpus: int) -> str:
    return f"{gpus} GPU{'s' if gpus != 1 else ''}"
