"""The queue of requests to reconcile apps."""

from __future__ import annotations

from typing import Protocol

from controller.domain.apps.requests import Outcome, ReconcileRequest, Trigger
from controller.domain.names import AppName


class Requests(Protocol):
    """The queue: at most one queued and one running request for each app, enforced by the database."""

    def enqueue(self, app: AppName, trigger: Trigger, not_before: float = 0.0) -> int:
        """Return the id of the new request, or of the queued one that it was merged into, which gets its
        reasons, and the earlier `not_before` of both."""

    def claim(self, now: float) -> ReconcileRequest | None:
        """Claim the oldest due request whose app has none running."""

    def finish(self, request: int, outcome: Outcome, message: str, revision: str) -> None: ...

    def recover(self) -> int:
        """Queue the requests again that a dead daemon left running, and return their number; called when the
        daemon starts."""

    def queued(self, app: AppName) -> ReconcileRequest | None: ...

    def latest(self, app: AppName) -> ReconcileRequest | None:
        """Return the newest request of an app, whatever its state."""

    def get(self, request: int) -> ReconcileRequest | None:
        """Return the request for any id that was returned before, even if another request replaced it after a
        crash."""

    def next_due(self) -> float | None:
        """Return the earliest `not_before` of the queued requests whose app has none running."""
