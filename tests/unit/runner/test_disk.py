"""What runs hold on the disk of this host is bounded for each app, whatever their containers write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.config.settings import RunSettings
from controller.domain.runs.run import RunState
from controller.runner import disk, runner
from controller.runner.disk import Uncountable, counted
from tests.support.waiting import wait_for
from tests.unit.runner.harness import APP, Command, Harness, pipeline, stage

#: Together they take seconds.
pytestmark = pytest.mark.slow

MIB = 2**20


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Harness]:
    monkeypatch.setattr(runner, "_MEASURE", 0.05)
    settings = RunSettings(concurrent=100, per_app=100, disk_per_app=4 * MIB, scratch=MIB)
    made = Harness(tmp_path / "state", settings)
    made.start()
    yield made
    made.close()


def test_a_stage_that_fills_the_disk_is_ended_and_what_was_made_before_is_kept(harness: Harness) -> None:
    harness.commands["first"] = Command(files={"table/x": b"x" * 1000})
    harness.commands["second"] = Command(code=None, files={"model/x": b"x" * 5 * MIB})
    of = pipeline(stage("first", outputs=("table",)), stage("second", inputs=("table",), outputs=("model",)))
    run = harness.finish(of)
    assert (run.state, run.stage("first").state) == (RunState.FAILED, RunState.SUCCEEDED)
    failed = run.stage("second")
    assert (failed.state, failed.reason) == (RunState.FAILED, "StorageFull")
    assert "runs.diskPerApp" in failed.message
    assert len(failed.attempts) == 1
    kept = harness.settings.run_files / run.id / "first.1"
    assert kept.is_dir(), "a repetition begins with the second stage"
    wait_for(lambda: not (harness.settings.run_files / run.id / "second.1").exists())


def test_only_the_largest_is_ended(harness: Harness) -> None:
    harness.commands["small"] = Command(code=None, files={"a/x": b"x" * MIB})
    harness.commands["large"] = Command(code=None, files={"a/x": b"x" * 5 * MIB})
    small = harness.submit(pipeline(stage("small", outputs=("a",))))
    large = harness.until(harness.submit(pipeline(stage("large", outputs=("a",)))))
    assert large.reason == "StorageFull"
    assert harness.run(small).state is RunState.RUNNING
    harness.jobs.exit(harness.container("small").id)
    assert harness.until(small).state is RunState.SUCCEEDED


def test_what_a_container_writes_beside_its_outputs(harness: Harness) -> None:
    harness.commands["fit"] = Command(code=None)
    harness.jobs.scratch["fit"] = 2 * MIB
    run = harness.finish(pipeline(stage("fit")))
    assert (run.state, run.reason) == (RunState.FAILED, "StorageFull")
    assert "besides its outputs" in run.message


def test_runs_that_are_over_make_room_the_oldest_first(harness: Harness) -> None:
    """Failed ones keep what they have made, for a repetition."""
    harness.commands["made"] = Command(files={"a/x": b"x" * (3 * MIB // 2)})
    harness.commands["fails"] = Command(code=1)
    of = pipeline(stage("made", outputs=("a",)), stage("fails", inputs=("a",)))
    ids = []
    for _ in range(4):
        ids.append(harness.finish(of).id)
        harness.let_pass()
    wait_for(lambda: harness.store.runs.get(APP, ids[1]) is None)
    assert harness.store.runs.is_gone(APP, ids[0])
    assert {path.name for path in harness.settings.run_files.iterdir()} == set(ids[2:])


def test_a_run_that_is_being_repeated_is_not_forgotten(harness: Harness) -> None:
    harness.commands["made"] = Command(files={"a/x": b"x" * 3 * MIB})
    harness.commands["fails"] = Command(code=1)
    before = harness.finish(pipeline(stage("made", outputs=("a",)), stage("fails", inputs=("a",))))
    keeper = disk.Disk(
        harness.store.runs, harness.jobs, harness.settings.run_files, MIB, MIB, is_short=lambda: False
    )
    harness.stop()
    harness.store.runs.submit(
        replace(before, id=f"f{before.id[1:]}", origin=before.id, state=RunState.RUNNING, version=0)
    )
    keeper.check_all()
    assert harness.store.runs.get(APP, before.id) is not None


def test_the_host_keeps_a_reserve(harness: Harness) -> None:
    """The largest of all apps is ended before the disk is full."""
    harness.commands["fit"] = Command(code=None, files={"a/x": b"x" * MIB})
    id = harness.submit(pipeline(stage("fit", outputs=("a",))))
    harness.until(id, RunState.RUNNING)
    harness.free = 1.0
    run = harness.until(id)
    assert (run.reason, "nearly full" in run.message) == ("StorageFull", True)


def test_counting_what_is_made_to_be_hard_to_count(tmp_path: Path) -> None:
    """Sparse files count what they take; folders nested deeper than a path may be long are counted, too."""
    out = tmp_path / "run" / "fit.1" / "out"
    out.mkdir(parents=True)
    with (out / "sparse").open("wb") as file:
        file.truncate(2**40)
    assert counted(tmp_path / "run") < MIB
    below = os.open(out, os.O_RDONLY)
    for _ in range(60):
        os.mkdir("d" * 200, dir_fd=below)
        deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=below)
        os.close(below)
        below = deeper
    hidden = os.open("hidden", os.O_CREAT | os.O_WRONLY, dir_fd=below)
    os.write(hidden, b"x" * 2 * MIB)
    os.close(hidden)
    os.close(below)
    assert counted(tmp_path / "run") >= 2 * MIB
    assert counted(tmp_path / "nothing") == 0


def test_inputs_are_not_counted(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "data").write_bytes(b"x" * 2 * MIB)
    (tmp_path / "fit.1.log").write_bytes(b"x" * MIB)
    assert MIB <= counted(tmp_path) < 2 * MIB


def test_what_cannot_be_counted_in_time_is_too_much(tmp_path: Path) -> None:
    (tmp_path / "fit.1").mkdir()
    with pytest.raises(Uncountable):
        counted(tmp_path, timeout=0.0)
