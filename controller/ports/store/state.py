"""The store as a whole: a part for each noun, transactions, and facts about the daemon."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from controller.domain.apps.usage import Usage
from controller.domain.names import AppName
from controller.ports.store.activity import Activity, Series
from controller.ports.store.apps import Apps, Events, History
from controller.ports.store.boxes import Boxes
from controller.ports.store.branches import Branches
from controller.ports.store.gpus import Gpus
from controller.ports.store.images import FollowedImages, ImageLists
from controller.ports.store.notifications import Notifications
from controller.ports.store.orders import Orders, Templates
from controller.ports.store.previews import Previews
from controller.ports.store.repositories import Repositories
from controller.ports.store.requests import Requests
from controller.ports.store.routes import Gateways, Routes
from controller.ports.store.runs import Runs, Schedules
from controller.ports.store.secrets import AgeKeyStore, Secrets
from controller.ports.store.webhooks import Webhooks


class CommitWatch(Protocol):
    """Wakes one thread, or one event loop, after commits. It may wake without a reason, and a commit may stay without a
    wake-up. So those who wait ask whether something has changed each time, and now and then although nothing wakes
    them. Commits that follow each other closely are one wake-up: see `controller.domain.pace`."""

    def wait(self, seconds: float) -> None:
        """Return after the next commit, of any process, or the next `wake`, and after `seconds` at the latest. What has
        happened since the last call counts, too."""

    def wake(self) -> None:
        """End `wait` in another thread. Does nothing once the watch is closed."""

    def fileno(self) -> int | None:
        """Return a descriptor that can be read after a commit, for an event loop. None if this watch can only be asked
        again and again, each `LONGEST_PAUSE` seconds."""

    def clear(self) -> None:
        """Forget what has happened, before a look at it."""

    def close(self) -> None: ...


class Store(Protocol):
    requests: Requests
    apps: Apps
    events: Events
    routes: Routes
    gateways: Gateways
    repositories: Repositories
    branches: Branches
    activity: Activity
    boxes: Boxes
    runs: Runs
    webhooks: Webhooks
    schedules: Schedules
    gpus: Gpus
    series: Series
    history: History
    previews: Previews
    image_lists: ImageLists
    secrets: Secrets
    age_keys: AgeKeyStore
    orders: Orders
    templates: Templates
    notifications: Notifications
    images: FollowedImages

    def changed(self) -> bool:
        """Return True if another connection has committed since this thread's last call (`PRAGMA
        data_version`, about 5 µs), and at the first call; a thread's own commits do not count."""

    def commit_watch(self) -> CommitWatch:
        """Return a new watch for commits, of this process and others. A child of a fork needs one of its own."""

    def transaction(self) -> AbstractContextManager[None]:
        """Run a transaction (BEGIN IMMEDIATE … COMMIT); a nested one joins the outer one."""

    def dry_run(self) -> AbstractContextManager[None]:
        """Run a transaction that is rolled back at the end: what the block has written, only it has seen."""

    def heartbeat(self, now: float) -> None: ...

    def last_heartbeat(self) -> float | None: ...

    def count_restart(self, part: str) -> None: ...

    def restarts(self) -> Mapping[str, int]:
        """Return how often each part of the daemon was restarted because it had ended unexpectedly, in total."""

    def record_spans_dropped(self, counts: Mapping[str, int]) -> None:
        """Record how many spans the daemon could not export, by why, in place of earlier values."""

    def spans_dropped(self) -> Mapping[str, int]: ...

    def record_usage(self, usage: Iterable[Usage]) -> None:
        """Record what all apps use now, in place of earlier values. Called by the daemon alone."""

    def usage(self, app: AppName | None = None) -> tuple[Usage, ...]:
        """Return the use of one app or of all, as last recorded, in that order."""

    def set_aside(self) -> int:
        """Set aside the rows that readers in this process could not read, record events of their apps, and
        return how many. Called only by the daemon."""

    def prune(self) -> None:
        """Delete old events, finished requests, deliveries, reports of ended gateways, and old calls."""

    def close(self) -> None: ...
