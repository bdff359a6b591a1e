"""The manifest `Notification` after validation: where messages go, and which problems they are about."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from enum import StrEnum

from controller.domain.names import ComponentName


class Severity(StrEnum):
    """From the least to the worst."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def rank(self) -> int:
        return tuple(Severity).index(self)


class Channel(StrEnum):
    WEBHOOK = "webhook"
    EMAIL = "email"
    APPRISE = "apprise"


@dataclass(frozen=True)
class NotificationSpec:
    """`secret` names a Secret: of a webhook, with the key `secret` that signs and perhaps the `url`; of Apprise, with
    the key `url`. `to` has addresses of mail. `reasons` are types and reasons of which one has to fit, `except_reasons`
    those of which none may. `apps` are globs, of a Notification of the platform alone; empty: all, and the platform.
    Times in seconds: a problem has to last for `group_wait`, two messages are `group_interval` apart, and a problem
    that lasts is told again after `repeat_interval` (0: never)."""

    name: ComponentName
    channel: Channel
    _: KW_ONLY
    severity: Severity
    group_wait: float
    group_interval: float
    repeat_interval: float
    suspended: bool
    secret: str = ""
    url: str = ""
    to: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    except_reasons: tuple[str, ...] = ()
    apps: tuple[str, ...] = ()
