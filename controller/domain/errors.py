"""Errors are decisions: the class says what happens next, `reason` (CamelCase) is for machines, the text for
people. Adapters translate the errors of their SDK into these; no other error crosses a port."""

from __future__ import annotations

from dataclasses import dataclass

from controller.domain.localizable import Localizable, joined
from controller.domain.reasons import Reason
from controller.domain.text import printable


class ControllerError(Exception):
    """Base of all expected failures. `reason` is stable and documented in docs/reference/status.md."""

    def __init__(self, reason: Reason, message: str) -> None:
        self.reason = reason
        self.message = printable(message)
        super().__init__(self.message)


class Transient(ControllerError):
    """The failure may resolve itself: it is retried with a growing backoff. `retry_after`: not before so many
    seconds, as the other side asks; 0 if it does not."""

    def __init__(self, reason: Reason, message: str, retry_after: float = 0.0) -> None:
        super().__init__(reason, message)
        self.retry_after = retry_after


class Waiting(ControllerError):
    """Nothing is wrong, but something is not available yet: it is retried after exactly `retry_after`
    seconds, without an alarm."""

    def __init__(self, reason: Reason, message: str, retry_after: float) -> None:
        super().__init__(reason, message)
        self.retry_after = retry_after


class Stalled(ControllerError):
    """The input has to change first (a new commit, another configuration, a person's request): it is not
    retried before that."""


class Superseded(Waiting):
    """The work ended early because something newer was requested."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.SUPERSEDED, message, retry_after=0.0)


class MountMismatch(Stalled):
    """Something in the image prevents mounting at `target`; `found` describes it ("/data is a folder in the
    image")."""

    def __init__(self, target: str, found: str) -> None:
        super().__init__(
            Reason.MOUNT_MISMATCH,
            Localizable("nothing can be mounted at {target}: {found}", target=target, found=found),
        )
        self.target = target
        self.found = found


@dataclass(frozen=True, order=True)
class ManifestProblem:
    """A mistake in a manifest or in the configuration. `line` and `column` count from 1, and are 0 without a
    position."""

    file: str
    line: int
    column: int
    field: str  # path of the field, e.g. "spec.mlService.timeout"; "" for the document
    message: str  # what is wrong and what is expected

    def __post_init__(self) -> None:
        for name in ("file", "field", "message"):
            object.__setattr__(self, name, printable(getattr(self, name)))

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return joined((place, self.field, self.message) if self.field else (place, self.message), ": ")


class ManifestInvalid(Stalled):
    """All problems of one commit, sorted by file and position. Nothing of the commit has been applied."""

    def __init__(self, problems: tuple[ManifestProblem, ...]) -> None:
        self.problems = tuple(sorted(problems))
        count = len(self.problems)
        head = (
            Localizable("1 problem in the manifests; nothing was changed")
            if count == 1
            else Localizable("{count} problems in the manifests; nothing was changed", count=count)
        )
        super().__init__(Reason.MANIFEST_INVALID, joined([head, *map(str, self.problems)], "\n"))
