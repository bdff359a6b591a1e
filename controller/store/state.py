"""`open_store` and `open_guest_store`, the two ways to open the state, and the Store that they return."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from controller.domain.apps.status import Event, EventType
from controller.domain.apps.usage import Usage
from controller.domain.errors import Stalled, Transient
from controller.domain.names import PLATFORM, AppName
from controller.domain.reasons import Reason
from controller.store import inbox
from controller.store.activity import ActivityTable
from controller.store.apps import STATUSES, AppTable
from controller.store.boxes import BoxTable
from controller.store.branches import BranchTable
from controller.store.commit_watch import open_commit_watch
from controller.store.database_files import has_logs, unprepared
from controller.store.error_rules import primary_code
from controller.store.events import EventLog
from controller.store.facts import FactTable
from controller.store.gateways import GatewayTable
from controller.store.gpus import LEASES, REQUESTS, GpuTable
from controller.store.guest import GuestRequests, GuestRuns
from controller.store.history import HistoryTable
from controller.store.image_lists import ImageListTable
from controller.store.images import FOLLOWED, ImageTable
from controller.store.intake import Intake
from controller.store.keys import Credentials
from controller.store.notifications import NOTIFICATIONS, NoticeTable, NotificationTable
from controller.store.orders import ORDERS, SHARES, GuestOrders, OrderTable
from controller.store.owned_secrets import OwnedSecretTable
from controller.store.previews import PreviewTable
from controller.store.repositories import ACCEPTED, RECORDS, RepositoryTable
from controller.store.requests import RequestQueue
from controller.store.routes import ROUTES, SERVICES, RouteStore
from controller.store.rows import AsideRow, RowKind, RowReader, UnreadableRow
from controller.store.runs import PIPELINES, RUNS, RunTable
from controller.store.schedules import ScheduleTable
from controller.store.series import SeriesTable
from controller.store.shared_file import shared_path
from controller.store.sqlite import Database, prepare
from controller.store.templates import TEMPLATES, TemplateTable
from controller.store.version import VERSION
from controller.store.webhooks import WebhookTable

if TYPE_CHECKING:  # it imports the whole domain, which `prichal status` need not wait for
    from controller import ports

log = logging.getLogger(__name__)

REOPENS = 1.0  # seconds within which the files of a log are there again, and between two looks for them
_AGAIN = 0.005
RESTARTS = "restarts:"  # a prefix of facts, followed by the part
SPANS = "spans:"  # followed by why spans of the daemon were dropped
USES = "uses:"  # a prefix of facts, followed by app, number and resource, "used" or "bound"
DAY = 86400.0  # seconds
KEEP_EVENTS = 90 * DAY  # of an app that is no longer connected
KEEP_REQUESTS = 30 * DAY
KEEP_DELIVERIES = 30 * DAY
KEEP_GATEWAYS = 60.0
KEEP_GONE = 365 * DAY
KEEP_TICKS = 35 * DAY  # a minutely schedule has 50,000 of them; a clock set back farther repeats them
KEEP_ACTIVITY = 90 * DAY
KEEP_WEBHOOKS = 7 * DAY  # after they were given up
KEEP_PENDING = 30 * DAY  # after they expired; the accounting drops them long before, if the storage answers

_KINDS: tuple[RowKind[Any], ...] = (
    STATUSES,
    ROUTES,
    SERVICES,
    RECORDS,
    ACCEPTED,
    PIPELINES,
    RUNS,
    LEASES,
    REQUESTS,
    ORDERS,
    SHARES,
    TEMPLATES,
    NOTIFICATIONS,
    FOLLOWED,
)


def _told(row: UnreadableRow) -> Event:
    message = f"{row.kind} {row.name} could not be read back from the state and was set aside: {row.problem}"
    return Event(AppName(row.app), EventType.WARNING, Reason.ROW_UNREADABLE, message)


class _Aging(Protocol):
    def prune(self, before: float) -> None: ...


class _RolledBackError(Exception):
    """Ends the transaction of a dry run."""


class SqliteStore:
    """`controller.ports.Store`. Threads may share it, and it survives a fork."""

    requests: ports.Requests
    apps: ports.Apps
    events: ports.Events
    routes: ports.Routes
    gateways: ports.Gateways
    repositories: ports.Repositories
    branches: ports.Branches
    activity: ports.Activity
    boxes: ports.Boxes
    runs: ports.Runs
    webhooks: ports.Webhooks
    schedules: ports.Schedules
    gpus: ports.Gpus
    series: ports.Series
    history: ports.History
    previews: ports.Previews
    image_lists: ports.ImageLists
    secrets: ports.Secrets
    age_keys: ports.AgeKeyStore
    orders: ports.Orders
    templates: ports.Templates
    notifications: ports.Notifications
    images: ports.FollowedImages

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float],
        keep_events: int,
        queue: ports.QueueLimits | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._facts = FactTable(database)
        self._rows = rows = RowReader(database)
        self.events = events = EventLog(database, clock, keep_events)
        guest = database.guest
        self.requests = requests = (GuestRequests if guest else RequestQueue)(database, clock)
        self.apps = AppTable(database, rows, events)
        self._credentials = credentials = Credentials(database.path)
        self.routes = routes = RouteStore(database, rows, self._facts, credentials)
        self.gateways = gateways = GatewayTable(database)
        self.repositories = repositories = RepositoryTable(database, rows, credentials)
        self.branches = BranchTable(database)
        self.activity = activity = ActivityTable(database)
        self.boxes = boxes = BoxTable(database, clock)
        self.webhooks = webhooks = WebhookTable(database)
        self.runs = runs = (GuestRuns if guest else RunTable)(database, rows, webhooks)
        self.secrets = secrets = OwnedSecretTable(database, clock, requests, events, self.apps)
        self.age_keys = secrets.age_keys
        self.orders = orders = (GuestOrders if guest else OrderTable)(database, rows, clock)
        self.templates = TemplateTable(database, rows)
        self.notifications = NotificationTable(database, rows, NoticeTable(database), webhooks)
        self.images = ImageTable(database, rows)
        asked = (requests, runs, secrets, orders, routes, webhooks)
        self._intake = None if guest else Intake(database, clock, *asked, queue)
        self._untaken = False  # requests could not be taken in
        requests.take_in = runs.take_in = self._take_in
        self._handles: Callable[[], frozenset[str]] = lambda: routes.handles() | repositories.handles()
        self.schedules = schedules = ScheduleTable(database, rows)
        self.gpus = GpuTable(database, rows)
        self._open_beside(database)
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

    def _open_beside(self, database: Database) -> None:
        """Open what has a file of its own beside the state: it is large, or may be lost."""
        self.series = SeriesTable(database.path.with_name("series.db"))
        self.history = HistoryTable(database.path.with_name("history.db"))
        self.previews = PreviewTable(database, database.path.with_name("previews.db"))
        self.image_lists = ImageListTable(database, database.path.with_name("image_lists.db"))

    def changed(self) -> bool:
        """Return whether the state has changed. Requests of other processes are taken in before."""
        changed = self._database.changed()
        if changed or self._untaken:
            self._untaken = True
            if self._intake is not None:
                self._untaken = not self._intake.take_in_turn()
        return changed

    def commit_watch(self) -> ports.CommitWatch:
        return open_commit_watch((self._database.path, self._database.shared.path))

    def _take_in(self) -> None:
        if self._intake is not None:
            self._untaken = not self._intake.take()

    def transaction(self) -> AbstractContextManager[None]:
        return self._transaction()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Begin a transaction. Requests of other processes are taken in, and others cannot write meanwhile."""
        with self._database.write():
            self._take_in()
            yield

    @contextmanager
    def dry_run(self) -> Iterator[None]:
        try:
            with self._database.write():
                yield
                raise _RolledBackError
        except _RolledBackError:
            pass

    def heartbeat(self, now: float) -> None:
        self._facts.put("heartbeat", now)

    def last_heartbeat(self) -> float | None:
        return self._facts.get("heartbeat")

    def count_restart(self, part: str) -> None:
        self._facts.increase(f"{RESTARTS}{part}")

    def record_spans_dropped(self, counts: Mapping[str, int]) -> None:
        self._facts.replace(SPANS, {why: float(count) for why, count in counts.items()})

    def spans_dropped(self) -> Mapping[str, int]:
        return {why: int(count) for why, count in self._facts.starting_with(SPANS).items()}

    def record_usage(self, usage: Iterable[Usage]) -> None:
        values: dict[str, float] = {}
        for number, each in enumerate(usage):
            name = f"{each.app}:{number:04}:{each.resource}"
            values[f"{name}:used"] = each.used
            if each.bound is not None:
                values[f"{name}:bound"] = each.bound
        self._facts.replace(USES, values)

    def usage(self, app: AppName | None = None) -> tuple[Usage, ...]:
        found = self._facts.starting_with(USES if app is None else f"{USES}{app}:")
        prefix = "" if app is None else f"{app}:"
        usage = []
        for name in sorted(found):
            whose, _, resource, kind = f"{prefix}{name}".split(":")
            if kind == "used":
                bound = found.get(f"{name.removesuffix('used')}bound")
                usage.append(Usage(AppName(whose), resource, found[name], bound))
        return tuple(usage)

    def restarts(self) -> Mapping[str, int]:
        return {name: int(value) for name, value in self._facts.starting_with(RESTARTS).items()}

    def prune(self) -> None:
        now = self._clock()
        for table, age in self._aging:
            table.prune(before=now - age)
        with self._database.write():  # a value that is being written now is in no row yet
            self._credentials.keep(self._handles())

    def set_aside(self) -> int:
        self._database.check_shared()
        for text in self._database.shared.notices():
            self.events.add([Event(PLATFORM, EventType.WARNING, Reason.STATE_SET_ASIDE, text)])
        found = self._rows.set_aside(self._clock())
        for row in found:
            log.error("%s %s was set aside", row.kind, row.name)
        self.events.add(_told(row) for row in found if row.app)
        return len(found)

    def unreadable(self) -> tuple[UnreadableRow, ...]:
        """Return the rows that cannot be read back; reads all of them."""
        return tuple(row for kind in _KINDS for row in self._rows.unreadable(kind))

    def aside(self) -> tuple[AsideRow, ...]:
        """Return the rows that were set aside, newest first."""
        return self._rows.aside()

    def damage(self) -> tuple[str, ...]:
        """Return what SQLite finds wrong with the file; reads all of it."""
        return self._database.damage()

    def close(self) -> None:
        self._database.close()


def open_store(
    path: Path,
    *,
    clock: Callable[[], float] = time.time,
    keep_events: int = 1000,
    queue: ports.QueueLimits | None = None,
    distrust: float = 0.0,
) -> SqliteStore:
    """Open the state at `path` as its owner, the daemon. It is created if missing, and migrated if it is
    older than this program.

    `clock` gives Unix seconds for what is stamped in here; `keep_events` bounds the history of each app,
    `queue` the runs of each that are taken in. For `distrust` seconds the database of other processes is set
    aside and their requests are ignored. Stalled `StateTooNew`, `StateUnwritable`, `StateCorrupt`; Transient
    `StateBusy`, `StateDiskFull`, `StateIOError`."""
    database = Database(path)
    if distrust:
        database.shared.distrust(distrust)
    with prepare(path, database.shared) as connection:
        found = _require_known(connection, path)
        if found < VERSION:
            from controller.store.schema import migrate  # imported only now: see there

            migrate(connection)
    return SqliteStore(database, clock, keep_events, queue)


def open_guest_store(
    path: Path, *, clock: Callable[[], float] = time.time, keep_events: int = 1000
) -> SqliteStore:
    """Open the state for the web process and commands, which read it and write requests (`guest`). Raises
    errors as `open_store`, and Transient `StateMissing` if there is none, or the daemon has not migrated it
    yet.
    """
    if not path.exists() or not shared_path(path).exists():
        raise Transient(
            Reason.STATE_MISSING,
            f"there is no state at {path}: the platform has not run here yet; start it with: prichal up",
        )
    database = Database(path, guest=True)
    try:
        is_migrated = _is_migrated(database)
    except BaseException:
        database.close()
        raise
    if not is_migrated:
        database.close()
        message = f"the state at {path} is of an older version: start the daemon, which migrates it"
        raise Transient(Reason.STATE_MISSING, message)
    return SqliteStore(database, clock, keep_events)


def _is_migrated(database: Database) -> bool:
    """Return whether the daemon of this release has set the state up. SQLite removes the files of the log when the
    daemon closes the state, which makes them again at once (`leave_open`): that is waited for, without the lock that
    the next daemon needs. Raises Transient `StateMissing` if they do not come."""
    path, deadline = database.path, time.monotonic() + REOPENS
    while True:
        try:
            with unprepared(path), database.read() as connection:
                return _require_known(connection, path) == VERSION and inbox.is_complete(connection)
        except Stalled as error:
            cause = error.__cause__
            if not isinstance(cause, sqlite3.Error) or primary_code(cause) != sqlite3.SQLITE_CANTOPEN:
                raise
            if time.monotonic() > deadline:
                if has_logs(path):
                    raise
                message = (
                    f"the state at {path} was closed and cannot be read before the daemon runs: start it"
                )
                raise Transient(Reason.STATE_MISSING, message) from error
        time.sleep(_AGAIN)


def _require_known(connection: sqlite3.Connection, path: Path) -> int:
    found: int = connection.execute("PRAGMA main.user_version").fetchone()[0]
    if found > VERSION:
        raise Stalled(
            Reason.STATE_TOO_NEW,
            f"the state at {path} has schema {found}, but this prichal knows {VERSION}: it was written by a newer "
            "version. Install that version again, or move the state away to start with an empty one",
        )
    return found
