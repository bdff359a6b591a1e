"""Decides what an ended container or an error means for the attempt: the cause, and whether to repeat it. Pure.

Reasons are documented in docs/reference/runs.md.
"""

from __future__ import annotations

import errno
import signal
from contextlib import suppress
from dataclasses import dataclass

from controller.domain.errors import ControllerError, Stalled
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Stage
from controller.domain.units import render_duration, render_size
from controller.ports import JobState, ObservedJob

TIMEOUT = Reason.TIMEOUT
STORAGE_FULL = Reason.STORAGE_FULL
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class StageFailure:
    """`platform` means that the user did not cause it; `final` means that a repetition cannot help."""

    reason: Reason
    message: str
    platform: bool = False
    final: bool = False
    exit_code: int | None = None


class StageFailed(Exception):
    """The attempt has failed."""

    def __init__(self, failure: StageFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


LOST = StageFailure(
    Reason.CONTAINER_LOST, Localizable("its container was removed from outside while it ran"), platform=True
)
INTERRUPTED = StageFailure(
    Reason.ENGINE_RESTARTED,
    Localizable("the engine was restarted while the command ran, which ended it"),
    platform=True,
)
NODE_LOST = StageFailure(
    Reason.NODE_LOST,
    Localizable("the node that it ran on does not answer, so it is unknown what became of it"),
    platform=True,
)
BUG = StageFailure(Reason.INTERNAL_ERROR, Localizable("internal error; see the daemon's log"), platform=True)

#: Of the errors that a repetition cannot correct, those that users can correct.
_THEIRS = frozenset(
    {
        Reason.COMMAND_DENIED,
        Reason.COMMAND_NOT_FOUND,
        Reason.ENGINE_REFUSED,
        Reason.ENVIRONMENT_INVALID,
        Reason.IMAGE_PULL,
        Reason.INPUT_INVALID,
        Reason.INPUT_MISSING,
        Reason.LIMITS_INVALID,
        Reason.MOUNT_INVALID,
        Reason.MOUNT_MISMATCH,
        Reason.NO_COMMAND,
        Reason.NO_GPU,
        Reason.OUTPUT_INVALID,
        Reason.OUTPUT_MISSING,
        Reason.SECRET_INVALID,
        Reason.SECRET_MISSING,
        Reason.STORAGE_FULL,
        Reason.USER_NOT_FOUND,
        Reason.WORKDIR_INVALID,
    }
)
#: Of these, those that another attempt may avoid.
_REPEATABLE = frozenset({Reason.OUTPUT_INVALID, Reason.OUTPUT_MISSING})
_IMAGE = frozenset(
    {
        Reason.IMAGE_GONE,
        Reason.IMAGE_NOT_FOUND,
        Reason.IMAGE_UNUSABLE,
        Reason.INVALID_REFERENCE,
        Reason.REGISTRY_DENIED,
        Reason.REGISTRY_LIMITED,
        Reason.REGISTRY_UNREACHABLE,
        Reason.REGISTRY_UNTRUSTED,
    }
)
_RENAMED = {
    **dict.fromkeys(_IMAGE, Reason.IMAGE_PULL),
    Reason.STATE_DISK_FULL: Reason.DISK_FULL,
    Reason.ENGINE_DISK_FULL: Reason.DISK_FULL,
}


def failure_of_error(error: ControllerError) -> StageFailure:
    reason = _RENAMED.get(error.reason, error.reason)
    if not isinstance(error, Stalled):
        return StageFailure(reason, error.message, platform=True)
    theirs = reason in _THEIRS
    return StageFailure(reason, error.message, platform=not theirs, final=reason not in _REPEATABLE)


def failure_of_disk(error: OSError) -> StageFailure:
    """Return the failure for an error of the state folder."""
    full = error.errno in FULL
    reason = Reason.DISK_FULL if full else Reason.STATE_IO_ERROR
    return StageFailure(reason, Localizable("the state folder: {error}", error=error), platform=True)


def too_slow(stage: Stage) -> StageFailure:
    """Return the failure of a container that was stopped for its timeout: its exit code says nothing."""
    limit = render_duration(stage.timeout or 0.0)
    return StageFailure(
        TIMEOUT,
        Localizable(
            "it was stopped after {limit}; raise `timeout` of the stage if it needs longer", limit=limit
        ),
    )


def too_much(why: str) -> StageFailure:
    """Return the failure of an attempt that was stopped because it filled the disk."""
    message = Localizable("{why}; make the stage write less, or ask for a higher limit", why=why)
    return StageFailure(STORAGE_FULL, message, final=True)


def not_started(job: ObservedJob, limit: float) -> StageFailure:
    """Return the failure of a container that the engine has accepted and did not run in time."""
    why = job.detail or Localizable("it gives no reason")
    text = Localizable(
        "the engine did not start it within {limit} (`runs.startDeadline`): {why}",
        limit=render_duration(limit),
        why=why,
    )
    return StageFailure(Reason.START_PENDING, text, platform=True)


def failure_of_job(job: ObservedJob, stage: Stage) -> StageFailure | None:
    """Return the failure, or None if it has succeeded."""
    if job.state is JobState.LOST:
        return NODE_LOST
    if job.state is JobState.REFUSED:
        message = Localizable("the engine does not run it: {job}", job=job.detail or "it gives no reason")
        return StageFailure(Reason.START_REFUSED, message, platform=True, final=True)
    if job.exit_code == 0:
        return None
    if job.interrupted:
        return INTERRUPTED
    if job.oom_killed:
        memory = render_size(stage.resources.memory)
        return StageFailure(
            Reason.OOM_KILLED,
            Localizable("it needed more than {memory}; raise `resources.memory` of the stage", memory=memory),
        )
    return StageFailure(
        Reason.EXIT_CODE,
        Localizable(
            "the command ended with {exit_code}; its log may say why", exit_code=_described(job.exit_code)
        ),
    )


def _described(code: int | None) -> str:
    """Describe an exit code. Shells and Docker use 128 + n for a process killed by signal n."""
    if code is None:
        return Localizable("no exit code")
    hint = {126: Localizable("not executable"), 127: Localizable("command not found")}.get(code, "")
    with suppress(ValueError):
        hint = Localizable("killed by {code}", code=signal.Signals(code - 128).name)
    return (
        Localizable("exit code {code} ({hint})", code=code, hint=hint)
        if hint
        else Localizable("exit code {code}", code=code)
    )
