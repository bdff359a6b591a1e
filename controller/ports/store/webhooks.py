"""Webhooks of runs and calls, which wait in the outbox until they are delivered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from controller.domain.routing.async_calls import EndedCall
from controller.domain.runs.webhooks import Message


@dataclass(frozen=True)
class WebhookUnderWay:
    """Messages that are being sent, and what is at its limit: partitions and pools (`Message.partition`,
    `Message.pool`), and apps in a pool, as `POOL APP`."""

    ids: frozenset[str] = frozenset()
    partitions: frozenset[str] = frozenset()
    pools: frozenset[str] = frozenset()
    apps: frozenset[str] = frozenset()


class Webhooks(Protocol):
    """The outbox. Each run that ends puts its messages there, in the transaction that ends it (`Runs.save`)."""

    def call_ended(self, ended: EndedCall) -> None:
        """Ask the daemon for the webhooks of an async call that is over. Raises Transient if too many others wait."""

    def supersede(self, status: Message) -> None:
        """Add a commit status, in place of those of the same app and commit that are not delivered."""

    def due(self, now: float, underway: WebhookUnderWay) -> tuple[Message, ...]:
        """Return some webhooks that are due and not being sent, the oldest first, a few of each partition."""

    def of(self, run: str) -> tuple[Message, ...]:
        """Return the undelivered webhooks, given up or not."""

    def next_tries(self, ids: Iterable[str]) -> Mapping[str, float]:
        """Return when each of these messages is sent next; those that are not sent any more are left out."""

    def delivered(self, id: str) -> None: ...

    def failed(self, id: str, error: str, due: float) -> None:
        """Record a failed attempt; the next one is at `due`, in Unix seconds."""

    def give_up(self, id: str, error: str, at: float) -> None: ...
