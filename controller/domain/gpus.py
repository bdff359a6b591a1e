"""GPUs that this host lends to the stages of runs: who has which, and who is next. Pure; called by the runner, in the
transaction that writes down what comes of it.

A GPU belongs to the attempt that it is written on, from the attempt's begin until its end is written down, when nothing
of it runs any more. Nothing but the runs is counted, so no lease is lost or given twice, whoever dies. First come,
first served: a stage that asks for much is not passed by those that ask for little.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from controller.domain.pipelines import Stage
from controller.domain.runs import Run, RunState
from controller.domain.steps import begin, can_begin

WAITING = "WaitingForGpu"


def held(active: Iterable[Run]) -> frozenset[str]:
    """By attempts that have not ended."""
    attempts = (attempt for run in active for stage in run.stages for attempt in stage.attempts)
    return frozenset(gpu for attempt in attempts if not attempt.ended for gpu in attempt.gpus)


def begin_lent(
    run: Run, stages: Iterable[Stage], gpus: tuple[str, ...], active: Iterable[Run], at: float
) -> Run:
    """With a new attempt of each of these stages whose turn it is; others wait in the line, and those that ask for more
    than `gpus`, which the host has, fail. `active` are all runs under way as they are written."""
    others = [other for other in active if other.id != run.id]
    for stage in stages:
        run = _lend(run, stage, gpus, (*others, run), at)
    return run


def _lend(run: Run, stage: Stage, gpus: tuple[str, ...], active: tuple[Run, ...], at: float) -> Run:
    wanted, waiting = stage.resources.gpus, run.stage(stage.name)
    if wanted > len(gpus):
        return run.with_stage(waiting.to(RunState.FAILED, at, "NoGpu", _too_many(wanted, gpus)))
    taken = held(active)
    free = tuple(gpu for gpu in gpus if gpu not in taken)
    line = dict(_line(active))
    before = sum(count for ticket, count in line.items() if not 0 < waiting.ticket <= ticket)
    if before + wanted <= len(free) or not wanted:
        return begin(run, (stage,), at, free[:wanted])
    if waiting.ticket:
        return run
    place = replace(waiting, ticket=max(line, default=0) + 1, reason=WAITING, message=_in_line(wanted, gpus))
    return run.with_stage(place)


def _line(active: Iterable[Run]) -> Iterator[tuple[int, int]]:
    """Tickets and how many GPUs are waited for with each. Of a run that comes to its end nothing begins any more."""
    for run in active:
        for stage in run.stages if can_begin(run) else ():
            if stage.ticket:
                yield stage.ticket, run.pipeline.stage(stage.name).resources.gpus


def _too_many(wanted: int, gpus: tuple[str, ...]) -> str:
    has = f"{len(gpus)}" if gpus else "none"
    return f"it asks for {_count(wanted)}, and this host lends {has} to runs: ask for less, or have more in `runs.gpus`"


def _in_line(wanted: int, gpus: tuple[str, ...]) -> str:
    return f"waits for {_count(wanted)}; this host lends {len(gpus)} to runs"


def _count(gpus: int) -> str:
    return f"{gpus} GPU{'s' if gpus != 1 else ''}"
