"""The service that makes backups at their times: `prichal backup run`, a service of its own with systemd and a child of
`prichal up`. It looks at the record and the clock twice a minute, so a time at which the host slept is made up for
once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from controller.adapters.cron import CronTicks
from controller.backup.create import maker
from controller.config import Settings
from controller.daemon.stop_signals import stop_on_signals
from controller.domain.backups import RETRY, next_attempt
from controller.domain.errors import ControllerError
from controller.domain.reasons import Reason
from controller.guards import GuardedStep
from controller.notify import notify
from controller.store.backup_record import load_record

log = logging.getLogger(__name__)

LOOK: Final = 20.0  # seconds


@dataclass
class Schedule:
    """`create` makes a backup, and records how it went."""

    settings: Settings
    create: Callable[[], object]
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    _rests: float = field(default=float("-inf"), init=False)  # until then, by the monotonic clock

    def run(self, stop: threading.Event, pause: float = LOOK) -> None:
        step = GuardedStep("no backups are made", self.look)
        while not stop.is_set():
            step()
            stop.wait(pause)

    def look(self) -> None:
        """Make a backup if one is due."""
        now = self.clock()
        chosen = self.settings.backup
        ticks = CronTicks()
        record = load_record(self.settings.backup_record)
        due = next_attempt(record, lambda at: ticks.after(chosen.schedule, chosen.timezone, at), now)
        if due > now or self.monotonic() < self._rests or not self.settings.database.exists():
            return
        try:
            self.create()
        except ControllerError as error:
            if error.reason == Reason.BACKUP_RUNNING:
                return
            log.error("no backup was made: %s", error.message, extra={"reason": error.reason})
        if load_record(self.settings.backup_record) == record:
            # It cannot be written. Without a pause each look would make another backup, until the place is full.
            self._rests = self.monotonic() + RETRY.cap


def is_scheduled(settings: Settings) -> bool:
    return bool(settings.backup.to and settings.backup.schedule)


def run(settings: Settings) -> int:
    """Make backups until SIGTERM or SIGINT. Returns the exit code; at once if none are scheduled."""
    if not is_scheduled(settings):
        log.info("no backups are scheduled: backup.to and backup.schedule are not both set")
        notify("READY=1")
        return 0
    stop = threading.Event()
    stop_on_signals(stop)
    making = maker(settings)
    notify("READY=1")
    try:
        Schedule(settings, lambda: making.create(settings.backup.boxes)).run(stop)
    finally:
        making.place.close()
    return 0
