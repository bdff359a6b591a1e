"""What components do and use becomes samples, from all sources that answer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.daemon.sampling import ComponentSampler
from controller.domain.apps.samples import COARSE, FINE, Sample
from controller.domain.apps.status import AppStatus, ComponentStatus
from controller.domain.gpu_devices import GpuDevice, GpuReport
from controller.domain.names import AppName, ComponentName
from controller.domain.routing.routes import Api, Route
from controller.store import SqliteStore, request_metrics
from controller.store.request_metrics import RequestMetrics
from tests.support.clock import FakeClock
from tests.support.engines import name_of, own_server_workload
from tests.support.fake_engine import FakeEngine
from tests.support.fake_prober import FakeProber
from tests.support.stores import open_store

DEMO, WEB = AppName("demo"), ComponentName("web")
IMAGE = "image:1"


class World:
    """One component with one replica, behind a gateway of one worker."""

    def __init__(self, store: SqliteStore, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.clock = FakeClock()
        self.engine = FakeEngine(images=[IMAGE])
        self.prober = FakeProber(self.engine)
        self.meter = RequestMetrics()
        self.report = GpuReport()
        self.engine.ensure_network(DEMO)
        self.start()
        self.sampler = self.new_sampler()

    def new_sampler(self) -> ComponentSampler:
        return ComponentSampler(
            self.store, self.engine, self.prober, self.clock, self.folder, lambda: self.report
        )

    def start(self, *gpus: str) -> None:
        workload = replace(own_server_workload(IMAGE, DEMO), gpus=gpus)
        self.engine.start(workload, name_of(workload, self.engine.instance))
        (self.replica,) = self.engine.observe(DEMO).workloads
        endpoint = self.replica.endpoint
        assert endpoint is not None
        self.component = self.replica.component
        apis = (Api("first", ComponentName("first"), True), Api("second", ComponentName("second"), True))
        self.store.routes.switch(Route(DEMO, self.component, "f" * 16, "r1", (endpoint,), apis))

    def look(self, seconds: float = 10.0) -> None:
        self.meter.flush(request_metrics.worker_file(self.folder, 1))
        self.sampler.look()
        self.clock.sleep(seconds)

    def last(self) -> Sample | None:
        found = self.store.series.of(DEMO, self.component, FINE)
        return max(found, key=lambda each: each.at).sample if found else None


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    store = open_store(tmp_path / "db" / "state.db")
    request_metrics.clear(tmp_path / "web")
    yield World(store, tmp_path / "web")
    store.close()


def test_a_sample_has_what_all_sources_say(world: World) -> None:
    world.meter.observe("demo/first", 200, 0.1)
    world.look()
    assert world.last() is None, "the first look only finds where counters stand"
    for path, status in (("first", 200), ("second", 500), ("first", 404), ("unknown", 200)):
        world.meter.observe(f"demo/{path}", status, 0.03)
    world.meter.begin("demo/second")
    world.engine.work(world.replica.id, 5.0, 1000)
    world.prober.says[world.component] = "prichal_serving_calls_queued 2\n"
    world.look()
    found = world.last()
    assert found is not None
    assert found.buckets[5] == sum(found.buckets) == 3
    assert found == Sample(
        10,
        requests=3,
        refused=1,
        failed=1,
        in_flight=1,
        cpu=0.5,
        memory=1000,
        queued=2,
        restarted=0,
        buckets=found.buckets,
    )


def test_workers_of_the_serving_library_that_were_replaced(world: World) -> None:
    for count, seen in ((4, None), (4, 0), (6, 2), (1, 0)):
        world.prober.says[world.component] = f"prichal_serving_worker_restarts_total {count}\n"
        world.look()
        found = world.last()
        assert (found.restarted if found else None) == seen


def test_an_engine_that_is_away_leaves_the_rest(world: World) -> None:
    world.look()
    world.engine.down = True
    world.meter.observe("demo/first", 200, 0.1)
    world.look()
    found = world.last()
    assert found is not None
    assert (found.requests, found.cpu, found.memory) == (1, None, None)


def test_a_container_that_was_replaced_has_no_use_of_before(world: World) -> None:
    world.engine.work(world.replica.id, 1000.0, 10)
    world.look()
    world.engine.remove(world.replica.id, 0)
    world.start()
    world.engine.work(world.replica.id, 3.0, 20)
    world.look()
    found = world.last()
    assert found is not None
    assert (found.cpu, found.memory) == (None, 20)
    world.engine.work(world.replica.id, 3.0, 0)
    world.look()
    found = world.last()
    assert found is not None
    assert found.cpu == pytest.approx(0.3)


def test_a_daemon_that_begins_again_counts_nothing_twice(world: World) -> None:
    for _ in range(2):
        world.meter.observe("demo/first", 200, 0.1)
        world.look()
    world.sampler = world.new_sampler()
    world.look()
    world.meter.observe("demo/first", 200, 0.1)
    world.look()
    total = sum(each.sample.requests or 0 for each in world.store.series.of(DEMO, world.component, COARSE))
    assert total == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"requests": [["demo/first", 200, -1]], "durations": {}, "seconds": {}}',
        b'{"requests": [["demo/first", 200, 1e999]], "durations": {}, "seconds": {}}',
        b'{"requests": [["demo/first", 200, true]], "durations": {}, "seconds": {}}',
        b'{"requests": [], "durations": {"demo/first": [1]}, "seconds": {}}',
        b'{"requests": [], "durations": {"demo/first": "1111111111111111"}, "seconds": {}}',
        json.dumps({"requests": 3, "durations": {}, "seconds": {}}).encode(),
    ],
)
def test_counts_that_no_worker_has_written_are_ignored(world: World, content: bytes) -> None:
    world.look()
    (world.folder / "worker-2.json").write_bytes(content)
    world.meter.observe("demo/first", 200, 0.1)
    world.look()
    found = world.last()
    assert found is not None
    assert found.requests == 1


def test_files_that_would_hold_the_daemon_are_not_read(world: World) -> None:
    os.mkfifo(world.folder / "worker-2.json")
    (world.folder / "worker-3.json").symlink_to("/dev/zero")
    (world.folder / "worker-4.json").mkdir()
    world.look()
    world.look()
    assert world.last() is not None


def test_samples_go_with_the_component(world: World) -> None:
    world.look()
    world.look()
    world.sampler._tidy()
    assert world.last() is not None
    world.store.routes.withdraw(DEMO, world.component)
    sampler = world.new_sampler()
    world.store.apps.save(AppStatus(DEMO, components=(ComponentStatus(world.component, "MLComponent"),)))
    sampler._tidy()
    assert world.last() is not None, "it is declared, and not in service yet"
    world.store.apps.save(AppStatus(DEMO))
    world.new_sampler()._tidy()
    assert world.last() is None


def test_the_use_of_gpus_is_what_their_driver_says(world: World) -> None:
    world.engine.remove(world.replica.id, 0)
    world.start("0", "GPU-bb")
    devices = (
        GpuDevice("0", "GPU-aa", memory_used=10, utilization=0.5),
        GpuDevice("1", "GPU-bb1", memory_used=5),
    )
    world.look()
    world.report = GpuReport(world.clock.now(), devices=devices)
    world.look()
    found = world.last()
    assert found is not None
    assert (found.gpu, found.gpu_memory) == (None, 15), "the use of one of them is unknown"
    devices = (devices[0], replace(devices[1], utilization=0.0))
    world.report = GpuReport(world.clock.now(), devices=devices)
    world.look()
    found = world.last()
    assert found is not None
    assert (found.gpu, found.gpu_memory) == (0.25, 15)
    world.clock.advance(600)
    world.look()
    found = world.last()
    assert found is not None
    assert (found.gpu, found.gpu_memory) == (None, None), "what was said long ago is not the use of now"
