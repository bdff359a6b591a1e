"""Calls that wait in a gateway worker for a component: one that hibernates is started for them, one whose
containers died is started again by the daemon. Reports to the daemon which components are called. Used by the
gateway and its forwarder, on the event loop; writes go through a thread.

The daemon stops and starts components. A waiting caller counts as a call, so that nothing hibernates while
they wait; if they disconnect, the server cancels the wait, and their place is free."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from controller.domain.apps.requests import Trigger
from controller.domain.errors import ControllerError
from controller.domain.localizable import Localizable
from controller.domain.names import AppName, ComponentName
from controller.domain.routing.routes import Route
from controller.ports import Store
from controller.store.request_metrics import RequestMetrics, WaitReason
from controller.web.gateway.pool import ConnectionPool
from controller.web.gateway.probe import takes_calls
from controller.web.gateway.router import UpstreamTarget
from controller.web.gateway.watch import RouteWatch
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

log = logging.getLogger(__name__)

WAITING = 200  # calls in one worker that may wait for components
WAITING_EACH = 100  # of them of one app
RETRY_AFTER = 5  # seconds, for callers who waited in vain
LOOK = 0.05  # seconds between two looks whether a container takes calls again at its old address

Key = tuple[AppName, ComponentName]


@dataclass(slots=True)
class Healing:
    """What all calls of one component wait for: `done` ends when it takes calls again."""

    done: asyncio.Task[None]
    calls: int = 0


class Activator:
    def __init__(self, store: Store, watch: RouteWatch, pool: ConnectionPool, meter: RequestMetrics) -> None:
        self._store = store
        self._watch = watch
        self._pool = pool
        self._meter = meter
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gateway-activator")
        self._called: set[Key] = set()  # since the last report
        self._waiting: Counter[Key] = Counter()  # calls, whatever they wait for
        self._asked: dict[Key, tuple[asyncio.Future[None], int]] = {}  # of components that calls wake up
        self._healing: dict[Key, Healing] = {}

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

    # --- components that are asleep ------------------------------------------------------------------------------

    async def wake(self, target: UpstreamTarget) -> None:
        """Return when the target no longer hibernates, or is gone. Raises RequestRefused if it took too long,
        or too many wait."""
        key = _key(target)
        if target.route.stalled:
            raise RequestRefused(_stalled(target))
        with self._place(target, WaitReason.ASLEEP):
            asked, calls = self._asked.get(key) or (
                self._loop.run_in_executor(self._thread, self._ask, key),
                0,
            )
            self._asked[key] = (asked, calls + 1)  # one pass starts it for all
            try:
                await asyncio.shield(asked)  # the caller who asked may leave, the others stay
                await self._until_awake(target)
            finally:
                asked, calls = self._asked[key]
                if calls > 1:
                    self._asked[key] = (asked, calls - 1)
                else:
                    del self._asked[key]

    async def _until_awake(self, target: UpstreamTarget) -> None:
        deadline = self._loop.time() + target.route.wake_within
        while (now := self._watch.resolve(target)) is not None and now.route.asleep:
            left = deadline - self._loop.time()
            if left <= 0:
                raise RequestRefused(_wake_timed_out(target))
            if now.route.stalled:
                raise RequestRefused(_stalled(now))
            await self._watch.wait(left)

    # --- components that heal ------------------------------------------------------------------------------------

    def is_healing(self, target: UpstreamTarget) -> bool:
        """Return True if calls wait for the target, so that another one need not try."""
        healing = self._healing.get(_key(target)) if self._healing else None
        return healing is not None and not healing.done.done()

    async def heal(self, target: UpstreamTarget, deadline: float, why: str) -> None:
        """Return when the target takes calls again, or nobody may wait for it any more. `deadline` is of the loop's
        time; `why`: what happened to the call. Raises RequestRefused if it took too long, too many wait, or
        nothing is repaired."""
        key, route = _key(target), target.route
        if route.stalled:
            raise RequestRefused(_stalled(target))
        with self._place(target, WaitReason.HEALING):
            healing = self._healing.get(key)
            if healing is None or healing.done.done():
                healing = self._healing[key] = Healing(self._loop.create_task(self._until_healed(target)))
            healing.calls += 1
            try:
                async with asyncio.timeout_at(deadline):
                    await asyncio.shield(healing.done)
            except TimeoutError:
                raise RequestRefused(_not_healed(target, why)) from None
            finally:
                healing.calls -= 1
                if not healing.calls:
                    healing.done.cancel()
                    if self._healing.get(key) is healing:
                        del self._healing[key]

    async def _until_healed(self, target: UpstreamTarget) -> None:
        """The daemon says by the table where containers run; one that was restarted by hand comes back at the old
        address."""
        looks: dict[str, asyncio.Task[None]] = {}
        try:
            while (now := self._watch.resolve(target)) is not None and _heals(now.route):
                for gone in looks.keys() - set(now.route.upstreams):
                    looks.pop(gone).cancel()
                for new in set(now.route.upstreams) - looks.keys():
                    looks[new] = self._loop.create_task(self._until_ready(new, now.route.ready_path))
                if await self._first_of(looks, now.route.patience):
                    return
        finally:
            for look in looks.values():
                look.cancel()

    async def _first_of(self, looks: dict[str, asyncio.Task[None]], timeout: float) -> bool:
        """Return True once one of the containers takes calls, False when the table may have changed."""
        changed = self._loop.create_task(self._watch.wait(timeout))
        try:
            await asyncio.wait({changed, *looks.values()}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
        return any(look.done() for look in looks.values())

    async def _until_ready(self, endpoint: str, path: str) -> None:
        while not await takes_calls(self._pool, endpoint, path):
            await asyncio.sleep(LOOK)

    # --- places --------------------------------------------------------------------------------------------------

    @contextmanager
    def _place(self, target: UpstreamTarget, why: WaitReason) -> Iterator[None]:
        """Take the place of a waiting call until the end of the block. Raises RequestRefused if there is none."""
        key = _key(target)
        of_app = sum(number for (app, _), number in self._waiting.items() if app == key[0])
        if self._waiting.total() >= WAITING or of_app >= WAITING_EACH:
            number, whose = (
                (of_app, Localizable("of app {key} ", key=key[0]))
                if of_app >= WAITING_EACH
                else (WAITING, "")
            )
            detail = Localizable(
                "In this gateway worker {number} calls {whose}wait for components that are asleep or heal.",
                number=number,
                whose=whose,
            )
            raise RequestRefused(HttpProblem(ProblemKind.OVERLOADED, detail, retry_after=RETRY_AFTER))
        self._waiting[key] += 1
        self._meter.wait_begins(target.label, why)
        try:
            yield
        finally:
            self._meter.wait_ends(target.label, why)
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]

    def _in_use(self) -> frozenset[Key]:
        """Return components with calls in progress, since a call may take longer than the idle time."""
        busy = self._pool.busy
        routes = {t.route for t in self._watch.table.targets.values()} if busy or self._waiting else set()
        hibernating = {(r.app, r.component): r for r in routes if r.wake_within}
        working = {key for key, route in hibernating.items() if not busy.isdisjoint(route.upstreams)}
        return frozenset(self._called | (self._waiting.keys() & hibernating.keys()) | working)

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
                HttpProblem(ProblemKind.STORE_BUSY, Localizable("Try again in a moment."), retry_after=2)
            ) from error


def _key(target: UpstreamTarget) -> Key:
    return target.route.app, target.route.component


def _heals(route: Route) -> bool:
    return not (route.asleep or route.stalled)


def _wake_timed_out(target: UpstreamTarget) -> HttpProblem:
    return _not_ready(
        target.route,
        Localizable(
            "was asleep and did not wake up within {wake_within} s",
            wake_within=format(target.route.wake_within, "g"),
        ),
    )


def _not_healed(target: UpstreamTarget, why: str) -> HttpProblem:
    return _not_ready(
        target.route,
        Localizable(
            "did not take calls again within {patience} s: {why}",
            patience=format(target.route.patience, "g"),
            why=why,
        ),
    )


def _stalled(target: UpstreamTarget) -> HttpProblem:
    return _not_ready(target.route, Localizable("takes no calls: {stalled}", stalled=target.route.stalled))


def _not_ready(route: Route, what: str) -> HttpProblem:
    detail = Localizable(
        "Component {component} of app {app} {what}.", component=route.component, app=route.app, what=what
    )
    extra = {"app": str(route.app), "component": str(route.component)}
    return HttpProblem(ProblemKind.NOT_READY, detail, retry_after=RETRY_AFTER, extra=extra)
