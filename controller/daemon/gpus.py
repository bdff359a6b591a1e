"""Watches the GPUs that this host lends: what the driver says of them is written down for the web process, what does
not work is lent to nobody, and leases that are lost are restored from the containers. A thread of the daemon.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from controller.adapters.gpu_driver import GpuDriver
from controller.atomic import replace_file
from controller.config import Settings
from controller.domain.gpu_devices import GpuReport, unusable, write_report
from controller.guards import GuardedStep
from controller.reconcile.gpu_leases import GpuLeases

log = logging.getLogger(__name__)

EVERY: Final = 10.0  # seconds between two looks
SELDOM: Final = 60.0  # the same while the driver says nothing
MODE: Final = 0o640  # the group of the folder may read it


class GpuWatch:
    """`report` is the last one. An engine on another host has other GPUs than those of this one."""

    def __init__(
        self,
        settings: Settings,
        read: Callable[[], GpuReport] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._read = read or GpuDriver().read
        self._clock = clock
        self.report = GpuReport()

    def run(self, leases: GpuLeases, stop: threading.Event) -> None:
        """Look until `stop`. On a host that lends no GPUs there is nothing to look at."""
        look = GuardedStep("GPUs are not watched", self.look)
        restore = GuardedStep("the GPUs of containers are not known", leases.restore)
        while not stop.is_set():
            if self._settings.runs.gpus:
                if self._settings.docker.is_here:
                    look()
                restore()
            stop.wait(EVERY if self.report.devices else SELDOM)

    def look(self) -> None:
        """Ask the driver once. Raises OSError if that cannot be written down."""
        before, self.report = self.report, self._read()
        if self.report.problem and self.report.problem != before.problem:
            log.info("the driver of the GPUs says nothing", extra={"problem": self.report.problem})
        self._tell_lost(before)
        text = json.dumps(write_report(self.report), ensure_ascii=False)
        replace_file(self._settings.gpu_report, text + "\n", MODE)

    def _tell_lost(self, before: GpuReport) -> None:
        gpus, now = self._settings.runs.gpus, self._clock()
        old, new = unusable(gpus, before, now), self.lost()
        for gpu in new.keys() - old.keys():
            log.error("a GPU does not work, and is lent to nobody", extra={"gpu": gpu, "problem": new[gpu]})
        for gpu in old.keys() - new.keys():
            log.info("a GPU works again", extra={"gpu": gpu})

    def lost(self) -> Mapping[str, str]:
        """Return the GPUs that do not work at the moment, with the reason."""
        return unusable(self._settings.runs.gpus, self.report, self._clock())
