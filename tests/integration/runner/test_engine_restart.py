"""The engine ends and comes back while a stage runs: one of the test's own, stopped as by systemd or killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from controller.config import DockerSettings
from controller.domain.runs.pipeline import Stage
from controller.domain.runs.run import Run, RunState
from tests.integration.runner.world import World, python
from tests.support.engines import BASE_IMAGE, unique
from tests.support.own_engine import OwnEngine, available, own_engine
from tests.support.waiting import wait_for

pytestmark = [
    pytest.mark.skipif(not available(), reason="needs root for an engine of its own"),
    #: The SDK leaves a socket open that could not connect.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


@pytest.fixture(scope="module")
def engine() -> Iterator[OwnEngine]:
    with own_engine() as made:
        made.load(BASE_IMAGE)
        yield made


@pytest.fixture
def world(engine: OwnEngine, tmp_path: Path) -> Iterator[World]:
    """With its runner at work."""
    with (
        closing(engine.client()) as client,
        closing(World(tmp_path / "state", unique(), client, DockerSettings(host=engine.host))) as made,
    ):
        made.start()
        yield made


def patient(code: int = 143) -> Stage:
    """Its first attempt runs until it is stopped; a later one, or one that finds the file `go`, ends well."""
    return python(
        "fit",
        f"""
import os, signal, time
def stopped(*_):
    os._exit({code})
signal.signal(signal.SIGTERM, stopped)
print("up", os.environ["UNIP_ATTEMPT"], flush=True)
while os.environ["UNIP_ATTEMPT"] == "1" and not os.path.exists(os.environ["UNIP_PIPELINE_MODEL"] + "/go"):
    time.sleep(0.05)
open(os.environ["UNIP_PIPELINE_MODEL"] + "/made", "w").close()
""",
        outputs=("model",),
    )


def begun(world: World, stage: Stage) -> str:
    id = world.submit(stage)
    wait_for(lambda: world.log(id) == b"up 1\n")
    return id


def check_repeated(world: World, run: Run) -> None:
    assert run.state is RunState.SUCCEEDED, run
    lost, good = run.stage("fit").attempts
    assert (lost.reason, lost.platform, good.reason, good.exit_code) == ("EngineRestarted", True, "", 0)
    assert world.log(run.id, attempt=2) == b"up 2\n"


def test_stopped_it_takes_its_containers_with_it(world: World, engine: OwnEngine) -> None:
    id = begun(world, patient())
    engine.stop()
    engine.start()
    check_repeated(world, world.until(id))


def test_killed_it_ends_its_containers_when_it_comes_back(world: World, engine: OwnEngine) -> None:
    id = begun(world, patient())
    engine.kill()
    engine.start()
    check_repeated(world, world.until(id))


def test_the_daemon_was_away_too(world: World, engine: OwnEngine) -> None:
    """As when the host is restarted. Commands end with any code they like when they are told to stop."""
    id = begun(world, patient(code=3))
    world.stop()
    engine.stop()
    engine.start()
    world.start()
    check_repeated(world, world.until(id))


@pytest.mark.parametrize("end", [OwnEngine.stop, OwnEngine.kill], ids=["stopped", "killed"])
def test_with_live_restore_the_stage_runs_on(world: World, engine: OwnEngine, end: object) -> None:
    engine.live_restore = True
    engine.stop()
    engine.start()
    try:
        id = begun(world, patient())
        assert callable(end)
        end(engine)
        (world.settings.run_files / id / "fit.1" / "out" / "model" / "go").touch()
        engine.start()
        run = world.until(id)
    finally:
        engine.live_restore = False
        engine.stop()
        engine.start()
    assert run.state is RunState.SUCCEEDED, run
    (attempt,) = run.stage("fit").attempts
    assert attempt.exit_code == 0
    assert world.log(id) == b"up 1\n"
