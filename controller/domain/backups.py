"""Backups: their names, when the next one is due, which ones are kept, and the record of the last ones. Pure: times are
Unix seconds that callers give."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from controller.domain.backoff import Backoff
from controller.domain.localizable import Localizable, joined

SUFFIX: Final = ".tar.gz.age"
#: How long to wait after failures in a row before the next attempt.
RETRY: Final = Backoff(600.0, 7200.0)
MOST_RECORD: Final = 2**16  # bytes
_STAMP: Final = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Backup:
    """A complete backup at its place."""

    name: str
    created: float
    size: int


@dataclass(frozen=True)
class MadeBackup:
    """A backup that was made: how it is called, when it was begun and ended, and its size in bytes."""

    name: str
    began: float
    ended: float
    size: int


@dataclass(frozen=True)
class BackupFailure:
    """The last attempts have failed: when the last one ended, why, and how many have failed in a row."""

    at: float
    reason: str
    message: str
    count: int


@dataclass(frozen=True)
class BackupRecord:
    """What became of the last attempts. `good` is the last backup that was made, `failure` what failed since then."""

    good: MadeBackup | None = None
    failure: BackupFailure | None = None

    def succeeded(self, made: MadeBackup) -> BackupRecord:
        return BackupRecord(made)

    def failed(self, at: float, reason: str, message: str) -> BackupRecord:
        before = self.failure.count if self.failure else 0
        return replace(self, failure=BackupFailure(at, reason, message, before + 1))


def name_at(instance: str, at: float) -> str:
    """Return the name of a backup that is begun at this time."""
    return f"prichal-{instance}-{datetime.fromtimestamp(int(at), UTC).strftime(_STAMP)}{SUFFIX}"


def created_at(instance: str, name: str) -> float | None:
    """Return when the backup was begun; None if no backup of this instance has such a name."""
    pattern = rf"prichal-{re.escape(instance)}-([0-9]{{8}}T[0-9]{{6}}Z){re.escape(SUFFIX)}"
    found = re.fullmatch(pattern, name)
    if found is None:
        return None
    try:
        return datetime.strptime(found[1], _STAMP).replace(tzinfo=UTC).timestamp()
    except ValueError:  # the 31st of February
        return None


def newest_first(backups: Iterable[Backup]) -> tuple[Backup, ...]:
    return tuple(sorted(backups, key=lambda backup: (backup.created, backup.name), reverse=True))


def outdated(backups: Iterable[Backup], count: int, age: float, now: float) -> tuple[Backup, ...]:
    """Return the backups that are to be removed: older than `age` seconds, and not among the `count` newest ones. So
    the last ones are kept when no new ones are made. Those of the future were made by a clock that was wrong: they stay
    until then, and take the place of none that is newer in truth."""
    past = [backup for backup in newest_first(backups) if backup.created <= now]
    return tuple(backup for backup in past[max(1, count) :] if backup.created < now - age)


def next_attempt(record: BackupRecord, tick_after: Callable[[float], float], now: float) -> float:
    """Return when the next backup is to begin. The first one begins at once; a time that has passed while the host was
    off counts once. After a failure it is tried again earlier than the schedule says."""
    good, failure = record.good, record.failure
    if failure is not None:
        at = min(failure.at, now)
        return min(at + RETRY.after(failure.count), tick_after(at))
    return tick_after(min(good.began, now)) if good else now


def problem_of(record: BackupRecord, alert_after: float, now: float) -> str:
    """Return what is wrong with the backups; "" if the last good one is not too old."""
    if record.good is None:
        found = Localizable("no backup was made yet")
    elif now - record.good.ended > alert_after:
        found = Localizable("the last good backup is {age} old", age=_about(now - record.good.ended))
    else:
        return ""
    if record.failure is None:
        return found
    return joined((found, Localizable("the last attempt failed: {why}", why=record.failure.message)))


def _about(seconds: float) -> str:
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours} h" if days else f"{hours} h"


def write_record(record: BackupRecord) -> str:
    return json.dumps(asdict(record), ensure_ascii=False) + "\n"


def read_record(content: bytes) -> BackupRecord:
    """Read a record back. One that is damaged is empty: the next backup is then made at once."""
    try:
        found = json.loads(content)
        good, failure = found["good"], found["failure"]
        return BackupRecord(_made(good) if good else None, _failure(failure) if failure else None)
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return BackupRecord()


def _made(found: Any) -> MadeBackup:
    return MadeBackup(str(found["name"]), float(found["began"]), float(found["ended"]), int(found["size"]))


def _failure(found: Any) -> BackupFailure:
    return BackupFailure(
        float(found["at"]), str(found["reason"]), str(found["message"]), max(1, int(found["count"]))
    )
