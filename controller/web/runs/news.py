"""Tells whoever follows a run that there is news: the run was changed, or a log has grown. One look for all of them,
however many there are: one question to the store, one `stat` a log. On the event loop; used by `live`.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from pathlib import Path

from controller.domain.errors import ControllerError
from controller.domain.names import AppName
from controller.domain.runs import Run
from controller.ports import Store
from controller.web.gateway.watch import RouteWatch
from controller.web.runs.logs import file_size

log = logging.getLogger(__name__)

LOOK = 0.1  # seconds between two looks at logs; a change in the store is seen within a tenth of that
REMEMBERED = 256  # runs that need not be decoded again for each follower


@dataclass(eq=False)
class _Waiter:
    """What it has seen, and the future that ends its wait."""

    id: str
    version: int
    tail: Path | None
    size: int
    news: asyncio.Future[bool] = field(repr=False)

    def settle(self, news: bool) -> None:
        if not self.news.done():
            self.news.set_result(news)


class RunNews:
    def __init__(self, store: Store, watch: RouteWatch) -> None:
        self._store = store
        self._watch = watch
        self._loop = asyncio.get_running_loop()
        self._waiters: set[_Waiter] = set()
        self._looking: asyncio.Task[None] | None = None
        self._known: dict[str, Run] = {}

    @property
    def stopping(self) -> bool:
        return self._watch.stopping

    def run(self, app: AppName, id: str) -> Run | None:
        """As it is now."""
        version = self._store.runs.versions([id]).get(id)
        known = self._known.get(id)
        if known is not None and (known.app, known.version) == (app, version):
            return known
        found = self._store.runs.get(app, id)
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        if found is not None:
            self._known[id] = found
        return found

    async def wait(self, run: Run, timeout: float, tail: Path | None = None, size: int = 0) -> bool:
        """Until the run is not this version any more, the file `tail` has another size than `size`, or the worker
        stops. False after `timeout` seconds without news."""
        waiter = _Waiter(run.id, run.version, tail, size, self._loop.create_future())
        timer = self._loop.call_later(timeout, waiter.settle, False)
        self._waiters.add(waiter)
        if self._looking is None:
            self._looking = self._loop.create_task(self._look_on())
        try:
            return await waiter.news
        finally:
            timer.cancel()
            self._waiters.discard(waiter)

    async def _look_on(self) -> None:
        """As long as anybody waits."""
        try:
            while self._waiters and not self._watch.stopping:
                self._look()
                await self._watch.wait(LOOK)
        finally:
            self._looking = None
            for waiter in self._waiters:
                waiter.settle(True)

    def _look(self) -> None:
        try:
            versions = self._store.runs.versions({waiter.id for waiter in self._waiters})
        except ControllerError as error:
            log.warning("followers of runs get no news: %s", error)
            return
        sizes: dict[Path, int] = {}
        for waiter in self._waiters:
            if waiter.tail is not None and waiter.tail not in sizes:
                sizes[waiter.tail] = _size_of(waiter.tail)
            grown = waiter.tail is not None and sizes[waiter.tail] != waiter.size
            if grown or versions.get(waiter.id) != waiter.version:
                waiter.settle(True)


def _size_of(path: Path) -> int:
    """Of a file that cannot be looked at, one that it never had: whoever reads it is told why."""
    try:
        return file_size(path)
    except OSError:
        return -1
