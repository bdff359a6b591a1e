"""Keeps a worker's route table equal to the store's, and reports to the daemon the loaded version and the
retired endpoints that still have calls in progress. Runs on the worker's event loop; only its reports, which
write, go to a thread, since a write may have to wait for another process.

It also notifies everything that waits for a change (`wait`), so that one wake-up serves all long polls and event
streams."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from controller.domain.apps.usage import TakenShare
from controller.domain.errors import ControllerError
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.routing.routes import Route, Service
from controller.guards import GuardedStep, report
from controller.ports import Store
from controller.web.commit_listener import CommitListener
from controller.web.gateway.pool import ConnectionPool
from controller.web.gateway.router import EMPTY_TABLE, Router, UpstreamTarget

log = logging.getLogger(__name__)

HEARTBEAT = 1.0
RETRY = 0.2  # seconds after which a table that could not be loaded is asked for again
PASSING = (
    Reason.STATE_BUSY,
    Reason.STATE_SET_ASIDE,
    Reason.STATE_UNWRITABLE,
)  # reasons that may be temporary
START_TIMEOUT = 60.0  # seconds that such failures may last at the start


class RouteWatch:
    def __init__(
        self,
        store: Store,
        pool: ConnectionPool,
        taken: Callable[[], tuple[TakenShare, ...]] = tuple,
        loaded: Callable[[Router], object] = lambda table: None,
    ) -> None:
        """`taken` returns what apps take of the worker's shares; `loaded` is called with each new table."""
        self.table: Router = EMPTY_TABLE
        self.worker = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._store = store
        self._pool = pool
        self._taken = taken
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gateway-report")
        self._waiters: set[asyncio.Future[None]] = set()
        self._reporting: asyncio.Future[None] | None = None
        self._report_again = False
        self._failing = False  # said once
        self._stale = False  # a change was seen, but could not be followed
        self._unheard = False
        self._stopping = False  # waits end, calls go on
        self._left = False
        self._listener: CommitListener | None = None
        self._sweep = GuardedStep(
            "connections are not closed", lambda: pool.sweep(self.table.endpoints, self._loop.time())
        )
        self._loaded = GuardedStep("WebSockets do not follow the route table", loaded)
        self._report_step = GuardedStep("the daemon is not told what this worker has loaded", self._report)

    async def start(self) -> None:
        """Return once the table is loaded and reported. Wait for temporary failures, for example while the
        daemon sets a damaged file aside, because a worker that cannot start ends the whole process."""
        deadline = self._loop.time() + START_TIMEOUT
        while not await self._has_begun(deadline):
            await asyncio.sleep(RETRY)
        self._listener = CommitListener(self._store.commit_watch(), self._check)
        self._listener.start()
        self._send_heartbeat()

    async def _has_begun(self, deadline: float) -> bool:
        try:
            self._store.changed()
            self._load()
            await self._loop.run_in_executor(
                self._thread, self._write_report, self.table.version, frozenset[str]()
            )
        except ControllerError as error:
            if error.reason not in PASSING or self._loop.time() > deadline:
                raise
            log.warning("the gateway cannot begin yet: %s", error)
            return False
        return True

    async def stop(self) -> None:
        self._left = True
        if self._listener is not None:
            self._listener.close()
        self.end_waits()
        if self._reporting is not None:
            await asyncio.wait([self._reporting])
        await self._loop.run_in_executor(self._thread, self._leave)
        self._thread.shutdown(wait=False)

    def resolve(self, target: UpstreamTarget) -> UpstreamTarget | None:
        """Return the target in the current table."""
        return self.table.targets.get(target.key)

    def went_idle(self, endpoint: str) -> None:
        """Report, if the endpoint is retired, that its last call has ended."""
        if endpoint not in self.table.endpoints:
            self._report()

    @property
    def stopping(self) -> bool:
        return self._stopping

    async def wait(self, timeout: float) -> None:
        """Wait until the store changes, the worker stops, or `timeout` seconds have passed."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        timer = self._loop.call_later(timeout, _wake, waiter)
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiters.discard(waiter)

    def end_waits(self) -> None:
        """End all waits, because the worker stops: long polls answer now, streams end."""
        self._stopping = True
        self._wake()

    # --- on the event loop -------------------------------------------------------------------------------------

    def _check(self) -> float:
        """Follow a change. Return the least number of seconds until the next check."""
        try:
            if self._store.changed() or self._stale:
                if self._store.routes.version() != self.table.version:
                    self._load()
                    self._report()
                self._wake()
            self._failing = self._stale = False
        except Exception as error:  # noqa: BLE001 - reported, and tried again
            if not self._failing:  # the loaded routes stay in use
                report("the route table cannot be refreshed", error)
            self._failing = self._stale = True
        return RETRY if self._failing else 0.0

    def _load(self) -> None:
        # Read the version first: routes that are newer than the reported version do no harm, older ones would.
        version = self._store.routes.version()
        routes, services = self._store.routes.all(), self._store.routes.services()
        try:
            table = Router.build(version, routes, services)
        except Exception as error:  # noqa: BLE001 - what one app publishes must not keep the others from being served
            report("the route table cannot be built", error)
            sound = [r for r in routes if _is_sound(r.app, routes=(r,))]
            table = Router.build(version, sound, [s for s in services if _is_sound(s.app, services=(s,))])
        self.table = table
        self._pool.sweep(table.endpoints, self._loop.time())
        self._loaded(table)
        apis = len(table.targets) + len(table.services)
        log.info("route table loaded", extra={"version": version, "apis": apis})

    def _send_heartbeat(self) -> None:
        if self._left:
            return  # what stops after this may take longer than a heartbeat
        self._sweep()
        self._report_step()
        self._loop.call_later(HEARTBEAT, self._send_heartbeat)

    def _wake(self) -> None:
        for waiter in self._waiters:
            _wake(waiter)

    def _report(self) -> None:
        """Send one report after another; changes during one are in the next. A worker that has left sends none."""
        if self._left:
            return
        if self._reporting is not None:
            self._report_again = True
            return
        busy = self._pool.busy - self.table.endpoints
        self._reporting = self._loop.run_in_executor(
            self._thread, self._write_report, self.table.version, busy, self._taken()
        )
        self._reporting.add_done_callback(self._reported)

    def _reported(self, report: asyncio.Future[None]) -> None:
        self._reporting = None
        error = report.exception()
        if error and not self._unheard:
            log.warning("the daemon cannot be told what this worker has loaded: %s", error)
        self._unheard = error is not None
        if self._report_again and not self._left:
            self._report_again = False
            self._report()

    # --- in the report thread ----------------------------------------------------------------------------------

    def _write_report(self, version: int, busy: frozenset[str], taken: tuple[TakenShare, ...] = ()) -> None:
        self._store.gateways.report(self.worker, version, busy, time.time(), taken)

    def _leave(self) -> None:
        try:
            self._store.gateways.leave(self.worker)
        except ControllerError as error:
            log.warning("the daemon cannot be told that this worker ends: %s", error)


def _is_sound(app: AppName, routes: Iterable[Route] = (), services: Iterable[Service] = ()) -> bool:
    try:
        Router.build(0, routes, services)
    except Exception as error:  # noqa: BLE001 - see where it is called
        report(f"app {app} is not served completely", error)
        return False
    return True


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
