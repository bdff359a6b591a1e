from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest

from controller.adapters.docker import DockerEngine
from controller.adapters.staging import StagingFolders
from controller.config import DockerSettings
from controller.domain.names import AppName
from controller.domain.volumes import StagingArea
from tests.support.engines import cleaned, http_server_image, unique


@pytest.fixture(scope="session")
def client() -> Iterator[docker.APIClient]:
    with closing(docker.APIClient(version="auto")) as client:
        yield client


@pytest.fixture(scope="session")
def image(client: docker.APIClient) -> Iterator[str]:
    """Serves HTTP on port 8002 by its own command."""
    with http_server_image(client) as tag:
        yield tag


@pytest.fixture
def instance(client: docker.APIClient) -> Iterator[str]:
    name = unique()
    with cleaned(client, name):
        yield name


@pytest.fixture
def engine(instance: str, tmp_path: Path) -> Iterator[DockerEngine]:
    staging = StagingFolders({StagingArea.MODELS: tmp_path})
    with closing(DockerEngine(DockerSettings(), instance, tmp_path / "serving", staging=staging)) as engine:
        yield engine


@pytest.fixture
def app() -> AppName:
    return AppName(unique("app"))
