"""What is stored of a Notification beside its specification, and its messages in the outbox."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Final

from controller.domain.localizable import shortened
from controller.domain.names import AppName, ComponentName
from controller.domain.notifications.delivery import Fate, NotificationState
from controller.domain.notifications.spec import NotificationSpec
from controller.domain.runs.webhooks import Message, MessageKind

KEPT: Final = 8  # deliveries that are remembered, and as many of tests
MAX_PROBLEM: Final = 500  # characters


@dataclass(frozen=True)
class Delivery:
    """The last attempt to send a message; `fate` is None if there will be another one. `reasons`: what it was about."""

    message: str
    at: float
    fate: Fate | None
    problem: str = ""
    reasons: tuple[str, ...] = ()

    @property
    def is_test(self) -> bool:
        return _is_test(self)


@dataclass(frozen=True)
class DeliveryRecord:
    """The newest messages of a Notification, oldest first. `delivered` is when one arrived last, 0 for never."""

    deliveries: tuple[Delivery, ...] = ()
    delivered: float = 0.0

    def of(self, message: str) -> Delivery | None:
        return next((each for each in self.deliveries if each.message == message), None)

    @property
    def last(self) -> Delivery | None:
        return self.deliveries[-1] if self.deliveries else None


@dataclass(frozen=True)
class StoredNotification:
    """`app` is the platform for those of the platform folder."""

    app: AppName
    spec: NotificationSpec
    state: NotificationState
    record: DeliveryRecord

    @property
    def fate(self) -> Fate | None:
        """Return what has become of the message in the state; None while the outbox has it."""
        if self.state.message is None:
            return None
        message = self.state.message
        delivery = self.record.of(message_id(self.app, self.spec.name, message.number, message.at))
        return delivery.fate if delivery else None


@dataclass(frozen=True)
class AskedTest:
    id: str
    app: AppName
    name: ComponentName


def with_delivery(record: DeliveryRecord, delivery: Delivery) -> DeliveryRecord:
    """Return the record with an attempt in place of earlier ones of the same message. No number of tests drives out a
    message, whose fate is waited for."""
    delivery = replace(delivery, problem=shortened(delivery.problem, MAX_PROBLEM))
    others = tuple(each for each in record.deliveries if each.message != delivery.message)
    arrived = delivery.fate is Fate.DELIVERED
    delivered = delivery.at if arrived else record.delivered
    every = (*others, delivery)
    of_kind = [each for each in every if _is_test(each) is _is_test(delivery)]
    dropped = of_kind[:-KEPT]
    return DeliveryRecord(tuple(each for each in every if each not in dropped), delivered)


def _is_test(delivery: Delivery) -> bool:
    return delivery.message.startswith(f"{MessageKind.NOTIFICATION_TEST}_")


def message_id(app: AppName, name: ComponentName, number: int, at: float) -> str:
    """Return an id without a dot, since dots separate the signed parts. The time is in it, since a Notification that is
    removed and declared again begins with the number 1."""
    digest = hashlib.sha256(f"{app}\n{name}\n{number}\n{at}".encode()).hexdigest()[:24]
    return f"{MessageKind.NOTIFICATION}_{digest}_{number}"


def check_id(test: str) -> str:
    """Return the id of the message of a test."""
    return f"{MessageKind.NOTIFICATION_TEST}_{test}"


def outgoing(id: str, app: AppName, spec: NotificationSpec, body: str, now: float) -> Message:
    """Return a message for the outbox. It has no credential in it: where it goes is looked up when it is sent."""
    return Message(
        id=id,
        app=app,
        pipeline=spec.name,
        revision="",
        run="",
        secret=spec.secret,
        url=spec.channel,
        body=body,
        due=now,
    )
