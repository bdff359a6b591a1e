"""What a builder says while it builds, and why a build has failed. Used only by `builds`."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Any

from controller.adapters.docker.error_rules import (
    DISK_FULL,
    REGISTRY_LIMITED,
    REGISTRY_UNREACHABLE,
    REGISTRY_UNTRUSTED,
    from_answer,
)
from controller.domain.errors import Stalled, Transient
from controller.domain.localizable import Localizable, joined, shortened, stripped
from controller.domain.reasons import Reason
from controller.domain.text import excerpt

Json = dict[str, Any]

#: Lines of a failed build that go into its error.
BUILD_TAIL = 30
#: Characters of one of them: thirty are fewer than what is kept of a message.
BUILD_LINE = 400

#: Of the classic builder, when an image that it continues from, of its cache or of another stage, is removed while it
#: builds. A step that prints such words has an exit code, too.
_PARENT_GONE = re.compile(
    r"failed to set parent|failed to get (layer|destination image)|No such image: sha256:", re.IGNORECASE
)
_FAILED_STEP = "returned a non-zero code"
#: Of BuildKit, if the connection on which it asks for files and secrets has ended.
_SESSION_LOST = "no active session"
#: Reasons of a failed build that may get better without another commit.
_LATER = {v.reason for v in (REGISTRY_UNREACHABLE, REGISTRY_LIMITED, REGISTRY_UNTRUSTED, DISK_FULL)}


class ParentGone(Transient):
    """The build need not fail: if it begins again, it makes the image itself."""


def read_build(
    message: Json, tail: deque[str], log: Callable[[str], None], told: Callable[[str], str], doing: str
) -> None:
    if "error" in message:
        raise build_failed(told(message["error"]), tail, doing)
    for line in told(message.get("stream", "")).splitlines():
        if line.strip():
            tail.append(excerpt(line, BUILD_LINE))
            log(line)


def too_long(doing: str, limit: float, tail: deque[str]) -> Stalled:
    text = Localizable(
        "{doing}: not done within {limit} s (`docker.buildTimeout`)", doing=doing, limit=round(limit)
    )
    return Stalled(Reason.BUILD_TIMEOUT, "\n".join([text, *tail]))


def build_failed(text: str, tail: deque[str], doing: str) -> Exception:
    """Return the error. A registry of a base image may answer later; everything else is an error in the
    commit.
    """
    if _PARENT_GONE.search(text) and _FAILED_STEP not in text:
        return ParentGone(
            Reason.ENGINE_CONFLICT,
            Localizable("{doing}: an image that it continues from was removed meanwhile", doing=doing),
        )
    if _SESSION_LOST in text and "exit code" not in text:  # else the words may be those of a step
        return Transient(
            Reason.ENGINE_UNREACHABLE,
            Localizable("{doing}: the engine has lost the session of the build", doing=doing),
        )
    verdict = from_answer(text, doing)
    if isinstance(verdict, Transient) and verdict.reason in _LATER:
        return verdict
    return Stalled(
        Reason.BUILD_FAILED,
        joined([joined((doing, shortened(stripped(text), 8 * BUILD_LINE)), ": "), *tail], "\n"),
    )
