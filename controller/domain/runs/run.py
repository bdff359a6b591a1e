"""Runs and their stages as they are stored: the states, their transitions, and how one run follows from
another. Pure. The next step of a run is decided by `steps`."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice

from controller.domain.localizable import Localizable, changed_whole
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Pipeline
from controller.domain.storage.keys import DEVELOPER_AREA, user_area


class RunState(StrEnum):
    """The state of a run or a stage. A stage is QUEUED while it waits for its inputs or for its next attempt."""

    QUEUED = "QUEUED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    CANCELING = "CANCELING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"  # the user's code or input
    ERROR = "ERROR"  # the platform
    CANCELED = "CANCELED"

    @property
    def terminal(self) -> bool:
        return not FOLLOWS[self]


_ENDS = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.ERROR, RunState.CANCELED})
BAD_ENDS = _ENDS - {RunState.SUCCEEDED}

#: The allowed transitions. Terminal states have none.
FOLLOWS: dict[RunState, frozenset[RunState]] = {
    RunState.QUEUED: frozenset({RunState.STARTING, RunState.CANCELING}) | _ENDS,
    RunState.STARTING: frozenset({RunState.RUNNING, RunState.QUEUED, RunState.CANCELING}) | _ENDS,
    RunState.RUNNING: frozenset({RunState.QUEUED, RunState.CANCELING}) | _ENDS,
    RunState.CANCELING: _ENDS,
    RunState.SUCCEEDED: frozenset(),
    RunState.FAILED: frozenset(),
    RunState.ERROR: frozenset(),
    RunState.CANCELED: frozenset(),
}


class RunCause(StrEnum):
    """What started a run."""

    API = "api"
    SCHEDULE = "schedule"
    CONTINUE = "continue"  # another pipeline that ended
    RETRY = "retry"


class TransitionRefused(Exception):
    """A transition that is not allowed, which is a bug."""


@dataclass(frozen=True)
class Transition:
    state: RunState
    at: float  # Unix seconds
    reason: Reason = Reason.NONE
    message: str = ""


@dataclass(frozen=True)
class Attempt:
    """One container of a stage. `ended` is 0 until its end was recorded; `platform`: the user's code did not
    cause its failure, which is counted separately. `unpublished`: its command ended with 0, and its outputs
    are kept on the host, but could not be published."""

    number: int
    started: float
    ended: float = 0.0
    exit_code: int | None = None
    reason: Reason = Reason.NONE
    message: str = ""
    platform: bool = False
    gpus: tuple[str, ...] = ()  # ids of those that it has until its end
    unpublished: bool = False


@dataclass(frozen=True)
class StageRun:
    """`not_before`: a repetition waits until then. `reused_from`: the run whose outputs this stage reuses; it
    is not executed again. `ticket`: its place among all stages that wait for GPUs, from 1 on; 0: it does not
    wait."""

    name: str
    state: RunState = RunState.QUEUED
    reason: Reason = Reason.NONE
    message: str = ""
    attempts: tuple[Attempt, ...] = ()
    not_before: float = 0.0
    progress: str = ""  # "N/M", as the stage wrote it
    history: tuple[Transition, ...] = ()
    reused_from: str = ""
    ticket: int = 0

    @property
    def attempt(self) -> Attempt | None:
        """Return the newest attempt."""
        return self.attempts[-1] if self.attempts else None

    def to(self, state: RunState, at: float, reason: Reason = Reason.NONE, message: str = "") -> StageRun:
        """Return the stage in its next state. Raises TransitionRefused."""
        _check(self.state, state)
        step = Transition(state, at, reason, message)
        return replace(self, state=state, reason=reason, message=message, history=(*self.history, step))

    @property
    def active(self) -> bool:
        """Return True if it is in progress."""
        return self.state in (RunState.STARTING, RunState.RUNNING, RunState.CANCELING)

    @property
    def has_made_it(self) -> bool:
        """Return True if the command of the newest attempt has ended with 0, or need not be executed, so that
        only its outputs have to be published."""
        last = self.attempt
        return bool(self.reused_from or (last and last.ended and last.exit_code == 0 and not last.reason))

    @property
    def is_kept(self) -> bool:
        """Return True if its outputs lie on the host, from this run or from the run that it was reused from."""
        last = self.attempt
        return bool(self.state is RunState.SUCCEEDED or self.reused_from or (last and last.unpublished))

    def begin(self, at: float, gpus: tuple[str, ...] = ()) -> StageRun:
        """Return the stage with a new attempt, which is stored before its container is created."""
        starting = self.to(RunState.STARTING, at)
        return replace(
            starting,
            attempts=(*self.attempts, Attempt(len(self.attempts) + 1, at, gpus=gpus)),
            not_before=0.0,
            ticket=0,
            progress="",
        )

    def note(self, **what: object) -> StageRun:
        """Return the stage with changes to its newest attempt."""
        last = replace(self.attempts[-1], **what)  # type: ignore[arg-type]
        return replace(self, attempts=(*self.attempts[:-1], last))

    def end_attempt(self, at: float, **how: object) -> StageRun:
        """Record the end of the newest attempt, unless one was recorded before."""
        return self.note(ended=self.attempts[-1].ended or at, **how)


@dataclass(frozen=True)
class RunInput:
    """The value of an input variable: a key in the run's `area` (`FILE`), or a value that becomes a JSON file."""

    name: str
    datatype: str = "FILE"
    data: str = ""  # the key, or the value as JSON text
    box: str = ""  # another connected box than the default one


#: In place of the data of a long input where a run is read in brief. It is not JSON, unlike the data of any value.
ELLIPSIS = "…"


class AreaKind(StrEnum):
    CALLER = "caller"  # of the caller who started the run
    DEVELOPER = "developer"  # the module's own data


@dataclass(frozen=True)
class RunOutput:
    """The destination of an output: a group in the `area` of a box, ending in `/`. What the caller leaves out goes
    to `runs/<id>/<name>/` of the run's area."""

    name: str
    data: str
    box: str = ""
    area: AreaKind = AreaKind.CALLER


@dataclass(frozen=True)
class Run:
    """`version` grows with each change, and saving names the version that was changed. `user` is None for a
    caller without a name, and for `public` runs, which have no owner."""

    id: str
    app: AppName
    pipeline: Pipeline
    created: float
    user: str | None = None
    inputs: tuple[RunInput, ...] = ()
    outputs: tuple[RunOutput, ...] = ()
    priority: int = 0
    state: RunState = RunState.QUEUED
    reason: Reason = Reason.NONE
    message: str = ""
    stages: tuple[StageRun, ...] = ()
    history: tuple[Transition, ...] = ()
    version: int = 0
    cause: RunCause = RunCause.API
    origin: str = ""  # the run that it repeats or continues
    webhook: str = ""
    pass_identity: bool = False  # whether the stages get the caller's name
    released: tuple[str, ...] = ()  # those of `releases` that have been published
    public: bool = False
    trace: str = ""  # what its spans are below, as `traces.text_of` writes it

    @property
    def name(self) -> ComponentName:
        return self.pipeline.name

    @property
    def area(self) -> AreaKind:
        """Return the area of its inputs, and of outputs that have no other destination."""
        return AreaKind.DEVELOPER if self.public else AreaKind.CALLER

    def prefix(self, area: AreaKind) -> str:
        """Return the prefix of its keys."""
        return DEVELOPER_AREA if area is AreaKind.DEVELOPER else user_area(self.user)

    def is_visible_to(self, user: str) -> bool:
        """Return True if this user may see it; "" for callers without a name."""
        return self.public or (self.user or "") == user

    @property
    def started(self) -> float | None:
        return next((step.at for step in self.history if step.state is RunState.STARTING), None)

    @property
    def ended(self) -> float | None:
        return self.history[-1].at if self.state.terminal else None

    @property
    def expires(self) -> float | None:
        """Return when the run may be deleted, in Unix seconds."""
        if self.ended is None:
            return None
        well = self.state in (RunState.SUCCEEDED, RunState.CANCELED)
        return self.ended + (self.pipeline.ttl_succeeded if well else self.pipeline.ttl_failed)

    @property
    def published(self) -> tuple[RunOutput, ...]:
        """Return the destination of each output that leaves the run, by name."""
        return tuple(sorted((*self.handed_out, *self.releases), key=lambda output: output.name))

    @property
    def handed_out(self) -> tuple[RunOutput, ...]:
        """Return the outputs to publish when their stages have succeeded: to the destination that the caller
        gave, else to `runs/<id>/`, where internal ones do not go."""
        asked = {output.name: output for output in self.outputs}
        names = sorted({*self.pipeline.offered, *asked} - set(self.pipeline.releases))
        return tuple(
            asked.get(name) or RunOutput(name, f"runs/{self.maker(name)}/{name}/", area=self.area)
            for name in names
        )

    @property
    def releases(self) -> tuple[RunOutput, ...]:
        """Return the outputs to publish once all stages have succeeded: a later stage may reject an earlier
        output."""
        places = ((name, self.pipeline.var(name).publish_to) for name in self.pipeline.releases)
        return tuple(RunOutput(name, to[1], to[0], AreaKind.DEVELOPER) for name, to in places if to)

    @property
    def to_publish(self) -> tuple[RunOutput, ...]:
        """Return those of `published` that are not in a box yet."""
        places = (*(self.handed_out if self.pipeline.boxes else ()), *self.releases)
        return tuple(
            output
            for output in places
            if output.name not in self.released
            and self.stage(self.pipeline.made[output.name]).state is not RunState.SUCCEEDED
        )

    def maker(self, variable: str) -> str:
        """Return the id of the run whose stage made it: this one, or one that it repeats."""
        return self.stage(self.pipeline.made[variable]).reused_from or self.id

    def stage(self, name: str) -> StageRun:
        return next(stage for stage in self.stages if stage.name == name)

    def with_stage(self, stage: StageRun) -> Run:
        return replace(self, stages=tuple(stage if s.name == stage.name else s for s in self.stages))

    def to(self, state: RunState, at: float, reason: Reason = Reason.NONE, message: str = "") -> Run:
        """Return the run in its next state. Raises TransitionRefused."""
        _check(self.state, state)
        step = Transition(state, at, reason, message)
        return replace(self, state=state, reason=reason, message=message, history=(*self.history, step))


@dataclass(frozen=True)
class RunFilter:
    """A filter for runs of an app. `after`: only runs older than this id; `since`: only this one and newer ones;
    `user`: only runs that they may see, "" for callers without a name; `owner`: only runs that this user started."""

    pipeline: ComponentName | None = None
    state: RunState | None = None
    after: str = ""
    user: str | None = None
    since: str = ""
    owner: str | None = None
    cause: RunCause | None = None

    def takes(self, run: Run) -> bool:
        return (
            self.pipeline in (None, run.name)
            and self.state in (None, run.state)
            and self.cause in (None, run.cause)
            and self.since <= run.id
            and (not self.after or run.id < self.after)
            and (self.user is None or run.is_visible_to(self.user))
            and (self.owner is None or (not run.public and (run.user or "") == self.owner))
        )


EVERY_RUN = RunFilter()


def is_brief(run: Run) -> bool:
    """Return True if data of its inputs may be missing. A file may have that name, too."""
    return any(given.data == ELLIPSIS for given in run.inputs)


@dataclass(frozen=True)
class RunCount:
    """The number of a pipeline's runs in a state; `oldest` is the id of the one submitted first."""

    app: AppName
    pipeline: ComponentName
    state: RunState
    number: int
    oldest: str

    @property
    def active(self) -> bool:
        return not self.state.terminal and self.state is not RunState.QUEUED


def new_run(
    id: str,
    pipeline: Pipeline,
    at: float,
    user: str | None = None,
    inputs: Iterable[RunInput] = (),
    outputs: Iterable[RunOutput] = (),
    **rest: object,
) -> Run:
    stages = tuple(
        StageRun(stage.name, history=(Transition(RunState.QUEUED, at),)) for stage in pipeline.stages
    )
    return Run(
        id,
        pipeline.app,
        pipeline,
        at,
        user,
        tuple(inputs),
        tuple(outputs),
        stages=stages,
        history=(Transition(RunState.QUEUED, at),),
        **rest,  # type: ignore[arg-type]
    )


_RUN_ID = re.compile(r"[0-9a-f]{19}")


def new_run_id(now: float, random: int) -> str:
    """Return 19 hexadecimal digits: the milliseconds since 1970, then 32 bits of `random`, so that ids sort
    by time."""
    return f"{int(now * 1000):011x}{random & 0xFFFFFFFF:08x}"


def first_id(at: float) -> str:
    """Return an id that sorts before those of all runs that are submitted then or later."""
    return new_run_id(at, 0)


def id_time(id: str) -> float:
    """Return when the id was made, in Unix seconds."""
    return int(id[:11], 16) / 1000


def is_run_id(text: str) -> bool:
    return _RUN_ID.fullmatch(text) is not None


def cancel(
    run: Run, at: float, reason: Reason = Reason.CANCELED, why: str = Localizable("canceled by a person")
) -> Run:
    """Return the canceled run: it is over at once if it had not begun, else its runner stops it. A run that is
    being canceled, or is over, does not change."""
    if run.state.terminal or run.state is RunState.CANCELING:
        return run
    if run.state is RunState.QUEUED:
        return over(run.to(RunState.CANCELED, at, reason, Localizable("{why} before it began", why=why)), at)
    return run.to(RunState.CANCELING, at, reason, why)


def retry_of(before: Run, id: str, at: float) -> Run:
    """Return a new run of the same pipeline that reuses the outputs, and publishes those that were not published."""
    run = new_run(
        id,
        before.pipeline,
        at,
        before.user,
        before.inputs,
        before.outputs,
        priority=before.priority,
        cause=RunCause.RETRY,
        origin=before.id,
        webhook=before.webhook,
        pass_identity=before.pass_identity,
        public=before.public,
    )
    for stage in run.stages:
        earlier = before.stage(stage.name)
        if not earlier.is_kept:
            continue
        source = earlier.reused_from or before.id
        reason, message = reused_reason(source)
        if earlier.state is RunState.SUCCEEDED:
            stage = stage.to(RunState.SUCCEEDED, at, reason, message)
        run = run.with_stage(replace(stage, reason=reason, message=message, reused_from=source))
    return run


def images_to_repeat(runs: Iterable[Run], most: int) -> frozenset[str]:
    """Return the images that repetitions of these runs need, those of the first runs first; at most `most`."""
    needed = (
        stage.image for run in runs for stage in run.pipeline.stages if not run.stage(stage.name).is_kept
    )
    return frozenset(islice(dict.fromkeys(needed), most))


def reused_reason(source: str) -> tuple[Reason, str]:
    """Return reason and message of a stage that reuses the outputs of the run `source`."""
    return Reason.REUSED, Localizable("outputs of run {source}", source=source)


def continuation(run: Run, pipeline: Pipeline, id: str, at: float) -> Run:
    """Return the run of the next pipeline after this one succeeded. Outputs in the caller's area, and inputs
    of the caller, are passed on under the same name. The module's own data is read with `mountFrom`."""
    inputs = {given.name: given for given in run.inputs}
    inputs |= {made.name: RunInput(made.name, "FILE", made.data, made.box) for made in run.handed_out}
    inputs = {name: _named_box(given, run.pipeline, pipeline) for name, given in inputs.items()}
    handed = tuple(inputs[name] for name in pipeline.passed if name in inputs)
    return new_run(
        id,
        pipeline,
        at,
        run.user,
        handed,
        priority=run.priority,
        cause=RunCause.CONTINUE,
        origin=run.id,
        pass_identity=run.pass_identity,
        public=run.public,
    )


def _named_box(given: RunInput, before: Pipeline, after: Pipeline) -> RunInput:
    """Name the default box, since the other pipeline may have another one."""
    if given.datatype != "FILE" or given.box or before.boxes[:1] == after.boxes[:1]:
        return given
    return replace(given, box=next(iter(before.boxes), ""))


def in_order(
    histories: Sequence[tuple[str | None, Sequence[Transition]]], told: Sequence[int]
) -> Iterator[tuple[int, Transition]]:
    """Return the transitions of a run (named None here) and of its stages in order of time, each with its index in
    the history, without those that were `told` before. A run begins before its stages and ends after them."""
    lines = [
        [(step.at, _rank(name, step), place, step) for step in history[count:]]
        for place, ((name, history), count) in enumerate(zip(histories, told, strict=True))
    ]
    # Each history keeps its own order, even where the clock was set back.
    for _, _, place, step in heapq.merge(*lines, key=lambda item: item[:3]):
        yield place, step


def _rank(stage: str | None, step: Transition) -> int:
    if stage is not None:
        return 1
    return 2 if step.state.terminal else 0


def over(run: Run, at: float) -> Run:
    for stage in run.stages:
        if not stage.state.terminal:
            run = run.with_stage(
                stage.to(
                    RunState.CANCELED,
                    at,
                    Reason.NOT_RUN,
                    Localizable("the run was over before it could begin"),
                )
            )
    return run


def with_messages(run: Run, change: Callable[[str], str]) -> Run:
    """Return the run with `change` applied to each of its messages."""

    def history(steps: tuple[Transition, ...]) -> tuple[Transition, ...]:
        return tuple(replace(step, message=changed_whole(step.message, change)) for step in steps)

    stages = tuple(
        replace(
            stage,
            message=changed_whole(stage.message, change),
            history=history(stage.history),
            attempts=tuple(
                replace(each, message=changed_whole(each.message, change)) for each in stage.attempts
            ),
        )
        for stage in run.stages
    )
    return replace(
        run, message=changed_whole(run.message, change), history=history(run.history), stages=stages
    )


def _check(before: RunState, after: RunState) -> None:
    if after not in FOLLOWS[before]:
        raise TransitionRefused(
            Localizable("{before} is not followed by {after}", before=before, after=after)
        )
