"""Notifications: their states, the conditions that they are about, and tests of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from controller.domain.apps.conditions import Conditions
from controller.domain.names import AppName, ComponentName
from controller.domain.notifications.alerts import Notice
from controller.domain.notifications.delivery import Fate, NotificationState
from controller.domain.notifications.records import AskedTest, StoredNotification
from controller.domain.notifications.spec import NotificationSpec
from controller.domain.runs.webhooks import Message


class Notifications(Protocol):
    """Notifications with their states. Only the daemon writes; all processes ask for tests."""

    def declare(self, app: AppName, specs: Iterable[NotificationSpec]) -> None:
        """Store these as those of the app; states of others are forgotten. Writes nothing if nothing is new."""

    def all(self, app: AppName | None = None) -> tuple[StoredNotification, ...]:
        """Return those of one app or of all, by app and name."""

    def get(self, app: AppName, name: ComponentName) -> StoredNotification | None: ...

    def conditions(self) -> Mapping[AppName, Conditions]:
        """Return the conditions of all apps and of the platform."""

    def notices(self) -> tuple[int, tuple[Notice, ...]]:
        """Return the notices that nobody has taken, and the number of the last one."""

    def take(self, last: int) -> None:
        """Forget the notices up to this number."""

    def advance(
        self, app: AppName, name: ComponentName, state: NotificationState, message: Message | None = None
    ) -> None:
        """Save a state, and put the message that follows from it into the outbox. Nothing happens for a Notification
        that is not declared any more."""

    def record(self, message: Message, at: float, fate: Fate | None, problem: str = "") -> None:
        """Record an attempt to send a message; `fate` is None if there will be another one."""

    def ask_test(self, app: AppName, name: ComponentName) -> str:
        """Ask the daemon for a test message, and return its id. Raises Transient if too many others wait."""

    def tests(self) -> tuple[AskedTest, ...]:
        """Return the tests that were asked for."""

    def send_test(self, message: Message) -> None:
        """Put the message of a test into the outbox, unless it is there."""

    def end_test(self, id: str) -> None:
        """Forget that a test was asked for."""
