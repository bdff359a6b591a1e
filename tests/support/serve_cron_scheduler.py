"""`python -m tests.support.serve_cron_scheduler DATABASE [CALL]`: runs are started by the clock as in the daemon, until
SIGTERM. With CALL the process kills itself right before its CALL-th call that changes anything, commits included.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from controller.adapters.clock import SystemClock
from controller.adapters.cron import CronTicks
from controller.runner.cron_scheduler import CronScheduler
from controller.store import open_store
from tests.support.serve_runner import Crashing


class CrashingStore:
    def __init__(self, store: Any, call: int) -> None:
        left = [call]
        self.runs, self.schedules, self.apps = (
            Crashing(store.runs, left),
            Crashing(store.schedules, left),
            store.apps,
        )
        self._commits, self._transaction = Crashing(self, left), store.transaction

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._transaction():
            yield
            self._commits.commit()

    def commit(self) -> None:
        """What comes after it is the real one."""


def main(database: Path, call: int) -> None:
    store: Any = open_store(database)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    if call:
        store = CrashingStore(store, call)
    CronScheduler(store, SystemClock(), CronTicks()).run(stop)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
