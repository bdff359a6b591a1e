"""The check of backups."""

from __future__ import annotations

import time

from controller.config import Settings
from controller.domain.backups import problem_of
from controller.domain.findings import Finding
from controller.domain.localizable import Localizable
from controller.domain.units import about_size
from controller.store.backup_record import load_record


def check_backup(settings: Settings) -> str:
    """Check that the last good backup is not too old, and that no restore was left half done."""
    if settings.restore_marker.exists():
        advice = Localizable("make it again with `prichal backup restore`")
        raise Finding(Localizable("a restore into {state} was interrupted", state=settings.state), advice)
    chosen = settings.backup
    if not chosen.to:
        return Localizable("no backups are made: backup.to is not set")
    record, now = load_record(settings.backup_record), time.time()
    advice = Localizable("see what is wrong with: prichal backup create")
    if problem := problem_of(record, chosen.alert_after, now):
        raise Finding(problem, advice)
    if record.failure:
        raise Finding(Localizable("no backup was made: {message}", message=record.failure.message), advice)
    assert record.good is not None  # else it is a problem
    return Localizable(
        "the last good backup is {name} ({size}) in {to}",
        name=record.good.name,
        size=about_size(record.good.size),
        to=chosen.to,
    )
