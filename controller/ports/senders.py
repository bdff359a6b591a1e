"""Senders: webhooks, mail and messages to chats on their way to the receiver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from controller.domain.notifications.spec import Severity
from controller.domain.runs.webhooks import DeliveryDecision, ReceiverResponse
from controller.domain.secret import Secret


class Sender(Protocol):
    """Sends webhooks over HTTP to addresses that callers chose. Thread-safe."""

    def send(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> ReceiverResponse:
        """Send a POST request; every answer of the receiver is a result. `timeout` is in seconds, for the
        whole request. Raises Transient `WebhookUnreachable`, and Stalled `WebhookAddressRefused` for an
        address that is not allowed. Errors reveal neither the URL nor the answer."""


class MailSender(Protocol):
    """Sends mail by the server of the configuration. Thread-safe."""

    def send(
        self, id: str, to: Sequence[str], title: str, text: str, at: float, timeout: float
    ) -> DeliveryDecision:
        """Send one mail, whose id is the same at each repetition. `timeout` is in seconds, for all of it. Never
        raises; what failed is in the decision."""


class ChatSender(Protocol):
    """Sends messages to chats and other services. Thread-safe."""

    def send(
        self, url: Secret, title: str, text: str, severity: Severity, is_over: bool, timeout: float
    ) -> DeliveryDecision:
        """Send one message to the service of an Apprise URL. Never raises; a decision does not quote the URL."""
