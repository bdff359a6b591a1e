"""Decides how many stages run at once, within the limits of their app and of the host. Pure; the runner calls it in
the transaction that records the result.

No app has all slots of the host, and the next free one goes to the app that has the fewest; within an app, to
the stage that has waited longest. So an app that asks for more than its share delays only itself. The
resources of an attempt count from its begin until the end of its container was recorded. Only runs are
counted, so a process that dies leaks nothing. Waiting stages queue in order, so that small ones do not
overtake a large one for ever. Stages that publish only what an earlier run has made need no container, and
wait for nothing."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from controller.domain.apps.spec import Limits, Resources
from controller.domain.localizable import Localizable, joined
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.runs.gpus import GpuPool, begin_with_gpus, in_line
from controller.domain.runs.pipeline import Stage
from controller.domain.runs.run import Run, RunState, StageRun
from controller.domain.runs.steps import begin, can_begin
from controller.domain.units import render_size

WAITING_FOR_LIMITS = Reason.WAITING_FOR_LIMITS
WAITING_FOR_SLOT = Reason.WAITING_FOR_SLOT
_INEXACT = 1e-6  # sums of tenths of a CPU are


@dataclass(frozen=True)
class Use:
    """The sum of what containers use. Memory is in bytes."""

    cpus: float = 0.0
    memory: int = 0
    gpus: int = 0
    containers: int = 0

    @classmethod
    def of(cls, wanted: Resources, containers: int = 1) -> Use:
        return cls(wanted.cpus * containers, wanted.memory * containers, wanted.gpus * containers, containers)

    def __add__(self, other: Use) -> Use:
        return Use(
            self.cpus + other.cpus,
            self.memory + other.memory,
            self.gpus + other.gpus,
            self.containers + other.containers,
        )

    def beyond(self, limits: Limits) -> tuple[str, ...]:
        """Say in words what exceeds the limits."""
        found = (
            ("CPUs", self.cpus, limits.cpus),
            (Localizable("of memory"), self.memory, limits.memory),
            ("GPUs", self.gpus, limits.gpus),
            ("containers", self.containers, limits.containers),
        )
        return tuple(
            Localizable("{used} of {most} {what}", used=_told(what, used), most=_told(what, most), what=what)
            for what, used, most in found
            if most is not None and used > most + _INEXACT
        )


def _told(what: str, value: float) -> str:
    return render_size(int(value)) if what == "of memory" else f"{value:g}"


@dataclass(frozen=True)
class Share:
    """The limits for stages: what those of an app may use together, how many run at once on the host and in each
    app, and the host's GPUs."""

    app: Limits
    host: int
    gpus: GpuPool = field(default_factory=GpuPool)
    per_app: int | None = None  # None: the app has the host for itself, as when somebody tries a pipeline

    @property
    def slots(self) -> int:
        """Return how many of the host's slots one app may use: never all of them."""
        return self.host if self.per_app is None else max(1, min(self.per_app, self.host - 1))


def remainder(limits: Limits, taken: Use) -> Limits:
    """Return what the components leave to stages."""
    return Limits(
        cpus=None if limits.cpus is None else max(0.0, limits.cpus - taken.cpus),
        memory=None if limits.memory is None else max(0, limits.memory - taken.memory),
        containers=None if limits.containers is None else max(0, limits.containers - taken.containers),
        gpus=None if limits.gpus is None else max(0, limits.gpus - taken.gpus),
    )


def begin_admitted(run: Run, stages: Iterable[Stage], share: Share, active: Iterable[Run], at: float) -> Run:
    """Begin a new attempt of each of these stages that fits. The others wait in the queue; stages that can never
    fit fail. `active` are all runs under way as they are written."""
    others = tuple(other for other in active if other.id != run.id)
    for stage in stages:
        run = _admit(run, stage, share, (*others, run), at)
    return run


def _admit(run: Run, stage: Stage, share: Share, active: tuple[Run, ...], at: float) -> Run:
    waiting, wanted = run.stage(stage.name), Use.of(stage.resources)
    if waiting.reused_from:
        return begin(run, (stage,), at)
    if beyond := wanted.beyond(share.app):
        message = Localizable(
            "it asks for {names} that the limits of the app leave to stages: ask for less",
            names=joined(beyond, ", "),
        )
        return run.with_stage(waiting.to(RunState.FAILED, at, Reason.LIMITS_INVALID, message))
    mine = tuple(other for other in active if other.app == run.app)
    ahead = _sum(_ahead(mine, waiting, WAITING_FOR_LIMITS))
    if beyond := (in_use(mine) + ahead + wanted).beyond(share.app):
        message = Localizable(
            "waits until other stages of the app have ended: it would be {names} left to stages",
            names=joined(beyond, ", "),
        )
        return in_line(run, waiting, active, WAITING_FOR_LIMITS, message)
    if why := _no_slot(run, waiting, share, active):
        return in_line(run, waiting, active, WAITING_FOR_SLOT, why)
    return begin_with_gpus(run, (stage,), share.gpus, active, at)


def _no_slot(run: Run, waiting: StageRun, share: Share, active: tuple[Run, ...]) -> str:
    """Say what the stage waits for; "" if there is a slot."""
    used = Counter({app: in_use(own).containers for app, own in _by_app(active).items()})
    before = sum(1 for _ in _ahead(_by_app(active)[run.app], waiting, WAITING_FOR_SLOT))
    place = used[run.app] + before
    if place >= share.slots:
        return Localizable(
            "waits for a slot of its app: one app runs {slots} stages at once on this host", slots=share.slots
        )
    mine = (place, waiting.ticket or math.inf)
    others = sum(
        (used[app] + rank, ticket) < mine
        for app, own in _by_app(active).items()
        if app != run.app
        for rank, ticket in enumerate(_line(own)[: max(0, share.slots - used[app])])
    )
    if sum(used.values()) + before + others >= share.host:
        return Localizable("waits for a slot: this host runs {host} stages at once", host=share.host)
    return ""


def _by_app(runs: Iterable[Run]) -> dict[AppName, list[Run]]:
    found = defaultdict[AppName, list[Run]](list)
    for run in runs:
        found[run.app].append(run)
    return found


def _line(runs: Iterable[Run]) -> list[int]:
    """Return the tickets of stages that wait for a slot."""
    waiting = (stage for run in runs if can_begin(run) for stage in run.stages)
    return sorted(stage.ticket for stage in waiting if stage.ticket and stage.reason == WAITING_FOR_SLOT)


def in_use(runs: Iterable[Run]) -> Use:
    """Return what attempts that have not ended use."""
    return _sum(
        run.pipeline.stage(stage.name)
        for run in runs
        for stage in run.stages
        if stage.active and not stage.reused_from and not stage.attempts[-1].ended
    )


def _ahead(runs: Iterable[Run], waiting: StageRun, why: str) -> Iterator[Stage]:
    """Return the queue ahead, without runs that are ending: they begin nothing more."""
    for run in runs:
        for stage in run.stages if can_begin(run) else ():
            before = not waiting.ticket or stage.ticket < waiting.ticket
            if stage.ticket and stage.reason == why and before:
                yield run.pipeline.stage(stage.name)


def _sum(stages: Iterable[Stage]) -> Use:
    return sum((Use.of(stage.resources) for stage in stages), Use())
