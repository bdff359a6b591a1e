"""Runs with a real storage: what goes in and comes out, an outage in between, a full disk. Containers are played."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.clock import SystemClock
from controller.adapters.models import ModelCache
from controller.adapters.objects import S3Objects
from controller.domain.keys import user_area
from controller.domain.runs import RunInput, RunState
from controller.domain.spec import PipelineVar
from controller.ports import Job
from controller.runner.deps import Deps
from tests.support.storage_servers import StorageServer, embedded_server
from tests.support.waiting import wait_for
from tests.unit.runner.scene import BOX, BUCKET, GB, Command, Scene, pipeline, stage

MANY = 2000


class External:
    """`controller.ports.Storage` over one server; only what the runner asks for."""

    def __init__(self, objects: S3Objects) -> None:
        self._objects = objects

    def objects(self) -> S3Objects:
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
def scene(tmp_path: Path) -> Iterator[Scene]:
    with closing(Scene(tmp_path / "state")) as made:
        yield made


def deps_of(scene: Scene, objects: S3Objects) -> Deps:
    storage: Any = External(objects)
    return replace(scene.deps, storage=storage, clock=SystemClock())


def put(objects: S3Objects, name: str, content: bytes) -> None:
    objects.put(BUCKET, user_area("anna") + name, io.BytesIO(content), len(content))


def read(objects: S3Objects, name: str) -> bytes:
    with objects.open(BUCKET, user_area("anna") + name) as pieces:
        return b"".join(pieces)


def test_a_group_goes_in_and_comes_out(scene: Scene, objects: S3Objects) -> None:
    for name, content in {"a.txt": b"a", "deep/b.bin": bytes(range(256)) * 5000, "empty": b""}.items():
        put(objects, f"in/{name}", content)

    def copy(job: Job) -> None:
        source = next(mount.source for mount in job.mounts if mount.target == "/unip/data")
        for path in source.rglob("*"):
            if path.is_file():
                scene.output(job, f"model/{path.relative_to(source)}").parent.mkdir(exist_ok=True)
                scene.output(job, f"model/{path.relative_to(source)}").write_bytes(path.read_bytes())

    scene.commands["fit"] = Command(act=copy)
    scene.start(deps_of(scene, objects))
    of = pipeline(stage(inputs=("data",), outputs=("model",)))
    run = scene.finish(of, inputs=[RunInput("data", data="in/")])
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


def test_a_model_is_replaced(scene: Scene, objects: S3Objects) -> None:
    """Where folders are real: a file takes the place of a folder, and a folder that of a file."""
    model = PipelineVar("model", publish_to=(BOX, "net/"))
    deps = deps_of(scene, objects)
    cache = ModelCache(scene.settings.models, deps.storage, GB)
    scene.start(deps)
    for files in ({"a": "1", "b/c/d": "2", "gone/x": "3"}, {"a/x": "11", "b": "22"}):
        scene.commands["fit"] = Command(files={f"model/{name}": content for name, content in files.items()})
        run = scene.finish(pipeline(stage(outputs=("model",)), vars=(model,)))
        assert run.state is RunState.SUCCEEDED, run.message
        pin = cache.pin(BUCKET, "net/")
        cache.stage(pin)
        folder = pin.folder / "net"
        assert {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()} == files


def test_many_files(scene: Scene, objects: S3Objects) -> None:
    scene.commands["fit"] = Command(files={f"model/{n // 100}/{n}": str(n) for n in range(MANY)})
    scene.start(deps_of(scene, objects))
    id = scene.submit(pipeline(stage(outputs=("model",))))
    run = wait_for(lambda: scene.run(id), lambda run: run.state.terminal, limit=100.0)
    assert run.state is RunState.SUCCEEDED, run.message
    manifest = json.loads(read(objects, f"runs/{id}/model/.manifest.json"))
    assert len(manifest["files"]) == MANY


def test_an_outage_between_the_end_of_a_stage_and_its_outputs(
    scene: Scene, server: StorageServer, objects: S3Objects
) -> None:
    scene.commands["fit"] = Command(files={"model/x": "x"}, act=lambda job: server.kill())
    scene.start(deps_of(scene, objects))
    id = scene.submit(pipeline(stage(outputs=("model",))))
    wait_for(lambda: scene.run(id).stage("fit").reason == "StorageUnreachable")
    server.start()
    assert scene.until(id).state is RunState.SUCCEEDED
    assert read(objects, f"runs/{id}/model/x") == b"x"
    assert len(scene.jobs.starts) == 1


def test_a_full_disk_is_a_fault_of_the_platform(scene: Scene, objects: S3Objects) -> None:
    """And what had been brought in part is gone again, or nothing could follow."""
    folder = scene.settings.run_files
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("may not mount a small disk here")
    try:
        put(objects, "in/large", b"x" * 4 * 2**20)
        scene.start(replace(deps_of(scene, objects), clock=scene.clock))
        of = pipeline(stage(inputs=("data",)), concurrency=1)
        id = scene.submit(of, inputs=[RunInput("data", data="in/large")])
        run = wait_for(lambda: scene.let_pass().run(id), lambda run: run.state.terminal)
        assert (run.state, run.reason) == (RunState.ERROR, "DiskFull")
        assert len(run.stage("fit").attempts) == 4
        put(objects, "in/small", b"x")
        id = scene.submit(of, inputs=[RunInput("data", data="in/small")])
        assert scene.until(id).state is RunState.SUCCEEDED
    finally:
        scene.stop()
        subprocess.run(["umount", str(folder)], check=True)
