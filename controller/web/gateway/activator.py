"""Hibernating components in a gateway worker: it reports calls to the daemon, and a call to a hibernating
component requests its start and waits. Used by the gateway and its forwarder, on the event loop; writes go
through a thread.

The daemon stops and starts components. A waiting caller counts as a call, so that nothing hibernates while
they wait; if they disconnect, the server cancels the wait."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from controller.domain.apps.requests import Trigger
from controller.domain.errors import ControllerError
from controller.domain.names import AppName, ComponentName
from controller.ports import Store
from controller.web.gateway.pool import ConnectionPool
from controller.web.gateway.router import UpstreamTarget
from controller.web.gateway.watch import RouteWatch
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

log = logging.getLogger(__name__)

WAITING = 200  # calls in one worker that may wait for hibernating components
RETRY_AFTER = 5  # seconds, for callers who waited in vain

Key = tuple[AppName, ComponentName]


class Activator:
    def __init__(self, store: Store, watch: RouteWatch, pool: ConnectionPool) -> None:
        self._store = store
        self._watch = watch
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gateway-activator")
        self._called: set[Key] = set()  # since the last report
        self._waiting: Counter[Key] = Counter()
        self._asked: dict[Key, asyncio.Future[None]] = {}  # of components that calls wait for

    async def stop(self) -> None:
        """Stop, after reporting the last calls."""
        await self._loop.run_in_executor(self._thread, self._touch, self._in_use())
        self._thread.shutdown(wait=False)

    def called(self, target: UpstreamTarget) -> None:
        """Record the call; it is reported with the next heartbeat, because this is the hot path."""
        if target.route.wake_within:
            self._called.add(_key(target))

    def report(self) -> None:
        """Report components that were called since the last time, have calls in progress, or have waiting callers."""
        in_use = self._in_use()
        self._called.clear()
        if in_use:
            self._loop.run_in_executor(self._thread, self._touch, in_use)

    async def wake(self, target: UpstreamTarget) -> None:
        """Return when the target no longer hibernates, or is gone. Raises RequestRefused if it took too long,
        or too many wait."""
        if self._waiting.total() >= WAITING:
            detail = f"In this gateway worker {WAITING} calls wait for components that are asleep."
            raise RequestRefused(HttpProblem(ProblemKind.OVERLOADED, detail, retry_after=RETRY_AFTER))
        key = _key(target)
        if key not in self._asked:  # one pass starts it for all
            self._asked[key] = self._loop.run_in_executor(self._thread, self._ask, key)
        self._waiting[key] += 1
        try:
            await asyncio.shield(self._asked[key])  # the caller who asked may leave, the others stay
            await self._until_awake(target)
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key], self._asked[key]

    async def _until_awake(self, target: UpstreamTarget) -> None:
        deadline = self._loop.time() + target.route.wake_within
        while (now := self._watch.resolve(target)) is not None and now.route.asleep:
            left = deadline - self._loop.time()
            if left <= 0:
                raise RequestRefused(_wake_timed_out(target))
            await self._watch.wait(left)

    def _in_use(self) -> frozenset[Key]:
        """Return components with calls in progress, since a call may take longer than the idle time."""
        busy = self._pool.busy
        routes = {target.route for target in self._watch.table.targets.values()} if busy else set()
        working = {(r.app, r.component) for r in routes if r.wake_within and not busy.isdisjoint(r.upstreams)}
        return frozenset(self._called | self._waiting.keys() | working)

    # --- in the thread -----------------------------------------------------------------------------------------

    def _touch(self, used: frozenset[Key]) -> None:
        try:
            self._store.activity.touch(sorted(used), time.time())
        except ControllerError as error:
            log.warning("the daemon cannot be told which components are in use: %s", error)

    def _ask(self, key: Key) -> None:
        """Record the call and request a pass, both or none: a pass that does not know of the call would not
        start the component."""
        try:
            with self._store.transaction():
                self._store.activity.touch([key], time.time())
                self._store.requests.enqueue(key[0], Trigger.WAKE)
        except ControllerError as error:
            log.warning("the daemon cannot be asked to wake up %s of %s: %s", key[1], key[0], error)
            raise RequestRefused(
                HttpProblem(ProblemKind.STORE_BUSY, "Try again in a moment.", retry_after=2)
            ) from error


def _key(target: UpstreamTarget) -> Key:
    return target.route.app, target.route.component


def _wake_timed_out(target: UpstreamTarget) -> HttpProblem:
    route = target.route
    detail = (
        f"Component {route.component} of app {route.app} was asleep and did not wake up within "
        f"{route.wake_within:g} s."
    )
    extra = {"app": str(route.app), "component": str(route.component)}
    return HttpProblem(ProblemKind.NOT_READY, detail, retry_after=RETRY_AFTER, extra=extra)
