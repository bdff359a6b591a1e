"""Outputs and inputs of any size: the memory they take is bounded, and so is what they may lead to."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import pytest

from controller.domain.errors import Stalled
from controller.domain.reasons import Reason
from controller.domain.runs.run import RunInput, RunOutput, RunState
from controller.domain.storage.box import ObjectPage, StoredObject
from controller.file_trees import link_tree, remove_tree
from controller.ports import Job
from controller.runner.concurrency import in_order
from controller.runner.contents import OutputContents, open_up
from controller.runner.outputs import guarded, publication, publish
from controller.runner.signals import Canceled, RunSignals
from tests.support.waiting import wait_for
from tests.unit.runner.harness import BUCKET, Command, Harness, pipeline, stage

MANY = 100_000
MEBIBYTE = 2**20


class Sink:
    """Counts what it is given, and keeps the manifest in a file: the memory of a test is its runner's, too."""

    def __init__(self, manifest: Path) -> None:
        self.files = self.size = 0
        self.last = ""
        self.manifest = manifest
        self._lock = threading.Lock()

    def put(self, bucket: str, key: str, content: BinaryIO, size: int, kind: str = "") -> StoredObject:
        if key.endswith(".manifest.json"):
            with self.manifest.open("wb") as file:
                shutil.copyfileobj(content, file)
        elif not key.endswith(".publishing.json"):
            found = len(content.read())
            with self._lock:
                self.files, self.size = self.files + 1, self.size + found
        self.last = key
        return StoredObject(key, size, "", 0.0)

    def remove(self, bucket: str, keys: list[str]) -> None:
        pass

    def stat(self, bucket: str, key: str) -> StoredObject | None:
        return None

    def page(self, *args: object, **kwargs: object) -> ObjectPage:
        return ObjectPage()


def peak_memory() -> int:
    """Return the most bytes since the process began, or since `forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


@pytest.fixture
def in_memory() -> Iterator[Harness]:
    """Its folders lie in memory where that can be had: disks take their time over so many files."""
    with (
        TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder,
        closing(Harness(Path(folder) / "state")) as harness,
        harness.running(),
    ):
        yield harness


@pytest.mark.slow
def test_a_hundred_thousand_files(in_memory: Harness) -> None:
    """From a stage that makes them, all in one folder, to a storage: the process hardly grows."""
    harness = in_memory
    sink = Sink(harness.folder / "manifest")
    harness.storage.objects = lambda: sink  # type: ignore[assignment,method-assign,return-value]

    def make(job: Job) -> None:
        (folder,) = harness.outputs_of(job)
        for number in range(MANY):
            (folder / str(number)).write_bytes(b"%d" % number)
        forget_peak()
        memory.append(peak_memory())

    memory: list[int] = []
    harness.commands["fit"] = Command(act=make)
    id = harness.submit(pipeline(stage(outputs=("model",))))
    run = wait_for(lambda: harness.run(id), lambda run: run.state.terminal, limit=240.0)
    assert peak_memory() - memory[0] < 60 * MEBIBYTE, "some 300 bytes a file: the names of one folder"
    assert run.state is RunState.SUCCEEDED, run.message
    assert (sink.files, sink.size) == (MANY, sum(len(str(number)) for number in range(MANY)))
    assert sink.last.endswith(f"runs/{id}/model/.manifest.json")
    found = json.loads(sink.manifest.read_text())["files"]
    assert len({entry["name"] for entry in found}) == MANY
    assert found[-1]["sha256"] == hashlib.sha256(found[-1]["name"].encode()).hexdigest()
    folder = harness.settings.run_files / id
    wait_for(lambda: not [path for path in folder.iterdir() if path.is_dir()], limit=60.0)


def test_order_is_kept_and_an_error_ends_it() -> None:
    assert list(in_order(lambda n: n * n, range(100))) == [n * n for n in range(100)]
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 10:
            raise Stalled(Reason("Why"), "because")
        return number

    with pytest.raises(Stalled):
        list(in_order(work, range(10_000)))
    assert len(begun) < 100


def test_a_group_of_many_files(harness: Harness) -> None:
    for number in range(1500):
        harness.put(f"many/{number:04}", str(number))
    seen: list[int] = []
    harness.commands["fit"] = Command(
        act=lambda job: seen.extend(len(os.listdir(harness.path(m))) for m in job.mounts if m.read_only)
    )
    run = harness.finish(pipeline(stage(inputs=("data",))), inputs=[RunInput("data", data="many/")])
    assert run.state is RunState.SUCCEEDED
    assert seen == [1500]


# --- what containers may have made ------------------------------------------------------------------------------


def deep(folder: Path, depth: int) -> None:
    """Deeper than any path can be long, as a command that changes into each folder makes it."""
    here = os.getcwd()
    try:
        os.chdir(folder)
        for _ in range(depth):
            os.mkdir("d" * 100)
            os.chdir("d" * 100)
        Path("x").write_text("x")
    finally:
        os.chdir(here)


def test_folders_nested_beyond_reach(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    deep(folder, 1200)
    with pytest.raises(Stalled, match="cannot read") as refused:
        open_up(folder)
    assert refused.value.reason == "OutputInvalid"
    assert remove_tree(tmp_path / "model")
    assert not folder.exists()


def test_modes_are_opened_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("secret")
    outside.chmod(0o600)
    folder = tmp_path / "model"
    (folder / "closed").mkdir(parents=True)
    (folder / "closed" / "x").write_text("x")
    (folder / "closed" / "x").chmod(0)
    (folder / "closed").chmod(0o700)
    (folder / "link").symlink_to(outside)
    open_up(folder)
    assert (folder / "closed").stat().st_mode & 0o777 == 0o755
    assert (folder / "closed" / "x").stat().st_mode & 0o777 == 0o444
    assert outside.stat().st_mode & 0o777 == 0o600


def test_empty_folders_are_no_output(tmp_path: Path) -> None:
    (tmp_path / "model" / "empty" / "emptier").mkdir(parents=True)
    with pytest.raises(Stalled) as missing:
        open_up(tmp_path / "model")
    assert missing.value.reason == "OutputMissing"
    assert list(OutputContents(tmp_path / "model", "/unip/model").files()) == []


def test_an_empty_file_is_one(harness: Harness) -> None:
    harness.commands["fit"] = Command(files={"model/done": b""})
    run = harness.finish(pipeline(stage(outputs=("model",))))
    assert run.state is RunState.SUCCEEDED
    assert harness.stored(f"runs/{run.id}/model/")["done"] == b""


def test_a_manifest_of_its_own_is_not_taken_for_ours(harness: Harness) -> None:
    harness.commands["fit"] = Command(files={"model/.manifest.json": "mine", "model/x": "x"})
    run = harness.finish(pipeline(stage(outputs=("model",))))
    assert json.loads(harness.stored(f"runs/{run.id}/model/")[".manifest.json"])["run"] == run.id


def test_trees_are_linked_not_copied(tmp_path: Path) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "deep" / "x").write_text("x")
    (tmp_path / "a" / "link").symlink_to("deep/x")
    link_tree(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b" / "deep" / "x").samefile(tmp_path / "a" / "deep" / "x")
    assert os.readlink(tmp_path / "b" / "link") == "deep/x"
    link_tree(tmp_path / "a" / "deep" / "x", tmp_path / "c")
    assert (tmp_path / "c").samefile(tmp_path / "a" / "deep" / "x")


def test_room_is_given_back_when_publishing_is_broken_off(harness: Harness) -> None:
    harness.stop()
    harness.commands["fit"] = Command(code=None)
    run = harness.run(harness.submit(pipeline(stage(outputs=("model",)))))
    folder = harness.folder / "model"
    folder.mkdir()
    (folder / "x").write_text("x" * 100)
    target = publication(harness.deps, run, RunOutput("model", "r/"), folder)
    signals = RunSignals(harness.clock, lambda: False)
    signals.cancel()
    with pytest.raises(Canceled), guarded(harness.deps, target):
        publish(harness.deps, signals, target)
    assert harness.store.boxes.pending(BUCKET) == ()
