"""The part of a run that a caller decides: the pipeline's name, inputs, outputs, and a webhook. The daemon
fills in the rest from the pipelines that it has published. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from controller.domain.integrity import MOST_USER, IntegrityError, require_integrity
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Pipeline
from controller.domain.runs.run import (
    Run,
    RunCause,
    RunInput,
    RunOutput,
    RunState,
    cancel,
    id_time,
    is_run_id,
    new_run,
    over,
    retry_of,
)
from controller.domain.traces import context_of_text

PRIORITIES = range(-10, 1)  # callers may let others go first, not push ahead of them


@dataclass(frozen=True)
class RunSubmission:
    """`repeats`: the run that is to be repeated, which has its own inputs and outputs."""

    id: str
    app: AppName
    pipeline: ComponentName
    user: str | None = None
    inputs: tuple[RunInput, ...] = ()
    outputs: tuple[RunOutput, ...] = ()
    priority: int = 0
    webhook: str = ""
    pass_identity: bool = False
    repeats: str = ""
    trace: str = ""


def submission_of(run: Run) -> RunSubmission:
    """Return the submission that becomes this run."""
    if run.cause is RunCause.RETRY:
        return RunSubmission(run.id, run.app, run.name, repeats=run.origin, trace=run.trace)
    return RunSubmission(
        run.id,
        run.app,
        run.name,
        run.user,
        run.inputs,
        run.outputs,
        run.priority,
        run.webhook,
        run.pass_identity,
        trace=run.trace,
    )


def admit(asked: RunSubmission, pipeline: Pipeline, before: Run | None, may_pass: bool) -> Run:
    """Return the requested run. `pipeline` is the published one; `before`: the run that is to be repeated;
    `may_pass`: an API of the pipeline passes on callers' names. Raises IntegrityError for what no caller can
    ask for."""
    _require(is_run_id(asked.id), "the id of a run", asked.id)
    at = id_time(asked.id)
    _require(not asked.trace or context_of_text(asked.trace), "the context of a trace", asked.trace)
    if asked.repeats:
        if before is None or (before.app, before.name) != (asked.app, asked.pipeline):
            raise IntegrityError(f"there is no run {asked.repeats[:40]!r} of the pipeline to repeat")
        _require(
            before.state.terminal and before.state is not RunState.SUCCEEDED,
            "a run that can be repeated",
            before.id,
        )
        return replace(retry_of(before, asked.id, at), trace=asked.trace)
    _require((pipeline.app, pipeline.name) == (asked.app, asked.pipeline), "the pipeline", asked.pipeline)
    _require(asked.priority in PRIORITIES, "a priority of callers", asked.priority)
    _require(not asked.user or len(asked.user) <= MOST_USER, "a caller", asked.user)
    _require(not asked.webhook or pipeline.webhook, "a webhook that can be signed", asked.webhook)
    known = set(pipeline.passed)
    _require(known.issuperset(given.name for given in asked.inputs), "inputs of the pipeline", known)
    offered = set(pipeline.made) - set(pipeline.releases)
    _require(offered.issuperset(output.name for output in asked.outputs), "outputs of the pipeline", offered)
    boxes = {"", *pipeline.boxes}
    for box in (*(given.box for given in asked.inputs), *(output.box for output in asked.outputs)):
        _require(box in boxes, "a connected box", box)
    run = new_run(
        asked.id,
        pipeline,
        at,
        asked.user,
        asked.inputs,
        asked.outputs,
        priority=asked.priority,
        webhook=asked.webhook,
        pass_identity=asked.pass_identity and may_pass,
        trace=asked.trace,
    )
    require_integrity(run)
    return run


def _require(sound: object, what: str, found: object) -> None:
    if not sound:
        raise IntegrityError(f"{str(found)[:80]!r}: that is not {what}")


# --- canceling --------------------------------------------------------------------------------------------------


def being_canceled(run: Run, at: float) -> Run:
    """Return the run as it is shown between a request to cancel it and the daemon's handling of that request."""
    if run.state.terminal or run.state is RunState.CANCELING:
        return run
    return run.to(RunState.CANCELING, at, Reason.CANCELED, "canceled by a person")


def canceled(run: Run, at: float, now: float) -> Run:
    """Return the run after the daemon has taken the request of `at` to cancel it. A run that had not begun is over
    `now`. Callers see only what `being_canceled` has shown already."""
    if run.state is not RunState.QUEUED:
        return cancel(run, at)
    stopped = being_canceled(run, at)
    return over(
        stopped.to(RunState.CANCELED, now, Reason.CANCELED, "canceled by a person before it began"), now
    )
