"""Spans of runs and of their attempts, and the context that commands get. Ids follow from the run, so that the parts
of one run are one trace, whichever daemon has driven them; a span is recorded once, when its end was stored."""

from __future__ import annotations

from dataclasses import replace

from controller.domain.runs.run import Attempt, Run, RunState
from controller.domain.traces import (
    TRACEPARENT,
    TRACESTATE,
    TraceContext,
    attempt_id,
    context_of_text,
    run_ids,
)
from controller.tracing import SpanStart, Tracer

#: How OpenTelemetry's conventions for pipelines call the ends of ours.
_RESULTS = {
    RunState.SUCCEEDED: "success",
    RunState.FAILED: "failure",
    RunState.ERROR: "error",
    RunState.CANCELED: "cancellation",
}


def run_context(tracer: Tracer, run: Run) -> TraceContext | None:
    """Return the context of the span of a run; without traces of our own that of its caller, None if there is none."""
    caller = context_of_text(run.trace)
    if not tracer.is_on:
        return caller
    trace, span = run_ids(run.id, caller)
    if caller:
        return replace(caller, span=span)
    return TraceContext(trace, span, tracer.samples(trace))


def trace_variables(tracer: Tracer, run: Run, stage: str, number: int) -> dict[str, str]:
    """Return the variables by which the command of an attempt continues the trace."""
    context = run_context(tracer, run)
    if context is None:
        return {}
    if tracer.is_on:
        context = replace(context, span=attempt_id(run.id, stage, number))
    return {TRACEPARENT: context.parent} | ({TRACESTATE: context.state} if context.state else {})


def record_run(tracer: Tracer, run: Run) -> None:
    """Record a run that has ended."""
    context = run_context(tracer, run) if tracer.is_on else None
    if context is None:
        return
    result = _RESULTS.get(run.state, "error")
    attributes = {**_of_run(run), "cicd.pipeline.result": result, "prichal.run.cause": str(run.cause)}
    start = SpanStart(
        f"run {run.name}",
        parent=context_of_text(run.trace),
        at=run.created,
        attributes=attributes,
        ids=(context.trace, context.span),
    )
    span = tracer.begin(start)
    if run.state is not RunState.SUCCEEDED:
        span.fail(str(run.reason or run.state))
    span.end(max(run.created, run.history[-1].at))


def record_attempt(tracer: Tracer, run: Run, stage: str, number: int) -> None:
    """Record an attempt of a stage that has ended."""
    context = run_context(tracer, run)
    attempt = next((each for each in run.stage(stage).attempts if each.number == number), None)
    if context is None or attempt is None or not attempt.ended:
        return
    start = SpanStart(
        f"stage {stage}",
        parent=context,
        at=attempt.started,
        attributes=_of_attempt(run, stage, attempt),
        ids=(context.trace, attempt_id(run.id, stage, number)),
    )
    span = tracer.begin(start)
    if attempt.reason or attempt.exit_code:
        span.fail(str(attempt.reason or attempt.exit_code))
    span.end(max(attempt.started, attempt.ended))


def _of_run(run: Run) -> dict[str, str | int]:
    return {
        "prichal.app": run.app,
        "cicd.pipeline.name": run.name,
        "cicd.pipeline.run.id": run.id,
    }


def _of_attempt(run: Run, stage: str, attempt: Attempt) -> dict[str, str | int]:
    found: dict[str, str | int] = {
        **_of_run(run),
        "cicd.pipeline.task.name": stage,
        "prichal.attempt": attempt.number,
    }
    if attempt.exit_code is not None:
        found["process.exit.code"] = attempt.exit_code
    return found
