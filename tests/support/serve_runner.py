"""`python -m tests.support.serve_runner STATE INSTANCE [CALL]`: runs of pipelines driven as in the daemon, on the real
engine, until SIGTERM. With CALL the process kills itself right before its CALL-th call that changes anything.

There is no storage here: a process of its own would have to be killed and found again, too.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from controller.adapters.clock import SystemClock
from controller.adapters.docker import DockerJobs
from controller.adapters.models import ModelCache
from controller.adapters.no_storage import NoStorage
from controller.adapters.staging import StagingFolders
from controller.config import DockerSettings, Settings
from controller.config.settings import RunSettings
from controller.domain.names import AppName
from controller.ports import Jobs, Storage, Store
from controller.runner.deps import RunnerDeps
from controller.runner.runner import Runner
from controller.store import open_store

LOOKS = frozenset(
    {
        "active",
        "get",
        "pipeline",
        "unfinished",
        "unfinished_of",
        "expired",
        "find",
        "all",
        "wait",
        "logs",
        "claim",
        "close",
    }
)


def settings_of(state: Path, instance: str, **runs: Any) -> Settings:
    return Settings(state=state, instance=instance, runs=RunSettings(min_free=0, **runs))


def deps_of(settings: Settings, store: Store, jobs: Jobs, storage: Storage) -> RunnerDeps:
    return RunnerDeps(
        store=store,
        jobs=jobs,
        storage=storage,
        models=ModelCache(settings.models, storage, 10**9),
        clock=SystemClock(),
        settings=settings,
        secret=lambda app, name, revision: None,
        pull=_pull,
    )


def _pull(app: AppName, reference: str) -> None:
    raise AssertionError(f"{reference} is not on this host")


class Crashing:
    """Passes calls on until the process is to die."""

    def __init__(self, inner: Any, left: list[int]) -> None:
        self._inner, self._left = inner, left

    def __getattr__(self, name: str) -> Any:
        if name not in LOOKS:
            self._left[0] -= 1
            if self._left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return getattr(self._inner, name)


class CrashingStore:
    def __init__(self, store: Any, left: list[int]) -> None:
        self.runs = Crashing(store.runs, left)
        self.boxes, self.transaction = store.boxes, store.transaction
        self.changed, self.commit_watch = store.changed, store.commit_watch


def main(state: Path, instance: str, call: int) -> None:
    settings = settings_of(state, instance)
    deps = deps_of(
        settings,
        open_store(settings.database),
        DockerJobs(DockerSettings(), instance, StagingFolders.of(settings)),
        NoStorage(),
    )
    if call:
        left = [call]
        world: dict[str, Any] = {"store": CrashingStore(deps.store, left), "jobs": Crashing(deps.jobs, left)}
        deps = replace(deps, **world)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    Runner(deps).run(stop)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0)
