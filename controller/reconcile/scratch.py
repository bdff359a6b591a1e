"""Bounds what containers of components write outside of boxes. The container engine has no limit for it on most
file systems, so it is measured repeatedly: a container that has written too much is removed, and the pass that is
requested starts another one, with an empty file system. Called by the timers.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from controller.domain.apps.observed import ScratchUse
from controller.domain.apps.requests import Trigger
from controller.domain.apps.status import Event, EventType
from controller.domain.localizable import Localizable
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.units import about_size
from controller.reconcile.deps import ReconcilerDeps

log = logging.getLogger(__name__)

GRACE = 10.0  # seconds that a container has to end


class ScratchScan:
    """`used` has the most that one container of each app has written, in bytes, as of the last scan."""

    def __init__(self, deps: ReconcilerDeps) -> None:
        self._deps = deps
        self.used: Mapping[AppName, int] = {}

    def scan(self) -> None:
        """Raises errors of the engine; what was measured before stays."""
        used: dict[AppName, int] = {}
        for found in self._deps.engine.scratch():
            used[found.app] = max(found.size, used.get(found.app, 0))
            if found.size > self._deps.settings.docker.scratch:
                self._remove(found)
        self.used = used

    def _remove(self, found: ScratchUse) -> None:
        most = self._deps.settings.docker.scratch
        message = Localizable(
            "{found} has written {size} into its own file system, but may write only {most} "
            "(docker.scratch). It is replaced by an empty one; keep large files in a box",
            found=found.name,
            size=about_size(found.size),
            most=about_size(most),
        )
        log.warning("%s", message, extra={"app": found.app})
        self._deps.engine.remove(found.workload_id, GRACE)
        event = Event(found.app, EventType.WARNING, Reason.SCRATCH_FULL, message, found.component)
        self._deps.store.events.add([event])
        self._deps.store.requests.enqueue(found.app, Trigger.DRIFT)
