"""Runs as JSON documents, for the run API. Pure."""

from __future__ import annotations

import json
import math

from controller.domain.apps.spec import CronSchedule
from controller.domain.runs.documents import Json, run_summary, stage_summary
from controller.domain.runs.pipeline import Pipeline
from controller.domain.runs.run import AreaKind, Attempt, Run, RunInput, RunOutput, StageRun, Transition
from controller.domain.runs.schedules import Checkpoint
from controller.domain.units import rfc3339
from controller.web.api.runs.submission import RunInterface


def run_link(base: str, run: Run) -> str:
    return f"{base}/runs/{run.id}"


def run_document(run: Run, base: str) -> Json:
    """`base` is the path that the pipeline's API lies at."""
    link = run_link(base, run)
    return {
        **_head(run),
        "inputs": [_input(given, run.area) for given in run.inputs],
        "outputs": [_output(output) for output in run.published],
        "stages": [_stage(stage) for stage in run.stages],
        "history": [transition_document(step) for step in run.history],
        "links": {"self": link, **{name: f"{link}/{name}" for name in ("logs", "events", "cancel", "retry")}},
    }


def summary_document(run: Run, base: str) -> Json:
    """Return an entry of the list of runs."""
    return {**_head(run), "links": {"self": run_link(base, run)}}


def _head(run: Run) -> Json:
    return {**run_summary(run), "priority": run.priority}


def _input(given: RunInput, area: AreaKind) -> Json:
    if given.datatype != "FILE":
        return {"name": given.name, "datatype": given.datatype, "data": json.loads(given.data)}
    place = {"data": given.data, **_box(given.box), **_area(area)}
    return {"name": given.name, "datatype": given.datatype, **place}


def _output(output: RunOutput) -> Json:
    return {"name": output.name, "data": output.data, **_box(output.box), **_area(output.area)}


def _box(box: str) -> Json:
    """Return the box as a member, unless it is the default one."""
    return {"box": box} if box else {}


def _area(area: AreaKind) -> Json:
    """Return the area as a member, unless it is the caller's."""
    return {"area": area} if area is AreaKind.DEVELOPER else {}


def _stage(stage: StageRun) -> Json:
    newest = stage.attempt
    return {
        **stage_summary(stage),
        "attempt": newest.number if newest else None,
        "attempts": [_attempt(attempt) for attempt in stage.attempts],
        "progress": stage.progress or None,
        "history": [transition_document(step) for step in stage.history],
    }


def _attempt(attempt: Attempt) -> Json:
    return {
        "number": attempt.number,
        "started": rfc3339(attempt.started),
        "ended": rfc3339(attempt.ended or None),
        "exitCode": attempt.exit_code,
        "reason": attempt.reason,
        "message": attempt.message,
    }


def transition_document(step: Transition) -> Json:
    return {"state": step.state, "at": rfc3339(step.at), "reason": step.reason, "message": step.message}


def pipeline_document(pipeline: Pipeline, interface: RunInterface, mark: Checkpoint | None = None) -> Json:
    """Describe a pipeline: its inputs and outputs, and when it runs by schedule; `mark` belongs to the schedule."""
    return {
        "name": pipeline.name,
        "revision": pipeline.revision,
        **interface_document(interface),
        "stages": [
            {"name": stage.name, "inputs": stage.inputs, "outputs": stage.outputs}
            for stage in pipeline.stages
        ],
        "schedule": _schedule(pipeline.schedule, mark) if pipeline.schedule else None,
    }


def _schedule(schedule: CronSchedule, mark: Checkpoint | None) -> Json:
    return {
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "concurrencyPolicy": schedule.overlap,
        "next": rfc3339(mark.next) if mark and mark.next < math.inf else None,
    }


def interface_document(interface: RunInterface) -> Json:
    return {
        "inputs": [
            {"name": v.name, "description": v.description, "required": v.required, "datatypes": v.datatypes}
            for v in interface.inputs
        ],
        "outputs": [{"name": v.name, "description": v.description} for v in interface.outputs],
    }
