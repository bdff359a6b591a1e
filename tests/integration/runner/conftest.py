from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest

from tests.integration.runner.world import World
from tests.support.engines import build_image, cleaned, unique

OTHER_USER = """
FROM prichal-example-base:1
USER 12345:12345
"""


@pytest.fixture(scope="session")
def client() -> Iterator[docker.APIClient]:
    with closing(docker.APIClient(version="auto")) as client:
        yield client


@pytest.fixture(scope="session")
def other_user(client: docker.APIClient) -> Iterator[str]:
    """An image that runs as a user who is nobody on the host."""
    tag = f"{unique()}:1"
    build_image(client, tag, {"Dockerfile": OTHER_USER})
    yield tag
    client.remove_image(tag, force=True)


@pytest.fixture
def world(client: docker.APIClient, tmp_path: Path) -> Iterator[World]:
    """Nobody drives its runs yet."""
    instance = unique()
    with cleaned(client, instance), closing(World(tmp_path / "state", instance, client)) as made:
        yield made


@pytest.fixture
def driven(world: World) -> World:
    """With its runner at work, in a thread of the test."""
    world.start()
    return world
