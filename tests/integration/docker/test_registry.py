"""Pinning and pulling against a real registry with credentials, one that is down and one that hangs."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import docker
import docker.errors
import pytest

from controller.adapters.docker import DockerEngine
from controller.adapters.docker.connection import EngineConnection
from controller.adapters.docker.images import ImageStore
from controller.adapters.docker.listed import listed_images
from controller.config import DockerSettings
from controller.domain.apps.observed import ImageOrigin
from controller.domain.apps.spec import ExistingImage, SecretSpec
from controller.domain.errors import Stalled, Transient
from controller.domain.names import AppName
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
    engine.pull(AppName("demo"), before.deploy, registry.registries())
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
    engine.pull(AppName("demo"), before.deploy, registry.registries())
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
        engine.pull(AppName("demo"), pushed, given)
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
        lambda: engine.pull(AppName("demo"), unknown, registry.registries()),
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
            engine.pull(AppName("demo"), before.deploy, registry.registries())
        assert caught.value.reason == "RegistryUnreachable"
    finally:
        registry.start()
    engine.pull(AppName("demo"), pushed, registry.registries())  # by tag, so that the host knows the tag, too
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
        engine.pull(AppName("demo"), f"{host}/team/demo:1", ())
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


# --- the share of an app --------------------------------------------------------------------------------------------

APP = AppName("demo")
LAYER = 2 * 2**20  # bytes of each file of `images_of_size`


@pytest.fixture
def images(client: docker.APIClient, registry: LocalRegistry) -> Iterator[Callable[[bytes], str]]:
    """Makes an image of one file with the content in the registry, and none on this host; returns its name there."""
    made: list[str] = []

    def make(content: bytes) -> str:
        name, tar = unique(), io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as archive:
            entry = tarfile.TarInfo("file")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        client.import_image_from_data(tar.getvalue(), repository=name, tag="1")
        made.append(registry.push(client, f"{name}:1", name))
        client.remove_image(f"{name}:1", force=True)
        return made[-1]

    yield make
    for name in made:
        for image in client.images(name.rpartition(":")[0]):
            with suppress(docker.errors.NotFound):
                client.remove_image(image["Id"], force=True)


@pytest.fixture
def bounded(instance: str, tmp_path: Path) -> Iterator[DockerEngine]:
    """An engine that grants an app 5 MiB of pulled images."""
    with closing(DockerEngine(DockerSettings(pulled_per_app=5 * 2**20), instance, tmp_path)) as engine:
        yield engine


def names(client: docker.APIClient, part: str) -> list[str]:
    return [
        name
        for image in client.images(all=True)
        for name in (*(image["RepoTags"] or ()), *(image["RepoDigests"] or ()))
        if part in name
    ]


@pytest.mark.parametrize("content", [os.urandom(8 * 2**20), bytes(16 * 2**20)], ids=["random", "compressed"])
def test_an_image_that_is_too_large_is_not_kept(
    bounded: DockerEngine,
    client: docker.APIClient,
    registry: LocalRegistry,
    images: Callable[[bytes], str],
    instance: str,
    content: bytes,
) -> None:
    """The first one is larger than what the registry may send, the second one only on the disk."""
    pushed = images(content)
    pin = bounded.pin(ExistingImage(pushed), None, registry.registries())
    for reference in (pin.deploy, pushed):
        with pytest.raises(Stalled, match=r"docker\.pulledPerApp") as caught:
            bounded.pull(APP, reference, registry.registries())
        assert caught.value.reason == "ImageTooLarge"
    assert names(client, pushed.rpartition(":")[0] + "@") == []
    assert names(client, f"{instance}.local/") == []
    assert not bounded.pin(ExistingImage(pushed), None, registry.registries()).present
    assert bounded.image_sizes() == {}


def test_what_was_pulled_for_an_app_has_a_bound_together(
    bounded: DockerEngine,
    client: docker.APIClient,
    registry: LocalRegistry,
    images: Callable[[bytes], str],
    instance: str,
) -> None:
    """Images in use count, and so do those that were pulled a moment ago; each app has a share of its own."""
    first, second, third = (images(os.urandom(LAYER)) for _ in range(3))
    for name in (first, second):
        bounded.pull(APP, name, registry.registries())
    assert 2 * LAYER <= bounded.image_sizes()[APP].pulled < 2 * LAYER + 2**20
    with pytest.raises(Transient, match="pulled just before") as caught:
        bounded.pull(APP, third, registry.registries())
    assert caught.value.reason == "ImageTooLarge"
    held = [client.create_container(name, ["/none"])["Id"] for name in (first, second)]
    try:
        with pytest.raises(Stalled, match=r"docker\.pulledPerApp") as full:
            bounded.pull(APP, third, registry.registries())
        assert full.value.reason == "ImageTooLarge"
        bounded.pull(AppName("other"), third, registry.registries())
        bounded.remove_pulled_images(APP)
        assert len(names(client, f"{instance}.local/{APP}/")) == 2, "they are in use"
    finally:
        for container in held:
            client.remove_container(container)
    for app in (APP, AppName("other")):
        bounded.remove_pulled_images(app)
    assert names(client, f"{instance}.local/") == []
    assert not bounded.pin(ExistingImage(first), None, registry.registries()).present


def test_what_another_app_needs_stays_when_its_app_goes(
    bounded: DockerEngine,
    client: docker.APIClient,
    registry: LocalRegistry,
    images: Callable[[bytes], str],
    instance: str,
) -> None:
    """The other app has found the image here, so that the engine does not know that it needs it: from then on it is
    that app's, and goes with it."""
    shared, own = (images(os.urandom(2**20)) for _ in range(2))
    for name in (shared, own):
        bounded.pull(APP, name, registry.registries())
    needed = bounded.pin(ExistingImage(shared), None, registry.registries())
    other = AppName("other")
    bounded.remove_pulled_images(APP, {needed.deploy: other})
    assert bounded.pin(ExistingImage(shared), None, registry.registries()).present
    assert not bounded.pin(ExistingImage(own), None, registry.registries()).present
    assert names(client, f"{instance}.local/{APP}/") == []
    assert len(names(client, f"{instance}.local/{other}/")) == 1
    assert bounded.image_sizes().keys() == {other}
    (listed,) = (each for each in listed_images(DockerSettings(), instance) if each.app == other)
    assert needed.deploy in listed.digests, "by which `prichal image prune` knows that an app needs it"
    bounded.remove_pulled_images(other)
    assert names(client, f"{instance}.local/") == []


def test_old_images_that_nothing_uses_make_room(
    bounded: DockerEngine,
    client: docker.APIClient,
    registry: LocalRegistry,
    images: Callable[[bytes], str],
    instance: str,
) -> None:
    first, second, third = (images(os.urandom(LAYER)) for _ in range(3))
    for name in (first, second):
        bounded.pull(APP, name, registry.registries())
    repository = f"{instance}.local/{APP}/pulled"
    (tag,) = (name for name in client.inspect_image(first)["RepoTags"] if name.startswith(repository))  # type: ignore[no-untyped-call]
    client.tag(first, repository, "1000-aged")  # as if it had been pulled long ago
    client.remove_image(tag)
    bounded.pull(APP, third, registry.registries())
    assert not bounded.pin(ExistingImage(first), None, registry.registries()).present
    assert bounded.pin(ExistingImage(second), None, registry.registries()).present
    assert bounded.pin(ExistingImage(third), None, registry.registries()).present
