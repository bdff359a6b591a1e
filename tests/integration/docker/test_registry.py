"""Pinning and pulling against a real registry with credentials, one that is down and one that hangs."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import docker
import docker.errors
import pytest

from controller.adapters.docker import DockerEngine
from controller.adapters.docker.connection import EngineConnection
from controller.adapters.docker.images import ImageStore
from controller.config import DockerSettings
from controller.domain.apps.observed import ImageOrigin
from controller.domain.apps.spec import ExistingImage, SecretSpec
from controller.domain.errors import Stalled, Transient
from tests.support.engines import unique
from tests.support.registry import PASSWORD, LocalRegistry, hanging_server, local_registry


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegistry]:
    with local_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def small(client: docker.APIClient) -> Iterator[str]:
    """A new image of one file, on this host under no name of the registry's."""
    name = unique()
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    client.import_image_from_data(tar.getvalue(), repository=name, tag="1")
    yield f"{name}:1"
    with suppress(docker.errors.NotFound):
        client.remove_image(f"{name}:1", force=True)


@pytest.fixture
def pushed(client: docker.APIClient, registry: LocalRegistry, small: str) -> Iterator[str]:
    """Name of an image that the registry has and this host does not."""
    name = registry.push(client, small, unique())
    client.remove_image(small, force=True)
    yield name
    for image in client.images(name.rpartition(":")[0]):
        client.remove_image(image["Id"], force=True)


def test_a_tag_becomes_the_digest_that_is_pulled(
    engine: DockerEngine, client: docker.APIClient, registry: LocalRegistry, pushed: str
) -> None:
    before = engine.pin(ExistingImage(pushed), None, registry.registries())
    repository, digest = before.deploy.split("@")
    assert repository == pushed.rpartition(":")[0]
    assert digest.startswith("sha256:")
    assert (before.origin, before.present) == (ImageOrigin.REGISTRY, False)
    engine.pull(before.deploy, registry.registries())
    assert client.inspect_image(before.deploy)["RepoDigests"] == [before.deploy]  # type: ignore[no-untyped-call]
    after = engine.pin(ExistingImage(pushed), None, registry.registries())
    assert (after.deploy, after.present) == (before.deploy, True)
    assert engine.pin(ExistingImage(before.deploy), None, registry.registries()) == after
    # It is here by another app's credentials, which are not this one's.
    with pytest.raises(Stalled) as caught:
        engine.pin(ExistingImage(before.deploy), None, ())
    assert caught.value.reason == "RegistryDenied"


def test_a_moved_tag_is_another_digest(
    engine: DockerEngine, client: docker.APIClient, registry: LocalRegistry, pushed: str, small: str
) -> None:
    before = engine.pin(ExistingImage(pushed), None, registry.registries())
    engine.pull(before.deploy, registry.registries())
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("other"))
    client.import_image_from_data(tar.getvalue(), repository=small.partition(":")[0], tag="1")
    registry.push(client, small, pushed.rpartition(":")[2])
    after = engine.pin(ExistingImage(pushed), None, registry.registries())
    assert after.deploy != before.deploy
    assert not after.present


@pytest.mark.parametrize("how", ["wrong password", "no credentials", "another registry's"])
def test_denied(engine: DockerEngine, registry: LocalRegistry, pushed: str, how: str) -> None:
    given = {
        "wrong password": registry.registries("guessed-1234"),
        "no credentials": (),
        "another registry's": LocalRegistry(registry.folder, 1).registries(),
    }[how]
    with pytest.raises(Stalled) as caught:
        engine.pin(ExistingImage(pushed), None, given)
    assert caught.value.reason == "RegistryDenied"
    assert "registries" in caught.value.message
    assert "guessed-1234" not in str(caught.value)
    assert PASSWORD not in str(caught.value)
    with pytest.raises(Stalled) as caught:
        engine.pull(pushed, given)
    assert caught.value.reason == "RegistryDenied"


def test_credentials_that_lack_half(engine: DockerEngine, registry: LocalRegistry, pushed: str) -> None:
    ((where, secret),) = registry.registries()
    assert secret
    half = SecretSpec(secret.name, secret.values[:1])
    with pytest.raises(Stalled, match=r"hub-cred .* lacks password") as caught:
        engine.pin(ExistingImage(pushed), None, ((where, half),))
    assert caught.value.reason == "RegistryCredentials"


def test_an_unknown_tag(engine: DockerEngine, registry: LocalRegistry) -> None:
    unknown = f"{registry.host}/team/demo:nothing"
    for act in (
        lambda: engine.pin(ExistingImage(unknown), None, registry.registries()),
        lambda: engine.pull(unknown, registry.registries()),
    ):
        with pytest.raises(Stalled, match=unknown) as caught:
            act()
        assert caught.value.reason == "ImageNotFound"


def test_a_bad_name(engine: DockerEngine, registry: LocalRegistry) -> None:
    with pytest.raises(Stalled) as caught:
        engine.pin(ExistingImage(f"{registry.host}/Upper/Case:1"), None, registry.registries())
    assert caught.value.reason == "InvalidReference"


def test_when_the_registry_is_down_what_is_here_is_used(
    engine: DockerEngine, client: docker.APIClient, registry: LocalRegistry, pushed: str
) -> None:
    before = engine.pin(ExistingImage(pushed), None, registry.registries())
    registry.stop()
    try:
        with pytest.raises(Transient) as caught:
            engine.pin(ExistingImage(pushed), None, registry.registries())
        assert caught.value.reason == "RegistryUnreachable"
        with pytest.raises(Transient) as caught:
            engine.pull(before.deploy, registry.registries())
        assert caught.value.reason == "RegistryUnreachable"
    finally:
        registry.start()
    engine.pull(pushed, registry.registries())  # by tag, so that the host knows the tag, too
    registry.stop()
    try:
        pin = engine.pin(ExistingImage(pushed), None, registry.registries())
    finally:
        registry.start()
    assert (pin.deploy, pin.present) == (before.deploy, True)


def test_a_local_image_needs_no_registry(engine: DockerEngine, client: docker.APIClient, small: str) -> None:
    client.tag(small, "registry.invalid/team/local", "1")
    try:
        pin = engine.pin(ExistingImage("registry.invalid/team/local:1"), None, ())
        assert (pin.origin, pin.present) == (ImageOrigin.LOCAL, True)
        assert pin.deploy == client.inspect_image(small)["Id"]  # type: ignore[no-untyped-call]
    finally:
        client.remove_image("registry.invalid/team/local:1")


def test_a_pull_that_hangs_ends(instance: str, tmp_path: Path) -> None:
    settings = DockerSettings(pull_timeout=1.0)
    with (
        hanging_server() as host,
        closing(DockerEngine(settings, instance, tmp_path)) as engine,
        pytest.raises(Transient, match=r"docker\.pullTimeout") as caught,
    ):
        engine.pull(f"{host}/team/demo:1", ())
    assert caught.value.reason == "PullTimeout"


def test_a_registry_that_hangs_does_not_hold_up_a_pass() -> None:
    settings = DockerSettings()
    with (
        hanging_server() as host,
        closing(EngineConnection(settings.host, settings.timeout)) as connection,
        pytest.raises(Transient, match="did not answer within 1 s") as caught,
    ):
        images = ImageStore(connection, settings, unique(), resolve_timeout=1.0)
        images.pin(ExistingImage(f"{host}/team/demo:1"), None, ())
    assert caught.value.reason == "RegistryUnreachable"
