"""An engine that shifts the users of containers: what root of a container makes belongs to nobody on the host, and all
goes on as it does without."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from controller.adapters.docker import DockerEngine
from controller.config import DockerSettings
from controller.domain.runs.run import RunState
from tests.integration.docker.test_containers import FUNCTION, run
from tests.integration.docker.test_containers import python as python_in
from tests.integration.runner.world import World, python
from tests.support.engines import BASE_IMAGE, build_image, cleaned, platform_workload, unique
from tests.support.own_engine import SHIFTED, OwnEngine, available, own_engine
from tests.support.waiting import wait_for

pytestmark = [
    pytest.mark.skipif(
        not available() or not Path("/etc/subuid").exists(), reason="needs root for an engine of its own"
    ),
    #: The SDK leaves a socket open that could not connect.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


@pytest.fixture(scope="module")
def engine() -> Iterator[OwnEngine]:
    with own_engine(users=True) as made:
        made.load(BASE_IMAGE)
        yield made


def test_a_run_from_stage_to_stage_to_its_box(engine: OwnEngine, tmp_path: Path) -> None:
    write = """
import os
path = os.environ["UNIP_PIPELINE_MODEL"] + "/made"
with open(path, "w") as file:
    file.write(open("/proc/self/uid_map").read())
os.chmod(path, 0o4711)
while not os.path.exists(os.environ["UNIP_PIPELINE_MODEL"] + "/go"):
    pass
"""
    read = """
import os, shutil
shutil.copy(os.environ["UNIP_PIPELINE_MODEL"] + "/made", os.environ["UNIP_PIPELINE_COPY"] + "/copied")
"""
    with (
        closing(engine.client()) as client,
        closing(World(tmp_path / "state", unique(), client, DockerSettings(host=engine.host))) as world,
    ):
        world.start()
        id = world.submit(
            python("fit", write, outputs=("model",)),
            python("copy", read, inputs=("model",), outputs=("copy",)),
        )
        (made,) = wait_for(lambda: list(world.settings.run_files.glob(f"{id}/**/made")))
        wait_for(lambda: made.stat().st_mode & stat.S_ISUID)
        assert made.stat().st_uid in SHIFTED
        (made.parent / "go").touch()
        ended = world.until(id)
        assert ended.state is RunState.SUCCEEDED, ended
        stored = world.stored(f"runs/{id}/copy/")
        assert stored["copied"].split()[:2] == [b"0", b"%d" % SHIFTED[0]]


def test_a_component_with_the_serving_library(engine: OwnEngine, tmp_path: Path) -> None:
    """Whose containers are in the rules of the firewall, too: the container that brings them in shifts nobody."""
    instance, settings = unique(), DockerSettings(host=engine.host, egress="internet")
    with (
        closing(engine.client()) as client,
        cleaned(client, instance),
        closing(DockerEngine(settings, instance, tmp_path / "serving")) as ours,
    ):
        dockerfile = f"FROM {BASE_IMAGE}\nCOPY mymodule.py /image/lib/\nENV PYTHONPATH=/image/lib\n"
        build_image(client, f"{instance}:1", {"Dockerfile": dockerfile, "mymodule.py": FUNCTION})
        seen = run(ours, instance, platform_workload(f"{instance}:1", "app", "mymodule:predict"))
        code = "print(open('/proc/self/uid_map').read(), open('/opt/prichal/prichal_serving/oip.py').read(9))"
        status, said = python_in(client, seen, code)
        assert status == 0, said
        assert said.split()[:2] == ["0", str(SHIFTED[0])]
        assert engine.inside("iptables", "-C", "INPUT", "-i", "prc+", "-j", "PRICHAL-IN").returncode == 0
