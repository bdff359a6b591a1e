"""Exit codes, which are a promise to scripts (docs/reference/cli.md), and the failures that lead to them."""

from __future__ import annotations

from enum import IntEnum

from controller.domain.errors import ControllerError, ManifestInvalid, Transient


class Exit(IntEnum):
    OK = 0
    FAILED = 1  # it was tried and failed: an app is Degraded or Failed, or a run has not SUCCEEDED
    USAGE = 2  # click uses this code
    INVALID = 3  # manifests or configuration
    NOT_FOUND = 4
    # the daemon does not run, or the state, Docker, a registry or a Git server cannot be reached
    UNREACHABLE = 5
    TIMEOUT = 6
    INTERRUPTED = 130


_BY_REASON = {
    "ConfigInvalid": Exit.INVALID,
    "UnknownApp": Exit.NOT_FOUND,
    "UnknownComponent": Exit.NOT_FOUND,
    "UnknownName": Exit.NOT_FOUND,
    "UnknownRequest": Exit.NOT_FOUND,
    "UnknownUser": Exit.NOT_FOUND,
    "UnknownRole": Exit.NOT_FOUND,
    "UnknownSession": Exit.NOT_FOUND,
    "UnknownToken": Exit.NOT_FOUND,
    "UserInvalid": Exit.USAGE,
    "RoleInvalid": Exit.USAGE,
    "UnknownBox": Exit.NOT_FOUND,
    "UnknownBucket": Exit.NOT_FOUND,
    "NoContainer": Exit.NOT_FOUND,
    "PathNotFound": Exit.NOT_FOUND,
    "FileNotFound": Exit.NOT_FOUND,
    "RunNotFound": Exit.NOT_FOUND,
    "RunGone": Exit.NOT_FOUND,
    "InputMissing": Exit.USAGE,
    "InputInvalid": Exit.USAGE,
    "OutputExists": Exit.USAGE,
    "SecretInvalid": Exit.USAGE,  # of run-local --secret
    "ChecksumMismatch": Exit.FAILED,
    "FileChanged": Exit.FAILED,
    "NotRunning": Exit.UNREACHABLE,
    "StateMissing": Exit.UNREACHABLE,
    "StateUnwritable": Exit.UNREACHABLE,
    "TimedOut": Exit.TIMEOUT,
}


def exit_of(error: ControllerError) -> Exit:
    if isinstance(error, ManifestInvalid):
        return Exit.INVALID
    default = Exit.UNREACHABLE if isinstance(error, Transient) else Exit.FAILED
    return _BY_REASON.get(error.reason, default)


#: The outcomes of a request that count as success; all others end in `Exit.FAILED`.
GOOD_OUTCOMES = frozenset(("Ready", "Removed"))
