"""Errors are decisions: the class says what happens next, `reason` (CamelCase) is for machines, the text for people.

Adapters translate the errors of their SDK into these at the edge; nothing else crosses a port.
"""

from __future__ import annotations

from dataclasses import dataclass

from controller.domain.text import printable


class ControllerError(Exception):
    """Base of all expected failures. `reason` is stable and documented in docs/reference/status.md."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        self.message = printable(message)
        super().__init__(self.message)


class Transient(ControllerError):
    """May get better by itself: tried again with a growing backoff. `retry_after`: not before so many seconds, as the
    other side asks; 0 if it does not."""

    def __init__(self, reason: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(reason, message)
        self.retry_after = retry_after


class Waiting(ControllerError):
    """Nothing is wrong, something is just not there yet: tried again after exactly `retry_after` seconds, no alarm."""

    def __init__(self, reason: str, message: str, retry_after: float) -> None:
        super().__init__(reason, message)
        self.retry_after = retry_after


class Stalled(ControllerError):
    """Cannot get better until the input changes (a new commit, new config, a person): not tried again before that."""


class Superseded(Waiting):
    """The work was left because something newer is already asked for."""

    def __init__(self, message: str) -> None:
        super().__init__("Superseded", message, retry_after=0.0)


class MountMismatch(Stalled):
    """Something in the image prevents mounting at `target`; `found` describes it ("/data is a folder in the
    image")."""

    def __init__(self, target: str, found: str) -> None:
        super().__init__("MountMismatch", f"nothing can be mounted at {target}: {found}")
        self.target = target
        self.found = found


@dataclass(frozen=True, order=True)
class ManifestProblem:
    """One thing wrong in a manifest or config. `line` and `column` count from 1, 0 where there is no position."""

    file: str
    line: int
    column: int
    field: str  # path of the field, e.g. "spec.mlService.timeout"; "" for the document
    message: str  # what is wrong and what would be right

    def __post_init__(self) -> None:
        for name in ("file", "field", "message"):
            object.__setattr__(self, name, printable(getattr(self, name)))

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.field}: {self.message}" if self.field else f"{place}: {self.message}"


class ManifestInvalid(Stalled):
    """All problems of one commit, sorted by file and position. Nothing of the commit has been applied."""

    def __init__(self, problems: tuple[ManifestProblem, ...]) -> None:
        self.problems = tuple(sorted(problems))
        count = len(self.problems)
        head = f"{count} problem{'s' if count != 1 else ''} in the manifests; nothing was changed"
        super().__init__("ManifestInvalid", "\n".join([head, *map(str, self.problems)]))
