"""`DockerEngine` keeps the promises of `Engine`, on a real engine with real containers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest

from controller.adapters.docker import DockerEngine, mapping
from controller.adapters.staging import StagingFolders
from controller.config import DockerSettings
from controller.domain.apps.desired import Workload
from controller.domain.names import AppName
from controller.domain.volumes import StagingArea, Volume
from controller.ports import Engine
from tests.contract.engine_contract import EngineContract, Script
from tests.support.engines import cleaned, http_server_image, unique


def docker_engine(instance: str, folder: Path) -> DockerEngine:
    staging = StagingFolders({StagingArea.MODELS: folder})
    return DockerEngine(DockerSettings(), instance, folder, staging=staging)


class DockerScript:
    def __init__(self, client: docker.APIClient, instance: str, image: str, folder: Path) -> None:
        self.client = client
        self.instance = instance
        self.image = image
        self.folder = folder
        self.foreign: list[str] = []
        self.strangers: list[DockerEngine] = []

    def kill(self, workload_id: str) -> None:
        self.client.kill(workload_id, "SIGKILL")

    def vanish(self, workload_id: str) -> None:
        self.client.remove_container(workload_id, force=True)

    def cut_off(self, workload_id: str) -> None:
        (network,) = self.client.inspect_container(workload_id)["NetworkSettings"]["Networks"]
        self.client.disconnect_container_from_network(workload_id, network)

    def write(self, workload_id: str, size: int) -> None:
        self._run(workload_id, f"head -c {size} /dev/zero > /tmp/written")

    def work(self, workload_id: str) -> None:
        self._run(workload_id, "head -c 30000000 /dev/zero | md5sum")

    def _run(self, workload_id: str, command: str) -> None:
        asked = self.client.exec_create(workload_id, ["sh", "-c", command])
        self.client.exec_start(asked["Id"])
        assert self.client.exec_inspect(asked["Id"])["ExitCode"] == 0

    def create(self, workload: Workload, name: str) -> str:
        config = mapping.container_config(workload, mapping.RestartPolicy(self.instance), mapping.Binds(), {})
        made = self.client.create_container_from_config(config, name=name)  # type: ignore[no-untyped-call]
        return str(made["Id"])

    def take_name(self, name: str) -> str:
        made = str(self.client.create_container(self.image, name=name)["Id"])
        self.foreign.append(made)
        return made

    def stage(self, volume: Volume) -> None:
        self.folder.joinpath(*volume.path).mkdir(parents=True)

    def stranger(self) -> Engine:
        self.strangers.append(DockerEngine(DockerSettings(), unique(), self.folder))
        return self.strangers[-1]

    def close(self) -> None:
        for engine in self.strangers:
            engine.close()
        for container in self.foreign:
            self.client.remove_container(container, force=True)


@pytest.fixture(scope="module")
def client() -> Iterator[docker.APIClient]:
    with closing(docker.APIClient(version="auto")) as client:
        yield client


@pytest.fixture(scope="module")
def image(client: docker.APIClient) -> Iterator[str]:
    with http_server_image(client) as tag:
        yield tag


class TestDockerEngine(EngineContract):
    @pytest.fixture
    def script(self, client: docker.APIClient, image: str, tmp_path: Path) -> Iterator[DockerScript]:
        script = DockerScript(client, unique(), image, tmp_path)
        with cleaned(client, script.instance), closing(script):
            yield script

    @pytest.fixture
    def engine(self, script: Script, tmp_path: Path) -> Iterator[DockerEngine]:
        with closing(docker_engine(script.instance, tmp_path)) as engine:
            yield engine

    @pytest.fixture
    def app(self) -> AppName:
        return AppName(unique("app"))
