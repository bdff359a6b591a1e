"""Runs on a real engine: the runner in a thread of the test or in a process of its own, storage in memory."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import docker

from controller.adapters.docker import DockerJobs
from controller.adapters.staging import StagingFolders
from controller.config import DockerSettings
from controller.domain.apps.spec import Resources
from controller.domain.names import AppName, ComponentName
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import Run, RunState, cancel, new_run, new_run_id
from controller.domain.storage.box import BoxRecord
from controller.domain.storage.keys import user_area
from controller.ports import JobState, ObservedJob
from controller.runner.runner import Runner
from tests.support.engines import BASE_IMAGE, MEBIBYTE
from tests.support.fake_objects import FakeStorage
from tests.support.serve_runner import deps_of, settings_of
from tests.support.specs import make
from tests.support.stores import open_store
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[3]
APP = AppName("demo")
BOX = ComponentName("userdata")
BUCKET = "prichal.demo.userdata"


def python(name: str, code: str, **rest: Any) -> Stage:
    known = {"image": BASE_IMAGE, "resources": make(Resources, cpus=1, memory=64 * MEBIBYTE, pids=32)}
    return make(Stage, name, command=("python3", "-uc", code), **{**known, **rest})


def pipeline(*stages: Stage, **rest: Any) -> Pipeline:
    known = {"boxes": (BOX,), "concurrency": 100}
    return make(Pipeline, APP, ComponentName("train"), "c0ffee", stages, **{**known, **rest})


class World:
    def __init__(
        self, state: Path, instance: str, client: docker.APIClient, engine: DockerSettings | None = None
    ) -> None:
        self.client = client
        self.settings = settings_of(state, instance)
        self.settings.run_files.mkdir(parents=True)
        self.store = open_store(self.settings.database)
        self.jobs = DockerJobs(engine or DockerSettings(), instance, StagingFolders.of(self.settings))
        self.storage = FakeStorage()
        self.storage.objects().create_bucket(BUCKET)
        self.store.boxes.save(BoxRecord(APP, BOX, BUCKET, capacity=10**9))
        self.deps = deps_of(self.settings, self.store, self.jobs, self.storage)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._processes: list[subprocess.Popen[bytes]] = []

    # --- runs --------------------------------------------------------------------------------------------------

    def submit(self, *stages: Stage, **rest: Any) -> str:
        now = time.time()
        of = pipeline(*stages, **rest)
        return self.store.runs.submit(new_run(new_run_id(now, secrets.randbits(32)), of, now, "anna")).id

    def run(self, id: str) -> Run:
        found = self.store.runs.get(APP, id)
        assert found
        return found

    def until(self, id: str, *states: RunState) -> Run:
        """By default until the end."""
        return wait_for(
            lambda: self.run(id),
            lambda run: run.state in states if states else run.state.terminal,
            limit=90.0,
        )

    def finish(self, *stages: Stage, **rest: Any) -> Run:
        return self.until(self.submit(*stages, **rest))

    def cancel(self, id: str) -> None:
        while not self.store.runs.save(cancel(self.run(id), time.time())):
            pass

    def container(self, id: str, stage: str = "fit") -> ObservedJob:
        """Once it runs."""

        def look() -> ObservedJob | None:
            seen = (j for j in self.jobs.all() if (j.run, j.stage, j.state) == (id, stage, JobState.RUNNING))
            return next(seen, None)

        found = wait_for(look)
        assert found
        return found

    def containers(self) -> list[str]:
        return [job.name for job in self.jobs.all()]

    def log(self, id: str, stage: str = "fit", attempt: int = 1) -> bytes:
        path = self.settings.run_files / id / f"{stage}.{attempt}.log"
        return path.read_bytes() if path.exists() else b""

    def stored(self, group: str) -> dict[str, bytes]:
        prefix = user_area("anna") + group
        found = self.storage.server.buckets[BUCKET]
        return {key.removeprefix(prefix): body for key, (_, body) in found.items() if key.startswith(prefix)}

    # --- who drives them ---------------------------------------------------------------------------------------

    def start(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=Runner(self.deps).run, args=(self._stop,), name="runner")
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()
        self._thread = None

    def process(self, *call: str, under: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """In a process of its own, which `call` kills; started by the command `under`."""
        where = (str(self.settings.state), self.settings.instance)
        command = [*under, sys.executable, "-m", "tests.support.serve_runner", *where, *call]
        self._processes.append(subprocess.Popen(command, cwd=ROOT))
        return self._processes[-1]

    def close(self) -> None:
        self.stop()
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait()
        self.jobs.close()
        self.store.close()
