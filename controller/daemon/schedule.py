"""The timers. A tick only inserts a request; what is to be done is found out by the pass that takes it."""

from __future__ import annotations

from collections.abc import Callable

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from controller.config import Settings
from controller.daemon.platform_folder import PlatformFolder
from controller.domain.names import PLATFORM, AppName
from controller.domain.spec import RepositorySpec
from controller.ports import Store
from controller.reconcile.directory import Directory

_FOLDER_LOOK = 2.0  # seconds between looks at the platform folder's modification times
_JITTER = 0.1  # of the interval: a hundred repositories of one server are not asked in one moment
_DAY = 86400.0


class Schedule:
    def __init__(
        self, settings: Settings, store: Store, directory: Directory, folder: PlatformFolder
    ) -> None:
        self._settings = settings
        self._store = store
        self._directory = directory
        self._folder = folder
        self._mark = folder.mark()
        self._polls: dict[str, RepositorySpec] = {}
        # The default of one second of grace would drop ticks on a busy host; late is better than never.
        defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        self._scheduler = BackgroundScheduler(job_defaults=defaults, timezone="UTC")

    def start(self) -> None:
        self._every(_FOLDER_LOOK, self._look_at_folder, "folder")
        self._every(self._settings.platform.interval, lambda: self._ask(PLATFORM, "poll"), "platform")
        self._every(self._settings.reconcile.drift_interval, self._ask_all, "drift")
        self._every(_DAY, self._store.prune, "retention")
        self._scheduler.start()

    def stop(self) -> None:
        self._scheduler.shutdown(wait=False)

    def _every(self, seconds: float, tick: Callable[[], object], name: str) -> None:
        jitter = seconds * _JITTER if seconds >= 10 else None
        self._scheduler.add_job(
            tick,
            IntervalTrigger(seconds=seconds, jitter=jitter, timezone="UTC"),
            id=name,
            replace_existing=True,
        )

    def _look_at_folder(self) -> None:
        mark = self._folder.mark()
        if mark != self._mark:
            self._mark = mark
            self._ask(PLATFORM, "platform")
        self._follow_repositories()

    def _follow_repositories(self) -> None:
        """One polling job for each repository with an interval, as the directory says now."""
        wanted = {r.name: r for r in self._directory.spec.repositories if r.interval > 0}
        for name in self._polls.keys() - wanted.keys():
            self._scheduler.remove_job(f"poll:{name}")
            del self._polls[name]
        for name, repository in wanted.items():
            if self._polls.get(name) != repository:
                self._every(repository.interval, self._poll(name), f"poll:{name}")
                self._polls[name] = repository

    def _poll(self, name: str) -> Callable[[], None]:
        def tick() -> None:
            for app in self._directory.spec.apps:
                if app.repository == name:
                    self._ask(app.name, "poll")

        return tick

    def _ask(self, app: AppName, reason: str) -> None:
        self._store.requests.enqueue(app, reason)

    def _ask_all(self) -> None:
        for app in self._directory.spec.apps:
            self._ask(app.name, "drift")
