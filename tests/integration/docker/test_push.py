"""Builds that are pushed to a real registry with credentials: named by their digest there, whatever this host has."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest

from controller.adapters.docker import DockerEngine
from controller.config import DockerSettings
from controller.domain.apps.desired import BuildInput
from controller.domain.apps.observed import ImageOrigin, ImagePin
from controller.domain.apps.spec import BuildImage, ExistingImage
from controller.domain.errors import Stalled, Transient
from controller.domain.names import AppName, build_tag, is_build
from tests.support.engines import context_of, name_of, own_server_workload, unique
from tests.support.registry import PASSWORD, USER, LocalRegistry, local_registry
from tests.support.specs import make

SOURCE = make(BuildImage, ".")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegistry]:
    with local_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def login(registry: LocalRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `docker login` leaves, which the daemon's user has done."""
    folder = tmp_path / "docker"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}))
    return folder / "config.json"


@pytest.fixture
def pushing(registry: LocalRegistry, instance: str, tmp_path: Path, login: Path) -> Iterator[DockerEngine]:
    settings = DockerSettings(registry=f"{registry.host}/team")
    with closing(DockerEngine(settings, instance, tmp_path / "serving")) as engine:
        yield engine


@pytest.fixture
def tag(instance: str, app: AppName) -> str:
    return build_tag(instance, app, unique() + 32 * "0")


@pytest.fixture(autouse=True)
def nothing_left(client: docker.APIClient, registry: LocalRegistry, instance: str) -> Iterator[None]:
    yield
    for image in client.images():
        if any(f"{registry.host}/team/{instance}/" in name for name in image["RepoTags"] or ()):
            client.remove_image(image["Id"], force=True)


def build(engine: DockerEngine, tag: str) -> ImagePin:
    context = context_of({"Dockerfile": "FROM scratch\nCOPY content /\n", "content": tag})
    engine.build(tag, BuildInput("c0ffee", SOURCE), context, lambda line: None)
    return engine.pin(SOURCE, tag, ())


def forget(client: docker.APIClient, pin: ImagePin) -> None:
    """Another host, or one that was cleaned up."""
    client.remove_image(client.inspect_image(pin.deploy)["Id"], force=True)  # type: ignore[no-untyped-call]


def test_a_build_is_named_by_its_digest_in_the_registry(
    pushing: DockerEngine, registry: LocalRegistry, instance: str, app: AppName, tag: str
) -> None:
    before = pushing.pin(SOURCE, tag, ())
    assert (before.deploy, before.present, before.to_build) == (tag, False, True)
    pin = build(pushing, tag)
    repository, _, digest = pin.deploy.partition("@")
    assert repository == f"{registry.host}/team/{instance}/{app}/build"
    assert digest.startswith("sha256:")
    assert (pin.origin, pin.present, pin.to_build) == (ImageOrigin.BUILD, True, False)
    assert is_build(pin.deploy, app)
    assert not is_build(pin.deploy, AppName("other"))


def test_what_this_host_has_lost_is_pulled_and_not_built_again(
    pushing: DockerEngine, client: docker.APIClient, tag: str
) -> None:
    pin = build(pushing, tag)
    forget(client, pin)
    found = pushing.pin(SOURCE, tag, ())
    assert (found.deploy, found.present, found.to_build) == (pin.deploy, False, False)
    pushing.pull(AppName("demo"), found.deploy, ())
    assert client.inspect_image(pin.deploy)  # type: ignore[no-untyped-call]
    assert pushing.pin(SOURCE, tag, ()) == pin


def test_a_container_is_made_from_the_digest(
    pushing: DockerEngine, client: docker.APIClient, instance: str, app: AppName, tag: str
) -> None:
    pin = build(pushing, tag)
    pushing.ensure_network(app)
    workload = own_server_workload(pin.deploy, app)
    with pytest.raises(Stalled) as caught:  # the image has no command
        pushing.start(workload, name_of(workload, instance))
    assert caught.value.reason == "NoCommand"


def test_a_registry_that_is_down_gets_the_build_later(
    pushing: DockerEngine, registry: LocalRegistry, tag: str
) -> None:
    registry.stop()
    try:
        with pytest.raises(Transient, match="cannot push image") as caught:
            build(pushing, tag)
        assert caught.value.reason == "PushFailed"
    finally:
        registry.start()
    assert pushing.pin(SOURCE, tag, ()).to_build
    assert build(pushing, tag).present


def test_without_login_nothing_is_pushed(
    registry: LocalRegistry, instance: str, tmp_path: Path, login: Path, tag: str
) -> None:
    login.write_text("{}")
    settings = DockerSettings(registry=registry.host)
    with closing(DockerEngine(settings, instance, tmp_path)) as engine:
        with pytest.raises(Transient, match=registry.host) as caught:
            build(engine, tag)
        assert caught.value.reason == "PushFailed", "the operator corrects it, not the next commit"


def test_no_app_may_name_a_build(pushing: DockerEngine, registry: LocalRegistry, tag: str) -> None:
    """The platform's login is good for all of them, which would be given to any app."""
    pin = build(pushing, tag)
    pushed = f"{pin.deploy.partition('@')[0]}:{tag.rpartition(':')[2]}"
    for reference in (pin.deploy, pushed):
        with pytest.raises(Stalled, match="images of builds cannot be named") as caught:
            pushing.pin(ExistingImage(reference), None, registry.registries())
        assert caught.value.reason == "ImageRefused"
    context = context_of({"Dockerfile": f"FROM {pushed}\n"})
    with pytest.raises(Stalled, match="images of builds cannot be named"):
        pushing.build(f"{tag}1", BuildInput("c0ffee", SOURCE), context, lambda line: None)


def test_old_builds_leave_this_host_and_stay_in_the_registry(
    pushing: DockerEngine, client: docker.APIClient, app: AppName, tag: str
) -> None:
    pin = build(pushing, tag)
    pushing.prune_images(app, keep=0, spare=frozenset({pin.deploy}))
    assert pushing.pin(SOURCE, tag, ()).present
    pushing.prune_images(app, keep=0)
    with pytest.raises(docker.errors.ImageNotFound):
        client.inspect_image(pin.deploy)  # type: ignore[no-untyped-call]
    found = pushing.pin(SOURCE, tag, ())
    assert (found.deploy, found.present) == (pin.deploy, False)
