"""The daemon watches the GPUs that it lends: by what the driver says, or without it."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.config.settings import DockerSettings, RunSettings, Settings
from controller.daemon.gpus import GpuWatch
from controller.domain.gpu_devices import GpuDevice, GpuReport
from controller.domain.names import AppName, ComponentName
from controller.domain.runs.gpus import Lease
from controller.reconcile.gpu_leases import GpuLeases
from controller.store import SqliteStore
from controller.web.gpus import written_report
from tests.support.clock import FakeClock
from tests.support.fake_engine import FakeEngine
from tests.support.stores import open_store
from tests.support.waiting import wait_for

NOW = 1000.0
WELL = GpuReport(NOW, "550", (GpuDevice("0", "GPU-a"),))
LOST = GpuReport(NOW, "550", (GpuDevice("0", problem="GPU is lost", lost=True),))
SILENT = GpuReport(NOW, problem="Driver Not Loaded")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = open_store(tmp_path / "db" / "state.db")
    yield opened
    opened.close()


def settings(folder: Path, *gpus: str, host: str = "unix:///docker.sock") -> Settings:
    return Settings(state=folder, runs=RunSettings(gpus=gpus), docker=DockerSettings(host=host))


def test_what_the_driver_says_is_written_down_and_counts(
    store: SqliteStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = iter((WELL, LOST, LOST, SILENT, WELL))
    chosen = settings(tmp_path, "0")
    watch = GpuWatch(chosen, lambda: next(said), lambda: NOW)
    assert watch.lost() == {}
    for expected in ({}, {"0": "GPU is lost"}, {"0": "GPU is lost"}, {}, {}):
        watch.look()
        assert watch.lost() == expected
        assert written_report(chosen.gpu_report) == watch.report
    assert stat.S_IMODE(chosen.gpu_report.stat().st_mode) == 0o640
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "a GPU does not work, and is lent to nobody"
    ]


@pytest.mark.parametrize(
    ("gpus", "host", "asked"),
    [
        (("0",), "unix:///docker.sock", True),
        (("0",), "tcp://10.0.0.1:2376", False),
        ((), "unix:///docker.sock", False),
    ],
)
def test_who_is_asked(
    store: SqliteStore, tmp_path: Path, gpus: tuple[str, ...], host: str, asked: bool
) -> None:
    looks: list[bool] = []

    def read() -> GpuReport:
        looks.append(True)
        return SILENT

    watch = GpuWatch(settings(tmp_path, *gpus, host=host), read)
    run(watch, GpuLeases(store, FakeEngine(), FakeClock(), gpus), lambda: True)
    assert bool(looks) == asked


def test_a_failure_ends_nothing_and_leases_are_restored(store: SqliteStore, tmp_path: Path) -> None:
    lease = Lease("prichal.demo.web.1.0", AppName("demo"), ComponentName("web"), ("0",))

    class Engine(FakeEngine):
        def held_gpus(self) -> tuple[Lease, ...]:
            return (lease,)

    def read() -> GpuReport:
        raise OSError("no disk")

    watch = GpuWatch(settings(tmp_path, "0"), read)
    run(watch, GpuLeases(store, Engine(), FakeClock(), ("0",)), lambda: store.gpus.leases() == (lease,))


def run(watch: GpuWatch, leases: GpuLeases, done: object) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=watch.run, args=(leases, stop))
    thread.start()
    try:
        assert callable(done)
        wait_for(done)
    finally:
        stop.set()
        thread.join()
