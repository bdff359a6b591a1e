"""Images that are followed, on everything real and under load: from a push to the registry to the answer of a call,
back by a person, on with the next image, over the death of the daemon, and into Git."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import docker
import docker.errors
import pytest

from tests.support.engines import BASE_IMAGE, build_image, unique
from tests.support.git_servers import git
from tests.support.platform import ECHO, Callers, Module, Platform
from tests.support.registry import PASSWORD, USER, LocalRegistry, local_registry


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    running = Platform(tmp_path_factory.mktemp("platform"), images={"leastInterval": "1s"})
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegistry]:
    with local_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def client(registry: LocalRegistry, platform: Platform) -> Iterator[docker.APIClient]:
    client = docker.APIClient()
    yield client
    platform.stop()  # whose containers keep images
    for image in client.images(f"{registry.host}/team/demo"):
        with suppress(docker.errors.NotFound):
            client.remove_image(image["Id"], force=True)
    client.close()


def publish(client: docker.APIClient, registry: LocalRegistry, version: str) -> None:
    """Build an image whose function returns its version, and push it."""
    name = f"{unique()}:1"
    dockerfile = f"FROM {BASE_IMAGE}\nENV VERSION={version}\nWORKDIR /srv\nCOPY app.py .\n"
    build_image(client, name, {"Dockerfile": dockerfile, "app.py": ECHO})
    try:
        registry.push(client, name, version)
    finally:
        client.remove_image(name)


def declare(module: Module, registry: LocalRegistry, **follow: object) -> str:
    image = {
        "existingImageName": f"{registry.host}/team/demo:1.0.0",
        "follow": {"semver": "^1", "interval": "1s", **follow},
    }
    small = {"cpus": 0.5, "memory": "128Mi"}
    module.component("model", image=image, mlService={"inference": "app:predict"}, resources=small)
    return module.api().push()


@pytest.mark.timeout(900)
def test_from_the_registry_into_service_and_back_and_into_git(
    platform: Platform, module: Module, app: str, registry: LocalRegistry, client: docker.APIClient
) -> None:
    publish(client, registry, "1.0.0")
    commit = declare(module, registry)
    registries = [{"name": "hub", "url": registry.host, "credentials": "hub-cred"}]
    secrets = {"hub-cred": {"username": USER, "password": PASSWORD}}
    platform.connect(module, app, secrets, registries=registries)
    platform.until_ready(app, commit)
    publish(client, registry, "2.0.0")
    with Callers(platform, app, 2) as callers:
        publish(client, registry, "1.1.0")
        platform.until(lambda: callers.answered("1.1.0") > 5)
        platform.kill("daemon")
        publish(client, registry, "1.2.0")
        platform.start_process("daemon")
        platform.until(lambda: callers.answered("1.2.0") > 5)
        platform.prichal("rollback", app, "--wait")
        assert platform.predict(app).json["outputs"][0]["data"] == "1.1.0"
        asked = platform.status(app)["followed"][0]["asked"]
        platform.until(lambda: platform.status(app)["followed"][0]["asked"] > asked)
        passes = platform.passes(app)
        platform.poke(app)
        platform.until(lambda: platform.passes(app) > passes)
        assert platform.predict(app).json["outputs"][0]["data"] == "1.1.0", "the follower has undone it"
        publish(client, registry, "1.3.0")
        platform.until(lambda: callers.answered("1.3.0") > 5)
        declare(module, registry, writeBack=True)
        platform.poke(app)
        publish(client, registry, "1.4.0")
        platform.until(lambda: callers.answered("1.4.0") > 5)
    assert callers.failures == []
    assert callers.answered("2.0.0") == 0
    (followed,) = platform.status(app)["followed"]
    assert followed["why"].startswith("1.4.0 is the highest version within '^1', of ")
    text = platform.prichal("status", app).stdout
    assert "semver ^1" in text
    told = git(module.bare, "log", "-1", "--format=%an: %s", "main")
    assert told == "prichal: Follow demo to 1.4.0 in model"
    assert followed["commit"] == git(module.bare, "rev-parse", "main")
