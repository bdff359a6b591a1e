"""Requests to reconcile an app: what asked for a pass, and how the pass ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from controller.domain.names import AppName
from controller.domain.open_enum import OpenEnum


class Trigger(OpenEnum):
    """What asks for a pass. Several of them may be merged into one request."""

    START = "start"  # the daemon has started
    PLATFORM = "platform"  # the platform folder has changed
    POLL = "poll"  # the interval of a repository
    WEBHOOK = "webhook"
    PUSH = "push"  # to a repository that this host keeps
    MANUAL = "manual"  # a person
    ROLLBACK = "rollback"  # a person who wants an earlier revision
    DRIFT = "drift"  # something that did not come from Git
    CONTAINER = "container"  # something happened to one of its containers
    BOX = "box"  # the content of a box
    IMAGE = "image"  # a registry has a newer image than the one that is followed
    SECRET = "secret"  # noqa: S105 - a person has set or removed a Secret of the app
    WAKE = "wake"  # a caller waits for a hibernating component
    RETRY = "retry"  # an earlier pass


#: Those for which calls may wait.
_URGENT = {Trigger.WAKE, Trigger.CONTAINER}
#: Those that say nothing of a newer commit.
_QUIET = {Trigger.WAKE, Trigger.DRIFT, Trigger.CONTAINER, Trigger.RETRY, Trigger.SECRET}

#: Seconds from one pass that a webhook has asked for to the next one. Forges send several events for one push, and many
#: at once when people push to many branches; a push to a repository of this host is not held back.
WEBHOOK_INTERVAL = 5.0


class Outcome(OpenEnum):
    """How a pass ended; docs/reference/status.md describes each."""

    NONE = ""  # it has not ended yet
    READY = "Ready"
    DEGRADED = "Degraded"
    FAILED = "Failed"
    WAITING = "Waiting"
    HELD = "Held"
    SUPERSEDED = "Superseded"
    SUSPENDED = "Suspended"
    REMOVED = "Removed"


class RequestState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


@dataclass(frozen=True)
class ReconcileRequest:
    """A request to reconcile an app: only a key and what asked for it, never a payload."""

    id: int
    app: AppName
    reasons: tuple[Trigger, ...]
    state: RequestState
    created: float
    not_before: float = 0.0
    outcome: Outcome = Outcome.NONE
    message: str = ""
    revision: str = ""

    @property
    def callers_wait(self) -> bool:
        """Return whether callers may wait for a component to wake up or to heal, and must not wait for Git unless there
        may be a newer commit."""
        return not _URGENT.isdisjoint(self.reasons) and _QUIET.issuperset(self.reasons)


def due_after(last: ReconcileRequest) -> float:
    """Return the time before which a webhook leads to no other pass. `last` is the app's newest request that has
    begun."""
    return max(last.created, last.not_before) + WEBHOOK_INTERVAL if Trigger.WEBHOOK in last.reasons else 0.0
