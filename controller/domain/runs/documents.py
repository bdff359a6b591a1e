"""What the run API and webhooks say alike about runs and their stages, as JSON. Pure."""

from __future__ import annotations

from controller.domain.runs.run import Run, StageRun
from controller.domain.units import rfc3339

Json = dict[str, object]


def run_summary(run: Run) -> Json:
    return {
        "id": run.id,
        "pipeline": run.name,
        "state": run.state,
        "reason": run.reason,
        "message": run.message,
        "created": rfc3339(run.created),
        "started": rfc3339(run.started),
        "ended": rfc3339(run.ended),
        "user": run.user,
        "public": run.public,
        "cause": run.cause,
        "origin": run.origin or None,
    }


def stage_summary(stage: StageRun) -> Json:
    newest = stage.attempt
    return {
        "name": stage.name,
        "state": stage.state,
        "reason": stage.reason,
        "message": stage.message,
        "exitCode": newest.exit_code if newest else None,
    }
