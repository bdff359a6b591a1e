"""The controller's configuration: what can be set, and how it is read from a file."""

from controller.config.loader import ConfigInvalid, defaults, load
from controller.config.settings import (
    BackupSettings,
    DefaultLimits,
    DockerSettings,
    GitSettings,
    NotificationSettings,
    OpenIdIssuer,
    PlatformSource,
    ReconcileSettings,
    Settings,
    SignInSettings,
    TracingSettings,
    WebSettings,
)

__all__ = [
    "BackupSettings",
    "ConfigInvalid",
    "DefaultLimits",
    "DockerSettings",
    "GitSettings",
    "NotificationSettings",
    "OpenIdIssuer",
    "PlatformSource",
    "ReconcileSettings",
    "Settings",
    "SignInSettings",
    "TracingSettings",
    "WebSettings",
    "defaults",
    "load",
]
