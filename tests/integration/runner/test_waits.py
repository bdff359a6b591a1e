"""Runs on a real engine that answers with errors or not at all, and whose images have something in the way."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import docker
import pytest

from controller.config import DockerSettings
from controller.domain.apps.spec import PipelineVar
from controller.domain.runs.pipeline import Stage
from controller.domain.runs.run import RunInput, RunState, new_run, new_run_id
from controller.domain.storage.keys import user_area
from tests.integration.runner.world import BUCKET, World, pipeline, python
from tests.support.engines import build_image, cleaned, unique
from tests.support.proxy import CuttableSocket, Fault, cuttable
from tests.support.specs import make
from tests.support.waiting import wait_for

#: The SDK leaves a socket open that could not connect.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

IN_THE_WAY = """
FROM prichal-example-base:1
RUN mkdir /data && touch /file && ln -s /data /link && ln -s /file /other
"""


@pytest.fixture(scope="module")
def image(client: docker.APIClient) -> Iterator[str]:
    """With a folder /data, a file /file, and links to both."""
    tag = f"{unique()}:1"
    build_image(client, tag, {"Dockerfile": IN_THE_WAY})
    yield tag
    client.remove_image(tag, force=True)


@pytest.mark.parametrize(
    ("passed", "target", "there"),
    [
        ("tables/in.csv", "/data", "/data is a folder in the image, but 'table' is a file"),
        ("tables/in.csv", "/link", "/link is a folder in the image, but 'table' is a file"),
        ("tables/in.csv", "/file/in.csv", "/file is a file in the image, but /file/in.csv is below it"),
        ("group/", "/file", "/file is a file in the image, but 'table' is a folder"),
        ("group/", "/other", "/other is a file in the image, but 'table' is a folder"),
        ("", "/file", "/file is a file in the image, but 'table' is a folder"),
    ],
)
def test_a_variable_that_fits_no_mount_point(
    driven: World, image: str, passed: str, target: str, there: str
) -> None:
    """As the first run of the image, and as a later one. Nothing is left over."""
    for key in ("tables/in.csv", "group/x"):
        driven.storage.objects().put(BUCKET, user_area("anna") + key, io.BytesIO(b"x"), 1)
    given = {"inputs": ("table",)} if passed else {"outputs": ("table",)}
    fit = make(Stage, "fit", image, command=("python3", "-c", ""), timeout=30.0, **given)
    of = pipeline(fit, vars=(PipelineVar("table", mount_to=target),))
    for number in range(2):
        run = new_run(
            new_run_id(1.0, number), of, 1.0, "anna", [RunInput("table", data=passed)][: bool(passed)]
        )
        ended = driven.until(driven.store.runs.submit(run).id)
        reason = "InputInvalid" if passed else "OutputInvalid"
        assert (ended.state, ended.reason) == (RunState.FAILED, reason), ended.message
        assert there in ended.message
        assert str(driven.settings.state) not in ended.message
    wait_for(lambda: not driven.containers())


# --- an engine that is not well ---------------------------------------------------------------------------------


@pytest.fixture
def line() -> Iterator[CuttableSocket]:
    with (
        TemporaryDirectory() as folder,
        cuttable(Path(folder)) as line,
    ):  # tmp_path is too long for a socket's name
        yield line


@pytest.fixture
def behind(client: docker.APIClient, line: CuttableSocket, tmp_path: Path) -> Iterator[World]:
    instance = unique()
    engine = DockerSettings(host=f"unix://{line.path}", timeout=4.0)
    with cleaned(client, instance), closing(World(tmp_path / "state", instance, client, engine)) as made:
        made.start()
        yield made


@pytest.mark.parametrize("fault", Fault)
def test_the_look_for_the_program_and_the_waiting_fail(
    behind: World, line: CuttableSocket, fault: Fault
) -> None:
    """There are other ways to find out."""
    if fault is Fault.FAIL:
        line.faults["HEAD .*/archive"] = fault
    line.faults["POST .*/wait"] = fault
    run = behind.finish(python("fit", "print('hello')", timeout=60.0))
    assert run.state is RunState.SUCCEEDED, run
    assert behind.log(run.id) == b"hello\n"


@pytest.mark.parametrize("fault", [Fault.FAIL, Fault.HANG])
@pytest.mark.parametrize("call", ["create", "start"])
def test_a_container_that_cannot_be_started(
    behind: World, line: CuttableSocket, call: str, fault: Fault
) -> None:
    """It is a failure of this stage: people see why, and may cancel."""
    line.faults[f"POST .*/{call}"] = fault
    id = behind.submit(python("fit", "print('hello')", timeout=5.0))
    reason = "EngineFailed" if fault is Fault.FAIL else "EngineTimeout"
    run = wait_for(lambda: behind.run(id), lambda run: run.stage("fit").reason == reason, limit=60.0)
    assert fault is not Fault.FAIL or "the engine is not well" in run.stage("fit").message
    assert str(behind.settings.state) not in run.stage("fit").message
    behind.cancel(id)
    assert behind.until(id).state is RunState.CANCELED
    assert behind.store.runs.active() == ()


def test_a_container_that_nobody_can_look_at_or_stop(behind: World, line: CuttableSocket) -> None:
    """Canceled, the run leaves its place, and says what is left."""
    id = behind.submit(python("fit", "import time; print('up', flush=True); time.sleep(3600)"))
    behind.container(id)
    line.faults["GET .*/json"] = Fault.AWAY
    run = wait_for(lambda: behind.run(id), lambda run: run.stage("fit").reason != "", limit=60.0)
    assert run.stage("fit").reason == "EngineUnreachable"
    line.faults = {"POST .*/stop": Fault.FAIL}
    wait_for(lambda: behind.run(id), lambda run: run.stage("fit").reason == "", limit=90.0)
    behind.cancel(id)
    wait_for(lambda: line.met and "/stop" in line.met[-1])
    line.faults.clear()
    assert behind.until(id).state is RunState.CANCELED
