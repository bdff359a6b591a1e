"""Runs with a real storage: what goes in and comes out, an outage in between, a full disk. Containers are played."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.clock import SystemClock
from controller.adapters.models import ModelCache
from controller.adapters.objects import S3Objects
from controller.domain.apps.spec import PipelineVar
from controller.domain.runs.run import RunInput, RunOutput, RunState
from controller.domain.storage.keys import user_area
from controller.ports import Job
from controller.runner.deps import RunnerDeps
from controller.runner.listing import below
from tests.support.storage_servers import StorageServer, embedded_server
from tests.support.waiting import wait_for
from tests.unit.runner.harness import BOX, BUCKET, GB, Command, Harness, pipeline, stage

MANY = 2000


class External:
    """`controller.ports.Storage` over one server; only what the runner asks for."""

    def __init__(self, objects: S3Objects | Cut) -> None:
        self._objects = objects

    def objects(self) -> S3Objects | Cut:
        return self._objects


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StorageServer]:
    folder = tmp_path / "storage"
    folder.mkdir()
    with embedded_server(folder) as server:
        yield server


@pytest.fixture
def objects(server: StorageServer) -> Iterator[S3Objects]:
    with closing(server.objects()) as objects:
        objects.create_bucket(BUCKET)
        yield objects


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    with closing(Harness(tmp_path / "state")) as made:
        yield made


def deps_of(harness: Harness, objects: S3Objects | Cut) -> RunnerDeps:
    storage: Any = External(objects)
    return replace(harness.deps, storage=storage, clock=SystemClock())


def put(objects: S3Objects, name: str, content: bytes) -> None:
    objects.put(BUCKET, user_area("anna") + name, io.BytesIO(content), len(content))


def read(objects: S3Objects, name: str) -> bytes:
    with objects.open(BUCKET, user_area("anna") + name) as pieces:
        return b"".join(pieces)


def test_a_group_goes_in_and_comes_out(harness: Harness, objects: S3Objects) -> None:
    for name, content in {"a.txt": b"a", "deep/b.bin": bytes(range(256)) * 5000, "empty": b""}.items():
        put(objects, f"in/{name}", content)

    def copy(job: Job) -> None:
        source = next(harness.path(mount) for mount in job.mounts if mount.target == "/unip/data")
        for path in source.rglob("*"):
            if path.is_file():
                harness.output(job, f"model/{path.relative_to(source)}").parent.mkdir(exist_ok=True)
                harness.output(job, f"model/{path.relative_to(source)}").write_bytes(path.read_bytes())

    harness.commands["fit"] = Command(act=copy)
    harness.start(deps_of(harness, objects))
    of = pipeline(stage(inputs=("data",), outputs=("model",)))
    run = harness.finish(of, inputs=[RunInput("data", data="in/")])
    assert run.state is RunState.SUCCEEDED, run.message
    place = f"runs/{run.id}/model/"
    files = {f["name"]: f for f in json.loads(read(objects, f"{place}.manifest.json"))["files"]}
    assert set(files) == {"a.txt", "deep/b.bin", "empty"}
    for name, described in files.items():
        content = read(objects, place + name)
        assert described == {
            "name": name,
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }


def test_a_model_is_replaced(harness: Harness, objects: S3Objects) -> None:
    """Where folders are real: a file takes the place of a folder, and a folder that of a file."""
    model = PipelineVar("model", publish_to=(BOX, "net/"))
    deps = deps_of(harness, objects)
    cache = ModelCache(harness.settings.models, deps.storage, GB)
    harness.start(deps)
    for files in ({"a": "1", "b/c/d": "2", "gone/x": "3"}, {"a/x": "11", "b": "22"}):
        harness.commands["fit"] = Command(files={f"model/{name}": content for name, content in files.items()})
        run = harness.finish(pipeline(stage(outputs=("model",)), vars=(model,)))
        assert run.state is RunState.SUCCEEDED, run.message
        pin = cache.pin(BUCKET, "net/")
        cache.stage(pin)
        folder = harness.settings.models / pin.digest / "net"
        assert {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()} == files


def test_a_group_that_several_publish_into(harness: Harness, objects: S3Objects) -> None:
    """At once, and one after the other: a file in place of a folder, and files of a caller's own."""

    def write(job: Job) -> None:
        for name in (*(f"deep/{number}" for number in range(50)), f"{job.run}/own"):
            harness.output(job, f"model/{name}").parent.mkdir(parents=True, exist_ok=True)
            harness.output(job, f"model/{name}").write_text(job.run)

    put(objects, "g/mine", b"mine")
    harness.start(deps_of(harness, objects))
    harness.commands["fit"] = Command(act=write)
    of, outputs = pipeline(stage(outputs=("model",))), (RunOutput("model", "g/"),)
    ids = [harness.submit(of, outputs=outputs) for _ in range(4)]
    assert {harness.until(id).state for id in ids} == {RunState.SUCCEEDED}
    found = group(objects)
    last = json.loads(found.pop(".manifest.json"))["run"]
    assert found.pop("mine") == b"mine"
    assert set(found) == {*(f"deep/{number}" for number in range(50)), f"{last}/own"}
    assert set(found.values()) == {last.encode()}
    harness.commands["fit"] = Command(files={"model/deep": "a file now", "model/x": "x"})
    assert harness.finish(of, outputs=outputs).state is RunState.SUCCEEDED
    found = group(objects)
    assert set(found) == {"deep", "x", "mine", ".manifest.json"}
    assert found["deep"] == b"a file now"
    put(objects, "h", b"a file")
    refused = harness.finish(of, outputs=(RunOutput("model", "h/x/"),))
    assert (refused.state, refused.reason) == (RunState.FAILED, "OutputInvalid")


def group(objects: S3Objects) -> dict[str, bytes]:
    prefix = user_area("anna") + "g/"
    names = (found.key.removeprefix(prefix) for found in below(objects, BUCKET, prefix))
    return {name: read(objects, f"g/{name}") for name in names}


def test_many_files(harness: Harness, objects: S3Objects) -> None:
    harness.commands["fit"] = Command(files={f"model/{n // 100}/{n}": str(n) for n in range(MANY)})
    harness.start(deps_of(harness, objects))
    id = harness.submit(pipeline(stage(outputs=("model",))))
    run = wait_for(lambda: harness.run(id), lambda run: run.state.terminal, limit=100.0)
    assert run.state is RunState.SUCCEEDED, run.message
    manifest = json.loads(read(objects, f"runs/{id}/model/.manifest.json"))
    assert len(manifest["files"]) == MANY


class Cut:
    """The storage's process is killed right after so many pieces, files or looks have gone through."""

    def __init__(self, objects: S3Objects, server: StorageServer, pieces: int = 0, files: int = 0) -> None:
        self._objects, self._server = objects, server
        self._pieces, self._files = pieces, files
        self._lock = threading.Lock()
        self.done = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    @contextmanager
    def open(self, *args: Any) -> Iterator[Iterator[bytes]]:
        with self._objects.open(*args) as pieces:
            yield self._cut(pieces)

    def _cut(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for number, piece in enumerate(pieces, 1):
            yield piece
            if number == self._pieces:
                self._kill()

    def put(self, *args: Any) -> Any:
        put = self._objects.put(*args)
        with self._lock:
            self._files -= 1
            if self._files == 0:
                self._kill()
        return put

    def _kill(self) -> None:
        if not self.done.is_set():
            self._server.kill()
            self.done.set()


def test_an_outage_in_the_middle_of_an_input(
    harness: Harness, server: StorageServer, objects: S3Objects
) -> None:
    content = os.urandom(2**20) * 32
    put(objects, "in/large", content)
    seen: list[bytes] = []
    harness.commands["fit"] = Command(
        act=lambda job: seen.extend(harness.path(m).read_bytes() for m in job.mounts if m.read_only)
    )
    cut = Cut(objects, server, pieces=2)
    harness.start(deps_of(harness, cut))
    id = harness.submit(pipeline(stage(inputs=("data",))), inputs=[RunInput("data", data="in/large")])
    wait_for(lambda: harness.run(id).stage("fit").not_before)
    assert cut.done.is_set()
    server.start()
    run = harness.until(id)
    assert run.state is RunState.SUCCEEDED, run.message
    *failed, last = [attempt.reason for attempt in run.stage("fit").attempts]
    assert set(failed) == {"StorageUnreachable"}  # more than one if the server takes longer to start
    assert last == ""
    assert seen == [content]


def test_an_outage_in_the_middle_of_outputs(
    harness: Harness, server: StorageServer, objects: S3Objects
) -> None:
    """Nobody runs the command again for that."""
    made = {f"model/{number}": f"{number}" * 1000 for number in range(40)}
    harness.commands["fit"] = Command(files=made)
    harness.start(deps_of(harness, Cut(objects, server, files=7)))
    id = harness.submit(pipeline(stage(outputs=("model",))))
    wait_for(lambda: harness.run(id).stage("fit").reason == "StorageUnreachable")
    server.start()
    assert harness.until(id).state is RunState.SUCCEEDED
    manifest = json.loads(read(objects, f"runs/{id}/model/.manifest.json"))
    assert len(manifest["files"]) == len(made)
    for name, content in made.items():
        assert read(objects, f"runs/{id}/{name}") == content.encode()
    assert len(harness.jobs.starts) == 1


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small disk here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_an_input_that_does_not_fit_the_disk(harness: Harness, objects: S3Objects) -> None:
    """A fault of the platform. What had been brought in part is gone again, or nothing could follow."""
    with small_disk(harness.settings.run_files, "2m"):
        put(objects, "in/large", b"x" * 4 * 2**20)
        with harness.running(replace(deps_of(harness, objects), clock=harness.clock)):
            of = pipeline(stage(inputs=("data",)), concurrency=1)
            id = harness.submit(of, inputs=[RunInput("data", data="in/large")])
            run = wait_for(lambda: harness.let_pass().run(id), lambda run: run.state.terminal)
            assert (run.state, run.reason) == (RunState.ERROR, "DiskFull")
            assert len(run.stage("fit").attempts) == 4
            put(objects, "in/small", b"x")
            id = harness.submit(of, inputs=[RunInput("data", data="in/small")])
            assert harness.until(id).state is RunState.SUCCEEDED


def fill(path: Path) -> None:
    """To the last byte."""
    with path.open("wb", buffering=0) as file:
        for size in (2**16, 2**9, 1):
            with suppress(OSError):
                while file.write(b"x" * size):
                    pass


@pytest.mark.parametrize(
    ("log", "words"),
    [(b"", "the state does not answer"), (b"x" * 10_000 + b"\n", "could not write a log")],
    ids=["database", "log"],
)
def test_the_disk_fills_up_while_a_stage_runs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, log: bytes, words: str
) -> None:
    """What has happened is written down once there is room again, and happens only once."""
    state, ballast = tmp_path / "state", tmp_path / "state" / "ballast"
    state.mkdir()
    with small_disk(state, "8m"), closing(Harness(state)) as harness:
        harness.commands["fit"] = Command(code=None)
        harness.start(replace(harness.deps, clock=SystemClock()))
        id = harness.submit(pipeline(stage(outputs=("model",))))
        job = harness.container()
        harness.until(id, RunState.RUNNING)
        harness.output(harness.jobs.made[0], "model/x").write_text("x")
        fill(ballast)
        harness.jobs.say(job.id, log)
        harness.jobs.exit(job.id)
        wait_for(lambda: words in caplog.text)
        assert harness.run(id).state is RunState.RUNNING
        ballast.unlink()
        run = harness.until(id)
        assert run.state is RunState.SUCCEEDED, run.message
        assert [attempt.exit_code for attempt in run.stage("fit").attempts] == [0]
        assert harness.log(id) == log
        assert harness.stored(f"runs/{id}/model/")["x"] == b"x"
        assert len(harness.jobs.starts) == 1
