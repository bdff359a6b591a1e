"""Repositories: their records, the webhooks that they deliver, and pushes to those that are hosted here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from controller.domain.apps.status import RepositoryRecord, WebhookDelivery
from controller.domain.people.pushes import PushUnderWay


class Repositories(Protocol):
    def all(self) -> tuple[RepositoryRecord, ...]: ...

    def get(self, name: str) -> RepositoryRecord | None: ...

    def replace(self, records: Iterable[RepositoryRecord]) -> None: ...

    def remember(self, delivery: WebhookDelivery) -> bool:
        """Record a delivery; return False if its id was seen before for that repository: a replay."""

    def delivery(self, repository: str, delivery_id: str) -> WebhookDelivery | None: ...

    def remember_push(self, repository: str, revision: str, by: str, at: float) -> None: ...

    def save_push(self, push: PushUnderWay) -> None:
        """Record a push over HTTPS that is under way; those of dead processes are forgotten after an hour."""

    def push(self, digest: str) -> PushUnderWay | None:
        """Return the push with this digest of its id."""

    def forget_push(self, digest: str) -> None: ...

    def pusher(self, repository: str, revision: str) -> str:
        """Return who pushed a commit to a repository that is hosted here; "" if that is not known."""
