"""Exit codes, which are a promise to scripts (docs/reference/cli.md), and the failures that lead to them."""

from __future__ import annotations

from enum import IntEnum

from controller.domain.apps.requests import Outcome
from controller.domain.errors import ControllerError, ManifestInvalid, Transient
from controller.domain.reasons import Reason


class Exit(IntEnum):
    OK = 0
    FAILED = 1  # it was tried and failed: an app is Degraded or Failed, or a run has not SUCCEEDED
    USAGE = 2  # click uses this code
    INVALID = 3  # manifests or configuration
    NOT_FOUND = 4
    # the daemon does not run, or the state, the engine, a registry or a Git server cannot be reached
    UNREACHABLE = 5
    TIMEOUT = 6
    INTERRUPTED = 130


_BY_REASON = {
    Reason.CONFIG_INVALID: Exit.INVALID,
    Reason.UNKNOWN_APP: Exit.NOT_FOUND,
    Reason.UNKNOWN_COMPONENT: Exit.NOT_FOUND,
    Reason.UNKNOWN_NAME: Exit.NOT_FOUND,
    Reason.UNKNOWN_NOTIFICATION: Exit.NOT_FOUND,
    Reason.UNKNOWN_PREVIEW: Exit.NOT_FOUND,
    Reason.UNKNOWN_REQUEST: Exit.NOT_FOUND,
    Reason.UNKNOWN_USER: Exit.NOT_FOUND,
    Reason.UNKNOWN_ROLE: Exit.NOT_FOUND,
    Reason.UNKNOWN_SESSION: Exit.NOT_FOUND,
    Reason.UNKNOWN_TOKEN: Exit.NOT_FOUND,
    Reason.USER_INVALID: Exit.USAGE,
    Reason.ROLE_INVALID: Exit.USAGE,
    Reason.UNKNOWN_BACKUP: Exit.NOT_FOUND,
    Reason.UNKNOWN_BOX: Exit.NOT_FOUND,
    Reason.UNKNOWN_BUCKET: Exit.NOT_FOUND,
    Reason.NO_CONTAINER: Exit.NOT_FOUND,
    Reason.NO_BUILD: Exit.NOT_FOUND,
    Reason.UNKNOWN_REVISION: Exit.NOT_FOUND,
    Reason.PATH_NOT_FOUND: Exit.NOT_FOUND,
    Reason.FILE_NOT_FOUND: Exit.NOT_FOUND,
    Reason.RUN_NOT_FOUND: Exit.NOT_FOUND,
    Reason.RUN_GONE: Exit.NOT_FOUND,
    Reason.INPUT_MISSING: Exit.USAGE,
    Reason.INPUT_INVALID: Exit.USAGE,
    Reason.OUTPUT_EXISTS: Exit.USAGE,
    Reason.TEMPLATE_VALUES: Exit.USAGE,
    Reason.UNKNOWN_TEMPLATE: Exit.NOT_FOUND,
    Reason.SECRET_REFUSED: Exit.FAILED,
    Reason.UNKNOWN_ORDER: Exit.NOT_FOUND,
    Reason.SECRET_INVALID: Exit.USAGE,  # of run-local --secret
    Reason.CHECKSUM_MISMATCH: Exit.FAILED,
    Reason.FILE_CHANGED: Exit.FAILED,
    Reason.NOT_LOGGED_IN: Exit.NOT_FOUND,
    Reason.NOT_RUNNING: Exit.UNREACHABLE,
    Reason.STATE_MISSING: Exit.UNREACHABLE,
    Reason.STATE_UNWRITABLE: Exit.UNREACHABLE,
    Reason.TIMED_OUT: Exit.TIMEOUT,
}


def exit_of(error: ControllerError) -> Exit:
    if isinstance(error, ManifestInvalid):
        return Exit.INVALID
    default = Exit.UNREACHABLE if isinstance(error, Transient) else Exit.FAILED
    return _BY_REASON.get(error.reason, default)


#: The outcomes of a request that count as success; all others end in `Exit.FAILED`.
GOOD_OUTCOMES = frozenset((Outcome.READY, Outcome.REMOVED))
