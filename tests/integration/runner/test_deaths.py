"""`kill -9` at every transition: a process of the runner is killed right before each of its calls that change anything,
in the database, at the engine or in the storage, and the next one brings the run to its one right end.

The processes, their deaths, the database and the folders are real. Containers and storage live in the test's process,
as real ones outlive the daemon; `test_kill` does a part of this over the real engine.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from controller.config.settings import RunSettings
from controller.domain.runs.file_index import FILE_INDEX, MARK
from controller.domain.runs.run import RunState
from controller.ports import JobState
from tests.support.crash_runner import World, parts, served, started
from tests.support.waiting import wait_for
from tests.unit.runner.harness import Harness, pipeline, stage
from tests.unit.runner.scenarios import SCENARIOS, check


def attempt(name: str, *end: str) -> tuple[str, ...]:
    """`fit.1`: until its container has begun, and then how it ends."""
    stage, number = name.split(".")
    states = [f"save {stage} {state}.{number}" for state in ("STARTING", "RUNNING")]
    return (states[0], f"create {name}", states[1], f"start {name}", *end, f"remove {name}")


def well(name: str, *published: str) -> tuple[str, ...]:
    stage, number = name.split(".")
    return attempt(
        name, f"save {stage} RUNNING.{number} ended", *published, f"save {stage} SUCCEEDED.{number}"
    )


def publishing(file: str) -> tuple[str, ...]:
    """Into the caller's area."""
    mark, manifest = (f"{file.split('/')[0]}/{name}" for name in (MARK, FILE_INDEX))
    begun = ("guard", "reserve", f"put {mark}", f"remove {manifest}")
    return (*begun, f"put {file}", f"put {manifest}", f"remove {mark}", "release", "reserve (2)", "touch")


#: All that a runner does which changes anything, by what is played: the points of death.
POINTS = {
    "two stages": (
        *well("fit.1"),
        *attempt("report.1", "save report QUEUED.1"),
        *well("report.2", *publishing("page/index.html")),
        *("save run SUCCEEDED", "submit next"),
    ),
    "side by side": (
        "save left STARTING.1, right STARTING.1",
        *well("left.1")[1:],
        *well("right.1")[1:],
        *well("join.1"),
        "save run SUCCEEDED",
    ),
    "failing": (*attempt("fit.1", "save fit FAILED.1"), "save report CANCELED, run FAILED"),
    "too slow": (
        *attempt("fit.1", "save fit RUNNING.1 Timeout", "stop fit.1", "save fit FAILED.1"),
        "save run FAILED",
    ),
    "canceled": (
        *attempt("fit.1", "save fit CANCELING.1", "stop fit.1", "save fit CANCELED.1"),
        "save report CANCELED, run CANCELED",
    ),
    "repeated": (*well("report.1", *publishing("page/index.html")), "save run SUCCEEDED"),
    "publishing repeated": (
        *("save fit STARTING.1", "save fit RUNNING.1", *publishing("model/x"), "save fit SUCCEEDED.1"),
        "save run SUCCEEDED",
    ),
    "storage away": (
        *well(
            "fit.1",
            *("save fit RUNNING.1 StorageUnreachable", "guard (2)"),
            *publishing("model/x"),
        ),
        "save run SUCCEEDED",
    ),
    "releasing": (
        *well("fit.1"),
        *("guard", "reserve", "put digits/.manifest.json", "remove digits/old", "put digits/x"),
        *("put digits/.manifest.json (2)", "release", "reserve (2)", "touch"),
        *("save released model", "enqueue", "save run SUCCEEDED", "submit next"),
    ),
}


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    """Nobody drives its runs yet."""
    with closing(Harness(tmp_path / "state")) as made:
        yield made


def play(harness: Harness, name: str, id: str, process: BaseProcess) -> None:
    """Until the process is dead, or all is over."""
    if SCENARIOS[name].cancel:
        wait_for(
            lambda: not process.is_alive() or any(j.state is JobState.RUNNING for j in harness.jobs.all())
        )
        harness.cancel(id)
    wait_for(lambda: not process.is_alive() or (harness.run(id).state.terminal and not harness.jobs.names()))


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_table_has_all_that_is_done(harness: Harness, tmp_path: Path, name: str) -> None:
    told = tmp_path / "told"
    with served(World(harness.jobs, harness.objects)) as world:
        id = SCENARIOS[name].submit(harness)
        with started(harness.settings, world, told=told) as process:
            play(harness, name, id, process)
    done = frozenset().union(*(parts(call) for call in told.read_text().splitlines() if "push" not in call))
    assert done == frozenset().union(*map(parts, POINTS[name]))


@pytest.mark.parametrize(
    ("name", "point"), [(name, point) for name, points in POINTS.items() for point in points], ids=str
)
def test_killed_right_before(harness: Harness, name: str, point: str) -> None:
    with served(World(harness.jobs, harness.objects)) as world:
        id = SCENARIOS[name].submit(harness)
        with started(harness.settings, world, fatal=point) as process:
            play(harness, name, id, process)
            assert not process.is_alive(), "it has not come to this point"
    assert process.exitcode == -signal.SIGKILL
    harness.start()
    check(harness, harness.until(id), SCENARIOS[name], f"after death before {point!r}")


@pytest.mark.timeout(900)
def test_a_backlog_of_a_thousand_over_several_deaths(tmp_path: Path) -> None:
    """Killed at any moment, with eight runs under way."""
    with closing(Harness(tmp_path, RunSettings(concurrent=8, per_app=100))) as harness:
        ids = [harness.submit(pipeline(stage(), boxes=())) for _ in range(1000)]
        with served(World(harness.jobs, harness.objects)) as world:
            for enough in (50, 300, 301, 700):
                with started(harness.settings, world):
                    wait_for(lambda enough=enough: len(harness.jobs.starts) >= enough, limit=200.0)  # type: ignore[misc]
        assert any(harness.run(id).state is not RunState.SUCCEEDED for id in ids)
        harness.start()
        wait_for(lambda: harness.store.runs.unfinished(pipeline().app, limit=1) == (), limit=200.0)
        runs = [harness.run(id) for id in ids]
        assert {run.state for run in runs} == {RunState.SUCCEEDED}
        assert {len(run.stage("fit").attempts) for run in runs} == {1}
        assert sorted(harness.jobs.starts) == sorted(f"prichal.demo.{id}.fit.1" for id in ids), "each once"
