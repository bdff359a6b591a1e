"""Notifies followers of a run when it was changed, or a log has grown. One poll serves all followers: one query to
the store, one `stat` a log. On the event loop; used by `live`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from controller.domain.names import AppName
from controller.domain.runs.run import Run
from controller.guards import GuardedStep
from controller.ports import Store
from controller.web.api.runs.logs import file_size
from controller.web.gateway.watch import RouteWatch

LOOK = 0.1  # seconds between two looks at logs; a change in the store is seen within a tenth of that
REMEMBERED = 256  # runs that need not be decoded again for each follower


@dataclass(eq=False)
class _Waiter:
    """The state that a follower has seen, and the future that ends its wait."""

    id: str
    version: int
    tail: Path | None
    size: int
    news: asyncio.Future[bool] = field(repr=False)

    def notify(self, news: bool) -> None:
        if not self.news.done():
            self.news.set_result(news)


class RunWatcher:
    def __init__(self, store: Store, watch: RouteWatch) -> None:
        self._store = store
        self._watch = watch
        self._loop = asyncio.get_running_loop()
        self._waiters: set[_Waiter] = set()
        self._looking: asyncio.Task[None] | None = None
        self._known: dict[str, Run] = {}
        self._step = GuardedStep("followers of runs get no news", self._check)

    @property
    def stopping(self) -> bool:
        return self._watch.stopping

    def run(self, app: AppName, id: str) -> Run | None:
        """Return the run as it is now, in brief: followers need no inputs, which may be large."""
        version = self._store.runs.versions([id]).get(id)
        known = self._known.get(id)
        if known is not None and (known.app, known.version) == (app, version):
            return known
        found = self._store.runs.brief(app, id)
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        if found is not None:
            self._known[id] = found
        return found

    async def wait(self, run: Run, timeout: float, tail: Path | None = None, size: int = 0) -> bool:
        """Wait until the run has another version, the file `tail` has another size than `size`, or the worker
        stops. Return False after `timeout` seconds without a change."""
        waiter = _Waiter(run.id, run.version, tail, size, self._loop.create_future())
        timer = self._loop.call_later(timeout, waiter.notify, False)
        self._waiters.add(waiter)
        if self._looking is None:
            self._looking = self._loop.create_task(self._poll())
        try:
            return await waiter.news
        finally:
            timer.cancel()
            self._waiters.discard(waiter)

    async def _poll(self) -> None:
        """Poll as long as there are waiters."""
        try:
            while self._waiters and not self._watch.stopping:
                self._step()
                await self._watch.wait(LOOK)
        finally:
            self._looking = None
            for waiter in self._waiters:
                waiter.notify(True)

    def _check(self) -> None:
        versions = self._store.runs.versions({waiter.id for waiter in self._waiters})
        sizes: dict[Path, int] = {}
        for waiter in self._waiters:
            if waiter.tail is not None and waiter.tail not in sizes:
                sizes[waiter.tail] = _size_of(waiter.tail)
            grown = waiter.tail is not None and sizes[waiter.tail] != waiter.size
            if grown or versions.get(waiter.id) != waiter.version:
                waiter.notify(True)


def _size_of(path: Path) -> int:
    """Return the size of a file; for an unreadable file a size that it never had, so that its reader gets the
    error."""
    try:
        return file_size(path)
    except OSError:
        return -1
