"""The stage of the runner's tests: a real store and real folders; containers, storage and time as the test sets them.

The runner is the real one, in threads of its own, as in the daemon. `die_at` lets it die at one of its calls to the
world outside, and `start` begins the next one on what it has left.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from controller.adapters.models import ModelCache
from controller.adapters.staging import StagingFolders
from controller.config import Settings
from controller.config.settings import RunSettings
from controller.domain.apps.spec import SecretSpec
from controller.domain.names import AppName, ComponentName
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import Run, RunInput, RunState, cancel, new_run, new_run_id
from controller.domain.storage.box import BoxRecord
from controller.domain.storage.keys import user_area
from controller.ports import Job, JobMount, JobState, ObservedJob
from controller.runner.deps import RunnerDeps
from controller.runner.runner import Runner
from tests.support.clock import FakeClock, TickingClock
from tests.support.fake_jobs import FakeJobs
from tests.support.fake_objects import FakeStorage
from tests.support.specs import make
from tests.support.stores import open_store
from tests.support.waiting import wait_for

APP = AppName("demo")
BOX = ComponentName("userdata")
BUCKET = "prichal.demo.userdata"
IMAGE = "image:1"
GB = 10**9


def stage(name: str = "fit", **rest: Any) -> Stage:
    return make(Stage, name, IMAGE, **rest)


def pipeline(*stages: Stage, name: str = "train", **rest: Any) -> Pipeline:
    known = {"boxes": (BOX,), "concurrency": 1000}
    return make(Pipeline, APP, ComponentName(name), "c0ffee", stages or (stage(),), **{**known, **rest})


@dataclass
class Command:
    """What a container does at its start: `files` are written below the folders of its outputs, by their variables;
    then it says `log` and ends with `code`, unless that is None."""

    code: int | None = 0
    log: bytes = b""
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    act: Callable[[Job], None] = lambda job: None


@contextmanager
def in_thread(run: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run a loop of the daemon beside the test, until the end of the block."""
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Harness:
    def __init__(self, folder: Path, runs: RunSettings | None = None) -> None:
        self.folder = folder
        self.clock: FakeClock = TickingClock()
        self.settings = Settings(state=folder, runs=runs or RunSettings(concurrent=100, per_app=100))
        self.settings.run_files.mkdir(parents=True)
        self.store = open_store(self.settings.database, clock=self.clock.now)
        self.storage = FakeStorage()
        self.objects = self.storage.objects()
        self.objects.create_bucket(BUCKET)
        self.store.boxes.save(BoxRecord(APP, BOX, BUCKET, capacity=GB))
        self.staging = StagingFolders.of(self.settings)
        self.jobs = FakeJobs(images=[IMAGE], now=self.clock.now)
        self.jobs.look = self.staging.path
        self.jobs.on_start = self._command
        self.commands: dict[str, Command] = {}  # by stage; every other one ends at once, with some output
        self.secrets: dict[str, SecretSpec] = {}
        self.pulls: list[str] = []
        self.free = 50.0
        self.deps = RunnerDeps(
            store=self.store,
            jobs=self.jobs,
            storage=self.storage,
            models=ModelCache(self.settings.models, self.storage, GB),
            clock=self.clock,
            settings=self.settings,
            secret=lambda app, name, revision: self.secrets.get(name),
            pull=self._pull,
            free_percent=lambda folder: self.free,
        )
        self._ids = count(1)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.died: list[BaseException] = []

    def _pull(self, app: AppName, reference: str) -> None:
        self.pulls.append(reference)
        self.jobs.images.add(reference)

    # --- what containers do ------------------------------------------------------------------------------------

    def _command(self, job: Job, id: str) -> None:
        command = self.commands.get(job.stage)
        if command is None:
            command = Command(files={f"{path.name}/made.txt": job.stage for path in self.outputs_of(job)})
        for name, content in command.files.items():
            place = self.output(job, name)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content.encode() if isinstance(content, str) else content)
        command.act(job)
        if command.log:
            self.jobs.say(id, command.log)
        if command.code is not None:
            self.jobs.exit(id, command.code)

    def outputs_of(self, job: Job) -> list[Path]:
        written = (self.path(mount) for mount in job.mounts if not mount.read_only)
        return [path for path in written if path.parent.name == "out"]

    def path(self, mount: JobMount) -> Path:
        """Where a mount is on this host."""
        return self.staging.path(mount.volume)

    def output(self, job: Job, name: str) -> Path:
        """`model/x.bin`: below the folder of the output `model`."""
        variable, _, rest = name.partition("/")
        return next(path for path in self.outputs_of(job) if path.name == variable) / rest

    def container(self, stage: str = "fit", state: JobState = JobState.RUNNING) -> ObservedJob:
        """Once there is one in this state."""
        found = wait_for(
            lambda: next((j for j in self.jobs.all() if j.stage == stage and j.state is state), None)
        )
        assert found
        return found

    # --- runs --------------------------------------------------------------------------------------------------

    def submit(
        self,
        of: Pipeline | None = None,
        inputs: Iterable[RunInput] = (),
        user: str | None = "anna",
        **rest: Any,
    ) -> str:
        now = self.clock.now()
        run = new_run(new_run_id(now, next(self._ids)), of or pipeline(), now, user, inputs, **rest)
        return self.store.runs.submit(run).id

    def run(self, id: str) -> Run:
        found = self.store.runs.get(APP, id)
        assert found
        return found

    def cancel(self, id: str) -> Run:
        """As the web process does it."""
        while True:
            run = self.run(id)
            after = cancel(run, self.clock.now())
            if after == run or self.store.runs.save(after):
                return after

    def until(self, id: str, *states: RunState) -> Run:
        """By default until the end."""
        return wait_for(
            lambda: self._alive(id), lambda run: run.state in states if states else run.state.terminal
        )

    def until_stage(self, id: str, stage: str, state: RunState) -> Run:
        return wait_for(lambda: self._alive(id), lambda run: run.stage(stage).state is state)

    def _alive(self, id: str) -> Run:
        assert not self.died, self.died
        return self.run(id)

    def finish(self, of: Pipeline | None = None, **rest: Any) -> Run:
        return self.until(self.submit(of, **rest))

    def let_pass(self, seconds: float = 1.0) -> Harness:
        self.clock.advance(seconds)
        return self

    # --- files -------------------------------------------------------------------------------------------------

    def put(self, key: str, content: bytes | str = b"x", user: str | None = "anna", area: str = "") -> None:
        body = content.encode() if isinstance(content, str) else content
        self.objects.put(BUCKET, (area or user_area(user)) + key, io.BytesIO(body), len(body))

    def stored(self, group: str = "", user: str | None = "anna") -> dict[str, bytes]:
        """Names below the group, and what is in them."""
        prefix = user_area(user) + group
        found = self.objects.server.buckets[BUCKET]
        return {key.removeprefix(prefix): body for key, (_, body) in found.items() if key.startswith(prefix)}

    def log(self, id: str, stage: str = "fit", attempt: int = 1) -> bytes:
        """As far as it is written; nothing before its first byte."""
        path = self.settings.run_files / id / f"{stage}.{attempt}.log"
        return path.read_bytes() if path.exists() else b""

    # --- the runner --------------------------------------------------------------------------------------------

    def start(self, deps: RunnerDeps | None = None) -> None:
        self._stop = threading.Event()
        runner = Runner(deps or self.deps)
        self._thread = threading.Thread(target=self._life, args=(runner,), name="runner")
        self._thread.start()

    def _life(self, runner: Runner) -> None:
        try:
            runner.run(self._stop)
        except BaseException as error:  # noqa: BLE001 - deaths are part of the play
            self.died.append(error)

    def stop(self) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()
        self._thread = None

    def stopping(self) -> bool:
        return self._stop.is_set()

    def restart(self, **deps: Any) -> None:
        """`deps`: what is another one from now on."""
        self.stop()
        self.deps = replace(self.deps, **deps)
        self.start()

    @contextmanager
    def running(self, deps: RunnerDeps | None = None) -> Iterator[None]:
        self.start(deps)
        try:
            yield
        finally:
            self.stop()

    def with_settings(self, **rest: Any) -> RunnerDeps:
        runs = replace(self.settings.runs, **rest)
        return replace(self.deps, settings=replace(self.settings, runs=runs))

    def close(self) -> None:
        self.stop()
        self.store.close()
        assert not self.died, self.died
