"""Decides the next step of a run. Pure; `runner.run_worker` calls it.

Runs are level-triggered: `next_step` decides from the stored state only, and every step is stored before it
is done. So a restart of the daemon makes no difference."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from controller.domain.backoff import Backoff
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Stage
from controller.domain.runs.run import BAD_ENDS, Run, RunOutput, RunState, StageRun, over

#: Seconds before each repetition after a failure of the platform. There are as many repetitions, independent
#: of the manifest.
PLATFORM_PAUSES = (2.0, 15.0, 60.0)


@dataclass(frozen=True)
class BeginStage:
    """Begin a new attempt of these stages."""

    stages: tuple[Stage, ...]


@dataclass(frozen=True)
class WaitForStage:
    """Wait for running stages, or until `until` (Unix seconds; None: only for running stages)."""

    until: float | None = None


@dataclass(frozen=True)
class ReleaseOutputs:
    """Publish these outputs to the developer area."""

    outputs: tuple[RunOutput, ...]


@dataclass(frozen=True)
class FinishRun:
    """The run is over."""

    state: RunState
    reason: Reason = Reason.NONE
    message: str = ""


Step = BeginStage | WaitForStage | ReleaseOutputs | FinishRun


def next_step(run: Run, now: float) -> Step:
    """Return the next step of a run that has started and is not over."""
    if all(stage.state is RunState.SUCCEEDED for stage in run.stages):
        due = tuple(output for output in run.releases if output.name not in run.released)
        # Even if somebody has just canceled it: it was too late.
        return ReleaseOutputs(due) if due else FinishRun(RunState.SUCCEEDED)
    active = any(stage.active for stage in run.stages)
    bad = _bad(run)
    if run.state is RunState.CANCELING:
        return WaitForStage() if active else FinishRun(RunState.CANCELED, run.reason, run.message)
    if bad:
        # Other stages end first: a repetition can reuse their outputs.
        return (
            WaitForStage()
            if active
            else FinishRun(
                bad.state,
                bad.reason,
                Localizable("stage {name}: {message}", name=bad.name, message=bad.message),
            )
        )
    return _begin_or_wait(run, now)


def _bad(run: Run) -> StageRun | None:
    return next((stage for stage in run.stages if stage.state in BAD_ENDS), None)


def can_begin(run: Run) -> bool:
    """Return True if stages of it may still begin."""
    return not run.state.terminal and run.state is not RunState.CANCELING and not _bad(run)


def _begin_or_wait(run: Run, now: float) -> Step:
    begun = [s.name for s in run.stages if s.state is not RunState.QUEUED]
    done = [s.name for s in run.stages if s.state is RunState.SUCCEEDED]
    candidates = run.pipeline.ready(done, begun)
    due = tuple(stage for stage in candidates if _is_due(run.stage(stage.name), now))
    if due:
        return BeginStage(due)
    return WaitForStage(min((run.stage(stage.name).not_before for stage in candidates), default=None))


def _is_due(stage: StageRun, now: float) -> bool:
    """Return True if the pause is over; a clock that was set back must not prolong it."""
    return stage.not_before <= now or now < stage.history[-1].at


def begin(run: Run, stages: Iterable[Stage], at: float, gpus: tuple[str, ...] = ()) -> Run:
    """Begin a new attempt of each of these stages, with these GPUs."""
    for stage in stages:
        run = run.with_stage(run.stage(stage.name).begin(at, gpus))
    return run


def release(run: Run, output: RunOutput) -> Run:
    """Record that this output is at its destination."""
    return replace(run, released=(*run.released, output.name), reason=Reason.NONE, message="")


def finish(run: Run, end: FinishRun, at: float) -> Run:
    """Return the run at its end; stages that have not begun end with it."""
    return over(run.to(end.state, at, end.reason, end.message), at)


def after_failure(
    stage: StageRun,
    spec: Stage,
    at: float,
    reason: Reason,
    message: str,
    *,
    platform: bool,
    final: bool = False,
) -> StageRun:
    """Return the stage after its attempt failed and its end was recorded: QUEUED for another one, or over.
    `final` means that a repetition cannot help."""
    failed = sum(bool(a.ended and a.reason) and a.platform == platform for a in stage.attempts)
    limit = len(PLATFORM_PAUSES) if platform else spec.retries.limit
    if final or failed > limit:
        over = RunState.ERROR if platform else RunState.FAILED
        return stage.to(over, at, reason, message)
    pause = PLATFORM_PAUSES[failed - 1] if platform else _pause(spec, failed)
    return replace(stage.to(RunState.QUEUED, at, reason, message), not_before=at + pause)


def _pause(spec: Stage, failed: int) -> float:
    """Return the seconds before the repetition after this number of failures (from 1 on)."""
    retries = spec.retries
    return Backoff(retries.backoff, retries.cap, retries.factor).after(failed)
