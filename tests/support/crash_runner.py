"""A runner in a process of its own that kills itself, as by `kill -9`, right before a call that changes anything. The
database and the folders are real; containers and storage are played by the test's process, and so outlive it.

Processes are forked off one that has everything loaded: to be born and die takes some 30 ms.
"""

from __future__ import annotations

import io
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from multiprocessing.managers import BaseManager
from multiprocessing.process import BaseProcess
from pathlib import Path
from secrets import token_bytes
from typing import Any, BinaryIO, cast

from controller.adapters.models import ModelCache
from controller.config import Settings
from controller.domain.errors import ControllerError, Transient
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.runs.run import Run, StageRun
from controller.ports import Job, JobState, ObservedJob
from controller.runner.deps import RunnerDeps
from controller.runner.runner import Runner
from controller.store import open_store
from tests.support.clock import TickingClock
from tests.support.fake_jobs import PAUSE, FakeJobs
from tests.support.fake_objects import FakeObjects

LOOKS = frozenset(
    {
        "active",
        "get",
        "pipeline",
        "pipelines",
        "has_image",
        "prepare",  # what it makes, `create` makes as well
        "expired",
        "pending",
        "find",
        "all",
        "wait",
        "logs",
        "stat",
        "open",
        "page",
        "usage",
    }
    | {"claim"}  # before the first write that follows it
)


@dataclass(frozen=True)
class Refused:
    """An error on its way: those of ours are not made to be sent."""

    kind: type[ControllerError]
    reason: str
    message: str


# --- in the test's process --------------------------------------------------------------------------------------


class World:
    """Containers and storage for any caller."""

    def __init__(self, jobs: FakeJobs, objects: FakeObjects) -> None:
        self._inner = {"jobs": jobs, "objects": objects}
        self._jobs, self._objects = jobs, objects

    def call(self, target: str, name: str, *args: Any) -> Any:
        """What came of it, or Refused."""
        try:
            if target == "self":
                return getattr(self, name)(*args)
            return getattr(self._inner[target], name)(*args)
        except ControllerError as error:
            return Refused(type(error), error.reason, error.message)

    def said(self, id: str, after: str) -> list[tuple[str, bytes]]:
        looks = iter((False, True))
        return list(self._jobs.logs(id, after, lambda: next(looks, True)))

    def read(self, bucket: str, key: str, etag: str) -> bytes:
        with self._objects.open(bucket, key, etag) as pieces:
            return b"".join(pieces)

    def put(self, bucket: str, key: str, content: bytes, kind: str) -> object:
        return self._objects.put(bucket, key, io.BytesIO(content), len(content), kind)


class _Served(BaseManager):
    pass


_Served.register("world")


@contextmanager
def served(world: World) -> Iterator[tuple[Any, bytes]]:
    """Address and key."""

    class Serving(BaseManager):
        pass

    Serving.register("world", callable=lambda: world)
    key = token_bytes()
    server = Serving(authkey=key).get_server()
    thread = threading.Thread(target=_serve, args=(server,), name="world", daemon=True)
    thread.start()
    try:
        yield server.address, key
    finally:
        server.stop_event.set()  # type: ignore[attr-defined]
        thread.join()


def _serve(server: Any) -> None:
    with suppress(SystemExit):
        server.serve_forever()


@contextmanager
def started(
    settings: Settings, served_at: tuple[Any, bytes], fatal: str = "", told: Path | None = None
) -> Iterator[BaseProcess]:
    """`fatal`: the call that it dies before, as `told` has them, one a line. Killed at the end of the block."""
    context: ForkServerContext = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_live, args=(settings, *served_at, fatal, told))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


# --- in the process that dies -----------------------------------------------------------------------------------


def _live(settings: Settings, address: Any, key: bytes, fatal: str, told: Path | None) -> None:
    manager = _Served(address=address, authkey=key)
    manager.connect()
    death = CrashPoint(fatal, told)
    clock = TickingClock()
    world = manager.world()  # type: ignore[attr-defined]
    store: Any = open_store(settings.database, clock=clock.now)
    storage: Any = RemoteStorage(Crashing(RemoteObjects(world), death))
    mortal: Any = CrashingStore(store, death)
    jobs: Any = Crashing(RemoteJobs(world), death)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    models = ModelCache(settings.models, storage, 10**9)
    runner = Runner(
        RunnerDeps(
            mortal,
            jobs,
            storage,
            models,
            clock,
            settings,
            secret=lambda app, name, revision: None,
            pull=lambda app, reference: None,
            free_percent=lambda folder: 50.0,
        )
    )
    runner.run(stop)


def parts(call: str) -> frozenset[str]:
    """`save left RUNNING.1, right SUCCEEDED.1` are two: one call may save what two stages have come to."""
    if not call.startswith("save "):
        return frozenset({call})
    return frozenset(f"save {part}" for part in call.removeprefix("save ").split(", "))


class CrashPoint:
    """Comes with the call called `fatal`, alone or as a part; until then calls are written down."""

    def __init__(self, fatal: str, told: Path | None) -> None:
        self._fatal = fatal
        self._told = told
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def pass_by(self, call: str) -> None:
        with self._lock:
            self._seen[call] += 1
            again = self._seen[call] > 1 and not call.startswith(
                "save"
            )  # which is tried again if others were quicker
            name = f"{call} ({self._seen[call]})" if again else call
            if self._told:
                with self._told.open("a") as file:
                    file.write(f"{name}\n")
            if parts(self._fatal) <= parts(name):
                os.kill(os.getpid(), signal.SIGKILL)


class Crashing:
    """Passes calls on, if there is nobody to die."""

    def __init__(self, inner: Any, death: CrashPoint) -> None:
        self._inner, self._death = inner, death

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name in LOOKS:
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "save":
                before = self._inner.get(args[0].app, args[0].id)
                if not _is_late(before, args[0]):  # else it is refused, and made again
                    self._death.pass_by(f"save {_change(before, args[0])}")
                return found(*args, **kwargs)
            self._death.pass_by(f"{name} {_described(self._inner, args)}".strip())
            return found(*args, **kwargs)

        return call


class CrashingStore:
    def __init__(self, store: Any, death: CrashPoint) -> None:
        self.runs, self.boxes = Crashing(store.runs, death), Crashing(store.boxes, death)
        self.requests = Crashing(store.requests, death)
        self.changed, self.transaction, self.commit_watch = (
            store.changed,
            store.transaction,
            store.commit_watch,
        )


def _described(inner: Any, args: tuple[Any, ...]) -> str:
    what = args[0]
    if isinstance(what, Run):
        return _change(inner.get(what.app, what.id), what)
    if isinstance(what, Job):
        return f"{what.stage}.{what.attempt}"
    if isinstance(inner, RemoteJobs):
        return inner.named(what)
    if isinstance(inner, RemoteObjects):
        (key,) = args[1] if isinstance(args[1], list) else [args[1]]
        return "/".join(key.split("/")[-2:])
    return ""


def _is_late(before: Run | None, after: Run) -> bool:
    """Somebody was quicker."""
    return before is not None and before.version != after.version


def _change(before: Run | None, after: Run) -> str:
    """`fit RUNNING.1`, `report CANCELED, run FAILED`: what is new."""
    if before is None:
        return after.name
    was = {stage.name: stage for stage in before.stages}
    new = [_state_of(stage) for stage in after.stages if stage != was[stage.name]]
    if before.released != after.released:
        new.append(f"released {after.released[-1]}")
    if after.state.terminal:
        new.append(f"run {after.state}")
    return ", ".join(new)


def _state_of(stage: StageRun) -> str:
    last = stage.attempt
    if last is None:
        return f"{stage.name} {stage.state}"
    more = stage.reason or last.reason or ("ended" if last.ended else "") if stage.active else ""
    return f"{stage.name} {stage.state}.{last.number} {more}".rstrip()


class Remote:
    def __init__(self, world: Any) -> None:
        self._world = world

    def ask(self, target: str, name: str, *args: Any) -> Any:
        found = self._world.call(target, name, *args)
        if isinstance(found, Refused):
            raise found.kind(Reason(found.reason), found.message)
        return found


class RemoteJobs(Remote):
    """`controller.ports.Jobs`."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._names: dict[str, str] = {}

    def named(self, id: str) -> str:
        return self._names.get(id, id)

    def _known(self, seen: ObservedJob | None) -> ObservedJob | None:
        if seen:
            self._names[seen.id] = f"{seen.stage}.{seen.attempt}"
        return seen

    def create(self, job: Job) -> ObservedJob | None:
        return self._known(self.ask("jobs", "create", job))

    def prepare(self, app: AppName) -> None:
        self.ask("jobs", "prepare", app)

    def has_image(self, reference: str) -> bool:
        return bool(self.ask("jobs", "has_image", reference))

    def find(self, name: str) -> ObservedJob | None:
        return self._known(self.ask("jobs", "find", name))

    def all(self) -> tuple[ObservedJob, ...]:
        return cast(tuple[ObservedJob, ...], self.ask("jobs", "all"))

    def start(self, id: str) -> ObservedJob:
        return cast(ObservedJob, self.ask("jobs", "start", id))

    def stop(self, id: str, grace: float) -> None:
        self.ask("jobs", "stop", id, grace)

    def remove(self, id: str) -> None:
        self.ask("jobs", "remove", id)

    def _seen(self, id: str) -> ObservedJob:
        found = next((seen for seen in self.all() if seen.id == id), None)
        if found is None:
            raise Transient(Reason.CONTAINER_LOST, f"container {id[:12]} was removed while it was waited for")
        return found

    def wait(self, id: str, stop: Callable[[], bool]) -> ObservedJob | None:
        while not stop():
            if (seen := self._seen(id)).state is JobState.ENDED:
                return seen
            threading.Event().wait(PAUSE)
        return None

    def logs(self, id: str, after: str, stop: Callable[[], bool]) -> Iterator[tuple[str, bytes]]:
        while not stop():
            ended = self._seen(id).state is JobState.ENDED
            for place, piece in self.ask("self", "said", id, after):
                yield place, piece
                after = place
            if ended:
                return


class RemoteObjects(Remote):
    """`controller.ports.Objects`, what the runner asks of it."""

    def page(self, *args: Any) -> Any:
        return self.ask("objects", "page", *args)

    def stat(self, *args: Any) -> Any:
        return self.ask("objects", "stat", *args)

    def remove(self, *args: Any) -> Any:
        return self.ask("objects", "remove", *args)

    @contextmanager
    def open(self, bucket: str, key: str, etag: str = "") -> Iterator[Iterator[bytes]]:
        yield iter([self.ask("self", "read", bucket, key, etag)])

    def put(self, bucket: str, key: str, content: BinaryIO, size: int, kind: str = "") -> Any:
        return self.ask("self", "put", bucket, key, content.read(), kind)


class RemoteStorage:
    def __init__(self, objects: Any) -> None:
        self._objects = objects

    def objects(self) -> Any:
        return self._objects
