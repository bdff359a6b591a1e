"""Sends the message of a Notification by its channel: a signed CloudEvent, mail, or Apprise. Called by the dispatcher
in the thread of the message. Where it goes is looked up when it is sent, since people may have corrected it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from controller import __version__
from controller.domain.apps.spec import SecretSpec
from controller.domain.errors import ControllerError
from controller.domain.localizable import Localizable
from controller.domain.names import AppName
from controller.domain.notifications.content import CONTENT_TYPE, cloud_event, message_text
from controller.domain.notifications.spec import Channel, NotificationSpec
from controller.domain.reasons import Reason
from controller.domain.runs.webhooks import (
    SECRET_KEY,
    DeliveryDecision,
    DeliveryOutcome,
    Message,
    SigningKeyInvalid,
    headers,
    is_url,
    judge,
    signing_key,
)
from controller.domain.secret import Secret
from controller.ports import ChatSender, Clock, MailSender, Sender, Store

URL_KEY = "url"  # of the Secret of a receiver
CHAT_TIMEOUT = 30.0  # seconds, of which Apprise takes some to start


class _Unsendable(Exception):
    """The message cannot be sent before somebody corrects something. The message says what."""


@dataclass(frozen=True)
class NotificationSender:
    """`secret` returns a Secret of an app or of the platform by its name, `url` is the base of the platform's pages."""

    store: Store
    clock: Clock
    secret: Callable[[AppName, str], SecretSpec | None]
    http: Sender
    mail: MailSender
    chats: ChatSender
    url: str

    def send(self, message: Message, timeout: float) -> DeliveryDecision:
        stored = self.store.notifications.get(message.app, message.pipeline)
        if stored is None:
            return DeliveryDecision(DeliveryOutcome.UNWANTED)
        try:
            match stored.spec.channel:
                case Channel.WEBHOOK:
                    return self._post(message, stored.spec, timeout)
                case Channel.EMAIL:
                    return self._mail(message, stored.spec, timeout)
                case Channel.APPRISE:
                    return self._chat(message, stored.spec)
        except _Unsendable as error:
            return DeliveryDecision(DeliveryOutcome.FAILED, str(error))
        except ControllerError as error:
            refused = error.reason == Reason.WEBHOOK_ADDRESS_REFUSED
            outcome = DeliveryOutcome.REFUSED if refused else DeliveryOutcome.FAILED
            return DeliveryDecision(outcome, error.message)

    def _post(self, message: Message, spec: NotificationSpec, timeout: float) -> DeliveryDecision:
        values = self._values(message.app, spec)
        url = spec.url or _value(values, spec, URL_KEY).reveal().strip()
        if not is_url(url):
            raise _Unsendable(
                Localizable(
                    "the key {url_key!r} of the Secret {secret!r} is not an http or https URL",
                    url_key=URL_KEY,
                    secret=spec.secret,
                )
            )
        try:
            key = signing_key(_value(values, spec, SECRET_KEY))
        except SigningKeyInvalid as error:
            raise _Unsendable(
                Localizable(
                    "could not sign it: the Secret {secret!r}: {error}", secret=spec.secret, error=error
                )
            ) from None
        event = cloud_event(message.id, json.loads(message.body), self.url)
        now = self.clock.now()
        named = {
            **headers(replace(message, body=event), key, now),
            "Content-Type": CONTENT_TYPE,
            "User-Agent": f"prichal/{__version__}",
        }
        return judge(self.http.send(url, named, event.encode(), timeout), now)

    def _mail(self, message: Message, spec: NotificationSpec, timeout: float) -> DeliveryDecision:
        told = message_text(json.loads(message.body))
        return self.mail.send(message.id, spec.to, told.title, told.text, self.clock.now(), timeout)

    def _chat(self, message: Message, spec: NotificationSpec) -> DeliveryDecision:
        url = _value(self._values(message.app, spec), spec, URL_KEY)
        told = message_text(json.loads(message.body))
        return self.chats.send(url, told.title, told.text, told.severity, told.is_over, CHAT_TIMEOUT)

    def _values(self, app: AppName, spec: NotificationSpec) -> Mapping[str, Secret]:
        found = self.secret(app, spec.secret)
        if found is None:
            raise _Unsendable(Localizable("the Secret {secret!r} does not exist", secret=spec.secret))
        return dict(found.values)


def _value(values: Mapping[str, Secret], spec: NotificationSpec, key: str) -> Secret:
    value = values.get(key)
    if value is None or not value.reveal().strip():
        raise _Unsendable(
            Localizable("the Secret {secret!r} has no key {key!r}", secret=spec.secret, key=key)
        )
    return value
