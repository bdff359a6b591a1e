"""Apps: their status, their events, and the history of what was applied to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from controller.domain.apps.history import AppliedRevision, ManifestText
from controller.domain.apps.status import AppStatus, Event, Rollback
from controller.domain.names import AppName


class Apps(Protocol):
    def status(self, app: AppName) -> AppStatus:
        """Return the status of an app, which is empty for an unknown one."""

    def inputs(self, app: AppName) -> bytes:
        """Return a digest of all rows by which a pass over the app is decided. It is read before them: equal digests
        mean that such a pass reads what the earlier one has read."""

    def has(self, app: AppName) -> bool:
        """Return True if there is a status of this app."""

    def all(self) -> tuple[AppStatus, ...]: ...

    def save(self, status: AppStatus, events: Iterable[Event] = ()) -> None:
        """Save status and events in one transaction, without `suspended`, `approved_revision` and `rollback`, which
        are decisions of people."""

    def record_plan(self, app: AppName, revision: str, plan: str) -> None: ...

    def forget(self, app: AppName) -> None: ...

    def set_suspended(self, app: AppName, suspended: bool) -> None: ...

    def approve(self, app: AppName, revision: str) -> None: ...

    def roll_back(self, app: AppName, rollback: Rollback) -> None: ...

    def end_rollback(self, app: AppName, rollback: Rollback) -> None:
        """Forget a rollback, but not another one that was asked for meanwhile."""


class Events(Protocol):
    def add(self, events: Iterable[Event]) -> None: ...

    def list(self, app: AppName | None, after: int = 0, limit: int = 100) -> tuple[Event, ...]:
        """Return events with id > `after`, oldest first; after=0 returns the newest `limit`, oldest first."""

    def forget(self, app: AppName) -> None:
        """Delete all events of an app."""


class History(Protocol):
    """What was applied to apps, in bounded space. The daemon writes it, all others read it."""

    def add(self, applied: AppliedRevision, manifests: Iterable[ManifestText]) -> None: ...

    def list(self, app: AppName, limit: int = 50) -> tuple[AppliedRevision, ...]:
        """Return the newest entries, newest first."""

    def releases(self, app: AppName) -> tuple[AppliedRevision, ...]:
        """Return all entries, newest first, with an empty `message` and `plan`: nothing is decided by these, and to
        read them takes most of the time."""

    def manifests(self, app: AppName, id: int) -> tuple[ManifestText, ...] | None:
        """Return the manifests of an entry; None if they were too large to be kept."""

    def forget(self, app: AppName) -> None: ...
