"""Orders that apps be made or deleted, and the templates that new apps are made from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from controller.domain.apps.orders import AppOrder, OrderRecord
from controller.domain.people.quotas import AppShare
from controller.domain.templates import TemplateRecord


class Orders(Protocol):
    """Orders that apps be made or deleted, and what people have made."""

    def ask(self, order: AppOrder) -> OrderRecord:
        """Place an order; one with the same id is placed once. Transient `QueueFull`."""

    def get(self, id: str) -> OrderRecord | None:
        """Return an order, also one that the daemon has not taken yet."""

    def unfinished(self) -> tuple[OrderRecord, ...]:
        """Return the orders that the daemon has not carried out, in the order in which it took them."""

    def save(self, record: OrderRecord) -> None: ...

    def shares(self) -> tuple[AppShare, ...]:
        """Return the apps that people have made, as of the last look at the platform folder."""

    def replace_shares(self, shares: Iterable[AppShare]) -> None: ...


class Templates(Protocol):
    """The templates that admins have added, as the daemon last fetched them."""

    def all(self) -> tuple[TemplateRecord, ...]: ...

    def replace(self, records: Iterable[TemplateRecord]) -> None: ...
