"""`open_store`: the one way to the state, and the Store that it gives: the nouns over one database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from controller.domain.errors import Stalled
from controller.store.activity import ActivityTable
from controller.store.apps import AppTable
from controller.store.boxes import BoxTable
from controller.store.events import EventLog
from controller.store.facts import Facts
from controller.store.gateways import GatewayTable
from controller.store.repositories import RepositoryTable
from controller.store.requests import RequestQueue
from controller.store.routes import RouteTable
from controller.store.runs import RunTable
from controller.store.schedules import ScheduleTable
from controller.store.sqlite import Database, prepare
from controller.store.version import VERSION
from controller.store.webhooks import WebhookTable

if TYPE_CHECKING:  # it brings the whole domain along, which `prichal status` need not wait for
    from controller import ports

DAY = 86400.0  # seconds
KEEP_EVENTS = 90 * DAY  # of an app that is no longer connected
KEEP_REQUESTS = 30 * DAY
KEEP_DELIVERIES = 30 * DAY
KEEP_GATEWAYS = 60.0
KEEP_GONE = 365 * DAY
KEEP_TICKS = 35 * DAY  # a minutely schedule has 50,000 of them; a clock set back farther repeats them
KEEP_ACTIVITY = 90 * DAY
KEEP_WEBHOOKS = 7 * DAY  # after they were given up
KEEP_PENDING = (
    30 * DAY
)  # after they expired; the accounting drops them long before, if it can reach the storage


class _Aging(Protocol):
    def prune(self, before: float) -> None: ...


class SqliteStore:
    """`controller.ports.Store`. May be shared by threads, and survives a fork."""

    requests: ports.Requests
    apps: ports.Apps
    events: ports.Events
    routes: ports.Routes
    gateways: ports.Gateways
    repositories: ports.Repositories
    activity: ports.Activity
    boxes: ports.Boxes
    runs: ports.Runs
    webhooks: ports.Webhooks
    schedules: ports.Schedules

    def __init__(self, database: Database, clock: Callable[[], float], keep_events: int) -> None:
        self._database = database
        self._clock = clock
        self._facts = Facts(database)
        self.events = events = EventLog(database, clock, keep_events)
        self.requests = requests = RequestQueue(database, clock)
        self.apps = AppTable(database, events)
        self.routes = RouteTable(database, self._facts)
        self.gateways = gateways = GatewayTable(database)
        self.repositories = repositories = RepositoryTable(database)
        self.activity = activity = ActivityTable(database)
        self.boxes = boxes = BoxTable(database, clock)
        self.webhooks = webhooks = WebhookTable(database)
        self.runs = runs = RunTable(database, webhooks)
        self.schedules = schedules = ScheduleTable(database)
        self._aging: tuple[tuple[_Aging, float], ...] = (
            (events, KEEP_EVENTS),
            (requests, KEEP_REQUESTS),
            (repositories, KEEP_DELIVERIES),
            (gateways, KEEP_GATEWAYS),
            (activity, KEEP_ACTIVITY),
            (boxes, KEEP_PENDING),
            (runs, KEEP_GONE),
            (webhooks, KEEP_WEBHOOKS),
            (schedules, KEEP_TICKS),
        )

    def changed(self) -> bool:
        return self._database.changed()

    def transaction(self) -> AbstractContextManager[None]:
        return self._transaction()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._database.write():
            yield

    def heartbeat(self, now: float) -> None:
        self._facts.put("heartbeat", now)

    def last_heartbeat(self) -> float | None:
        return self._facts.get("heartbeat")

    def prune(self) -> None:
        now = self._clock()
        for table, age in self._aging:
            table.prune(before=now - age)

    def damage(self) -> tuple[str, ...]:
        """What SQLite finds wrong with the file; reads all of it."""
        return self._database.damage()

    def close(self) -> None:
        self._database.close()


def open_store(path: Path, *, clock: Callable[[], float] = time.time, keep_events: int = 1000) -> SqliteStore:
    """Open the state at `path`; made if it is not there, migrated if it is older than this program.

    `clock` gives Unix seconds for what is stamped in here; `keep_events` bounds the history of each app.
    Stalled `StateTooNew`, `StateUnwritable`, `StateCorrupt`; Transient `StateBusy`, `StateDiskFull`, `StateIOError`.
    """
    with prepare(path) as connection:
        found: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if found > VERSION:
            raise Stalled(
                "StateTooNew",
                f"the state at {path} has schema {found}, this prichal knows {VERSION}: it was written by a newer "
                "version. Install that version again, or move the state away to start with an empty one",
            )
        if found < VERSION:
            from controller.store.schema import migrate  # only now: see there

            migrate(connection)
    return SqliteStore(Database(path), clock, keep_events)
