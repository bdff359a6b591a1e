"""`DockerJobs` keeps the promises of `Jobs`, on a real engine with real containers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory

import docker
import pytest

from controller.adapters.docker import DockerJobs
from controller.adapters.staging import StagingFolders
from controller.config import DockerSettings
from controller.domain.names import AppName
from controller.domain.volumes import StagingArea, Volume
from controller.ports import Job, Jobs
from tests.contract.jobs_contract import JobsContract
from tests.support.engines import BASE_IMAGE, cleaned, unique
from tests.support.proxy import CuttableSocket, cuttable
from tests.support.scripted_container import ScriptedContainers

#: The SDK leaves a socket open that could not connect.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


class DockerScript:
    def __init__(self, client: docker.APIClient, line: CuttableSocket, folder: Path) -> None:
        self.client = client
        self.line = line
        self.instance = unique()
        self.staging = StagingFolders({StagingArea.RUNS: folder})
        self.puppets = ScriptedContainers(folder, self.instance)
        self.after = ExitStack()

    def job(self, app: AppName, stage: str = "train") -> Job:
        return self.puppets.job(app, stage)

    def say(self, id: str, content: bytes, error: bool = False) -> None:
        self.puppets.say(self._name(id), content, error)

    def exit(self, id: str, code: int) -> None:
        self.puppets.exit(self._name(id), code)

    def exhaust(self, id: str) -> None:
        self.puppets.exhaust(self._name(id))

    def _name(self, id: str) -> str:
        return str(self.client.inspect_container(id)["Name"]).lstrip("/")

    def kill(self, id: str) -> None:
        self.client.kill(id, "SIGKILL")

    def vanish(self, id: str) -> None:
        self.client.remove_container(id, force=True)

    def take_name(self, name: str) -> str:
        made = str(self.client.create_container(BASE_IMAGE, name=name)["Id"])
        self.after.callback(self.client.remove_container, made, force=True)
        return made

    def stranger(self) -> Jobs:
        return self.after.enter_context(closing(DockerJobs(DockerSettings(), unique())))

    def stage(self, volume: Volume) -> None:
        self.staging.roots[volume.area].joinpath(*volume.path).mkdir(parents=True)

    def cut(self) -> None:
        self.line.cut()

    def repair(self) -> None:
        self.line.repair()


@pytest.fixture(scope="module")
def client() -> Iterator[docker.APIClient]:
    with closing(docker.APIClient(version="auto")) as client:
        yield client


class TestDockerJobs(JobsContract):
    @pytest.fixture
    def script(self, client: docker.APIClient, tmp_path: Path) -> Iterator[DockerScript]:
        # tmp_path is too long for a socket's name.
        with TemporaryDirectory() as folder, cuttable(Path(folder)) as line:
            script = DockerScript(client, line, tmp_path)
            with cleaned(client, script.instance), script.after:
                yield script

    @pytest.fixture
    def jobs(self, script: DockerScript) -> Iterator[DockerJobs]:
        settings = DockerSettings(host=f"unix://{script.line.path}")
        with closing(DockerJobs(settings, script.instance, script.staging)) as jobs:
            yield jobs

    @pytest.fixture
    def app(self) -> AppName:
        return AppName(unique("app"))
