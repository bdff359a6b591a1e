"""What is remembered of the messages of a Notification."""

from __future__ import annotations

from controller.domain.names import AppName, ComponentName
from controller.domain.notifications.delivery import Fate, NotificationState, SentMessage
from controller.domain.notifications.records import (
    KEPT,
    Delivery,
    DeliveryRecord,
    StoredNotification,
    check_id,
    message_id,
    with_delivery,
)
from controller.domain.notifications.spec import Channel, NotificationSpec
from tests.support.specs import make

APP, NAME = AppName("demo"), ComponentName("team")


def test_no_number_of_tests_hides_what_has_become_of_a_message() -> None:
    spec = make(NotificationSpec, NAME, Channel.EMAIL)
    state = NotificationState(1, message=SentMessage(1, 100.0))
    record = with_delivery(DeliveryRecord(), Delivery(message_id(APP, NAME, 1, 100.0), 101.0, Fate.DELIVERED))
    for number in range(3 * KEPT):
        record = with_delivery(record, Delivery(check_id(str(number)), 102.0, Fate.GIVEN_UP, "refused"))
    assert StoredNotification(APP, spec, state, record).fate is Fate.DELIVERED
    assert len(record.deliveries) == KEPT + 1
    assert record.last
    assert record.last.message == check_id(str(3 * KEPT - 1))


def test_the_newest_are_kept() -> None:
    record = DeliveryRecord()
    for number in range(KEPT + 2):
        record = with_delivery(record, Delivery(message_id(APP, NAME, number, 1.0), number, None))
    assert [each.at for each in record.deliveries] == list(range(2, KEPT + 2))
