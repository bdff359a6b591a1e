"""Notifications as JSON documents: what is declared, what the receivers know, and what became of the last messages.
URLs are shown without path and query, which often contain a password. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from controller.domain.notifications.records import Delivery, StoredNotification
from controller.domain.runs.webhooks import origin_of
from controller.domain.units import rfc3339


def notification_document(stored: StoredNotification, next_tries: Mapping[str, float]) -> dict[str, object]:
    """`next_tries` are the times of the messages that are tried again."""
    spec, state, record = stored.spec, stored.state, stored.record
    told = [each.alert for each in state.alerts if each.told is not None]
    return {
        "name": spec.name,
        "channel": str(spec.channel),
        "to": list(spec.to) or ([origin_of(spec.url)] if spec.url else []),
        "secret": spec.secret or None,
        "severity": str(spec.severity),
        "reasons": list(spec.reasons),
        "exceptReasons": list(spec.except_reasons),
        "apps": list(spec.apps),
        "suspended": spec.suspended,
        "problems": [
            {
                "app": alert.app,
                "type": str(alert.type),
                "reason": alert.reason,
                "subject": alert.subject or None,
            }
            for alert in told
        ],
        "delivered": rfc3339(record.delivered or None),
        "deliveries": [_delivery(each, next_tries.get(each.message)) for each in record.deliveries],
    }


def _delivery(delivery: Delivery, next_try: float | None) -> dict[str, object]:
    return {
        "message": delivery.message,
        "at": rfc3339(delivery.at),
        "state": str(delivery.fate) if delivery.fate else "failing",
        "problem": delivery.problem or None,
        "reasons": list(delivery.reasons),
        "test": delivery.is_test,
        "nextTry": rfc3339(next_try),
    }
