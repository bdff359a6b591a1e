"""Starts runs for callers of the run API and for people: checks what they ask for, and stores the run, which the daemon
then executes. The same request with the same key starts one run.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from flask import current_app

from controller.domain.errors import Stalled, Transient
from controller.domain.localizable import Localizable, sentence
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Pipeline
from controller.domain.runs.run import Run, RunState, new_run, new_run_id, retry_of
from controller.ports import QueueLimits
from controller.serving.fault_texts import quoted
from controller.web.api.runs.inputs import absent_inputs
from controller.web.api.runs.submission import RunInterface, SubmissionInvalid, read_submission
from controller.web.context import context, storage_client
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused


@dataclass(frozen=True)
class RunCaller:
    """Who starts a run; `user` is "" for callers without a name. `key`: the idempotency key, "" for none;
    `trace`: what the spans of the run are below, "" for none."""

    user: str
    pass_identity: bool = False
    key: str = ""
    trace: str = ""


def submit_run(pipeline: Pipeline, interface: RunInterface, body: object, caller: RunCaller) -> Run:
    """Start a run with the inputs of a request. Raises RequestRefused."""
    try:
        asked = read_submission(body, interface)
    except SubmissionInvalid as faults:
        raise RequestRefused(_invalid(faults)) from None
    now = time.time()
    run = new_run(
        new_run_id(now, secrets.randbits(32)),
        pipeline,
        now,
        caller.user or None,
        asked.inputs,
        asked.outputs,
        priority=asked.priority,
        webhook=asked.webhook,
        pass_identity=caller.pass_identity,
        trace=caller.trace,
    )
    content = json.dumps(body, sort_keys=True) if caller.key else ""  # large bodies take milliseconds
    return _stored(run, caller, content, partial(_check, run, asked.places))


def repeat_run(before: Run, caller: RunCaller) -> Run:
    """Start a new run that reuses the stages that succeeded. Raises RequestRefused."""
    if not before.state.terminal:
        detail = Localizable(
            "Run {id} is {state}; cancel it first, or wait.", id=before.id, state=before.state
        )
        raise RequestRefused(HttpProblem(ProblemKind.RUN_STATE, detail))
    if before.state is RunState.SUCCEEDED:
        detail = Localizable("Run {id} has succeeded and cannot be retried; submit a new one.", id=before.id)
        raise RequestRefused(HttpProblem(ProblemKind.RUN_STATE, detail))
    now = time.time()
    after = replace(retry_of(before, new_run_id(now, secrets.randbits(32)), now), trace=caller.trace)
    return _stored(after, caller, f"retry {before.id}", lambda: None)


def _check(run: Run, places: Sequence[str]) -> None:
    """Check that the run can be executed. Raises RequestRefused."""
    if run.handed_out and not run.pipeline.boxes:
        names = ", ".join(output.name for output in run.handed_out)
        detail = Localizable(
            "Pipeline {pipeline} has no connected box that its outputs ({names}) could go to; connect one.",
            pipeline=run.name,
            names=names,
        )
        raise RequestRefused(HttpProblem(ProblemKind.INVALID, detail))
    if faults := absent_inputs(run, places, context(current_app).store, storage_client(current_app)):
        raise RequestRefused(_invalid(SubmissionInvalid(faults)))


def _stored(run: Run, caller: RunCaller, content: str, check: Callable[[], None]) -> Run:
    """Return the new run, or, without further checks, the one that the same request with the same key has
    started. `content` tells requests with one key apart. The key belongs to the caller, even if the run is public."""
    key, digest = caller.key, hashlib.sha256(content.encode()).hexdigest()
    if key and run.public:
        key = f"{caller.user}/{key}"
    store, limits = context(current_app).store, context(current_app).settings.runs
    try:
        if earlier := store.runs.submitted(run, key, digest):
            return earlier
        check()
        return store.runs.submit(run, key, digest, QueueLimits(limits.queued, limits.queued_size))
    except Transient as error:
        if error.reason != Reason.QUEUE_FULL:
            raise
        detail = Localizable("{why}: wait until some have begun, or cancel some", why=error.message)
        raise RequestRefused(HttpProblem(ProblemKind.QUEUE_FULL, sentence(detail), retry_after=10)) from error
    except Stalled as error:
        if error.reason != Reason.IDEMPOTENCY_CONFLICT:
            raise
        reused = f"Choose another key: {error.message}."
        raise RequestRefused(HttpProblem(ProblemKind.KEY_REUSED, reused)) from error


def _invalid(invalid: SubmissionInvalid) -> HttpProblem:
    errors = [{"pointer": fault.pointer, "detail": fault.detail} for fault in invalid.faults]
    first, more = errors[0], len(errors) - 1
    place = _place_of(first["pointer"], first["detail"])
    told = Localizable("{place}: {what}", place=place, what=first["detail"])
    detail = Localizable("{first}, and {more} more.", first=told, more=more) if more else sentence(told)
    return HttpProblem(ProblemKind.INVALID, detail, extra={"errors": errors})


def _place_of(pointer: str, detail: str) -> str:
    """Name the place in words, unless the text names it already."""
    above, _, token = pointer.rpartition("/")
    name = token.replace("~1", "/").replace("~0", "~")
    return (above if token and quoted(name) in detail else pointer) or Localizable("the body")
