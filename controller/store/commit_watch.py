"""Wakes threads and event loops when a process has committed to a database and has announced that
(`database_files.announce`).
"""

from __future__ import annotations

import errno
import logging
import os
import select
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from controller.domain.pace import FIRST_PAUSE, LONGEST_PAUSE, next_pause

if TYPE_CHECKING:
    from controller.inotify import FolderEvents
    from controller.ports import CommitWatch

log = logging.getLogger(__name__)

_WATCH_AGAIN = 1.0  # seconds after which it is checked that the watched folders are those at the paths


def open_commit_watch(paths: Sequence[Path]) -> CommitWatch:
    """Return a watch for commits to the databases at `paths`. Without inotify it wakes a hundred times a second."""
    from controller.inotify import FolderEvents  # it imports ctypes, and most commands wait for nothing

    try:
        return InotifyCommitWatch(FolderEvents([path.parent for path in paths]))
    except OSError as error:
        known = error.errno == errno.ENOSYS  # such as another system than Linux, for `prichal run-local`
        log.log(
            logging.INFO if known else logging.WARNING,
            "changes of %s are polled, which takes some of a processor all the time: inotify cannot be used (%s). If a "
            "limit was reached, raise fs.inotify.max_user_instances or fs.inotify.max_user_watches by sysctl, and "
            "start this process again",
            " and ".join(map(str, paths)),
            error.strerror,
        )
        return PollingCommitWatch()


class InotifyCommitWatch:
    """`controller.ports.CommitWatch`."""

    def __init__(self, events: FolderEvents) -> None:
        """Closes the events, now if this fails. Raises OSError."""
        self._events = events
        try:
            self._woken = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except BaseException:
            self._events.close()
            raise
        self._poll = select.poll()
        for descriptor in (self._events.fileno(), self._woken):
            self._poll.register(descriptor, select.POLLIN)
        self._pause = FIRST_PAUSE
        self._watch_again_at = 0.0
        self._closing = threading.Lock()
        self._closed = False

    def fileno(self) -> int:
        return self._events.fileno()

    def wait(self, seconds: float) -> None:
        time.sleep(self._pause)
        begun = time.monotonic()
        is_woken = self._poll.poll(1000 * seconds)
        self._pause = next_pause(self._pause, time.monotonic() - begun) if is_woken else 0.0
        self.clear()

    def clear(self) -> None:
        self._events.clear()
        with suppress(BlockingIOError):
            os.eventfd_read(self._woken)
        now = time.monotonic()
        if now >= self._watch_again_at:
            self._watch_again_at = now + _WATCH_AGAIN
            with suppress(OSError):  # then changes are seen by who looks now and then
                self._events.watch_again()

    def wake(self) -> None:
        with self._closing:
            if not self._closed:
                os.eventfd_write(self._woken, 1)

    def close(self) -> None:
        with self._closing:
            if not self._closed:
                self._closed = True
                self._events.close()
                os.close(self._woken)


class PollingCommitWatch:
    """`controller.ports.CommitWatch` where there is no inotify: wakes without a reason, again and again."""

    def __init__(self) -> None:
        self._woken = threading.Event()

    def fileno(self) -> None:
        return None

    def wait(self, seconds: float) -> None:
        self._woken.wait(min(seconds, LONGEST_PAUSE))
        self._woken.clear()

    def clear(self) -> None:
        self._woken.clear()

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        pass
