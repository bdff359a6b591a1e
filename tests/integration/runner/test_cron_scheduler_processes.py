"""Each tick starts one run, although its process dies, or several processes start runs."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier

import pytest

from controller.adapters.cron import CronTicks
from controller.domain.apps.spec import CronSchedule, Overlap
from controller.domain.names import AppName, ComponentName
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.schedules import Checkpoint
from controller.runner.cron_scheduler import CronScheduler
from controller.store import SqliteStore, open_store
from tests.integration.runner.world import ROOT
from tests.support.clock import FakeClock
from tests.support.specs import make
from tests.support.waiting import wait_for

APP = AppName("demo")
PROCESSES, ROUNDS = 3, 30
MINUTE = 60.0
#: What the start of one run calls, in this order: where it dies.
CALLS = ("mark moved on", "tick taken", "run submitted", "committed")
spawn = multiprocessing.get_context("spawn")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db" / "state.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    opened = open_store(path)
    yield opened
    opened.close()


def publish(store: SqliteStore, schedule: CronSchedule) -> None:
    stage = make(Stage, "fit", "sha256:1", outputs=("model",))
    store.runs.publish(
        APP, (make(Pipeline, APP, ComponentName("train"), "c0ffee", (stage,), schedule=schedule),)
    )


def process(path: Path, *call: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.support.serve_cron_scheduler", str(path), *call]
    return subprocess.Popen(command, cwd=ROOT)


@pytest.mark.parametrize("call", range(1, len(CALLS) + 1), ids=lambda number: f"before {CALLS[number - 1]}")
def test_killed_before_any_call(store: SqliteStore, path: Path, call: int) -> None:
    yearly = make(CronSchedule, "0 0 1 1 *")
    publish(store, yearly)
    (scheduled,) = store.schedules.all()
    long_ago = CronTicks().after(yearly.cron, yearly.timezone, 0.0)
    assert store.schedules.advance(scheduled, Checkpoint(yearly.cron, yearly.timezone, 0.0, long_ago))
    assert process(path, str(call)).wait(timeout=60) == -signal.SIGKILL
    assert store.runs.list(APP) == (), "all of it or nothing"
    following = process(path)
    try:
        (run,) = wait_for(lambda: store.runs.list(APP))
    finally:
        following.terminate()
        assert following.wait(timeout=60) == 0
    assert store.runs.list(APP) == (run,)


def keep_time(path: Path, together: Barrier) -> None:
    """All look at the same moments."""
    store, clock = open_store(path), FakeClock(0.0)
    cron_scheduler = CronScheduler(store, clock, CronTicks())
    for _ in range(ROUNDS):
        together.wait()
        clock.advance(MINUTE)
        cron_scheduler.run_once()
    store.close()


def test_several_at_it(store: SqliteStore, path: Path) -> None:
    publish(store, make(CronSchedule, "* * * * *", overlap=Overlap.ALLOW))
    CronScheduler(store, FakeClock(0.0), CronTicks()).run_once()
    together = spawn.Barrier(PROCESSES)
    racing = [spawn.Process(target=keep_time, args=(path, together)) for _ in range(PROCESSES)]
    for each in racing:
        each.start()
    for each in racing:
        each.join()
        assert each.exitcode == 0
    assert sorted(run.created for run in store.runs.list(APP, limit=1000)) == [
        round * MINUTE for round in range(1, ROUNDS + 1)
    ]
