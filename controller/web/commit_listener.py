"""Calls a function on the event loop of a worker when a database may have changed: after a commit, and now and then
besides, so that a commit which has woken nobody is noticed, too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from controller.domain.pace import FIRST_PAUSE, LONGEST_PAUSE, next_pause
from controller.guards import report
from controller.ports import CommitWatch

LONGEST = 0.5  # seconds between two looks if nothing is committed


class CommitListener:
    """Closes the watch at its end. `look` returns the least number of seconds until it is called again, which is 0
    unless it has failed. `longest` is the greatest number of seconds."""

    def __init__(self, watch: CommitWatch, look: Callable[[], float], longest: float = LONGEST) -> None:
        self._watch = watch
        self._look = look
        self._descriptor = watch.fileno()
        self._longest = LONGEST_PAUSE if self._descriptor is None else longest
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._pause = FIRST_PAUSE
        self._listens_since = 0.0
        self._closed = False

    def start(self) -> None:
        """Look now, and whenever something may have changed."""
        if self._closed:
            return
        self._watch.clear()
        pause = 0.0
        try:
            pause = self._look()
        except Exception as error:  # noqa: BLE001 - a bug in one look must not end the others
            report("changes of a database are not followed", error)
            pause = LONGEST
        if not self._closed:  # the look may have closed it
            self._timer = self._loop.call_later(max(self._pause, pause), self._listen)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
        self._watch.close()

    def _listen(self) -> None:
        self._listens_since = self._loop.time()
        if self._descriptor is not None:
            self._loop.add_reader(self._descriptor, self._wake)
        self._timer = self._loop.call_later(self._longest, self._wake)

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._descriptor is not None:
            # Nothing is read before the pause after the look is over.
            self._loop.remove_reader(self._descriptor)
        self._pause = next_pause(self._pause, self._loop.time() - self._listens_since)
        self.start()
