"""The engine goes away and comes back: calls say so, the watcher goes on."""

from __future__ import annotations

import gc
import queue
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import docker
import pytest

from controller.adapters.docker import DockerEngine
from controller.config import DockerSettings
from controller.domain.errors import Transient
from controller.domain.names import AppName
from controller.ports import EngineEvent
from tests.support.engines import name_of, own_server_workload
from tests.support.proxy import CuttableSocket, cuttable

#: The SDK leaves a socket open that could not connect.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture
def line() -> Iterator[CuttableSocket]:
    with (
        TemporaryDirectory() as folder,
        cuttable(Path(folder)) as line,
    ):  # tmp_path is too long for a socket's name
        yield line
    gc.collect()


@pytest.fixture
def engine(line: CuttableSocket, instance: str, tmp_path: Path) -> Iterator[DockerEngine]:
    settings = DockerSettings(host=f"unix://{line.path}")
    with closing(DockerEngine(settings, instance, tmp_path / "serving")) as engine:
        yield engine


def test_an_engine_that_was_never_there_may_come(engine: DockerEngine, line: CuttableSocket) -> None:
    line.cut()
    with pytest.raises(Transient, match="Is Docker running") as caught:
        engine.ping()
    assert caught.value.reason == "EngineUnreachable"
    line.repair()
    assert engine.ping().startswith("Docker ")


def test_calls_work_again_after_an_outage(engine: DockerEngine, line: CuttableSocket, app: AppName) -> None:
    engine.observe(app)
    line.cut()
    with pytest.raises(Transient):
        engine.observe(app)
    line.repair()
    assert engine.observe(app).workloads == ()


def test_the_watcher_tells_what_it_missed(
    engine: DockerEngine,
    client: docker.APIClient,
    line: CuttableSocket,
    instance: str,
    app: AppName,
    image: str,
) -> None:
    workload = own_server_workload(image, app)
    engine.ensure_network(app)
    engine.start(workload, name_of(workload, instance))
    container = engine.observe(app).workloads[0].id
    stop = threading.Event()
    events: queue.Queue[EngineEvent] = queue.Queue()

    def watch() -> None:
        for event in engine.watch(stop.is_set):
            events.put(event)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        # The watcher sees what happens after it began: deaths are repeated until it tells of one.
        while events.empty():
            client.kill(container)
            client.wait(container)
            client.start(container)
        line.cut()
        client.kill(container)
        line.repair()
        while events.get(timeout=30).action != "reconnected":
            pass
        missed = [events.get(timeout=30)]
        while missed[-1].action != "die":
            missed.append(events.get(timeout=30))
    finally:
        stop.set()
        watcher.join(timeout=30)
    assert not watcher.is_alive()
    assert {(event.app, event.component, event.workload_id) for event in missed} == {(app, "web", container)}
