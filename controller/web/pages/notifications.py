"""The page of an app's Notifications, or of the platform's: who is told by which channel, what they know about, what
became of the last messages, live; and a button that sends a test. URLs are shown without path and query.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from flask import Response, current_app

from controller.domain.names import PLATFORM, AppName
from controller.domain.notifications.alerts import Alert
from controller.domain.notifications.delivery import Fate
from controller.domain.notifications.records import Delivery, StoredNotification
from controller.domain.notifications.spec import Channel, Severity
from controller.domain.people.roles import Principal
from controller.domain.reasons import Reason
from controller.domain.runs.webhooks import origin_of
from controller.ports import Store
from controller.web.api.platform.refusals import require_app
from controller.web.context import context, principal, query
from controller.web.pages.languages import N_, Language
from controller.web.pages.live import live_page
from controller.web.pages.reason_meanings import MEANINGS
from controller.web.pages.rendering import gets_buttons, render
from controller.web.query import QueryParameters

CHANNELS: Final[Mapping[Channel, str]] = {
    Channel.WEBHOOK: N_("webhook"),
    Channel.EMAIL: N_("mail"),
    Channel.APPRISE: N_("chat, by Apprise"),
}
SEVERITIES: Final[Mapping[Severity, str]] = {
    Severity.INFO: N_("everything"),
    Severity.WARNING: N_("warnings and errors"),
    Severity.ERROR: N_("errors alone"),
}
FATES: Final[Mapping[Fate | None, tuple[str, str]]] = {
    Fate.DELIVERED: (N_("delivered"), "good"),
    Fate.GIVEN_UP: (N_("not delivered"), "bad"),
    None: (N_("will be retried"), "warn"),
}


@dataclass(frozen=True)
class DeliveryShown:
    """`about`: what the reasons mean, each once. `next`: when it is tried again, None if it is not."""

    delivery: Delivery
    about: tuple[str, ...]
    next: float | None

    @property
    def outcome(self) -> tuple[str, str]:
        return FATES[self.delivery.fate]


@dataclass(frozen=True)
class ReceiverShown:
    """A Notification with its last deliveries, the newest first."""

    stored: StoredNotification
    known: tuple[Alert, ...]
    deliveries: tuple[DeliveryShown, ...]

    @property
    def channel(self) -> str:
        return CHANNELS[self.stored.spec.channel]

    @property
    def severity(self) -> str:
        return SEVERITIES[self.stored.spec.severity]

    @property
    def to(self) -> tuple[str, ...]:
        spec = self.stored.spec
        return spec.to or ((origin_of(spec.url),) if spec.url else ())


@dataclass(frozen=True)
class NotificationsLive:
    """`steers`: the reader gets buttons."""

    app: AppName
    steers: bool

    @classmethod
    def of(
        cls, store: Store, who: Principal, names: Mapping[str, str], asked: QueryParameters
    ) -> NotificationsLive:
        """Raises RequestRefused for an app that does not exist."""
        app = require_app(store, names["name"])
        return cls(app, gets_buttons(who, app))

    def read(self, store: Store) -> tuple[ReceiverShown, ...]:
        found = store.notifications.all(self.app)
        ids = [delivery.message for each in found for delivery in each.record.deliveries]
        tries = store.webhooks.next_tries(ids) if ids else {}
        return tuple(_shown(each, tries) for each in found)

    def fragments(self, found: Any, language: Language) -> Mapping[str, str]:
        place = f"/-/apps/{quote(self.app)}/notifications"
        values = {
            "receivers": found,
            "steers": self.steers,
            "place": place,
            "is_platform": self.app == PLATFORM,
        }
        return {"receivers": render("notifications/receivers.html", language, values)}


def notifications_page(name: str) -> Response:
    """The page for the present request."""
    store, settings = context(current_app)
    live = NotificationsLive.of(store, principal(), {"name": name}, query())
    return live_page(
        "notifications/page.html",
        live,
        scope=f"/-/apps/{name}/notifications",
        name=name,
        is_platform=live.app == PLATFORM,
        has_mail=bool(settings.notifications.smtp),
        is_admin=principal().is_admin,
    )


def _shown(stored: StoredNotification, next_tries: Mapping[str, float]) -> ReceiverShown:
    known = tuple(each.alert for each in stored.state.alerts if each.told is not None)
    deliveries = tuple(
        DeliveryShown(each, _about(each), next_tries.get(each.message) if each.fate is None else None)
        for each in reversed(stored.record.deliveries)
    )
    return ReceiverShown(stored, known, deliveries)


def _about(delivery: Delivery) -> tuple[str, ...]:
    return tuple(MEANINGS.get(Reason(reason), "") or reason for reason in delivery.reasons)
