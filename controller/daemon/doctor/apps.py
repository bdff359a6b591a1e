"""Checks of what apps have: the shares that they use, their notifications and their Secrets."""

from __future__ import annotations

from controller.config import Settings
from controller.daemon.instance_key import key_file, present_key
from controller.domain.apps.usage import Usage
from controller.domain.findings import Finding
from controller.domain.localizable import Localizable, joined
from controller.domain.notifications.delivery import Fate
from controller.domain.notifications.records import StoredNotification
from controller.encryption import SecretKeys
from controller.store import open_guest_store


def check_shares(settings: Settings) -> str:
    """Warn before something is refused. Only what fills up is checked, not what is declared."""
    if not settings.database.exists():
        return Localizable("no app uses anything")
    store = open_guest_store(settings.database)
    try:
        usage = store.usage()
    finally:
        store.close()
    full = sorted((each for each in usage if each.is_nearly_full), key=lambda each: -_share(each))
    if full:
        told = joined(_told_use(each) for each in full[:3])
        more = Localizable("; and {more} more", more=len(full) - 3) if full[3:] else ""
        raise Finding(
            told + more,
            Localizable(
                "see `prichal status APP`; free some space, or raise the bound: docs/guide/operations.md, Limits"
            ),
        )
    fullest = max((each for each in usage if each.fills), key=_share, default=None)
    if fullest is None or not fullest.used:
        return Localizable("no app is near a bound")
    return Localizable("no app is near a bound; the nearest: {use}", use=_told_use(fullest))


def _share(usage: Usage) -> float:
    return usage.used / usage.bound if usage.bound else 0.0


def _told_use(usage: Usage) -> str:
    return Localizable(
        "{app}: {resource} {used} of {bound}",
        app=usage.app,
        resource=usage.resource,
        used=usage.told(usage.used),
        bound=usage.told(usage.bound),
    )


def check_notifications(settings: Settings) -> str:
    """Report receivers that do not take messages."""
    if not settings.database.exists():
        return Localizable("none")
    store = open_guest_store(settings.database)
    try:
        found = store.notifications.all()
    finally:
        store.close()
    failing = [each for each in found if (last := each.record.last) and last.fate is not Fate.DELIVERED]
    if failing:
        told = joined(_told_failure(each) for each in failing[:3])
        more = Localizable("; and {more} more", more=len(failing) - 3) if failing[3:] else ""
        raise Finding(
            told + more,
            Localizable("correct the receiver, and try it with: prichal notify test APP NAME"),
        )
    return (
        Localizable("{number} are declared, and their last messages arrived", number=len(found))
        if found
        else "none"
    )


def _told_failure(stored: StoredNotification) -> str:
    last = stored.record.last
    return joined((stored.app, stored.spec.name, last.problem if last else ""), ": ")


def check_secrets(settings: Settings) -> str:
    """Check that the Secrets that people have set can be read with the key that is there."""
    if not settings.database.exists():
        return Localizable("none")
    store = open_guest_store(settings.database)
    try:
        foreign = store.secrets.foreign(SecretKeys(present_key(settings.private)))
        number = sum(len(store.secrets.listed(status.app)) for status in store.apps.all())
    finally:
        store.close()
    if foreign:
        raise Finding(
            foreign,
            Localizable(
                "restore {path} from the backup, then restart the daemon",
                path=key_file(settings.private),
            ),
        )
    return Localizable("{number} values, encrypted with the key of this instance", number=number)
