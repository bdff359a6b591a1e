"""What an ended container or an error means for the attempt: whose fault it is, and whether it may be repeated. Pure.

Reasons are documented in docs/reference/runs.md.
"""

from __future__ import annotations

import errno
import signal
from contextlib import suppress
from dataclasses import dataclass

from controller.domain.errors import ControllerError, Stalled
from controller.domain.pipelines import Stage
from controller.domain.runs import Attempt
from controller.domain.units import render_duration, render_size
from controller.ports import ObservedJob

TIMEOUT = "Timeout"
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Failure:
    """`platform`: it is no fault of the user's. `final`: no repetition can help."""

    reason: str
    message: str
    platform: bool = False
    final: bool = False
    exit_code: int | None = None


class Failed(Exception):
    """The attempt has failed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


LOST = Failure("ContainerLost", "its container was removed by somebody while it ran", platform=True)
INTERRUPTED = Failure("EngineRestarted", "Docker was restarted while it ran, and has ended it", platform=True)
BUG = Failure("InternalError", "a fault of prichal; the daemon's log has the traceback", platform=True)

#: What users mend, of the errors that no repetition mends.
_THEIRS = frozenset(
    {
        "CommandNotFound",
        "EngineRefused",
        "ImagePull",
        "InputInvalid",
        "InputMissing",
        "LimitsInvalid",
        "NoCommand",
        "NoGpu",
        "OutputInvalid",
        "OutputMissing",
        "SecretMissing",
        "StorageFull",
    }
)
#: Of these, what another attempt may do better.
_REPEATABLE = frozenset({"OutputInvalid", "OutputMissing"})
_IMAGE = frozenset(
    {"ImageGone", "ImageNotFound", "InvalidReference", "RegistryDenied", "RegistryUnreachable"}
)
_RENAMED = {
    **dict.fromkeys(_IMAGE, "ImagePull"),
    "StateDiskFull": "DiskFull",
    "EngineDiskFull": "DiskFull",
}


def failure_of_error(error: ControllerError) -> Failure:
    reason = _RENAMED.get(error.reason, error.reason)
    if not isinstance(error, Stalled):
        return Failure(reason, error.message, platform=True)
    theirs = reason in _THEIRS
    return Failure(reason, error.message, platform=not theirs, final=reason not in _REPEATABLE)


def failure_of_disk(error: OSError) -> Failure:
    """Of the state folder."""
    full = error.errno in FULL
    return Failure("DiskFull" if full else "StateIOError", f"the state folder: {error}", platform=True)


def failure_of_job(job: ObservedJob, attempt: Attempt, stage: Stage) -> Failure | None:
    """None if it has succeeded. Whoever stops a container writes his reason into the attempt before: its exit code then
    says nothing."""
    if attempt.reason == TIMEOUT:
        limit = render_duration(stage.timeout or 0.0)
        return Failure(TIMEOUT, f"stopped after {limit}; raise `timeout` of the stage if it needs longer")
    if job.exit_code == 0:
        return None
    if job.interrupted:
        return INTERRUPTED
    if job.oom_killed:
        memory = render_size(stage.resources.memory)
        return Failure("OOMKilled", f"it needed more than {memory}; raise `resources.memory` of the stage")
    return Failure("ExitCode", f"the command ended with {_described(job.exit_code)}; its log may say why")


def _described(code: int | None) -> str:
    """Shells and Docker say 128 + n for a process that signal n has killed."""
    if code is None:
        return "no exit code"
    hint = {126: "not executable", 127: "command not found"}.get(code, "")
    with suppress(ValueError):
        hint = f"killed by {signal.Signals(code - 128).name}"
    return f"exit code {code} ({hint})" if hint else f"exit code {code}"
