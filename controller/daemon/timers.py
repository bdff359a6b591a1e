"""The timers. A tick only inserts a request; the pass that handles it finds out what to do. Old records and
leftovers of builds, which belong to no app, are removed here.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from apscheduler.schedulers import SchedulerNotRunningError
from apscheduler.schedulers.base import BaseScheduler
from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.interval import IntervalTrigger

from controller.config import Settings
from controller.daemon.health import EVERY
from controller.daemon.platform_folder import PlatformFolder
from controller.domain.apps.requests import Trigger
from controller.domain.apps.spec import RepositorySpec
from controller.domain.names import PLATFORM, AppName, RepositoryName, previews_key
from controller.domain.pace import pause_after
from controller.guards import GuardedStep
from controller.ports import Engine, Store
from controller.reconcile.catalog import PlatformCatalog

_LOOK = 2.0  # seconds between checks of the platform folder's modification times, and for unreadable rows
_JITTER = 0.1  # of the interval, so that a hundred repositories on one server are not polled at once
_DAY = 86400.0
_USAGE = 5.0  # seconds between looks at what apps use of their shares
_SCRATCH = 60.0  # seconds between looks at what containers of components have written
_COLLECT = 600.0  # seconds between checks for leftovers of builds


class PacedStep:
    """A step that is called at intervals and skips calls as long as its pause lasts, which depends on how long the step
    took: the engine may need minutes to count many files."""

    def __init__(self, step: Callable[[], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._step = step
        self._clock = clock
        self._not_before = -math.inf

    def __call__(self) -> None:
        began = self._clock()
        if began < self._not_before:
            return
        try:
            self._step()
        finally:
            ended = self._clock()
            self._not_before = ended + pause_after(ended - began)


class Timers:
    def __init__(
        self,
        settings: Settings,
        store: Store,
        catalog: PlatformCatalog,
        folder: PlatformFolder,
        engine: Engine,
        record_usage: Callable[[], object] = lambda: None,
        scan_scratch: Callable[[], object] = lambda: None,
        report_health: Callable[[], object] = lambda: None,
        refresh_previews: Callable[[], object] = lambda: None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._catalog = catalog
        self._folder = folder
        self._engine = engine
        self._tell_usage = record_usage
        self._scan_scratch = scan_scratch
        self._report_health = report_health
        self._refresh_previews = refresh_previews
        self._mark = folder.mark()
        self._polls: dict[str, RepositorySpec] = {}
        self._scheduler: BaseScheduler = BlockingScheduler(timezone="UTC")

    def run(self, stop: threading.Event) -> None:
        """Run until `stop` is set and `stop()` was called. May be called again after it has raised."""
        # The default grace of one second would drop ticks on a busy host, and a late tick is better than
        # none.
        defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        self._scheduler = BlockingScheduler(job_defaults=defaults, timezone="UTC")
        self._polls = {}
        self._every(_LOOK, self._check_folder, "folder")
        self._every(self._settings.platform.interval, lambda: self._ask(PLATFORM, Trigger.POLL), "platform")
        self._every(self._settings.reconcile.drift_interval, self._ask_all, "drift")
        self._every(_LOOK, self._store.set_aside, "unreadable rows")
        self._every(_LOOK, PacedStep(self._refresh_previews), "previews")
        self._every(_DAY, self._store.prune, "retention")
        self._every(_USAGE, self._tell_usage, "usage")
        self._every(_SCRATCH, PacedStep(self._scan_scratch), "scratch")
        self._every(EVERY, PacedStep(self._report_health), "health")
        self._every(min(self._settings.docker.keep_unfinished, _COLLECT), self._collect, "builds")
        self._every(_COLLECT, self._hold_egress, "egress")
        try:
            if not stop.is_set():
                self._scheduler.start()
        finally:
            self.stop()

    def stop(self) -> None:
        with suppress(SchedulerNotRunningError):
            self._scheduler.shutdown(wait=False)

    def _every(self, seconds: float, tick: Callable[[], object], name: str) -> None:
        jitter = seconds * _JITTER if seconds >= 10 else None
        self._scheduler.add_job(
            GuardedStep(f"the timer {name!r} failed", tick),
            IntervalTrigger(seconds=seconds, jitter=jitter, timezone="UTC"),
            id=name,
            replace_existing=True,
        )

    def _check_folder(self) -> None:
        """Request a pass if the folder has changed. The change is recorded only afterwards, so that the next
        tick repeats what failed.
        """
        mark = self._folder.mark()
        if mark != self._mark:
            self._ask(PLATFORM, Trigger.PLATFORM)
            self._mark = mark
        self._follow_repositories()

    def _follow_repositories(self) -> None:
        """Keep one polling job for each repository of the catalog that has an interval."""
        wanted = {r.name: r for r in self._catalog.spec.repositories if r.interval > 0}
        for name in self._polls.keys() - wanted.keys():
            self._scheduler.remove_job(f"poll:{name}")
            del self._polls[name]
        for name, repository in wanted.items():
            if self._polls.get(name) != repository:
                self._every(repository.interval, self._poll(name), f"poll:{name}")
                self._polls[name] = repository

    def _poll(self, name: str) -> Callable[[], None]:
        def tick() -> None:
            spec = self._catalog.spec
            apps = spec.apps_of(RepositoryName(name))
            self._ask_each(apps, Trigger.POLL)
            found = (spec.app(app) for app in apps)
            self._ask_each((previews_key(app.name) for app in found if app and app.previews), Trigger.POLL)

        return tick

    def _collect(self) -> None:
        self._engine.collect_builds(self._settings.docker.keep_unfinished)

    def _hold_egress(self) -> None:
        """Other programs put the firewall back to what they know."""
        self._engine.hold_egress()

    def _ask(self, app: AppName, trigger: Trigger) -> None:
        self._store.requests.enqueue(app, trigger)

    def _ask_all(self) -> None:
        self._ask_each((app.name for app in self._catalog.spec.apps), Trigger.DRIFT)

    def _ask_each(self, apps: Iterable[AppName], trigger: Trigger) -> None:
        """Request passes over all apps, even if some requests fail."""
        for app in apps:
            GuardedStep(f"could not request a pass ({trigger}) over {app}", self._ask)(app, trigger)
